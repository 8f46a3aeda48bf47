import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { withDefaults } from "../defaults.ts";
import {
  AtomicError,
  DurabilityError,
  LockTimeoutError,
  NoSpaceError,
  NotFoundError,
  SerializationError,
  TornLineError,
} from "../errors.ts";
import {
  appendJsonl,
  appendJsonlSync,
  type AppendReceipt,
  compactJsonlSync,
  type JsonlAppendOptions,
  type JsonlRepairOptions,
  readJsonlSync,
  repairJsonl,
  repairJsonlSync,
  type RepairReport,
  writeJsonlAtomic,
} from "../jsonl.ts";
import { acquireLock, isLocked, withLock } from "../lock.ts";
import { moveAtomic } from "../move.ts";
import { writeTextAtomicSync } from "../text.ts";
import { RecordScan } from "../_jsonl_tail.ts";
import { FaultPort, onPort, PowerCut } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

interface Form {
  readonly name: string;
  append(
    path: string,
    records: Iterable<unknown>,
    options?: JsonlAppendOptions,
  ): Promise<AppendReceipt>;
  repair(path: string, options?: JsonlRepairOptions): Promise<RepairReport>;
}

const FORMS: readonly Form[] = [
  { name: "async", append: appendJsonl, repair: repairJsonl },
  {
    name: "sync",
    append: (...args) =>
      new Promise((resolve) => resolve(appendJsonlSync(...args))),
    repair: (...args) =>
      new Promise((resolve) => resolve(repairJsonlSync(...args))),
  },
];

const decoder = new TextDecoder();

/** A file with this content. */
async function fileWith<T>(
  content: string,
  body: (path: string, directory: string) => Promise<T>,
): Promise<T> {
  return await inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, content);
    return await body(path, directory);
  });
}

function text(path: string): string {
  return readFileSync(path, "utf8");
}

/** Without the calls of the lock, by the files that they are made on. */
function callsOn(port: FaultPort, path: string): string[] {
  return port.calls.flatMap(({ name, args: [what] }) => {
    const isOn = what === path ||
      (typeof what === "object" && what !== null && "path" in what &&
        what.path === path);
    return isOn ? [name] : [];
  });
}

for (const { name, append, repair } of FORMS) {
  test(`${name}: records are appended, one line each, and the receipt says where`, () =>
    fileWith('{"id":1}\n', async (path, directory) => {
      const { ino } = statSync(path);
      const receipt = await append(path, [{ id: 2 }, "three", 4]);
      assert.deepEqual(receipt, {
        path,
        records: 3,
        offset: 9,
        bytes: 19,
        fileSynced: true,
        directorySynced: true,
        created: false,
      });
      assert.equal(text(path), '{"id":1}\n{"id":2}\n"three"\n4\n');
      assert.equal(statSync(path).ino, ino);
      function* more() {
        yield [5];
      }
      assert.equal((await append(path, more())).offset, 28);
      assert.deepEqual([...readJsonlSync(path)].at(-1), [5]);
      assert.equal((await append(path, [])).bytes, 0);
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${name}: a missing file is made, durably, with its directories`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "b", "f");
      const port = new FaultPort();
      const receipt = await onPort(port, () => append(path, [1, 2]));
      assert.deepEqual(receipt, {
        path,
        records: 2,
        offset: 0,
        bytes: 4,
        fileSynced: true,
        directorySynced: true,
        created: true,
      });
      assert.equal(text(path), "1\n2\n");
      const synced = port.calls.filter(({ name }) => name === "fsync")
        .map(({ args: [file] }) => (file as { path: string }).path);
      for (const place of ["", "a", join("a", "b")]) {
        assert.ok(synced.includes(join(directory, place)), place);
      }
      assert.deepEqual(readdirSync(join(directory, "a", "b")), ["f"]);
      const missing = join(directory, "c", "f");
      const error = await rejection(append(missing, [1], { parents: false }));
      assert.ok(error instanceof NotFoundError);
    }));

  test(`${name}: an append opens, looks, writes once, syncs, compares and closes`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort();
      await onPort(port, () => append(path, [2, 3, 4]));
      const calls = callsOn(port, path);
      assert.deepEqual(calls.slice(calls.indexOf("openAppend")), [
        ...["openAppend", "fstat", "read", "write", "fstat", "fsync"],
        ...["lstat", "close"],
      ]);
      const none = new FaultPort();
      const receipt = await onPort(
        none,
        () => append(path, [5], { durability: "none" }),
      );
      assert.equal(receipt.fileSynced, false);
      assert.ok(!none.names.includes("fsync"));
    }));

  test(`${name}: short writes are continued until every byte is taken`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort().shortenWrites(3);
      await onPort(port, () => append(path, [{ a: 2 }]));
      assert.equal(text(path), '1\n{"a":2}\n');
    }));

  test(`${name}: a last line that lacks only its newline is given it, others are torn`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const whole = ['{"a":[1,2]}', "[]", '"x\u00e9y"', ' {"a":1} ', "{}\r"];
      for (const line of [...whole, "\ufeff{}"]) {
        for (const before of ["", "1\n"]) {
          if (line.startsWith("\ufeff") && before !== "") continue;
          writeFileSync(path, before + line);
          const receipt = await append(path, [2]);
          assert.equal(text(path), `${before}${line}\n2\n`);
          assert.equal(receipt.bytes, 2);
          assert.equal(receipt.offset, statSync(path).size - 2);
        }
      }
      const torn = [
        ...["1", "123", "true", "null", "-", '{"a":1', '{"a":1}}', "[1"],
        ...['"x', "\0\0\0", '{"a":"\0', " ", "x", '"a" "b"', "\ufeffx"],
      ];
      for (const line of torn) {
        for (const before of ["", "1\n", '{"a":\n']) {
          writeFileSync(path, before + line);
          const error = await rejection(append(path, [2]));
          assert.ok(error instanceof TornLineError, JSON.stringify(line));
          assert.equal(error.byteOffset, before.length);
          assert.equal(error.code, "TORN");
          assert.equal(error.committed, false);
          assert.match(error.message, /^Cannot append to ".*repairJsonl/);
          assert.ok(error.message.includes(`from byte ${before.length} on`));
          assert.equal(text(path), before + line);
        }
      }
      writeFileSync(path, Uint8Array.of(0x22, 0xff, 0x22));
      assert.ok(await rejection(append(path, [2])) instanceof TornLineError);
    }));

  test(`${name}: a file that holds nothing, or a byte order mark, is appended to`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const start of ["", "\ufeff"]) {
        writeFileSync(path, start);
        await append(path, [1]);
        assert.equal(text(path), `${start}1\n`);
      }
    }));

  test(`${name}: cut at every byte of the last append, a file keeps its earlier records, and can be repaired and appended to`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const earlier = [{ id: 1 }, "zwei"];
      const last = [{ id: 3, text: "dr\u00e9i" }, [4], "f\u00fcnf"];
      await append(path, earlier, { lock: false });
      const start = statSync(path).size;
      const { bytes } = await append(path, last, { lock: false });
      const whole = readFileSync(path);
      const ends = last.reduce<number[]>(
        (ends, record) => [
          ...ends,
          (ends.at(-1) ?? start) +
          new TextEncoder().encode(`${JSON.stringify(record)}\n`).length,
        ],
        [start],
      );
      for (let size = start; size <= start + bytes; size++) {
        const cut = new Uint8Array(whole.subarray(0, size));
        writeFileSync(path, cut);
        const kept = ends.findLastIndex((end) => end <= size);
        const lacksNewline = ends.includes(size + 1);
        const isTorn = !ends.includes(size) && !lacksNewline;
        const found = [
          ...readJsonlSync(path, { onError: "skip" }),
        ];
        const records = kept + (lacksNewline ? 1 : 0);
        const expected = [...earlier, ...last.slice(0, records)];
        assert.deepEqual(found, expected, `cut at ${size}`);
        if (isTorn) {
          const error = await rejection(append(path, [6], { lock: false }));
          assert.ok(error instanceof TornLineError);
          assert.equal(error.byteOffset, ends[kept]);
          assert.deepEqual(new Uint8Array(readFileSync(path)), cut);
        }
        const report = await repair(path, { lock: false });
        assert.equal(report.completed, lacksNewline);
        assert.equal(report.cutBytes, isTorn ? size - (ends[kept] ?? 0) : 0);
        assert.deepEqual(
          new Uint8Array(report.cut),
          isTorn ? cut.subarray(ends[kept]) : new Uint8Array(),
        );
        await append(path, [6], { lock: false });
        assert.deepEqual([...readJsonlSync(path)], [...expected, 6]);
      }
    }));

  test(`${name}: a repair cuts nothing that no append of records has begun`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const texts = [
        "hello",
        "hello\nworld",
        '{\n  "a": 1\n}',
        "id,name\n1,one",
        '{"id":1} and more',
      ];
      for (const text of texts) {
        writeFileSync(path, text);
        const error = await rejection(repair(path));
        assert.ok(error instanceof AtomicError, text);
        assert.equal(error.code, "NOT_JSONL");
        assert.equal(error.committed, false);
        assert.match(error.message, /it begins with "/);
        assert.equal(readFileSync(path, "utf8"), text);
      }
      // What an append may have come to: a beginning, zeros, what was on the disk.
      const torn = [
        '{"id":2,"name":"o',
        '{"id":tru',
        "-",
        "1e",
        '"\\u00',
        "\0\0\0",
        '{"i\0\0\0',
        "\xa5\xa5",
      ];
      for (const tail of torn) {
        const bytes = Uint8Array.from(
          `{"id":1}\n${tail}`,
          (character) => character.charCodeAt(0),
        );
        writeFileSync(path, bytes);
        assert.equal((await repair(path)).cutBytes, tail.length, tail);
        assert.equal(readFileSync(path, "utf8"), '{"id":1}\n');
      }
    }));

  test(`${name}: a whole record that zeros follow instead of its newline is kept`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const before of ["", '{"id":0}\n']) {
        const old = `${before}{"id":1}${"\0".repeat(5000)}`;
        writeFileSync(path, old);
        const torn = await rejection(append(path, [{ id: 2 }]));
        assert.ok(torn instanceof TornLineError, String(torn));
        const report = await repair(path);
        assert.equal(report.completed, true);
        assert.equal(report.offset, before.length);
        assert.equal(report.cutBytes, 5000);
        assert.ok(report.cut.every((byte) => byte === 0));
        assert.equal(readFileSync(path, "utf8"), `${before}{"id":1}\n`);
        writeFileSync(path, old);
        const { recordsRead, cutBytes } = compactJsonlSync(
          path,
          (records) => records,
        );
        assert.equal(recordsRead, before === "" ? 1 : 2);
        assert.equal(cutBytes, 5000);
        assert.equal(readFileSync(path, "utf8"), `${before}{"id":1}\n`);
        // Whatever call of the repair fails.
        for (let index = 0, isDone = false; !isDone; index++) {
          const other = join(directory, `${before.length}-${index}`);
          writeFileSync(other, old);
          const port = new FaultPort().failNth(index, "EIO");
          try {
            await onPort(port, () => repair(other, { lock: false }));
            isDone = port.calls.length <= index;
          } catch (error) {
            assert.ok(error instanceof AtomicError, String(error));
          }
          const left = readFileSync(other, "utf8");
          assert.ok(left.startsWith(`${before}{"id":1}`), left);
          assert.match(left.slice(before.length + 8), /^(?:\n|\0*)$/);
        }
      }
    }));

  test(`${name}: a repair leaves a clean file alone`, () =>
    fileWith("1\nbroken\n", async (path) => {
      const port = new FaultPort();
      const report = await onPort(port, () => repair(path));
      assert.deepEqual(report, {
        path,
        missing: false,
        offset: 9,
        completed: false,
        cutBytes: 0,
        cut: new Uint8Array(),
      });
      const made = callsOn(port, path);
      for (const name of ["write", "truncate", "fsync"]) {
        assert.ok(!made.includes(name), name);
      }
      assert.equal(text(path), "1\nbroken\n");
    }));

  test(`${name}: a repair cuts and syncs, and tells what it has cut`, () =>
    fileWith('1\n{"a', async (path, directory) => {
      const port = new FaultPort();
      const report = await onPort(port, () => repair(path));
      assert.equal(decoder.decode(report.cut), '{"a');
      assert.equal(report.offset, 2);
      assert.equal(text(path), "1\n");
      const calls = callsOn(port, path);
      assert.ok(calls.lastIndexOf("fsync") > calls.indexOf("truncate"));
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${name}: a repair of a missing file says that it is missing, and makes nothing`, () =>
    inScratch(async (directory) => {
      for (const names of [["none"], ["no", "f"]]) {
        const path = join(directory, ...names);
        assert.deepEqual(await repair(path), {
          path,
          missing: true,
          offset: 0,
          completed: false,
          cutBytes: 0,
          cut: new Uint8Array(),
        });
      }
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${name}: the end of a large file is found in bounded memory, however long its last line`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const record = `{"text":"${"x".repeat(200_000)}"}`;
      writeFileSync(path, `1\n${record}`);
      const whole = await append(path, [2]);
      assert.equal(whole.offset, record.length + 3);
      writeFileSync(path, `1\n${record.slice(0, -1)}`);
      const error = await rejection(append(path, [2]));
      assert.ok(error instanceof TornLineError && error.byteOffset === 2);
      // Zeros, as many as a crash may leave.
      writeFileSync(path, "1\n");
      truncateSync(path, 80 * 1024 * 1024);
      const port = new FaultPort();
      const report = await onPort(port, () => repair(path));
      assert.equal(report.offset, 2);
      assert.equal(report.cutBytes, 80 * 1024 * 1024 - 2);
      assert.equal(report.cut.length, 65536);
      for (const { name, args: [, into] } of port.calls) {
        if (name !== "read" || !(into instanceof Uint8Array)) continue;
        assert.ok(into.length <= 1024 * 1024);
      }
    }));

  for (const syscall of ["write", "fsync"] as const) {
    test(`${name}: a failed ${syscall} is taken back, and leaves no hole in the middle`, () =>
      fileWith("1\n", async (path) => {
        let failures = 1;
        const port = new FaultPort().intercept((call) => {
          const isMeant = call.name === syscall && failures > 0 &&
            statSync(path).size > 2;
          if (!isMeant) return undefined;
          failures--;
          return { code: "EIO" };
        }).shortenWrites(4);
        await onPort(port, async () => {
          const error = await rejection(append(path, [{ a: 2 }]));
          assert.ok(error instanceof AtomicError && error.code === "EIO");
          assert.equal(error.committed, false);
          assert.equal(text(path), "1\n");
          const calls = callsOn(port, path);
          assert.ok(calls.includes("truncate"));
          await append(path, [3]);
        });
        assert.equal(text(path), "1\n3\n");
      }));
  }

  test(`${name}: a full disk that takes a part leaves what was there`, () =>
    fileWith("1\n", async (path) => {
      let writes = 0;
      const port = new FaultPort().intercept(({ name, args }) => {
        if (name !== "write") return undefined;
        writes++;
        return writes === 1
          ? { args: [args[0], (args[1] as Uint8Array).subarray(0, 2)] }
          : { code: "ENOSPC" };
      });
      const error = await rejection(onPort(port, () => append(path, ["abc"])));
      assert.ok(error instanceof NoSpaceError && error.committed === false);
      assert.equal(text(path), "1\n");
      const nothing = new FaultPort().intercept(({ name }) =>
        name === "write" ? { result: 0 } : undefined
      );
      const short = await rejection(
        onPort(nothing, () => append(path, ["abc"])),
      );
      assert.ok(short instanceof AtomicError && short.code === "SHORT_WRITE");
      const lying = new FaultPort().intercept(({ name, args }) =>
        name === "write"
          ? { result: (args[1] as Uint8Array).length }
          : undefined
      );
      const lied = await rejection(onPort(lying, () => append(path, ["abc"])));
      assert.ok(lied instanceof AtomicError && lied.code === "SHORT_WRITE");
      assert.equal(text(path), "1\n");
    }));

  test(`${name}: after a failure that cannot be taken back nothing is appended until the file is written anew`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort().fail("fsync", "EIO", 1)
        .fail("truncate", "EIO", 1);
      await onPort(port, async () => {
        const error = await rejection(append(path, [2]));
        assert.ok(error instanceof AtomicError && error.code === "EIO");
        assert.equal(error.committed, "unknown");
        assert.match(error.message, /writeJsonlAtomic/);
        for (const again of [append(path, [3]), repair(path)]) {
          const refused = await rejection(again);
          assert.ok(refused instanceof AtomicError);
          assert.equal(refused.code, "BROKEN");
          assert.match(refused.message, /writeJsonlAtomic/);
        }
        assert.equal(text(path), "1\n2\n");
        await writeJsonlAtomic(path, readJsonlSync(path));
        await append(path, [3]);
      });
      assert.equal(text(path), "1\n2\n3\n");
    }));

  test(`${name}: a sync that may have lost what an earlier append left unsynced makes no room for more`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort().fail("fsync", "EIO", 1);
      await onPort(port, async () => {
        await append(path, [2], { durability: "none" });
        const error = await rejection(append(path, [3]));
        assert.ok(error instanceof AtomicError && error.committed === false);
        const refused = await rejection(append(path, [4]));
        assert.ok(refused instanceof AtomicError && refused.code === "BROKEN");
      });
      const healthy = new FaultPort();
      writeFileSync(`${path}2`, "1\n");
      await onPort(healthy, async () => {
        await append(`${path}2`, [2], { durability: "none" });
        await append(`${path}2`, [3]);
        healthy.fail("fsync", "EIO", 1);
        await rejection(append(`${path}2`, [4]));
        await append(`${path}2`, [5]);
      });
      assert.equal(text(`${path}2`), "1\n2\n3\n5\n");
    }));

  test(`${name}: the directory of a file is synced by the first append, and by that to another file of its name`, () =>
    fileWith("1\n", async (path, directory) => {
      const port = new FaultPort();
      const syncs = () =>
        port.calls.filter(({ name, args: [file] }) =>
          name === "fsync" && (file as { path: string }).path === directory
        ).length;
      await onPort(port, async () => {
        await append(path, [2]);
        assert.equal(syncs(), 1);
        await append(path, [3]);
        assert.equal(syncs(), 1);
        // It may get the same inode number.
        rmSync(path);
        writeFileSync(path, "1\n");
        await append(path, [2]);
        assert.equal(syncs(), 2);
        await append(path, [4], { durability: "ordered" });
        const ordered = new FaultPort();
        const receipt = await onPort(
          ordered,
          () => append(path, [5], { durability: "ordered" }),
        );
        assert.equal(receipt.fileSynced, true);
        assert.equal(receipt.directorySynced, false);
      });
      const failing = new FaultPort().intercept(({ name, args: [file] }) =>
        name === "fsync" && (file as { path: string }).path === directory
          ? { code: "EIO" }
          : undefined
      );
      await onPort(failing, async () => {
        const error = await rejection(append(path, [6]));
        assert.ok(error instanceof DurabilityError);
        const refused = await rejection(append(path, [7]));
        assert.ok(refused instanceof AtomicError && refused.code === "BROKEN");
      });
    }));

  test(`${name}: a file is synced where it is: in directories that were made unsynced, and again at another name`, () =>
    inScratch(async (directory) => {
      const made = join(directory, "made");
      const below = join(made, "below");
      const path = join(below, "f");
      const port = new FaultPort();
      const synced = async (body: () => Promise<unknown>) => {
        const from = port.calls.length;
        await body();
        return port.calls.slice(from).flatMap(({ name, args: [file] }) =>
          name === "fsync" ? [(file as { path: string }).path] : []
        );
      };
      await onPort(port, async () => {
        await writeJsonlAtomic(path, [1], { durability: "none" });
        assert.deepEqual(
          new Set(await synced(() => append(path, [2]))),
          new Set([path, below, made, directory]),
        );
        assert.deepEqual(await synced(() => append(path, [3])), [path]);
        const moved = join(made, "f");
        await moveAtomic(path, moved, { durability: "none" });
        assert.deepEqual(
          await synced(() => append(moved, [4])),
          [moved, made],
        );
        await moveAtomic(moved, path, { durability: "none" });
        await moveAtomic(path, moved, { durability: "none" });
        assert.deepEqual(
          await synced(() => append(moved, [5])),
          [moved, made],
        );
      });
    }));

  test(`${name}: what somebody else has appended behind it is not cut`, () =>
    fileWith("1\n", async (path) => {
      let failures = 1;
      const port = new FaultPort().intercept((call) => {
        if (call.name !== "fsync" || failures-- <= 0) return undefined;
        appendFileSync(path, "theirs\n");
        return { code: "EIO" };
      });
      const error = await rejection(onPort(port, () => append(path, [2])));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.committed, "unknown");
      assert.equal(text(path), "1\n2\ntheirs\n");
    }));

  test(`${name}: records that went to a file that was replaced meanwhile are an error`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort().intercept((call) => {
        if (call.name === "fsync" && !existsSync(`${path}2`)) {
          linkSync(path, `${path}2`);
          writeFileSync(`${path}3`, "other\n");
          renameSync(`${path}3`, path);
        }
        return undefined;
      });
      const error = await rejection(onPort(port, () => append(path, [2])));
      assert.ok(error instanceof AtomicError && error.code === "REPLACED");
      assert.equal(error.committed, "unknown");
      assert.equal(text(path), "other\n");
    }));

  test(`${name}: a file that is replaced before the first byte is opened anew`, () =>
    fileWith("1\n", async (path) => {
      let isReplaced = false;
      const port = new FaultPort().intercept((call) => {
        if (call.name === "openAppend" && !isReplaced) {
          isReplaced = true;
          writeFileSync(`${path}3`, "other\n");
          renameSync(`${path}3`, path);
        }
        return undefined;
      });
      await onPort(port, () => append(path, [2]));
      assert.equal(text(path), "other\n2\n");
    }));

  test(`${name}: a file that is made by somebody else meanwhile is appended to`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().intercept((call) => {
        if (call.name === "link" && call.args[1] === path) {
          writeFileSync(path, "theirs\n", { flag: "wx" });
        }
        return undefined;
      });
      const receipt = await onPort(port, () => append(path, [2]));
      assert.equal(receipt.created, false);
      assert.equal(text(path), "theirs\n2\n");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  for (const content of ["1\n", '{"a":1}', undefined]) {
    const kind = content === undefined
      ? "that makes its file"
      : `to ${JSON.stringify(content)}`;

    test(`${name}: any call of an append ${kind} may fail: earlier records stay, nothing stays open, committed tells the truth`, () =>
      inScratch(async (root) => {
        for (let index = 0;; index++) {
          const directory = join(root, `${index}`);
          mkdirSync(directory);
          const path = join(directory, "f");
          if (content !== undefined) writeFileSync(path, content);
          const port = new FaultPort().failNth(index, "EIO");
          const error = await onPort(
            port,
            () =>
              append(path, [2, 3], { lock: false }).then(
                () => undefined,
                (error) => error,
              ),
          );
          const failed = port.calls[index];
          if (failed === undefined) break;
          const opened = port.names.filter((name) =>
            ["open", "openAppend", "create"].includes(name)
          ).length;
          const isOpening = ["open", "openAppend", "create"]
            .includes(failed.name);
          assert.equal(
            port.names.filter((name) =>
              name === "close"
            ).length,
            opened - (isOpening ? 1 : 0),
            `${failed.name}: ${port.names}`,
          );
          const end = content?.endsWith("}") ? "\n2\n3\n" : "2\n3\n";
          const appended = `${content ?? ""}${end}`;
          const now = existsSync(path) ? text(path) : undefined;
          if (error === undefined) {
            assert.equal(now, appended);
            continue;
          }
          assert.ok(error instanceof AtomicError, String(error));
          if (error.committed === "unknown") {
            assert.equal(failed.name, "link");
            continue;
          }
          assert.equal(now, error.committed ? appended : content);
          if (error.committed === true) {
            assert.ok(error instanceof DurabilityError);
          }
        }
      }));
  }

  test(`${name}: a stop before any call of an append leaves earlier records, and at most a torn line`, () =>
    inScratch(async (root) => {
      for (let index = 0;; index++) {
        const path = join(root, `${index}`);
        writeFileSync(path, "1\n");
        const port = new FaultPort().shortenWrites(3).cutPowerAt(index);
        const stopped = await onPort(
          port,
          () =>
            append(path, ["two", "three"], { lock: false }).then(
              () => undefined,
              (error) => error,
            ),
        );
        const now = text(path);
        assert.ok('1\n"two"\n"three"\n'.startsWith(now), now);
        if (stopped === undefined) break;
        assert.ok(
          stopped instanceof PowerCut || stopped.cause instanceof PowerCut,
          String(stopped),
        );
        await repair(path, { lock: false });
        await append(path, [4], { lock: false });
        const records = [...readJsonlSync(path)];
        assert.equal(records[0], 1);
        assert.equal(records.at(-1), 4);
      }
    }));

  test(`${name}: records are encoded before the disk is touched`, () =>
    fileWith("1\n", async (path) => {
      const port = new FaultPort();
      await onPort(port, async () => {
        const cyclic: unknown[] = [];
        cyclic.push(cyclic);
        const lossy = append(path, [1, { a: NaN }], { onLossy: "error" });
        for (const pending of [append(path, [2, cyclic]), lossy]) {
          const error = await rejection(pending);
          assert.ok(error instanceof SerializationError);
          assert.match(error.message, /at \$\[1\]/);
        }
        const reason = new RangeError("from the source");
        function* source() {
          yield 1;
          throw reason;
        }
        assert.equal(await rejection(append(path, source())), reason);
        for (const records of ["text", new Map(), new Uint8Array(3), 7, null]) {
          const error = await rejection(
            append(path, records as Iterable<unknown>),
          );
          assert.ok(error instanceof TypeError);
        }
        for (
          const options of [
            { symlinks: "replace" },
            { mode: 0o600 },
            { createNew: true },
          ]
        ) {
          const error = await rejection(
            append(path, [1], options as JsonlAppendOptions),
          );
          assert.ok(error instanceof TypeError);
        }
      });
      assert.deepEqual(port.calls, []);
      await append(path, [{ b: 1, a: 2 }], { sortKeys: true });
      await append(path, [{ b: 1, a: 2 }], { replacer: ["a"] });
      assert.equal(text(path), '1\n{"a":2,"b":1}\n{"a":2}\n');
    }));

  test(`${name}: links are followed, or refused`, () =>
    fileWith("1\n", async (path, directory) => {
      const link = join(directory, "link");
      symlinkSync(path, link);
      assert.equal((await append(link, [2])).path, path);
      const error = await rejection(append(link, [3], { symlinks: "reject" }));
      assert.ok(error instanceof AtomicError && error.code === "ELOOP");
      assert.equal(text(path), "1\n2\n");
      const dangling = join(directory, "dangling");
      symlinkSync(join(directory, "new"), dangling);
      await append(dangling, [1]);
      assert.equal(text(join(directory, "new")), "1\n");
      assert.ok(await rejection(append(directory, [1])));
    }));

  test(`${name}: an append waits for the lock, uses one that is held, and heeds one that is lost`, () =>
    fileWith("1\n", async (path, directory) => {
      const lock = await acquireLock(path);
      const options = { lock: { timeoutMs: 10 } };
      for (
        const call of [
          () => append(path, [2], options),
          () => repair(path, options),
        ]
      ) {
        assert.ok(await rejection(call()) instanceof LockTimeoutError);
      }
      await append(path, [2], { lock });
      await repair(path, { lock });
      renameSync(join(directory, ".f.lock"), join(directory, "gone"));
      const error = await rejection(append(path, [3], { lock }));
      assert.ok(error instanceof AtomicError && error.code === "LOCK_LOST");
      await lock.release();
      assert.equal(text(path), "1\n2\n");
      assert.equal(await isLocked(path), false);
    }));

  test(
    `${name}: what a stranger has put into a directory that everybody can write to is not appended to`,
    {
      skip: process.getuid?.() !== 0,
    },
    () =>
      fileWith("1\n", async (path, directory) => {
        chownSync(path, 1234, 1234);
        await append(path, [2]);
        // Not by every Bun.
        execFileSync("chmod", ["1777", directory]);
        const error = await rejection(append(path, [3]));
        assert.ok(error instanceof AtomicError && error.code === "EACCES");
        assert.match(error.message, /uid 1234/);
        assert.equal(text(path), "1\n2\n");
        chownSync(path, 0, 0);
        await append(path, [3]);
        assert.equal(text(path), "1\n2\n3\n");
      }),
  );

  test(`${name}: an aborted append leaves the file as it was`, () =>
    fileWith("1\n", async (path) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      const { signal } = controller;
      const port = new FaultPort().intercept((call) => {
        if (call.name === "openAppend") controller.abort(reason);
        return undefined;
      });
      const pending = onPort(port, () => append(path, [2], { signal }));
      assert.equal(await rejection(pending), reason);
      assert.equal(await rejection(append(path, [2], { signal })), reason);
      assert.equal(text(path), "1\n");
    }));
}

test("a hundred appends at once all land, in the order of their calls", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const options = { durability: "none" } as const;
    const receipts = await Promise.all(
      Array.from(
        { length: 100 },
        (_, index) => appendJsonl(path, [index, `${index}`], options),
      ),
    );
    assert.deepEqual(
      [...readJsonlSync(path)],
      Array.from({ length: 100 }, (_, index) => [index, `${index}`]).flat(),
    );
    assert.equal(receipts.filter(({ created }) => created).length, 1);
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("appends, writes and moves of one file keep their call order", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const lock = false;
    await Promise.all([
      writeJsonlAtomic(path, [0]).then(() => {}),
    ]);
    await Promise.all([
      appendJsonl(path, [1], { lock }),
      moveAtomic(path, `${path}.old`),
      appendJsonl(path, [2], { lock }),
      appendJsonl(`${path}.old`, [3], { lock }),
    ]);
    assert.equal(text(path), "2\n");
    assert.equal(text(`${path}.old`), "0\n1\n3\n");
  }));

test("an append that a synchronous write overtakes is refused, and a synchronous one does not overtake", () =>
  fileWith("1\n", async (path) => {
    const lock = false;
    const appended = rejection(appendJsonl(path, [2], { lock }));
    writeTextAtomicSync(path, "newest");
    const error = await appended;
    assert.ok(error instanceof AtomicError && error.code === "SUPERSEDED");
    assert.equal(text(path), "newest\n");
    writeFileSync(path, "1\n");
    const pending = appendJsonl(path, [2], { lock });
    assert.throws(
      () => appendJsonlSync(path, [3], { lock }),
      (error) => error instanceof AtomicError && error.code === "PENDING",
    );
    await pending;
    assert.equal(text(path), "1\n2\n");
    const locked = appendJsonl(path, [3]);
    assert.throws(() => appendJsonlSync(path, [4]), LockTimeoutError);
    await locked;
    assert.equal(text(path), "1\n2\n3\n");
  }));

test("under one held lock appends come one after the other", () =>
  fileWith("", async (path) => {
    await withLock(path, async (lock) => {
      await Promise.all(
        [1, 2, 3].map((record) => appendJsonl(path, [record], { lock })),
      );
    });
    assert.equal(text(path), "1\n2\n3\n");
  }));

test("withDefaults binds appends and repairs", () =>
  fileWith('{"a":1}', async (path) => {
    const bound = withDefaults({ durability: "none", sortKeys: true });
    assert.equal((await bound.repairJsonl(path)).completed, true);
    assert.equal(bound.repairJsonlSync(path).completed, false);
    const record = { b: 1, a: 2 };
    assert.equal((await bound.appendJsonl(path, [record])).fileSynced, false);
    bound.appendJsonlSync(path, [record]);
    const line = '{"a":2,"b":1}\n';
    assert.equal(text(path), `{"a":1}\n${line}${line}`);
  }));

test("a last line that is too long to be parsed is appended to, completed or cut", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const long = "x".repeat(65 * 1024 * 1024);
    writeFileSync(path, `1\n["${long}"]`);
    const whole = statSync(path).size;
    truncateSync(path, whole + 100);
    const { completed, cutBytes } = await repairJsonl(path);
    assert.ok(completed);
    assert.equal(cutBytes, 100);
    truncateSync(path, whole);
    const { offset } = await appendJsonl(path, [2]);
    assert.equal(offset, whole + 1);
    truncateSync(path, whole - 1);
    const error = await rejection(appendJsonl(path, [2]));
    assert.ok(error instanceof TornLineError && error.byteOffset === 2);
    await repairJsonl(path);
    assert.equal(text(path), "1\n");
  }));

test("the end of a record is found without parsing it, however it comes in parts", () => {
  const records = [
    '{"a":["\\"",{"b":[]}],"ä":"\\\\"}',
    " \t[1, [2], {}] \r",
    '"a \\"string\\" with ]} 😀"',
    '\ufeff{"a":1}',
  ];
  const endOf = (bytes: Uint8Array<ArrayBuffer>, size: number) => {
    const scan = new RecordScan();
    for (let start = 0; start < bytes.length; start += size) {
      if (!scan.take(bytes.slice(start, start + size))) return "none";
    }
    return scan.end;
  };
  for (const record of records) {
    const bytes = new TextEncoder().encode(record);
    const behind = record.length - record.trimEnd().length;
    for (const size of [1, 3, bytes.length]) {
      assert.equal(endOf(bytes, size), bytes.length, record);
      for (let end = 0; end < bytes.length - behind; end++) {
        const found = endOf(bytes.slice(0, end), size);
        assert.equal(found, undefined, `${record} to ${end}`);
      }
      const zeros = Uint8Array.from([...bytes, 0, 0, 0]);
      assert.equal(endOf(zeros, size), bytes.length);
      for (const other of [[0, 0x20], [0x78], [0x20, 0x78]]) {
        assert.equal(
          endOf(Uint8Array.from([...bytes, ...other]), size),
          "none",
        );
      }
    }
  }
  // No UTF-8, and a zero inside.
  for (const other of [[0x5b, 0x22, 0xff], [0x5b, 0x31, 0x00]]) {
    assert.equal(endOf(Uint8Array.from(other), 1), "none");
  }
});
