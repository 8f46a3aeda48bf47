import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { openAtomicWriter } from "../bytes.ts";
import { writeChecksum } from "../checksum.ts";
import { AtomicError } from "../errors.ts";
import { readJson, writeJsonAtomic } from "../json.ts";
import {
  acquireLock,
  inspectLock,
  inspectLockSync,
  isLocked,
  isLockedSync,
  type Lock,
  LockLostError,
  LockTimeoutError,
  PermissionScopeError,
  tryAcquireLock,
  tryAcquireLockSync,
  UnsupportedEnvironmentError,
  withLock,
} from "../lock.ts";
import { currentPort, substitutePort } from "../_runtime/current.ts";
import type { OpenFile } from "../_runtime/port.ts";
import { connecting, sqliteCalls } from "../_runtime/sqlite.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import {
  updateTextAtomic,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../text.ts";
import { inScratch } from "./scratch.ts";
import { FORMS } from "./twins.ts";
import { withUmask } from "./umask.ts";

test("a lock is held by one, and leaves nothing when it is released", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = await acquireLock(path);
    assert.equal(lock.path, path);
    assert.equal(await isLocked(path), true);
    assert.equal(await tryAcquireLock(path), undefined);
    assert.ok(existsSync(join(directory, ".f.lock")));
    await lock.release();
    await lock.release();
    assert.equal(await isLocked(path), false);
    assert.deepEqual(readdirSync(directory), []);
    const again = await tryAcquireLock(path);
    assert.ok(again !== undefined);
    await again[Symbol.asyncDispose]();
    assert.deepEqual(readdirSync(directory), []);
    for (const end of ["releaseSync", Symbol.dispose] as const) {
      const sync: Lock | undefined = tryAcquireLockSync(path);
      assert.ok(sync !== undefined);
      sync[end]();
      sync[end]();
      await sync.release();
      assert.deepEqual(readdirSync(directory), []);
    }
  }));

test("tasks of one realm get it in the order of their calls, whatever the spelling", () =>
  inScratch(async (directory) => {
    const real = join(directory, "real");
    mkdirSync(real);
    symlinkSync("real", join(directory, "link"));
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        withLock(
          join(directory, index % 2 ? "link" : "real", "f"),
          async () => {
            order.push(index);
            await Promise.resolve();
            order.push(index);
          },
        )),
    );
    assert.deepEqual(
      order,
      Array.from({ length: 200 }, (_, index) => Math.floor(index / 2)),
    );
    assert.deepEqual(readdirSync(real), []);
  }));

test("a hundred increments at once all land", () =>
  inScratch(async (directory) => {
    const path = join(directory, "count.json");
    await Promise.all(
      Array.from({ length: 100 }, () =>
        withLock(path, async () => {
          const count = await readJson<number>(path, { fallback: 0 });
          await writeJsonAtomic(path, count + 1, { durability: "none" });
        })),
    );
    assert.equal(await readJson(path), 100);
    assert.deepEqual(readdirSync(directory), ["count.json"]);
  }));

test("the lock is free again however the function ends", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const reason = new Error("from the function");
    for (
      const body of [
        () => {
          throw reason;
        },
        () => Promise.reject(reason),
      ]
    ) {
      assert.equal(await rejection(withLock(path, body)), reason);
      assert.equal(await isLocked(path), false);
    }
    let kept: Lock | undefined;
    assert.equal(await withLock(path, (lock) => (kept = lock, 42)), 42);
    await kept?.release();
    assert.deepEqual(readdirSync(directory), []);
  }));

test("who waits too long is told who may hold it; of this realm it is said that a lock is not re-entrant", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = await acquireLock(path);
    const error = await rejection(acquireLock(path, { timeoutMs: 20 }));
    assert.ok(error instanceof LockTimeoutError);
    assert.equal(error.code, "LOCK_TIMEOUT");
    assert.equal(error.committed, false);
    assert.equal(error.operation, "acquireLock");
    assert.match(error.message, /within 20 ms; this very realm holds it/);
    assert.deepEqual(error.candidates.map(({ pid }) => pid), [process.pid]);
    const { since } = error.candidates[0] ?? {};
    assert.ok(since !== undefined && Math.abs(Date.now() - +since) < 60_000);
    // Its place in the line is free again.
    const next = acquireLock(path);
    await lock.release();
    await (await next).release();
    assert.deepEqual(readdirSync(directory), []);
  }));

test("that this realm holds a lock is said where it does, and not where it only waits too", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const other = new FaultPort();
    other.pid = 7;
    const theirs = await onPort(other, () => acquireLock(path));
    const waiting = acquireLock(path);
    const late = await rejection(acquireLock(path, { timeoutMs: 20 }));
    assert.ok(late instanceof LockTimeoutError);
    assert.match(late.message, /held by process 7 \(asked at /);
    assert.doesNotMatch(late.message, /this very realm|re-entrant/);
    const sync = await rejection(
      new Promise((resolve) =>
        resolve(writeTextAtomicSync(path, "x", { lock: true }))
      ),
    );
    assert.ok(sync instanceof LockTimeoutError);
    assert.match(
      sync.message,
      /another task of this very realm asked for it before, which a synchronous call cannot wait for: await that first; it is held by process 7 /,
    );
    await theirs.release();
    await (await waiting).release();
    // A lock that nobody was given cannot be passed on.
    const write = writeTextAtomic(path, "x", { checksum: true });
    const beside = await rejection(
      new Promise((resolve) =>
        resolve(writeTextAtomicSync(path, "x", { checksum: true }))
      ),
    );
    assert.ok(beside instanceof LockTimeoutError);
    assert.match(beside.message, /a synchronous call cannot wait for: await/);
    assert.doesNotMatch(beside.message, /re-entrant|held by one of/);
    await write;
    let nested: unknown;
    await updateTextAtomic(path, async (text) => {
      nested = await rejection(
        writeTextAtomic(path, "y", { lock: { timeoutMs: 5 } }),
      );
      assert.throws(
        () => writeTextAtomicSync(path, "y", { lock: true }),
        /holds it for updateTextAtomic, which a synchronous call cannot wait/,
      );
      return `${text}z`;
    });
    assert.ok(nested instanceof LockTimeoutError);
    assert.match(
      nested.message,
      /this very realm holds it for updateTextAtomic, which has not ended/,
    );
    assert.doesNotMatch(nested.message, /pass the one/);
  }));

test("who comes after a holder of this realm, and waits for another process, is not taken for a holder", () =>
  inScratch((directory) => {
    const path = join(directory, "f");
    let isTaken = false;
    // As if another process had been faster.
    const port = new FaultPort().intercept(({ name }) =>
      name === "execute" && isTaken ? { code: "SQLITE_BUSY" } : undefined
    );
    return onPort(port, async () => {
      const first = await acquireLock(path);
      const second = acquireLock(path);
      isTaken = true;
      await first.release();
      const late = await rejection(acquireLock(path, { timeoutMs: 20 }));
      assert.ok(late instanceof LockTimeoutError);
      assert.doesNotMatch(late.message, /this very realm/);
      isTaken = false;
      await (await second).release();
    });
  }));

test("a signal ends the waiting, for the realm's turn and before it begins", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = await acquireLock(path);
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = acquireLock(path, { signal });
    controller.abort("enough");
    await assert.rejects(waiting, (error) => error === "enough");
    await assert.rejects(
      acquireLock(path, { signal }),
      (error) => error === "enough",
    );
    await lock.release();
    assert.equal(await isLocked(path), false);
  }));

test("another realm's lock is waited for, without holding the event loop", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const other = new FaultPort();
    const theirs = await onPort(other, () => acquireLock(path));
    const port = new FaultPort();
    await onPort(port, async () => {
      assert.equal(await isLocked(path), true);
      assert.equal(await tryAcquireLock(path), undefined);
      const error = await rejection(acquireLock(path, { timeoutMs: 30 }));
      assert.ok(error instanceof LockTimeoutError);
      assert.match(error.message, /held by process \d+ \(asked at /);
      const { isLocked: held, candidates } = await inspectLock(path);
      assert.equal(held, true);
      assert.equal(candidates.length, 1);
      const controller = new AbortController();
      const { signal } = controller;
      const waiting = acquireLock(path, { signal });
      setTimeout(() => controller.abort("enough"), 5);
      await assert.rejects(waiting, (error) => error === "enough");
      const mine = acquireLock(path);
      setTimeout(() => theirs.release(), 10);
      await (await mine).release();
    });
    const sleeps = port.calls.filter(({ name }) => name === "sleep");
    assert.ok(sleeps.length > 0);
    assert.ok(sleeps.every(({ form }) => form === "async"));
    assert.deepEqual(readdirSync(directory), []);
  }));

test("what a kill has left is no lock, and is removed by the next holder", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    const lockFile = join(lock, "lock");
    const uuid = crypto.randomUUID();
    const staged = join(directory, `.f.lock.7.1700000000000.${uuid}.1.tmp`);
    for (const end of ["", ".held"]) {
      mkdirSync(lock);
      writeFileSync(lockFile, "");
      linkSync(lockFile, join(lock, `7.1700000000000.${uuid}${end}`));
      writeFileSync(staged, "half of a write");
      writeFileSync(join(directory, ".f.lock.notes"), "somebody else's");
      const { isLocked: held } = await inspectLock(path);
      assert.equal(held, false);
      await withLock(path, () => {});
      // Who only waited has staged nothing under the lock.
      if (end === "") unlinkSync(staged);
      assert.deepEqual(readdirSync(directory), [".f.lock.notes"]);
    }
  }));

test("a planted lock is neither opened nor removed, and the error says what it is", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    const lockFile = join(lock, "lock");
    const victim = join(directory, "victim");
    mkdirSync(victim);
    const inLock = (plant: () => void) => () => {
      mkdirSync(lock);
      plant();
    };
    const plants = [
      () => writeFileSync(lock, ""),
      () => symlinkSync(victim, lock),
      inLock(() => writeFileSync(lockFile, "x".repeat(4096))),
      inLock(() => symlinkSync(join(victim, "made"), lockFile)),
    ];
    for (const plant of plants) {
      plant();
      const before = readdirSync(directory, { recursive: true }).toSorted();
      const port = new FaultPort();
      const error = await onPort(port, () => rejection(acquireLock(path)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "NOT_A_LOCK");
      assert.match(error.message, /is not a lock of this library/);
      assert.ok(!port.names.includes("openDatabase"));
      assert.deepEqual(
        readdirSync(directory, { recursive: true }).toSorted(),
        before,
      );
      assert.deepEqual(readdirSync(victim), []);
      rmSync(lock, { recursive: true });
    }
  }));

test("any call failing leaves neither a lock nor a file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    await onPort(port, () => withLock(path, () => {}));
    const calls = port.calls.map(({ name }) => name);
    for (const [index, name] of calls.entries()) {
      if (["unlink", "rmdir", "closeDatabase"].includes(name)) continue;
      const failing = new FaultPort().failNth(index, "EIO");
      // What fails once it is over is not told.
      await onPort(failing, () => withLock(path, () => {}).catch(() => {}));
      assert.equal(await isLocked(path), false, `${index}: ${name}`);
      assert.deepEqual(readdirSync(directory), [], `${index}: ${name}`);
    }
  }));

test("a directory that is missing is made for a lock, and not to find out that there is none", () =>
  inScratch(async (directory) => {
    const path = join(directory, "a", "b", "f");
    assert.equal(await isLocked(path), false);
    assert.deepEqual(readdirSync(directory), []);
    await withLock(path, () => {});
    assert.deepEqual(readdirSync(join(directory, "a", "b")), []);
  }));

test("a misspelt or malformed option is a TypeError", async () => {
  const wrong = { timeout: 5 } as unknown as { timeoutMs: number };
  await assert.rejects(acquireLock("f", wrong), TypeError);
  await assert.rejects(acquireLock("f", { timeoutMs: -1 }), TypeError);
  await assert.rejects(acquireLock(""), TypeError);
  await assert.rejects(
    writeTextAtomic("f", "x", { lock: wrong }),
    /^TypeError: Option "lock" must be a boolean, a held Lock, or \{ timeoutMs, signal \}, without "timeout": received/,
  );
  await assert.rejects(
    writeTextAtomic("f", "x", { lock: { timeoutMs: -1 } }),
    /, where timeoutMs is a number of at least 0: received/,
  );
  const port = new FaultPort();
  const body = "x" as unknown as () => void;
  await assert.rejects(
    onPort(port, () => withLock("f", body)),
    /^TypeError: Body must be a function: received /,
  );
  assert.deepEqual(port.calls, []);
});

for (const form of FORMS) {
  test(`${form.name}: a write with a lock waits for its holder, and leaves no lock`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const other = new FaultPort();
      const theirs = await onPort(other, () => acquireLock(path));
      const timeout = await rejection(
        form.writeText(path, "x", { lock: { timeoutMs: 10 } }),
      );
      assert.ok(timeout instanceof LockTimeoutError);
      assert.equal(timeout.operation.startsWith("writeText"), true);
      assert.ok(!existsSync(path));
      await form.writeText(path, "without");
      await theirs.release();
      await form.writeText(path, "with", { lock: true });
      assert.equal(readFileSync(path, "utf8"), "with\n");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: a held lock is handed to writes, and one for another file is a TypeError`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      await withLock(path, async (lock) => {
        await form.writeText(path, "1", { lock });
        await assert.rejects(
          form.writeText(join(directory, "g"), "1", { lock }),
          /^TypeError: Lock must be that of ".*g": received that of ".*f"/,
        );
        const nested = await rejection(
          form.writeText(path, "2", { lock: { timeoutMs: 5 } }),
        );
        assert.ok(nested instanceof LockTimeoutError);
        assert.match(nested.message, /this very realm holds it/);
        assert.equal(await isLocked(path), true);
      });
      const fake = { path, release: () => Promise.resolve() };
      await assert.rejects(
        form.writeText(path, "3", { lock: fake as unknown as Lock }),
        /^TypeError: Lock must come from acquireLock/,
      );
      assert.equal(readFileSync(path, "utf8"), "1\n");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: a write whose lock was removed by hand is a LockLostError, and changes nothing`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      await withLock(path, async (lock) => {
        rmSync(join(directory, ".f.lock"), { recursive: true });
        const lost = await rejection(form.writeText(path, "new", { lock }));
        assert.ok(lost instanceof LockLostError);
        assert.equal(lost.code, "LOCK_LOST");
        assert.equal(lost.committed, false);
        // Somebody else's lock survives the end of this one.
        mkdirSync(join(directory, ".f.lock"));
        writeFileSync(join(directory, ".f.lock", "lock"), "");
      });
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(readdirSync(join(directory, ".f.lock")), ["lock"]);
      assert.deepEqual(readdirSync(directory).toSorted(), [".f.lock", "f"]);
    }));

  test(`${form.name}: a malformed lock option is a TypeError`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const lock of [1, "yes", { timeout: 5 }, { timeoutMs: -1 }, null]) {
        await assert.rejects(
          form.writeText(path, "x", { lock: lock as unknown as boolean }),
          TypeError,
        );
      }
      assert.deepEqual(readdirSync(directory), []);
    }));
}

test("streams and writers take the lock for their commit, and leave nothing where they cannot", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const parts = ["a", "b"];
    await writeTextAtomic(path, parts, { lock: true });
    const writer = await openAtomicWriter(path, { lock: true });
    await writer.write(new Uint8Array([65, 66]));
    assert.equal(await isLocked(path), false);
    await writer.commit();
    assert.equal(readFileSync(path, "utf8"), "AB");
    await onPort(new FaultPort(), () =>
      withLock(path, async () => {
        const lock = { timeoutMs: 5 };
        await onPort(new FaultPort(), async () => {
          const stream = await rejection(
            writeTextAtomic(path, parts, { lock }),
          );
          assert.ok(stream instanceof LockTimeoutError);
          const late = await openAtomicWriter(path, { lock });
          const error = await rejection(late.commit());
          assert.ok(error instanceof LockTimeoutError);
        });
      }));
    assert.equal(readFileSync(path, "utf8"), "AB");
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("a chunk that failed is told before a lock that was not to be had", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await onPort(
      new FaultPort(),
      () =>
        withLock(path, () =>
          onPort(new FaultPort(), async () => {
            const lock = { timeoutMs: 5 };
            const writer = await openAtomicWriter(path, { lock });
            const chunk = writer.write(5 as unknown as Uint8Array);
            chunk.catch(() => {});
            await assert.rejects(writer.commit(), TypeError);
          })),
    );
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a lock of another file is refused before the source is asked for anything", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let isAsked = false;
    function* source() {
      isAsked = true;
      yield "x";
    }
    await withLock(join(directory, "g"), async (lock) => {
      await assert.rejects(
        writeTextAtomic(path, source(), { lock }),
        TypeError,
      );
      await assert.rejects(openAtomicWriter(path, { lock }), TypeError);
    });
    assert.equal(isAsked, false);
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a database that cannot be opened for want of a descriptor is opened once there is one", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let isFull = true;
    const port = new FaultPort().intercept(({ name, args: [opened] }) => {
      if (!isFull) return undefined;
      if (name === "openDatabase") return { code: "SQLITE_CANTOPEN" };
      if (name !== "open" || opened !== join(directory, ".f.lock")) {
        return undefined;
      }
      isFull = false;
      return { code: "EMFILE" };
    });
    assert.equal(
      await onPort(port, () => withLock(path, () => "held")),
      "held",
    );
    assert.deepEqual(readdirSync(directory), []);
  }));

test("the sync twins try once, and tell who holds it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = tryAcquireLockSync(path);
    assert.ok(lock !== undefined);
    assert.equal(tryAcquireLockSync(path), undefined);
    assert.equal(isLockedSync(path), true);
    const { isLocked: held, candidates } = inspectLockSync(path);
    assert.equal(held, true);
    assert.deepEqual(candidates.map(({ pid }) => pid), [process.pid]);
    await lock.release();
    assert.equal(isLockedSync(path), false);
    assert.deepEqual(inspectLockSync(path).candidates, []);
    assert.deepEqual(readdirSync(directory), []);
  }));

test("what SQLite says is told in the caller's terms, or begun again", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const take = (port: FaultPort) =>
      onPort(port, () => withLock(path, () => "held"));
    const fails = async (port: FaultPort, expected: RegExp, code: string) => {
      const error = await rejection(take(port));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, code);
      assert.match(error.message, expected);
      // Only its holder may remove the lock file.
      await withLock(path, () => {});
      assert.deepEqual(readdirSync(directory), []);
    };
    await fails(
      new FaultPort().fail("execute", "SQLITE_READONLY"),
      /belongs to another user/,
      "EACCES",
    );
    await fails(
      new FaultPort().fail("execute", "SQLITE_NOTADB", 1),
      /execute failed/,
      "SQLITE_NOTADB",
    );
    await fails(
      new FaultPort().fail("openDatabase", "SQLITE_CANTOPEN"),
      /openDatabase failed/,
      "SQLITE_CANTOPEN",
    );
    await fails(
      new FaultPort().fail("openDatabase", "NO_SQLITE"),
      /a lock needs the SQLite that is built into/,
      "UNSUPPORTED_ENVIRONMENT",
    );
    await fails(
      new FaultPort().fail("execute", "SQLITE_IOERR"),
      /execute failed/,
      "SQLITE_IOERR",
    );
    let isLost = false;
    const again = new FaultPort().intercept(({ name }) => {
      if (name !== "execute" || isLost) return undefined;
      isLost = true;
      unlinkSync(join(directory, ".f.lock", "lock"));
      return { code: "SQLITE_IOERR" };
    });
    assert.equal(await take(again), "held");
    // Its claim was taken for that of somebody who was killed.
    let isFirst = true;
    const robbed = new FaultPort().intercept(({ name, args: [own] }) => {
      if (name !== "rename" || !isFirst) return undefined;
      isFirst = false;
      unlinkSync(String(own));
      return undefined;
    });
    assert.equal(await take(robbed), "held");
    const gone = new FaultPort().intercept(({ name, args: [own] }) => {
      if (name !== "openDatabase" || isFirst) return undefined;
      isFirst = true;
      unlinkSync(String(own));
      return { code: "SQLITE_CANTOPEN" };
    });
    assert.equal(await take(gone), "held");
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a link that is refused is told by what is refused", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const take = (port: FaultPort) =>
      onPort(port, () => withLock(path, () => "held"));
    // The kernel looks for the file before it asks the file system.
    const withoutLinks = new FaultPort().intercept(({ name, args: [from] }) =>
      name === "link" && existsSync(String(from))
        ? { code: "EPERM" }
        : undefined
    );
    const error = await rejection(take(withoutLinks));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "UNSUPPORTED_ENVIRONMENT");
    assert.deepEqual(readdirSync(directory), []);
    // A stranger's lock file, which its holder has removed since.
    mkdirSync(join(directory, ".f.lock"));
    assert.equal(await take(new FaultPort().fail("link", "EPERM", 1)), "held");
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a file that has no name left to give is told as such", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    mkdirSync(join(directory, ".f.lock"));
    writeFileSync(join(directory, ".f.lock", "lock"), "");
    const port = new FaultPort().fail("link", "EMLINK");
    const error = await onPort(port, () => rejection(acquireLock(path)));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "EMLINK");
    assert.match(error.message, /as many names as a file can have/);
    assert.deepEqual(readdirSync(directory), [".f.lock"]);
  }));

test("a lock that another user has made, and does not share, is told as such", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    const lockFile = join(lock, "lock");
    const refused = async (call: "createChangeable" | "link", code: string) => {
      const port = new FaultPort().fail(call, code);
      const error = await onPort(port, () => rejection(acquireLock(path)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "EACCES");
      const { uid } = statSync(directory);
      assert.ok(error.message.includes(`another user (uid ${uid}), who does`));
      assert.match(
        error.message,
        /have it removed if nobody holds it; take the sticky bit/,
      );
      assert.deepEqual(port.calls.filter(({ name }) => name === "rename"), []);
    };
    mkdirSync(lock);
    await refused("createChangeable", "EACCES");
    mkdirSync(lock);
    writeFileSync(lockFile, "");
    await refused("link", "EPERM");
    await refused("link", "EACCES");
    assert.deepEqual(readdirSync(lock), ["lock"]);
  }));

test("a lock that another user has just made is let in to with his next call", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    mkdirSync(join(directory, ".f.lock"));
    for (const call of ["createChangeable", "link"] as const) {
      const port = new FaultPort().fail(call, "EACCES", 3);
      assert.equal(await onPort(port, () => withLock(path, () => 1)), 1);
    }
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a claim that may not be removed is told as such, and hides no other that a kill has left", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    const lockFile = join(lock, "lock");
    mkdirSync(lock);
    writeFileSync(lockFile, "");
    const left = [7, 8, 9].map((pid) =>
      join(lock, `${pid}.1700000000000.${crypto.randomUUID()}`)
    );
    for (const name of left) linkSync(lockFile, name);
    const [first] = left;
    const port = new FaultPort().intercept(({ name, args: [removed] }) =>
      name === "unlink" && removed === first ? { code: "EPERM" } : undefined
    );
    await onPort(port, () => withLock(path, () => {}));
    // For all that it knows, somebody waits.
    assert.deepEqual(
      readdirSync(lock).toSorted().map((name) => join(lock, name)),
      [first, lockFile],
    );
    const held = await onPort(
      new FaultPort().fail("unlink", "EPERM", 1),
      () => acquireLock(join(directory, "g")),
    );
    const error = await rejection(held.release());
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "EPERM");
    assert.match(
      error.message,
      /may not be removed: it is another user's in a sticky directory/,
    );
  }));

test("a lock and its file let those in who may write in their directory, whatever the umask", () =>
  inScratch(async (directory) => {
    const modeOf = (path: string) => statSync(path).mode & 0o777;
    const shared = async (mode: string) => {
      const place = join(directory, mode);
      mkdirSync(place);
      // By another program: Bun before 1.4 cannot set the sticky bit.
      execFileSync("chmod", [mode, place]);
      return await withLock(join(place, "f"), () => {
        const lock = join(place, ".f.lock");
        return [lock, join(lock, "lock")].map(modeOf);
      });
    };
    await withUmask(0o077, async () => {
      assert.deepEqual(await shared("0700"), [0o700, 0o600]);
      assert.deepEqual(await shared("0755"), [0o700, 0o600]);
      assert.deepEqual(await shared("0775"), [0o770, 0o660]);
      assert.deepEqual(await shared("0777"), [0o777, 0o666]);
      // There anybody may write.
      assert.deepEqual(await shared("1777"), [0o700, 0o600]);
    });
  }));

test("a lock that root makes is given to the owner of its directory; where it may not be given, the group gets no more than its own", () =>
  inScratch(async (directory) => {
    const owner = { uid: 4321, gid: 4321 };
    for (const mayGive of [true, false]) {
      const { sync } = currentPort();
      const asked: unknown[] = [];
      const port = new FaultPort().intercept(({ name, args }) => {
        if (name === "lstat" && args[0] === directory) {
          const status = sync.lstat(directory);
          return { result: { ...status, ...owner, mode: 0o775 } };
        }
        if (name === "fstat") {
          const status = sync.fstat(args[0] as OpenFile);
          return { result: { ...status, uid: 0, gid: 0 } };
        }
        if (name === "lstat") {
          return { result: { ...sync.lstat(String(args[0])), uid: 0 } };
        }
        if (name === "fchown") {
          asked.push(...args.slice(1));
          return mayGive ? { result: undefined } : { code: "EPERM" };
        }
        if (name === "fchmod") asked.push(args[1]);
        return undefined;
      });
      await withUmask(0o077, async () => {
        const lock = await onPort(
          port,
          () => acquireLock(join(directory, "f")),
        );
        await lock.release();
      });
      assert.deepEqual(
        asked,
        mayGive
          ? [4321, 4321, 0o770, 4321, 4321, 0o660]
          : [4321, 4321, 4321, 4321],
      );
    }
  }));

test("what a daemon has not closed yet keeps the directory of a lock for a moment, anything else for good", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    for (const name of [".fuse_hidden0001", "notes"]) {
      const port = new FaultPort().intercept(({ name: call, args: [at] }) => {
        if (call === "rmdir" && at === lock) {
          writeFileSync(join(lock, name), "");
        }
        if (call === "sleep") unlinkSync(join(lock, name));
        return undefined;
      });
      await onPort(port, () => withLock(path, () => {}));
      assert.ok(port.names.includes("rmdir"));
      rmSync(lock, { recursive: true, force: true });
    }
    let isKept = false;
    const port = new FaultPort().intercept(({ name }) => {
      if (name === "readdir" && isKept) return { code: "EACCES" };
      if (name !== "rmdir") return undefined;
      isKept = true;
      return { code: "ENOTEMPTY" };
    });
    await onPort(port, () => withLock(path, () => {}));
    assert.deepEqual(readdirSync(lock), []);
  }));

test("a directory that somebody puts in the place of the lock is not changed", () =>
  inScratch(async (directory) => {
    execFileSync("chmod", ["0777", directory]);
    const precious = join(directory, "precious");
    mkdirSync(precious, { mode: 0o700 });
    const lock = join(directory, ".f.lock");
    const port = new FaultPort().intercept(({ name }) => {
      if (name !== "openChangeable") return undefined;
      renameSync(lock, join(directory, "away"));
      symlinkSync(precious, lock);
      return undefined;
    });
    await onPort(port, () => rejection(acquireLock(join(directory, "f"))));
    assert.ok(port.names.includes("openChangeable"));
    assert.equal(statSync(precious).mode & 0o777, 0o700);
  }));

test("a lock whose file somebody removes during its release is given back", () =>
  inScratch(async (directory) => {
    const lockFile = join(directory, ".f.lock", "lock");
    const port = new FaultPort().intercept(({ name, args: [path] }) => {
      if (name === "unlink" && path === lockFile) unlinkSync(lockFile);
      return undefined;
    });
    await onPort(port, async () => {
      const lock = await acquireLock(join(directory, "f"));
      await lock.release();
    });
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a lock file that changes hands meanwhile is asked for anew", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lockFile = join(directory, ".f.lock", "lock");
    let isFirst = true;
    const port = new FaultPort().intercept(({ name }) => {
      if (name !== "openDatabase" || !isFirst) return undefined;
      isFirst = false;
      // As if its holder had released it, and another had made it again.
      unlinkSync(lockFile);
      writeFileSync(lockFile, "");
      return undefined;
    });
    assert.equal(await onPort(port, () => withLock(path, () => 1)), 1);
    assert.deepEqual(readdirSync(directory), []);
    let tries = 0;
    const always = new FaultPort().intercept(({ name }) => {
      if (name !== "openDatabase") return undefined;
      tries++;
      rmSync(join(directory, ".f.lock"), { recursive: true });
      return { code: "SQLITE_CANTOPEN" };
    });
    // However slow the machine is.
    always.now = () => tries > 1 ? 100 : 0;
    const error = await onPort(
      always,
      () => rejection(acquireLock(path, { timeoutMs: 20 })),
    );
    assert.ok(error instanceof LockTimeoutError);
    assert.match(error.message, /who holds it could not be found out/);
    assert.ok(tries > 1);
    assert.deepEqual(readdirSync(directory), []);
  }));

test("who has the lock of a file that was replaced neither takes the holder's place nor waits for it to end", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const late = new FaultPort();
    const fast = new FaultPort();
    // Whoever waits for the holder to end waits for ever.
    late.now = () => 0;
    let holder: Lock | undefined;
    let opened = 0;
    let pauses = 0;
    const again = Promise.withResolvers<void>();
    late.intercept(({ name, args: [, to] }) => {
      if (name === "sleep") assert.ok(++pauses < 1000, "it waits for ever");
      if (name === "openDatabase" && ++opened > 1) again.resolve();
      const isFirst = holder === undefined;
      if (name !== "rename" || !isFirst || !/\.held$/.test(`${to}`)) {
        return undefined;
      }
      // As if its last holder had not seen the claim.
      unlinkSync(join(directory, ".f.lock", "lock"));
      substitutePort(fast);
      holder = tryAcquireLockSync(path);
      substitutePort(late);
      return undefined;
    });
    const waiting = onPort(late, () => acquireLock(path));
    await Promise.race([again.promise, waiting]);
    assert.ok(holder !== undefined);
    await writeTextAtomic(path, "held", { lock: holder });
    await holder.release();
    await (await waiting).release();
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("a SQLite is used as it is found, and closed where it cannot be", async () => {
  const made: FakeDatabase[] = [];
  class FakeDatabase {
    isClosed = false;
    readonly path: string;
    constructor(path: string) {
      this.path = path;
      made.push(this);
    }
    exec(sql: string): void {
      if (this.path === "broken" || sql === "wrong") {
        throw new Error("disk I/O error");
      }
      if (sql === "unknown") throw new RangeError("something else");
    }
    close(): void {
      this.isClosed = true;
    }
  }
  const { sync, async } = sqliteCalls(() =>
    connecting({ FakeDatabase }, "FakeDatabase")
  );
  const database = await async.openDatabase("f");
  await async.execute(database, "right");
  assert.throws(() => sync.execute(database, "wrong"), {
    code: "SQLITE_IOERR",
  });
  assert.throws(() => sync.execute(database, "unknown"), RangeError);
  assert.throws(() => sync.openDatabase("broken"));
  assert.equal(made.at(-1)?.isClosed, true);
  await async.closeDatabase(database);
  assert.equal(made[0]?.isClosed, true);
  assert.throws(() => sync.execute({ path: "f" }, ""), /Not opened by this/);
  const none = sqliteCalls(() => connecting(undefined, "FakeDatabase"));
  assert.throws(() => none.sync.openDatabase("f"), { code: "NO_SQLITE" });
  assert.equal(connecting({}, "FakeDatabase"), undefined);
  const wrong = sqliteCalls(() => connecting({ Map }, "Map"));
  assert.throws(() => wrong.sync.openDatabase("f"), TypeError);
});

test("a lock is freed after the writes under it, and takes no more", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = await acquireLock(path);
    const write = writeTextAtomic(path, "last", { lock });
    await lock.release();
    assert.equal(readFileSync(path, "utf8"), "last\n");
    await write;
    await assert.rejects(
      writeTextAtomic(path, "late", { lock }),
      /^TypeError: Lock must be held: .* which is released/,
    );
  }));

test("a lock is not freed at once while something is written under it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = await acquireLock(path);
    const write = writeTextAtomic(path, "x", { lock });
    for (const end of ["releaseSync", Symbol.dispose] as const) {
      assert.throws(() => lock[end](), /^TypeError: .* has not ended, await/);
    }
    assert.equal(await isLocked(path), true);
    await write;
    lock.releaseSync();
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("a permission that Deno lacks is told with what a lock, or a checksum, needs it for", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "x");
    const told = async (body: () => Promise<unknown>) => {
      const port = new FaultPort().fail("lstat", "NotCapable");
      port.permission = () => "missing";
      const error = await onPort(port, () => rejection(body()));
      assert.ok(error instanceof PermissionScopeError, String(error));
      assert.ok(error.message.includes(`--allow-write=${directory}`));
      return error.message;
    };
    for (const body of [acquireLock, isLocked, tryAcquireLock, inspectLock]) {
      assert.match(
        await told(() => body(path)),
        /: its lock is a file beside it, so Deno must be allowed/,
      );
    }
    assert.match(
      await told(() => writeChecksum(path)),
      /: its checksum and its lock are files beside it, so Deno/,
    );
    assert.match(
      await told(() => writeTextAtomic(path, "x", { lock: true })),
      /: the new file is made beside the old one/,
    );
  }));

test("files whose long names begin alike have locks of their own", () =>
  inScratch(async (directory) => {
    for (const length of [63, 142, 254]) {
      const stem = join(directory, "x".repeat(length));
      await withLock(
        `${stem}1`,
        () => withLock(`${stem}2`, () => {}, { timeoutMs: 1000 }),
      );
    }
    assert.deepEqual(readdirSync(directory), []);
  }));

test("either signal ends the waiting of a write for its lock", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const held = await acquireLock(path);
    for (const which of ["lock", "write"]) {
      const controller = new AbortController();
      const other = new AbortController();
      const [one, two] = which === "lock"
        ? [controller, other]
        : [other, controller];
      const waiting = writeTextAtomic(path, "x", {
        lock: { signal: one.signal },
        signal: two.signal,
      });
      controller.abort("enough");
      await assert.rejects(waiting, (error) => error === "enough");
    }
    await held.release();
  }));

test("that a lock file stays does not hide what the function did", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const reason = new Error("from the function");
    const failing = () => new FaultPort().fail("unlink", "EIO");
    await onPort(failing(), async () => {
      const thrown = withLock(path, () => Promise.reject(reason));
      assert.equal(await rejection(thrown), reason);
    });
    const other = join(directory, "g");
    assert.equal(await onPort(failing(), () => withLock(other, () => 1)), 1);
    await withLock(path, () => {});
    await withLock(other, () => {});
    assert.deepEqual(readdirSync(directory), []);
  }));

test("probes do not take each other for a holder, and made-up names do not matter", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = join(directory, ".f.lock");
    mkdirSync(lock);
    writeFileSync(join(lock, "lock"), "");
    const probes = Array.from({ length: 5 }, () => isLocked(path));
    assert.deepEqual(await Promise.all(probes), probes.map(() => false));
    const first = await acquireLock(path);
    const made = join(lock, `1.99999999999999999999.${crypto.randomUUID()}`);
    writeFileSync(made, "");
    const error = await rejection(acquireLock(path, { timeoutMs: 1 }));
    assert.ok(error instanceof LockTimeoutError, String(error));
    assert.equal(error.candidates.length, 1);
    await first.release();
    unlinkSync(made);
    const unreadable = new FaultPort().fail("readdir", "EACCES");
    const held = await acquireLock(path);
    const blind = await onPort(
      unreadable,
      () => rejection(acquireLock(path, { timeoutMs: 1 })),
    );
    assert.ok(blind instanceof LockTimeoutError, String(blind));
    await held.release();
  }));

test("a lock is refused where a runtime rounds inode numbers, and nothing is left", () =>
  inScratch(async (directory) => {
    const base = currentPort();
    const port = new FaultPort().intercept(({ name, args: [file] }) => {
      if (name !== "lstat" && name !== "fstat") return undefined;
      const status = name === "lstat"
        ? base.sync.lstat(String(file))
        : base.sync.fstat(file as OpenFile);
      return { result: { ...status, ino: Number(status.ino) + 2 ** 63 } };
    });
    const error = await onPort(
      port,
      () => rejection(acquireLock(join(directory, "f"))),
    );
    assert.ok(error instanceof UnsupportedEnvironmentError);
    assert.match(error.message, /larger than this runtime can tell exactly/);
    assert.ok(!port.names.includes("openDatabase"));
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a lock is refused at once where each name of a file has a number of its own", () =>
  inScratch(async (directory) => {
    const base = currentPort();
    const numbers = new Map<string, number>();
    const numberOf = (path: string) => {
      const number = numbers.get(path) ?? numbers.size + 1;
      numbers.set(path, number);
      return number;
    };
    const port = new FaultPort().intercept(({ name, args: [file] }) => {
      if (name !== "lstat" || String(file) === directory) return undefined;
      const ino = numberOf(String(file));
      try {
        return { result: { ...base.sync.lstat(String(file)), ino } };
      } catch {
        return undefined;
      }
    });
    const error = await onPort(
      port,
      () => rejection(acquireLock(join(directory, "f"))),
    );
    assert.ok(error instanceof UnsupportedEnvironmentError, String(error));
    assert.match(error.message, /gives each name an inode number of its own/);
    assert.ok(!port.names.includes("openDatabase"));
    assert.ok(!port.names.includes("sleep"));
    assert.deepEqual(readdirSync(directory), []);
  }));

for (const form of FORMS) {
  test(`${form.name}: who has lost the kernel's lock cannot put anything into place once another has it`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const lock = join(directory, ".f.lock");
      let isTaken = false;
      const port = new FaultPort().intercept(({ name, args: [from, to] }) => {
        if (name !== "rename" || to !== path || isTaken) return undefined;
        isTaken = true;
        // After the last look at the lock: as the one does who takes its place.
        for (const claim of readdirSync(lock)) unlinkSync(join(lock, claim));
        unlinkSync(String(from));
        return undefined;
      });
      const lost = await onPort(
        port,
        () => rejection(form.updateText(path, () => "new")),
      );
      assert.ok(lost instanceof LockLostError, String(lost));
      assert.equal(lost.committed, false);
      assert.equal(readFileSync(path, "utf8"), "old");
    }));

  test(`${form.name}: an append is not reported as made where its lock was lost meanwhile`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "1\n");
      const port = new FaultPort().intercept(({ name }) => {
        if (name === "write") {
          rmSync(join(directory, ".f.lock"), { recursive: true });
        }
        return undefined;
      });
      const lost = await onPort(
        port,
        () => rejection(form.append(path, [2])),
      );
      assert.ok(lost instanceof LockLostError);
      assert.equal(lost.committed, "unknown");
      assert.match(lost.message, /whether what was done stays is unknown/);
    }));
}

/** A realm of whose locks the system takes every one back, without its knowledge. */
function losingPort(): { port: FaultPort; free: () => void } {
  const { sync } = currentPort();
  const connections: { close(): void }[] = [];
  const port = new FaultPort().intercept(({ name, args: [file] }) => {
    if (name === "closeDatabase") return { result: undefined };
    if (name !== "openDatabase") return undefined;
    const result = sync.openDatabase(String(file));
    assert.ok("connection" in result);
    connections.push(result.connection as { close(): void });
    return { result };
  });
  const free = () => {
    for (const connection of connections.splice(0)) connection.close();
  };
  return { port, free };
}

for (const form of FORMS) {
  test(`${form.name}: the next holder removes what is staged by one who has lost the lock`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const { port, free } = losingPort();
      const next = new FaultPort();
      let clock = 0;
      next.now = () => clock++;
      let taken: Lock | undefined;
      port.intercept(({ name, args: [, to] }) => {
        if (name !== "rename" || to !== path || taken !== undefined) {
          return undefined;
        }
        free();
        // After the last look at the lock.
        substitutePort(next);
        taken = tryAcquireLockSync(path);
        substitutePort(port);
        return undefined;
      });
      const lost = await onPort(
        port,
        () => rejection(form.updateText(path, () => "new")),
      );
      assert.ok(lost instanceof LockLostError, String(lost));
      assert.equal(readFileSync(path, "utf8"), "old");
      await taken?.release();
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));
}

test("the next holder lets one finish whose lock the system has freed, and takes its place when that takes too long", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const { port: losing, free } = losingPort();
    for (const isBrief of [true, false]) {
      const first = await onPort(losing, () => acquireLock(path));
      free();
      const next = new FaultPort();
      let clock = 0;
      let pauses = 0;
      let finished: Promise<void> | undefined;
      next.now = () => clock;
      next.intercept(({ name, args: [ms] }) => {
        if (name !== "sleep") return undefined;
        assert.ok(++pauses < 10_000, "it waits for ever");
        if (!isBrief) {
          clock += Number(ms);
          return { result: undefined };
        }
        // While the clock stands still.
        finished ??= finish(first);
        return undefined;
      });
      const finish = async (first: Lock) => {
        await writeTextAtomic(path, "in time", { lock: first });
        await first.release();
      };
      const second = await onPort(next, () => acquireLock(path));
      assert.ok(pauses > 0);
      if (isBrief) {
        await finished;
        assert.equal(readFileSync(path, "utf8"), "in time\n");
      } else {
        const lost = await onPort(
          losing,
          () => rejection(writeTextAtomic(path, "lost", { lock: first })),
        );
        assert.ok(lost instanceof LockLostError);
        await first.release();
      }
      assert.equal((await inspectLock(path)).isLocked, true);
      await second.release();
      assert.deepEqual(readdirSync(directory), ["f"]);
    }
  }));
