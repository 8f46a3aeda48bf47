import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import {
  AlreadyExistsError,
  AtomicError,
  DurabilityError,
  NoSpaceError,
  writeBytesAtomic,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";

/** Stops the nth async call of that name until it is let go. */
function hold(
  port: FaultPort,
  name: string,
  nth = 0,
): { reached: Promise<void>; letGo(): void } {
  let letGo = () => {};
  let arrive = () => {};
  const reached = new Promise<void>((resolve) => arrive = resolve);
  const open = new Promise<void>((resolve) => letGo = resolve);
  let seen = 0;
  const real = new FaultPort();
  port.intercept((call) => {
    if (call.name !== name || call.form !== "async" || seen++ !== nth) {
      return undefined;
    }
    arrive();
    const perform = () =>
      Reflect.apply(real.async[call.name], real.async, call.args);
    return { result: open.then(perform) };
  });
  return { reached, letGo };
}

function renames(port: FaultPort): number {
  return port.names.filter((name) => name === "rename").length;
}

test("of a thousand writes of one file at once a handful is performed, all settle, the last is on disk", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const receipts = await onPort(port, () =>
      Promise.all(
        Array.from(
          { length: 1000 },
          (_, index) => writeTextAtomic(path, `${index}`.padEnd(50, "x")),
        ),
      ));
    assert.ok(renames(port) <= 5, `${renames(port)}`);
    assert.equal(readFileSync(path, "utf8"), `${"999".padEnd(50, "x")}\n`);
    const performed = receipts.filter(({ superseded }) => !superseded);
    assert.equal(performed.length, renames(port));
    assert.equal(receipts.at(-1)?.superseded, false);
    assert.ok(receipts.every(({ directorySynced }) => directorySynced));
    assert.deepEqual(leftovers(directory), []);
  }));

test("call order decides, however long each write takes", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo } = hold(port, "fsync");
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      // Of another kind, so that it is not skipped.
      const second = writeTextAtomic(path, "second", { mode: 0o600 });
      const third = writeTextAtomic(path, "third");
      setTimeout(letGo, 10);
      const receipts = await Promise.all([first, second, third]);
      assert.ok(receipts.every(({ superseded }) => !superseded));
    });
    assert.equal(readFileSync(path, "utf8"), "third\n");
    assert.equal(renames(port), 3);
  }));

test("two spellings of one path are one path", () =>
  inScratch(async (directory) => {
    mkdirSync(join(directory, "real"));
    symlinkSync("real", join(directory, "link"));
    symlinkSync("real/f", join(directory, "direct"));
    const before = process.cwd();
    process.chdir(directory);
    try {
      const port = new FaultPort();
      const path = join(directory, "real", "f");
      const spellings = [
        path,
        join(directory, "link", "f"),
        "real/f",
        "./link/f",
        pathToFileURL(path),
        join(directory, "direct"),
      ];
      const receipts = await onPort(port, () =>
        Promise.all(
          Array.from({ length: 60 }, (_, index) =>
            writeTextAtomic(spellings[index % 6] ?? path, `${index}`)),
        ));
      assert.equal(readFileSync(path, "utf8"), "59\n");
      assert.ok(renames(port) <= 5);
      assert.ok(receipts.every((receipt) => receipt.path === path));
    } finally {
      process.chdir(before);
    }
  }));

test("unrelated paths do not wait for each other", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      let isDone = false;
      const slow = writeTextAtomic(join(directory, "slow"), "slow")
        .then(() => {
          isDone = true;
        });
      await reached;
      await writeTextAtomic(join(directory, "quick"), "quick");
      assert.equal(isDone, false);
      letGo();
      await slow;
    });
  }));

test("the newest failing before its rename makes the waiting one happen", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    port.intercept(({ name, args: [, bytes] }) =>
      name === "write" && bytes instanceof Uint8Array && bytes.length > 10
        ? { code: "ENOSPC" }
        : undefined
    );
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const second = writeTextAtomic(path, "second");
      const third = writeTextAtomic(path, "third is too long");
      const failed = rejection(third);
      letGo();
      assert.ok(await failed instanceof NoSpaceError);
      assert.equal((await second).superseded, false);
      assert.equal((await first).superseded, false);
    });
    assert.equal(readFileSync(path, "utf8"), "second\n");
  }));

test("where all the newer ones fail, the oldest say so", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    let renamed = 0;
    port.intercept(({ name }) =>
      name === "rename" && renamed++ > 0 ? { code: "EACCES" } : undefined
    );
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const failed = [2, 3, 4, 5, 6].map((index) =>
        rejection(writeTextAtomic(path, `${index}`))
      );
      letGo();
      await first;
      const errors = await Promise.all(failed);
      assert.ok(errors.every((error) => error instanceof AtomicError));
      assert.deepEqual(
        errors.map((error) => error instanceof AtomicError ? error.code : ""),
        ["SUPERSEDED", "SUPERSEDED", "SUPERSEDED", "EACCES", "EACCES"],
      );
    });
    assert.equal(readFileSync(path, "utf8"), "first\n");
    assert.deepEqual(leftovers(directory), []);
  }));

test("the newest failing after its rename fails those that it superseded likewise", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    let isFailing = false;
    port.intercept(({ name, args: [file] }) => {
      const { path } = (file ?? {}) as { path?: string };
      return isFailing && name === "fsync" && path === directory
        ? { code: "EIO" }
        : undefined;
    });
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const second = rejection(writeTextAtomic(path, "second"));
      const third = rejection(writeTextAtomic(path, "third"));
      letGo();
      await first;
      isFailing = true;
      for (const error of [await second, await third]) {
        assert.ok(error instanceof DurabilityError);
        assert.equal(error.committed, true);
      }
    });
    assert.equal(readFileSync(path, "utf8"), "third\n");
  }));

test("a waiting write is aborted at once, and the one it superseded happens", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const second = writeTextAtomic(path, "second");
      const controller = new AbortController();
      const third = rejection(
        writeTextAtomic(path, "third", { signal: controller.signal }),
      );
      await new Promise((resolve) => setTimeout(resolve, 1));
      controller.abort("enough");
      assert.equal(await third, "enough");
      letGo();
      await first;
      assert.equal((await second).superseded, false);
    });
    assert.equal(readFileSync(path, "utf8"), "second\n");
  }));

test("createNew is never skipped, and sees what was written before it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const created = rejection(
        writeTextAtomic(path, "second", { createNew: true }),
      );
      const third = writeTextAtomic(path, "third");
      letGo();
      await first;
      assert.ok(await created instanceof AlreadyExistsError);
      await third;
    });
    assert.equal(readFileSync(path, "utf8"), "third\n");
  }));

test("createNew does not take the place of a write that was called before it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    let isFirst = true;
    port.intercept(({ name }) => {
      const fault = name === "rename" && isFirst;
      if (fault) isFirst = false;
      return fault ? { code: "EACCES" } : undefined;
    });
    await onPort(port, async () => {
      const first = rejection(writeTextAtomic(path, "first"));
      await reached;
      const second = writeTextAtomic(path, "second");
      const third = rejection(
        writeTextAtomic(path, "third", { createNew: true }),
      );
      letGo();
      assert.ok(await first instanceof AtomicError);
      assert.equal((await second).superseded, false);
      assert.ok(await third instanceof AlreadyExistsError);
    });
    assert.equal(readFileSync(path, "utf8"), "second\n");
  }));

for (
  const stoppedAt of ["write", "fsync", "rename", "fsync after the rename"]
) {
  test(`a sync write is not overtaken by an older async one that is at its ${stoppedAt}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      // Large, so that every step of the old write is off the thread.
      writeFileSync(path, new Uint8Array(300_000));
      const port = new FaultPort();
      const isAfter = stoppedAt === "fsync after the rename";
      const { letGo, reached } = hold(
        port,
        isAfter ? "fsync" : stoppedAt,
        isAfter ? 1 : 0,
      );
      await onPort(port, async () => {
        const older = writeTextAtomic(path, "o".repeat(300_000));
        const waiting = writeTextAtomic(path, "waiting");
        const created = rejection(
          writeTextAtomic(path, "new", { createNew: true }),
        );
        await reached;
        const receipt = writeTextAtomicSync(path, "sync");
        assert.equal(receipt.superseded, false);
        letGo();
        const settled: WriteReceipt[] = [await older, await waiting];
        assert.deepEqual(
          settled.map(({ superseded }) => superseded),
          [!isAfter, true],
        );
        assert.ok(await created instanceof AlreadyExistsError);
      });
      assert.equal(readFileSync(path, "utf8"), "sync\n");
      assert.deepEqual(leftovers(directory), []);
    }));
}

test("a sync write in the same tick as an older async one comes after it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (let round = 0; round < 20; round++) {
      const older = writeTextAtomic(path, "older");
      writeTextAtomicSync(path, `sync ${round}`);
      assert.equal((await older).superseded, true);
      assert.equal(readFileSync(path, "utf8"), `sync ${round}\n`);
    }
  }));

test("a sync write keeps the promises of those that it overtakes", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      const older = writeTextAtomic(path, "older", { durability: "full" });
      await reached;
      const receipt = writeTextAtomicSync(path, "sync", { durability: "none" });
      assert.equal(receipt.directorySynced, true);
      letGo();
      assert.equal((await older).directorySynced, true);
      const alone = writeTextAtomicSync(path, "alone", { durability: "none" });
      assert.equal(alone.fileSynced, false);
    });
  }));

test("a sync write that fails lets the older ones happen", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (const call of ["write", "rename"] as const) {
      const port = new FaultPort();
      const { letGo, reached } = hold(port, "fsync");
      port.intercept(({ name, form }) =>
        name === call && form === "sync" && isFailing
          ? { code: "EACCES" }
          : undefined
      );
      let isFailing = false;
      await onPort(port, async () => {
        const older = writeTextAtomic(path, `older ${call}`);
        await reached;
        isFailing = true;
        assert.throws(() => writeTextAtomicSync(path, "sync"), AtomicError);
        isFailing = false;
        letGo();
        assert.equal((await older).superseded, false);
      });
      assert.equal(readFileSync(path, "utf8"), `older ${call}\n`);
      assert.deepEqual(leftovers(directory), []);
    }
  }));

test("nobody is superseded by a write of another kind", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    let failures = 2;
    port.intercept(({ name, args: [, bytes] }) =>
      name === "write" && bytes instanceof Uint8Array && bytes[0] === 0x61 &&
        failures-- > 0
        ? { code: "ENOSPC" }
        : undefined
    );
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const group = ["a1", "a2", "a3"].map((text) =>
        rejection(writeTextAtomic(path, text))
      );
      const other = writeTextAtomic(path, "other", { durability: "none" });
      letGo();
      await first;
      const errors = await Promise.all(group);
      assert.deepEqual(
        errors.map((error) => error instanceof AtomicError ? error.code : ""),
        ["SUPERSEDED", "ENOSPC", "ENOSPC"],
      );
      const [superseded] = errors;
      assert.ok(superseded instanceof AtomicError && superseded.cause);
      assert.equal((await other).superseded, false);
    });
    assert.equal(readFileSync(path, "utf8"), "other\n");
  }));

test("aborted writes take nobody's payload", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const kept = writeTextAtomic(path, "kept");
      for (let index = 0; index < 5; index++) {
        const controller = new AbortController();
        const { signal } = controller;
        const aborted = rejection(writeTextAtomic(path, "no", { signal }));
        controller.abort("enough");
        assert.equal(await aborted, "enough");
      }
      letGo();
      await first;
      assert.equal((await kept).superseded, false);
    });
    assert.equal(readFileSync(path, "utf8"), "kept\n");
  }));

test("a write is not superseded for good by newer ones that may still be aborted", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { reached, letGo } = hold(port, "fsync");
    const controller = new AbortController();
    const { signal } = controller;
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const wanted = writeTextAtomic(path, "wanted");
      const aborted = ["second", "third", "fourth"].map((text) =>
        rejection(writeTextAtomic(path, text, { signal }))
      );
      const reason = new Error("no longer wanted");
      controller.abort(reason);
      letGo();
      assert.equal((await first).superseded, false);
      for (const error of await Promise.all(aborted)) {
        assert.equal(error, reason);
      }
      assert.equal((await wanted).superseded, false);
    });
    assert.equal(readFileSync(path, "utf8"), "wanted\n");
  }));

test("bytes whose buffer is transferred, or has another size, after the call are refused, and the old content stays", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { reached, letGo } = hold(port, "fsync");
    await onPort(port, async () => {
      const first = writeTextAtomic(path, "first");
      await reached;
      const bytes = new Uint8Array(8);
      const buffer = new ArrayBuffer(8, { maxByteLength: 16 });
      const refused = [
        rejection(writeBytesAtomic(path, bytes, { mode: 0o600 })),
        rejection(writeBytesAtomic(path, new Uint8Array(buffer))),
        // Which takes a lock first.
        rejection(
          writeBytesAtomic(path, new Uint8Array(buffer), { lock: true }),
        ),
      ];
      structuredClone(bytes, { transfer: [bytes.buffer] });
      buffer.resize(4);
      letGo();
      await first;
      for (const error of await Promise.all(refused)) {
        assert.ok(error instanceof AtomicError, String(error));
        assert.equal(error.code, "SHORT_WRITE");
        assert.equal(error.committed, false);
      }
    });
    assert.equal(readFileSync(path, "utf8"), "first\n");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a sync source that calls an async write keeps its promise", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let inner: Promise<WriteReceipt> | undefined;
    const receipt = writeTextAtomicSync(
      path,
      (function* () {
        yield "a";
        inner = writeTextAtomic(path, "inner");
        yield "b";
      })(),
      { durability: "none" },
    );
    assert.equal(receipt.directorySynced, true);
    const settled = await inner;
    assert.equal(settled?.superseded, true);
    assert.equal(settled?.directorySynced, true);
    assert.equal(readFileSync(path, "utf8"), "ab\n");
  }));

test("a write that waits for one of 64 slots is aborted at once", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    let letGo = () => {};
    const open = new Promise<void>((resolve) => letGo = resolve);
    const real = new FaultPort();
    port.intercept(({ name, form, args }) =>
      name === "fsync" && form === "async"
        ? {
          result: open.then(() =>
            Reflect.apply(real.async.fsync, real.async, args)
          ),
        }
        : undefined
    );
    await onPort(port, async () => {
      const held = Array.from(
        { length: 64 },
        (_, index) => writeTextAtomic(join(directory, `f${index}`), "held"),
      );
      const controller = new AbortController();
      const { signal } = controller;
      const waiting = rejection(
        writeTextAtomic(join(directory, "waiting"), "new", { signal }),
      );
      await new Promise((resolve) => setTimeout(resolve, 5));
      controller.abort("enough");
      assert.equal(await waiting, "enough");
      letGo();
      await Promise.all(held);
      await writeTextAtomic(join(directory, "waiting"), "now");
    });
  }));

test("a directory that took another's place is synced itself", () =>
  inScratch(async (directory) => {
    const shared = join(directory, "d");
    mkdirSync(shared);
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync", 1);
    const synced: (number | bigint)[] = [];
    port.intercept(({ name, args: [file] }) => {
      const { path } = (file ?? {}) as { path?: string };
      if (name === "fsync" && path === shared) {
        synced.push(port.sync.fstat(file as never).ino);
      }
      return undefined;
    });
    await onPort(port, async () => {
      const first = writeTextAtomic(join(shared, "first"), "1");
      await reached;
      renameSync(shared, join(directory, "old"));
      mkdirSync(shared);
      const second = writeTextAtomic(join(shared, "second"), "2");
      await second;
      letGo();
      await first;
    });
    assert.ok(synced.includes(statSync(shared).ino));
  }));

test("memory does not grow with what is superseded", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const { letGo, reached } = hold(port, "fsync");
    await onPort(port, async () => {
      const writes = [writeTextAtomic(path, "first")];
      await reached;
      const before = process.memoryUsage().rss;
      // 3 200 MiB in all, of which a collector may take its time to notice some.
      for (let index = 0; index < 200; index++) {
        const bytes = new Uint8Array(16 * 1024 * 1024).fill(index);
        writes.push(writeBytesAtomic(path, bytes));
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
      const grown = process.memoryUsage().rss - before;
      assert.ok(grown < 1600 * 1024 * 1024, `${grown}`);
      letGo();
      await Promise.all(writes);
    });
  }));

test("a sync of the directory serves the writers that asked before it began, and no others", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    // However slow the machine is, who has renamed has asked.
    port.now = () => 0;
    const events: string[] = [];
    const real = new FaultPort();
    let letFirstGo = () => {};
    const firstIsOpen = new Promise<void>((resolve) => letFirstGo = resolve);
    let isFirst = true;
    let arrive = () => {};
    const reached = new Promise<void>((resolve) => arrive = resolve);
    port.intercept(({ name, args }) => {
      const [file] = args as [{ path?: string } | string];
      if (name === "rename") events.push("rename");
      if (
        name !== "fsync" || typeof file !== "object" || file.path !== directory
      ) return undefined;
      events.push("sync");
      const perform = () => Reflect.apply(real.async.fsync, real.async, args);
      if (!isFirst) return undefined;
      isFirst = false;
      arrive();
      return { result: firstIsOpen.then(perform) };
    });
    await onPort(port, async () => {
      const first = writeTextAtomic(join(directory, "first"), "1");
      await reached;
      const others = Array.from(
        { length: 20 },
        (_, index) => writeTextAtomic(join(directory, `f${index}`), "2"),
      );
      while (events.filter((event) => event === "rename").length < 21) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      letFirstGo();
      await Promise.all([first, ...others]);
    });
    // One for the first, one that began after all the others were renamed.
    assert.deepEqual(events.slice(0, 2), ["rename", "sync"]);
    assert.equal(events.at(-1), "sync");
    assert.equal(events.filter((event) => event === "sync").length, 2);
  }));

test("where a shared sync fails, all whom it was to serve are told", () =>
  inScratch(async (directory) => {
    const port = new FaultPort().intercept(({ name, args: [file] }) => {
      const { path } = (file ?? {}) as { path?: string };
      return name === "fsync" && path === directory
        ? { code: "EIO" }
        : undefined;
    });
    await onPort(port, async () => {
      const errors = await Promise.all(
        Array.from(
          { length: 10 },
          (_, index) =>
            rejection(writeTextAtomic(join(directory, `f${index}`), "new")),
        ),
      );
      assert.ok(errors.every((error) => error instanceof DurabilityError));
    });
  }));

test("a write that waits goes to the file that its path led to when it was called", () =>
  inScratch(async (directory) => {
    const link = join(directory, "link");
    const before = join(directory, "before");
    const after = join(directory, "after");
    symlinkSync(before, link);
    const writes: Promise<unknown>[] = [];
    const port = new FaultPort();
    let isFirst = true;
    port.intercept(({ name }) => {
      if (name !== "fsync" || !isFirst) return undefined;
      isFirst = false;
      writes.push(writeTextAtomic(link, "1"));
      unlinkSync(link);
      symlinkSync(after, link);
      writeTextAtomicSync(link, "2");
      return undefined;
    });
    await onPort(port, async () => {
      await writeTextAtomic(link, "0");
      await Promise.all(writes);
    });
    assert.equal(readFileSync(before, "utf8"), "1\n");
    assert.equal(readFileSync(after, "utf8"), "2\n");
  }));

test("a sync of a directory does not count for what came before one that failed", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    let isFirst = true;
    port.intercept(({ name, args: [file] }) => {
      const { path } = (file ?? {}) as { path?: string };
      if (name !== "fsync" || path !== directory || !isFirst) return undefined;
      isFirst = false;
      const failure = Object.assign(new Error("EIO"), { code: "EIO" });
      const fail = async () => {
        while (!["f", "g"].every((name) => existsSync(join(directory, name)))) {
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        throw failure;
      };
      return { result: fail() };
    });
    await onPort(port, async () => {
      const errors = await Promise.all(
        ["f", "g"].map((name) =>
          rejection(writeTextAtomic(join(directory, name), "new"))
        ),
      );
      for (const error of errors) {
        assert.ok(error instanceof DurabilityError);
        assert.equal(error.code, "EIO");
      }
      const { directorySynced } = await writeTextAtomic(
        join(directory, "h"),
        "new",
      );
      assert.equal(directorySynced, true);
    });
    assert.equal(readFileSync(join(directory, "g"), "utf8"), "new\n");
  }));
