import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  acquireLock,
  AlreadyExistsError,
  appendJsonl,
  appendJsonlSync,
  AtomicError,
  ChecksumMismatchError,
  ChecksumMissingError,
  type Lock,
  LockLostError,
  LockTimeoutError,
  moveAtomic,
  moveAtomicSync,
  type MoveReceipt,
  NotFoundError,
  openAtomicWriter,
  openSnapshot,
  readJson,
  readJsonl,
  readJsonlSync,
  readText,
  repairJsonl,
  type Snapshot,
  updateJsonAtomic,
  updateJsonAtomicSync,
  updateTextAtomic,
  updateTextAtomicSync,
  verifyChecksum,
  withDefaults,
  withLock,
  writeBytesAtomic,
  writeChecksum,
  writeChecksumSync,
  writeJsonAtomic,
  writeJsonlAtomic,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

function digestOf(text: string, algorithm = "sha256"): string {
  return createHash(algorithm).update(text).digest("hex");
}

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

for (const form of FORMS) {
  test(`${form.name}: the sidecar names the content and the one before, and is gone with checksum: false`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const first = await form.writeText(path, "one", { checksum: true });
      assert.equal(first.digest, digestOf("one\n"));
      const sidecar = readFileSync(`${path}.sha256`, "utf8");
      assert.match(
        sidecar,
        new RegExp(`^${digestOf("one\n")}  f\n# id=${UUID.source}\n$`),
      );
      // Nobody says so: it is kept.
      const second = await form.writeText(path, "two");
      assert.equal(second.digest, digestOf("two\n"));
      const info = await form.readChecksum(path);
      assert.deepEqual(info, {
        path: `${path}.sha256`,
        algorithm: "sha256",
        digest: digestOf("two\n"),
        previous: [digestOf("one\n")],
      });
      const { actual } = await form.verifyChecksum(path);
      assert.equal(actual, digestOf("two\n"));
      const third = await form.writeText(path, "three", { checksum: false });
      assert.equal(third.digest, undefined);
      assert.deepEqual(readdirSync(directory), ["f"]);
      await form.writeText(path, "four");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: another algorithm takes the place of the first, and what others have published stays`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      await form.writeText(path, "one", { checksum: true });
      await form.writeText(path, "two", { checksum: "sha512" });
      assert.deepEqual(readdirSync(directory).toSorted(), ["f", "f.sha512"]);
      const { digest, previous } = await form.verifyChecksum(path);
      assert.equal(digest, digestOf("two\n", "sha512"));
      assert.deepEqual(previous, [digestOf("one\n", "sha512")]);
      unlinkSync(`${path}.sha512`);
      const old = digestOf("two\n", "sha1").toUpperCase();
      writeFileSync(`${path}.sha1`, `${old} *f\n`);
      writeFileSync(`${path}.sha256`, `${digestOf("two\n")}  ./f\n`);
      await form.verifyChecksum(path, { algorithm: "sha1" });
      await form.readText(path, { checksum: true });
      // It says what the content should be: nobody adopts it unasked.
      await form.writeText(path, "three");
      await assert.rejects(form.verifyChecksum(path), ChecksumMismatchError);
      await form.writeText(path, "four", { checksum: false });
      assert.deepEqual(readdirSync(directory).toSorted(), [
        "f",
        "f.sha1",
        "f.sha256",
      ]);
      await form.writeText(path, "five", { checksum: true });
      const own = await form.verifyChecksum(path);
      assert.equal(own.digest, digestOf("five\n"));
      await assert.rejects(
        form.verifyChecksum(path, { algorithm: "sha1" }),
        ChecksumMismatchError,
      );
    }));

  test(`${form.name}: any byte that is flipped is found`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const bytes = new TextEncoder().encode("a short text\n");
      await form.writeBytes(path, bytes, { checksum: true });
      for (let index = 0; index < bytes.length; index++) {
        for (const bit of [1, 0x80]) {
          const damaged = bytes.slice();
          damaged[index] = (damaged[index] ?? 0) ^ bit;
          writeFileSync(path, damaged);
          const error = await rejection(
            form.readBytes(path, { checksum: true }),
          );
          assert.ok(error instanceof ChecksumMismatchError);
          assert.equal(error.code, "CHECKSUM_MISMATCH");
          assert.deepEqual(error.expected, [digestOf("a short text\n")]);
          assert.notEqual(error.actual, error.expected[0]);
          await assert.rejects(
            form.verifyChecksum(path),
            ChecksumMismatchError,
          );
        }
      }
      writeFileSync(path, bytes.subarray(1));
      await assert.rejects(form.verifyChecksum(path), ChecksumMismatchError);
      writeFileSync(path, bytes);
      await form.readBytes(path, { checksum: true });
    }));

  test(`${form.name}: a missing checksum and a missing file are errors of their own`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      await assert.rejects(form.verifyChecksum(path), NotFoundError);
      await assert.rejects(
        form.readText(path, { checksum: true }),
        NotFoundError,
      );
      const given = { checksum: true, fallback: "none" };
      assert.equal(await form.readText(path, given), "none");
      await form.writeText(path, "one");
      for (
        const call of [
          () => form.readText(path, { checksum: true }),
          () => form.readText(path, given),
          () => form.readChecksum(path),
          () => form.verifyChecksum(path, { algorithm: "sha512" }),
        ]
      ) {
        const error = await rejection(call());
        assert.ok(error instanceof ChecksumMissingError);
        assert.match(error.message, /it has no checksum beside it/);
      }
      await assert.rejects(
        form.writeChecksum(join(directory, "none")),
        NotFoundError,
      );
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: writeChecksum takes what is there for right`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "by hand");
      chmodSync(path, 0o640);
      const info = await form.writeChecksum(path);
      assert.equal(info.digest, digestOf("by hand"));
      assert.deepEqual(info.previous, []);
      assert.equal(statSync(`${path}.sha256`).mode & 0o777, 0o640);
      writeFileSync(path, "changed");
      await assert.rejects(form.verifyChecksum(path), ChecksumMismatchError);
      await form.writeChecksum(path, { algorithm: "sha512" });
      assert.deepEqual(readdirSync(directory).toSorted(), ["f", "f.sha512"]);
      await form.verifyChecksum(path);
      // Who names no algorithm keeps the one that there is.
      writeFileSync(path, "changed again");
      const kept = await form.writeChecksum(path);
      assert.equal(kept.algorithm, "sha512");
      assert.deepEqual(readdirSync(directory).toSorted(), ["f", "f.sha512"]);
      await form.verifyChecksum(path);
      const link = join(directory, "link");
      symlinkSync("f", link);
      assert.equal((await form.writeChecksum(link)).path, `${path}.sha512`);
      const symlinks = "reject";
      const error = await rejection(form.writeChecksum(link, { symlinks }));
      assert.ok(error instanceof AtomicError && error.code === "ELOOP");
      for (
        const options of [
          { algorithm: "sha1" },
          { symlinks: "replace" },
        ] as object[]
      ) {
        await assert.rejects(form.writeChecksum(link, options), TypeError);
      }
    }));

  test(`${form.name}: what is no checksum of this file is never overwritten, and not asked`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const digest = digestOf("one\n");
      const listing = `${digest}  f\n${digest}  g\n`;
      const foreign = [
        `${digest}  g\n`,
        listing,
        "notes\n",
        "",
        `${digest.slice(1)}  f\n`,
        `${digest}  f\n`.repeat(200),
        // As a checkout or an editor on Windows leaves it.
        `${digest}  f\r\n`,
      ];
      for (const text of foreign) {
        writeFileSync(`${path}.sha256`, text);
        await form.writeText(path, "one");
        for (
          const call of [
            () => form.writeText(path, "two", { checksum: true }),
            () => form.writeChecksum(path),
            () => form.verifyChecksum(path, { algorithm: "sha256" }),
            () => form.verifyChecksum(path),
            () => form.readChecksum(path),
            () => form.readText(path, { checksum: true }),
          ]
        ) {
          const error = await rejection(call());
          assert.ok(error instanceof AtomicError);
          assert.equal(error.code, "FOREIGN_CHECKSUM");
        }
        await form.writeText(path, "one", { checksum: "sha512" });
        assert.equal((await form.verifyChecksum(path)).algorithm, "sha512");
        await form.writeText(path, "one", { checksum: false });
        assert.equal(readFileSync(`${path}.sha256`, "utf8"), text);
        assert.equal(readFileSync(path, "utf8"), "one\n");
      }
      unlinkSync(`${path}.sha256`);
      writeFileSync(join(directory, "victim"), `${digest}  f\n`);
      symlinkSync("victim", `${path}.sha256`);
      await assert.rejects(
        form.writeText(path, "two", { checksum: true }),
        /is not the checksum of this file/,
      );
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: names that sha256sum escapes, and names that leave no room`, () =>
    inScratch(async (directory) => {
      for (
        const name of [
          "a\\b",
          "a\nb",
          "a b ",
          "*x",
          "# id=1",
          "ü",
          "\u2028",
          "-",
          "./x".slice(2),
        ]
      ) {
        const path = join(directory, name);
        await form.writeText(path, "one", { checksum: true });
        await form.writeText(path, "two");
        await form.verifyChecksum(path);
      }
      const escaped = readFileSync(join(directory, "a\nb.sha256"), "utf8");
      assert.ok(escaped.startsWith(`\\${digestOf("two\n")}  a\\nb\n`));
      const long = join(directory, "x".repeat(250));
      await form.writeText(long, "one");
      const error = await rejection(
        form.writeText(long, "two", { checksum: true }),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ENAMETOOLONG");
      assert.match(error.message, /its checksum would be ".*\.sha256"/);
      assert.equal(readFileSync(long, "utf8"), "one\n");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: a power cut before any call leaves a file that fits, also where one has come before`, () =>
    inScratch(async (directory) => {
      for (const next of [true, undefined, "sha512"] as const) {
        const path = join(directory, `f-${next}`);
        await form.writeText(path, "0", { checksum: true });
        for (let index = 0, done = false; !done; index++) {
          const port = new FaultPort().cutPowerAt(index);
          const checksum = { checksum: next };
          // The simulated cut takes the realm with it, and its lock.
          done = await onPort(
            port,
            () =>
              form.writeText(path, `${index}`, checksum).then(
                () => true,
                () => false,
              ),
          );
          const { actual } = await form.verifyChecksum(path);
          assert.equal(
            actual.length,
            next === "sha512" && done ? 128 : actual.length,
          );
          for (const name of readdirSync(directory)) {
            if (name.includes(".lock") || name.endsWith(".tmp")) {
              rmSync(join(directory, name), { recursive: true });
            }
          }
        }
        assert.match(readFileSync(path, "utf8"), /^\d+\n$/);
      }
    }));

  test(`${form.name}: any call failing once leaves a file that fits`, () =>
    inScratch(async (directory) => {
      for (let index = 0, failed = true; failed; index++) {
        const path = join(directory, `f${index}`);
        await form.writeText(path, "old", { checksum: true });
        const port = new FaultPort().failNth(index, "EIO");
        const error = await onPort(
          port,
          () => form.writeText(path, "new").catch((error) => error),
        );
        failed = error instanceof Error;
        const { actual } = await form.verifyChecksum(path);
        const content = readFileSync(path, "utf8");
        assert.equal(actual, digestOf(content), `call ${index}`);
        if (error instanceof AtomicError && error.committed !== "unknown") {
          assert.equal(content === "new\n", error.committed, `call ${index}`);
        }
        assert.deepEqual(leftovers(directory), []);
        assert.ok(index < 200);
      }
    }));

  test(`${form.name}: what is damaged is not called good by a write that fails`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      await form.writeText(path, "right", { checksum: true });
      writeFileSync(path, "wrong\n");
      for (let time = 0; time < 20; time++) {
        const port = new FaultPort().intercept(({ name, args: [, to] }) =>
          name === "rename" && to === path ? { code: "EIO" } : undefined
        );
        await onPort(
          port,
          () => rejection(form.writeText(path, `${time}`, { checksum: true })),
        );
        await assert.rejects(form.verifyChecksum(path), ChecksumMismatchError);
      }
      const { previous } = await form.readChecksum(path);
      assert.ok(previous.length <= 8);
      await form.writeText(path, "new");
      await form.verifyChecksum(path);
    }));

  test(`${form.name}: createNew writes the checksum with the file, and touches none of a file that is there`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const options = { createNew: true, checksum: true };
      await form.writeText(path, "one", options);
      const before = readFileSync(`${path}.sha256`, "utf8");
      await assert.rejects(
        form.writeText(path, "two", options),
        AlreadyExistsError,
      );
      assert.equal(readFileSync(`${path}.sha256`, "utf8"), before);
      await form.verifyChecksum(path);
    }));

  test(`${form.name}: who may not read the file may not read its checksum`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      await form.writeText(path, "secret", { mode: 0o600, checksum: true });
      assert.equal(statSync(`${path}.sha256`).mode & 0o777, 0o600);
      await form.writeText(path, "secret 2");
      assert.equal(statSync(`${path}.sha256`).mode & 0o777, 0o600);
      await form.writeText(path, "open", { mode: 0o755 });
      assert.equal(statSync(`${path}.sha256`).mode & 0o777, 0o644);
    }));

  test(`${form.name}: digests of bytes and files are those of everybody else`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const bytes = new Uint8Array(700_001).fill(7);
      writeFileSync(path, bytes);
      for (const algorithm of ["sha1", "sha256", "sha512"] as const) {
        const expected = createHash(algorithm).update(bytes).digest("hex");
        assert.equal(await form.hashBytes(bytes, algorithm), expected);
        assert.equal(await form.hashFile(path, { algorithm }), expected);
      }
      assert.equal(await form.hashBytes(new Uint8Array()), digestOf(""));
      const detached = new Uint8Array(3);
      structuredClone(detached, { transfer: [detached.buffer] });
      for (
        const other of [
          "text",
          [1, 2],
          undefined,
          { byteLength: 3 },
          detached,
        ]
      ) {
        await assert.rejects(
          form.hashBytes(other as unknown as Uint8Array),
          /Bytes must be an ArrayBuffer or a view of one: received /,
        );
      }
      await assert.rejects(
        form.hashBytes(bytes, "md5" as "sha1"),
        /Algorithm must be "sha256", "sha512" or "sha1": received .*md5/,
      );
    }));

  test(`${form.name}: links lead to the checksum of the file they lead to`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const link = join(directory, "link");
      symlinkSync("f", link);
      await form.writeText(link, "one", { checksum: true });
      assert.equal(existsSync(`${path}.sha256`), true);
      assert.equal(existsSync(`${link}.sha256`), false);
      assert.equal(await form.readText(link, { checksum: true }), "one\n");
      await form.writeText(link, "two");
      await form.verifyChecksum(link);
      await form.verifyChecksum(path);
    }));
}

test("streams, writers, JSON lines and updates write checksums, and keep them", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const checksum = true;
    const fits = async (options = {}) => {
      const { digest, actual } = await verifyChecksum(path);
      assert.equal(digest, actual);
      await readText(path, { checksum: true, ...options });
    };
    const stream = await writeTextAtomic(path, ["a", "b"], { checksum });
    assert.equal(stream.digest, digestOf("ab\n"));
    await fits();
    await writeTextAtomic(path, ["c", "d"]);
    await fits();
    writeTextAtomicSync(path, ["e", "f"]);
    await fits();
    const writer = await openAtomicWriter(path);
    await writer.write(new Uint8Array([65, 66]));
    assert.equal((await writer.commit()).digest, digestOf("AB"));
    await fits();
    await writeJsonlAtomic(path, [{ id: 1 }, { id: 2 }]);
    await fits();
    const ids: unknown[] = [];
    for await (const value of readJsonl(path, { checksum })) ids.push(value);
    ids.push(...readJsonlSync(path, { checksum }));
    assert.equal(ids.length, 4);
    const snapshot = await openSnapshot(path, { checksum });
    assert.equal(await snapshot.text(), '{"id":1}\n{"id":2}\n');
    await snapshot[Symbol.asyncDispose]();
    await writeJsonAtomic(path, { count: 1 });
    await fits();
    const next = ({ count }: { count: number }) => ({ count: count + 1 });
    const { receipt } = await updateJsonAtomic(path, next, {
      initial: { count: 0 },
    });
    assert.notEqual(receipt?.digest, undefined);
    await fits();
    updateJsonAtomicSync(path, next, { initial: { count: 0 } });
    await updateJsonAtomic(path, next, { initial: { count: 0 }, lock: false });
    await fits();
    assert.deepEqual(await readJson(path, { checksum }), { count: 4 });
    const bound = withDefaults({ checksum: "sha512" });
    await bound.writeTextAtomic(path, "bound");
    assert.equal(await bound.readText(path), "bound\n");
    assert.deepEqual(readdirSync(directory).toSorted(), ["f", "f.sha512"]);
  }));

test("what is damaged is neither read to its end nor updated", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeJsonlAtomic(path, [{ count: 1 }], { checksum: true });
    writeFileSync(path, '{"count":2}\n');
    const checksum = true;
    const reads = [
      () => readText(path, { checksum }),
      () => readJson(path, { checksum }),
      () => Array.fromAsync(readJsonl(path, { checksum })),
      () =>
        Promise.resolve().then(() => [...readJsonlSync(path, { checksum })]),
      () => updateJsonAtomic(path, (current) => current),
      () =>
        Promise.resolve().then(() =>
          updateJsonAtomicSync(path, (current) => current)
        ),
    ];
    for (const read of reads) {
      await assert.rejects(read(), ChecksumMismatchError);
    }
    // Who gives up the checksum may go on.
    await updateJsonAtomic(path, (current) => current, { checksum: false });
    assert.deepEqual(await readJson(path), { count: 2 });
  }));

test("what a snapshot and a stream of records hand out is what is verified", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const checksum = true;
    const records = Array.from({ length: 40_000 }, (_, id) => ({ id }));
    await writeJsonlAtomic(path, records, { checksum });
    const whole = readFileSync(path);
    const passes = [
      (snapshot: Snapshot) => snapshot.bytes(),
      (snapshot: Snapshot) => snapshot.text(),
      (snapshot: Snapshot) => Array.fromAsync(snapshot.lines()),
      (snapshot: Snapshot) => Array.fromAsync(snapshot.readable),
    ];
    const damage = () => {
      // In place, at its end, after it was opened and begun to be read.
      const bytes = new Uint8Array(whole);
      bytes.set(new TextEncoder().encode("1"), whole.length - 3);
      writeFileSync(path, bytes);
    };
    for (const pass of passes) {
      const snapshot = await openSnapshot(path, { checksum });
      assert.equal(snapshot.verified, false);
      await pass(snapshot);
      assert.equal(snapshot.verified, true);
      await snapshot[Symbol.asyncDispose]();
    }
    for (const pass of passes) {
      const snapshot = await openSnapshot(path, { checksum });
      damage();
      await assert.rejects(pass(snapshot), ChecksumMismatchError);
      assert.equal(snapshot.verified, false);
      await snapshot[Symbol.asyncDispose]();
      writeFileSync(path, whole);
    }
    const again = await openSnapshot(path, { checksum });
    await again.bytes();
    damage();
    await assert.rejects(again.bytes(), ChecksumMismatchError);
    // Of what it would hand out now.
    assert.equal(again.verified, false);
    await again[Symbol.asyncDispose]();
    writeFileSync(path, whole);
    const plain = await openSnapshot(path);
    await plain.bytes();
    assert.equal(plain.verified, false);
    await plain[Symbol.asyncDispose]();
    const read = async () => {
      let count = 0;
      for await (const _record of readJsonl(path, { checksum })) {
        if (count++ === 0) damage();
      }
      return count;
    };
    await assert.rejects(read(), ChecksumMismatchError);
    writeFileSync(path, whole);
    const readSync = () => {
      let count = 0;
      for (const _record of readJsonlSync(path, { checksum })) {
        if (count++ === 0) damage();
      }
      return count;
    };
    assert.throws(readSync, ChecksumMismatchError);
    writeFileSync(path, whole);
    const all = await Array.fromAsync(readJsonl(path, { checksum }));
    assert.equal(all.length, records.length);
  }));

test("a write that is called after one with a checksum comes after it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (let time = 0; time < 20; time++) {
      const writes = [
        writeTextAtomic(path, "plain"),
        writeTextAtomic(path, "first", { checksum: true }),
        writeTextAtomic(path, "second"),
        writeTextAtomic(path, "third"),
      ];
      if (time === 0) {
        const waiting = rejection(
          Promise.resolve().then(() => writeTextAtomicSync(path, "sync")),
        );
        assert.ok(await waiting instanceof LockTimeoutError);
      }
      await Promise.all(writes);
      assert.equal(readFileSync(path, "utf8"), "third\n");
      await verifyChecksum(path);
      await writeTextAtomic(path, "none", { checksum: false });
    }
  }));

test("inside withLock, a write with a checksum takes the lock that is passed on", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await withLock(path, async (lock) => {
      await writeTextAtomic(path, "one", { lock, checksum: true });
      writeTextAtomicSync(path, "two", { lock });
      await updateJsonAtomic(path, () => 1, {
        lock,
        initial: 0,
        reviver: () => 0,
      }).catch(() => {});
      const error = await rejection(
        writeTextAtomic(path, "three", { lock: { timeoutMs: 5 } }),
      );
      assert.ok(error instanceof LockTimeoutError);
    });
    assert.equal(readFileSync(path, "utf8"), "two\n");
    await verifyChecksum(path);
  }));

test("a stream whose file gets a checksum meanwhile is refused, and nothing is lost", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    const writer = await openAtomicWriter(path);
    await writer.write(new Uint8Array([65]));
    writeChecksumSync(path);
    const error = await rejection(writer.commit());
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "CHECKSUM_CHANGED");
    assert.equal(readFileSync(path, "utf8"), "old");
    await verifyChecksum(path);
    assert.deepEqual(leftovers(directory), []);
  }));

test("bytes that change during the write do not part from their digest", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const bytes = new Uint8Array(3_000_000).fill(1);
    const port = new FaultPort().intercept(({ name }) => {
      if (name === "write") bytes.fill(2);
      return undefined;
    });
    async function* source() {
      yield bytes;
    }
    await onPort(
      port,
      () => writeBytesAtomic(path, source(), { checksum: true }),
    );
    await verifyChecksum(path);
  }));

test("the signal ends a write before its checksum is in place, and not after", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "old", { checksum: true });
    const outcomes = new Set<string>();
    for (const form of ["rename", "fsync"] as const) {
      for (let nth = 0; nth < 3; nth++) {
        const controller = new AbortController();
        let seen = 0;
        const port = new FaultPort().intercept(({ name, args: [file] }) => {
          const isOfLock = String(file).includes(".lock/");
          if (name === form && !isOfLock && seen++ === nth) controller.abort();
          return undefined;
        });
        const before = readFileSync(path, "utf8");
        const isDone = await onPort(
          port,
          () =>
            writeTextAtomic(path, `${form} ${nth}`, {
              signal: controller.signal,
            }).then(() => true, () => false),
        );
        const after = readFileSync(path, "utf8");
        assert.equal(after, isDone ? `${form} ${nth}\n` : before);
        outcomes.add(`${form} ${nth}: ${isDone}`);
        await verifyChecksum(path);
      }
    }
    // The sidecar's rename is the first.
    assert.ok(outcomes.has("rename 0: true"));
    assert.ok(outcomes.has("fsync 2: true"));
    assert.ok(outcomes.has("fsync 0: false"));
  }));

test("a reader that comes between the two renames finds a file that fits", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "old", { checksum: true });
    let looked = 0;
    const port = new FaultPort().intercept(({ name }) => {
      if (name !== "rename" && name !== "fsync") return undefined;
      const text = readFileSync(path, "utf8");
      const sidecar = readFileSync(`${path}.sha256`, "utf8");
      assert.ok(sidecar.includes(digestOf(text)));
      looked++;
      return undefined;
    });
    await onPort(port, () => writeTextAtomic(path, "new"));
    assert.ok(looked >= 6);
  }));

test("a reader whose checksum is replaced at every look gives up, and accuses nobody", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "old", { checksum: true });
    let writes = 0;
    const port = new FaultPort().intercept(({ name, args: [opened] }) => {
      if (name !== "open" || opened !== path) return undefined;
      if (writes > 3 && writes < 100) return undefined;
      writes++;
      const text = readFileSync(`${path}.sha256`, "utf8");
      writeFileSync(`${path}.sha256`, text.replace(UUID, crypto.randomUUID()));
      return undefined;
    });
    await onPort(port, () => readText(path, { checksum: true }));
    writes = 1000;
    const error = await onPort(
      port,
      () => rejection(readText(path, { checksum: true })),
    );
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "BUSY");
  }));

test("the checksum of a file with two names is that of the name that was written", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "one", { checksum: true });
    linkSync(path, join(directory, "g"));
    await assert.rejects(
      readText(join(directory, "g"), { checksum: true }),
      ChecksumMissingError,
    );
  }));

test("writes that are handed one lock keep the checksum that the one before them has made", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (const checksum of [true, "sha512", false] as const) {
      await withLock(path, async (lock) => {
        const writer = await openAtomicWriter(path, { lock, checksum });
        await Promise.all([
          writeTextAtomic(path, "1", { lock, checksum }),
          writeTextAtomic(path, "2", { lock }),
          writer.commit(),
          writeTextAtomic(path, "3", { lock }),
        ]);
      });
      assert.equal(readFileSync(path, "utf8"), "3\n");
      const names = readdirSync(directory).toSorted();
      const kept = { true: ["f.sha256"], sha512: ["f.sha512"], false: [] };
      assert.deepEqual(names, ["f", ...kept[`${checksum}`]]);
      if (checksum !== false) await verifyChecksum(path);
    }
  }));

test("a synchronous write does not overtake one with a checksum under the same lock", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (let turns = 0; turns < 12; turns++) {
      await withLock(path, async (lock) => {
        const first = writeTextAtomic(path, "A", { lock, checksum: true });
        for (let turn = 0; turn < turns; turn++) {
          await new Promise((resolve) => setTimeout(resolve));
        }
        try {
          writeTextAtomicSync(path, "B", { lock });
        } catch (error) {
          assert.ok(error instanceof AtomicError);
          assert.equal(error.code, "PENDING");
        }
        await first;
      });
      await verifyChecksum(path);
      await writeTextAtomic(path, "none", { checksum: false });
    }
  }));

test("a synchronous source that makes a checksum of its own file is refused", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    function* source() {
      yield "a";
      writeTextAtomicSync(path, "1", { checksum: true });
      yield "b";
    }
    assert.throws(() => writeTextAtomicSync(path, source()), {
      code: "CHECKSUM_CHANGED",
    });
    assert.equal(readFileSync(path, "utf8"), "1\n");
    await verifyChecksum(path);
    assert.deepEqual(leftovers(directory), []);
  }));

test("a Buffer that changes during the write does not part from its digest either", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const bytes = Buffer.alloc(3_000_000, 1);
    const port = new FaultPort().intercept(({ name }) => {
      if (name === "write") bytes.fill(2);
      return undefined;
    });
    await onPort(port, () => writeBytesAtomic(path, bytes, { checksum: true }));
    await verifyChecksum(path);
  }));

test("the checksum of another user's file is his, and readable to him", async (t) => {
  if (process.getuid?.() !== 0) return t.skip("only root may give files away");
  await inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "his");
    chownSync(path, 1234, 1234);
    chmodSync(path, 0o600);
    writeChecksumSync(path);
    assert.equal(statSync(`${path}.sha256`).uid, 1234);
    await writeTextAtomic(path, "his too");
    assert.equal(statSync(`${path}.sha256`).uid, 1234);
    await writeTextAtomic(path, "dark", { mode: 0o200 });
    assert.equal(statSync(`${path}.sha256`).mode & 0o777, 0o600);
  });
});

test("a checksum that may not be read is none of ours", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(`${path}.sha256`, `${digestOf("x")}  f\n`);
    const port = new FaultPort().intercept(({ name, args: [opened] }) =>
      name === "open" && opened === `${path}.sha256`
        ? { code: "EACCES" }
        : undefined
    );
    await onPort(port, async () => {
      await writeTextAtomic(path, "plain");
      const error = await rejection(
        writeTextAtomic(path, "named", { checksum: true }),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "FOREIGN_CHECKSUM");
    });
    assert.equal(readFileSync(path, "utf8"), "plain\n");
  }));

test("order is kept while a checksum goes, and by those that wait behind one that failed", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "0", { checksum: true });
    const removing = writeTextAtomic(path, "A", { checksum: false });
    const rest = [1, 2, 3, 4, 5].map((n) => writeTextAtomic(path, `${n}`));
    await removing;
    await rest[0];
    await Promise.all([...rest, writeTextAtomic(path, "last")]);
    assert.equal(readFileSync(path, "utf8"), "last\n");
    assert.deepEqual(readdirSync(directory), ["f"]);
    const lockFile = join(directory, ".f.lock");
    writeFileSync(lockFile, "not a lock");
    await assert.rejects(writeTextAtomic(path, "x", { checksum: true }), {
      code: "NOT_A_LOCK",
    });
    await writeTextAtomic(path, "plain again");
    unlinkSync(lockFile);
    const made = join(directory, "new", "f");
    const all = [
      writeTextAtomic(made, "1"),
      writeTextAtomic(made, "2"),
      writeTextAtomic(made, "3", { checksum: true }),
    ];
    await Promise.all(all);
    assert.equal(readFileSync(made, "utf8"), "3\n");
    await verifyChecksum(made);
  }));

test("among many that all get on nobody gives up, however long it takes together", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "0", { checksum: true });
    // Each look at the clock is two seconds later: five of them, and who counts
    // from his call would have waited too long.
    let now = 0;
    const port = new FaultPort();
    port.now = () => now += 2000;
    const writes = Array.from({ length: 12 }, (_, n) => `${n}`);
    await onPort(
      port,
      () => Promise.all(writes.map((text) => writeTextAtomic(path, text))),
    );
    assert.equal(readFileSync(path, "utf8"), "11\n");
    await verifyChecksum(path);
  }));

test("an update that changes nothing still makes, replaces or removes the checksum", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "same\n");
    const same = (text: string | undefined) => text ?? "";
    for (const checksum of [true, "sha512", false] as const) {
      const first = await updateTextAtomic(path, same, { checksum });
      assert.equal(first.changed, true);
      const second = updateTextAtomicSync(path, same, { checksum });
      assert.equal(second.changed, false);
    }
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

for (
  const { name, move } of [
    { name: "async", move: moveAtomic },
    {
      name: "sync",
      move: (...args: Parameters<typeof moveAtomicSync>) =>
        new Promise<MoveReceipt>((resolve) => resolve(moveAtomicSync(...args))),
    },
  ]
) {
  test(`${name}: a file that is moved takes its checksum along`, () =>
    inScratch(async (directory) => {
      const from = join(directory, "from");
      const to = join(directory, "sub", "to");
      await writeTextAtomic(from, "one", { checksum: "sha512" });
      await move(from, to);
      assert.deepEqual(readdirSync(directory), ["sub"]);
      assert.deepEqual(readdirSync(join(directory, "sub")).toSorted(), [
        "to",
        "to.sha512",
      ]);
      const { digest } = await verifyChecksum(to);
      assert.equal(digest, digestOf("one\n", "sha512"));
      // Over one with a checksum of its own, and of another algorithm.
      await writeTextAtomic(from, "two", { checksum: true });
      await move(from, to, { overwrite: true });
      assert.deepEqual(readdirSync(join(directory, "sub")).toSorted(), [
        "to",
        "to.sha256",
      ]);
      await verifyChecksum(to);
      // Without one, over one that has.
      await writeTextAtomic(from, "three");
      await move(from, to, { overwrite: true });
      assert.equal((await verifyChecksum(to)).digest, digestOf("three\n"));
      await writeTextAtomic(from, "four", { checksum: true });
      await assert.rejects(move(from, to), AlreadyExistsError);
      await verifyChecksum(from);
      await verifyChecksum(to);
      writeFileSync(from, "damaged");
      await move(from, to, { overwrite: true });
      await assert.rejects(verifyChecksum(to), ChecksumMismatchError);
    }));

  test(`${name}: after many moves a checksum names what the new name held last, and nothing else`, () =>
    inScratch(async (directory) => {
      const from = join(directory, "from");
      const to = join(directory, "to");
      for (let round = 0; round < 60; round++) {
        await writeTextAtomic(from, `never ${round}`, { checksum: "sha512" });
        await writeTextAtomic(from, `${round}`);
        await move(from, to, { overwrite: true });
      }
      const { digest, previous } = await verifyChecksum(to);
      assert.equal(digest, digestOf("59\n", "sha512"));
      assert.deepEqual(previous, [digestOf("58\n", "sha512")]);
      // A crash has left it behind its checksum.
      const named = [digestOf("lost\n"), digestOf("there\n")];
      writeFileSync(from, "there\n");
      writeFileSync(
        `${from}.sha256`,
        `${named[0]}  from\n# previous=${named[1]}\n# id=0\n`,
      );
      await move(from, to, { overwrite: true });
      const { digest: there, previous: before } = await verifyChecksum(to);
      assert.deepEqual([there, ...before], [named[1], digestOf("59\n")]);
    }));

  test(`${name}: damage is moved with what its checksum says, and with what it replaces`, () =>
    inScratch(async (directory) => {
      const from = join(directory, "from");
      const to = join(directory, "to");
      for (let round = 0; round < 60; round++) {
        await writeTextAtomic(to, `${round}`, { checksum: true });
        await writeTextAtomic(from, "right", { checksum: true });
        writeFileSync(from, "damaged");
        if (round % 2 === 1) writeFileSync(to, "damaged too");
        await move(from, to, { overwrite: true });
        const error = await rejection(verifyChecksum(to));
        assert.ok(error instanceof ChecksumMismatchError);
        const [right, replaced] = error.expected;
        assert.equal(right, digestOf("right\n"));
        assert.equal(replaced, digestOf(`${round}\n`));
        assert.ok(error.expected.length <= 9);
        await move(to, from, { overwrite: true });
      }
    }));

  test(`${name}: a move of a file with a checksum may fail at any call`, () =>
    inScratch(async (directory) => {
      for (let index = 0, failed = true; failed; index++) {
        const from = join(directory, `from${index}`);
        const to = join(directory, `to${index}`);
        await writeTextAtomic(from, "one", { checksum: true });
        const port = new FaultPort().failNth(index, "EIO");
        const error = await onPort(
          port,
          () => move(from, to).catch((error) => error),
        );
        failed = error instanceof Error;
        for (const path of [from, to]) {
          if (existsSync(path)) await verifyChecksum(path);
        }
        assert.ok(existsSync(from) || existsSync(to));
        assert.deepEqual(leftovers(directory), []);
        assert.ok(index < 200);
      }
    }));
}

for (const form of FORMS) {
  test(`${form.name}: under a lock that is lost the checksum stays as it is`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const from = join(directory, "from");
      await form.writeText(path, "one", { checksum: true });
      await form.writeText(from, "two", { checksum: true });
      const before = readFileSync(`${path}.sha256`, "utf8");
      for (
        const write of [
          (lock: Lock) => form.writeText(path, "x", { lock, checksum: false }),
          (lock: Lock) => form.writeText(path, "x", { lock }),
          (lock: Lock) =>
            form.writeText(path, "x", { lock, checksum: "sha512" }),
          (lock: Lock) => form.writeChecksum(path, { lock }),
        ]
      ) {
        const lock = await acquireLock(path);
        rmSync(join(directory, ".f.lock"), { recursive: true });
        assert.ok(await rejection(write(lock)) instanceof LockLostError);
        await lock.release();
        assert.equal(readFileSync(`${path}.sha256`, "utf8"), before);
        assert.equal(readFileSync(path, "utf8"), "one\n");
        assert.equal(existsSync(`${path}.sha512`), false);
      }
      const move = form.name === "sync" ? moveAtomicSync : moveAtomic;
      // While it reads what it is to replace.
      const port = new FaultPort().intercept(({ name, args: [opened] }) => {
        if (name === "open" && opened === path) {
          rmSync(join(directory, ".f.lock"), { recursive: true });
        }
        return undefined;
      });
      const moving = onPort(port, async () => {
        await move(from, path, { overwrite: true });
      });
      assert.ok(await rejection(moving) instanceof LockLostError);
      assert.equal(readFileSync(`${path}.sha256`, "utf8"), before);
      const to = join(directory, "to");
      const losing = new FaultPort().intercept(({ name, args: [, made] }) => {
        if (name === "rename" && made === `${to}.sha256`) {
          rmSync(join(directory, ".to.lock"), { recursive: true });
        }
        return undefined;
      });
      const lost = onPort(losing, async () => {
        await move(from, to);
      });
      assert.ok(await rejection(lost) instanceof LockLostError);
      // It may be that of who has the lock by now.
      assert.ok(existsSync(`${to}.sha256`));
    }));

  test(`${form.name}: a move that fails leaves a checksum that was there without a file`, () =>
    inScratch(async (directory) => {
      const from = join(directory, "from");
      const to = join(directory, "to");
      await form.writeText(to, "gone", { checksum: true });
      unlinkSync(to);
      await form.writeText(from, "one", { checksum: true });
      const port = new FaultPort().intercept(({ name, args: [one] }) =>
        name === "link" && one === from ? { code: "EXDEV" } : undefined
      );
      const move = form.name === "sync" ? moveAtomicSync : moveAtomic;
      await onPort(port, async () => {
        await assert.rejects(async () => await move(from, to));
      });
      assert.ok(existsSync(`${to}.sha256`));
      await verifyChecksum(from);
    }));
}

test("a file with a checksum is not changed in place", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeJsonlAtomic(path, [1], { checksum: true });
    const calls = [
      () => appendJsonl(path, [2]),
      () => Promise.resolve().then(() => appendJsonlSync(path, [2])),
      () => repairJsonl(path),
    ];
    for (const call of calls) {
      const error = await rejection(call());
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "HAS_CHECKSUM");
    }
    assert.match(
      `${await rejection(appendJsonl(path, [2]))}`,
      /writeJsonlAtomic, which gives the checksum up with checksum: false/,
    );
    await verifyChecksum(path);
    await writeJsonlAtomic(path, [1], { checksum: false });
    await appendJsonl(path, [2]);
    assert.equal(readFileSync(path, "utf8"), "1\n2\n");
  }));

test("where no descriptor is free to look for a checksum, the write waits for one", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "one", { checksum: true });
    let isFull = true;
    const port = new FaultPort().intercept(({ name, args: [opened] }) => {
      if (!isFull || name !== "open" || opened !== `${path}.sha256`) {
        return undefined;
      }
      isFull = false;
      return { code: "EMFILE" };
    });
    await onPort(port, () => writeTextAtomic(path, "two"));
    assert.equal(isFull, false);
    await verifyChecksum(path);
  }));

test("a stream that is begun while a checksum is made keeps it", () =>
  inScratch(async (directory) => {
    for (const checksum of [true, undefined]) {
      const path = join(directory, `f-${checksum}`);
      await Promise.all([
        writeTextAtomic(path, "x", { checksum: true }),
        writeJsonlAtomic(path, [1, 2], { checksum }),
      ]);
      assert.equal(readFileSync(path, "utf8"), "1\n2\n");
      await verifyChecksum(path);
    }
  }));

test("moves of files with a checksum take their places at the call", () =>
  inScratch(async (directory) => {
    const at = (name: string) => join(directory, name);
    await writeTextAtomic(at("a"), "moved", { checksum: true });
    await Promise.all([
      moveAtomic(at("a"), at("b"), { overwrite: true }),
      writeTextAtomic(at("b"), "later"),
    ]);
    assert.equal(readFileSync(at("b"), "utf8"), "later\n");
    await Promise.all([
      moveAtomic(at("b"), at("c")),
      moveAtomic(at("c"), at("d")),
      moveAtomic(at("d"), at("a")),
    ]);
    assert.deepEqual(readdirSync(directory).toSorted(), ["a", "a.sha256"]);
    const moving = moveAtomic(at("a"), at("b"));
    assert.throws(() => writeTextAtomicSync(at("b"), "x"), LockTimeoutError);
    await moving;
    await verifyChecksum(at("b"));
  }));

test("a move leaves a published checksum alone, and none of its own where it fails", () =>
  inScratch(async (directory) => {
    const from = join(directory, "from");
    const to = join(directory, "to");
    await writeTextAtomic(from, "wrong", { checksum: true });
    const published = `${digestOf("right\n")}  to\n`;
    writeFileSync(`${to}.sha256`, published);
    const error = await rejection(moveAtomic(from, to));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "FOREIGN_CHECKSUM");
    assert.equal(readFileSync(`${to}.sha256`, "utf8"), published);
    unlinkSync(`${to}.sha256`);
    const port = new FaultPort().intercept(({ name, args: [one] }) =>
      name === "link" && one === from ? { code: "EXDEV" } : undefined
    );
    await onPort(port, () => rejection(moveAtomic(from, to)));
    assert.deepEqual(readdirSync(directory).toSorted(), [
      "from",
      "from.sha256",
    ]);
  }));

test("an append without a lock waits for a checksum that is being made, and is refused", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const writing = writeTextAtomic(path, "1", { checksum: true });
    const error = await rejection(appendJsonl(path, [2], { lock: false }));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "HAS_CHECKSUM");
    await writing;
    await verifyChecksum(path);
  }));

test("a writer that is aborted before its commit leaves nothing, also where a checksum is kept", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "old", { checksum: true });
    const port = new FaultPort();
    await onPort(port, async () => {
      const controller = new AbortController();
      const { signal } = controller;
      const reason = new Error("enough");
      const writer = await openAtomicWriter(path, { signal });
      await writer.write(new Uint8Array(3));
      controller.abort(reason);
      assert.equal(await rejection(writer.commit()), reason);
      await writer[Symbol.asyncDispose]();
    });
    const count = (...names: string[]) =>
      port.names.filter((name) => names.includes(name)).length;
    assert.equal(count("open", "create"), count("close"));
    assert.deepEqual(readdirSync(directory).toSorted(), ["f", "f.sha256"]);
  }));

test("a source that makes a checksum meanwhile is refused, whatever its write says of checksums", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    function* source(): Generator<string, void, undefined> {
      yield "a";
      writeTextAtomicSync(path, "x", { checksum: true });
    }
    for (const checksum of [undefined, false]) {
      const error = await rejection(
        new Promise((resolve) =>
          resolve(writeTextAtomicSync(path, source(), { checksum }))
        ),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(await readText(path, { checksum: true }), "x\n");
      rmSync(path);
      rmSync(`${path}.sha256`);
    }
  }));

test("an abort before any call of writeChecksum leaves the checksum that there was, or comes too late", () =>
  inScratch(async (directory) => {
    let isDone = false;
    for (let index = 0; !isDone; index++) {
      const name = `f${index}`;
      const path = join(directory, name);
      await writeTextAtomic(path, "content", { checksum: true });
      const controller = new AbortController();
      const { signal } = controller;
      const reason = new Error("enough");
      const port = new FaultPort().abortAt(index, controller, reason);
      const made = await onPort(
        port,
        () =>
          writeChecksum(path, { algorithm: "sha512", signal })
            .catch((error) => error),
      );
      const kept = made === reason ? "sha256" : "sha512";
      assert.equal(made === reason || made.algorithm === kept, true);
      const own = (found: string) => found.split(".")[0] === name;
      assert.deepEqual(
        readdirSync(directory).filter(own).toSorted(),
        [name, `${name}.${kept}`],
        `call ${index}`,
      );
      isDone = !signal.aborted;
    }
  }));

test("writeChecksum says of a failure whether its checksum is in place", () =>
  inScratch(async (directory) => {
    let isDone = false;
    for (let index = 0; !isDone; index++) {
      const path = join(directory, `f${index}`);
      writeFileSync(path, "content");
      const port = new FaultPort().failNth(index, "EIO");
      const error = await onPort(
        port,
        () => writeChecksum(path).then(() => undefined, (error) => error),
      );
      isDone = port.calls.length <= index;
      if (!(error instanceof AtomicError)) continue;
      // What became of a failed rename nobody knows.
      if (error.committed === "unknown") continue;
      const failed = `${port.names[index]}, call ${index}`;
      assert.equal(error.committed, existsSync(`${path}.sha256`), failed);
    }
  }));
