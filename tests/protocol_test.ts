import assert from "node:assert/strict";
import {
  existsSync,
  linkSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  AtomicError,
  DurabilityError,
  NoSpaceError,
  writeTextAtomic,
} from "../mod.ts";
import { FaultPort, onPort, PowerCut } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

const REPLACE = [
  "realpath",
  "lstat",
  // Has it a checksum?
  "access",
  "access",
  "create",
  "fstat",
  "open",
  "write",
  "fstat",
  "fsync",
  "close",
  "rename",
  "fsync",
  "close",
];

for (const form of FORMS) {
  test(`${form.name}: the protocol makes its system calls in this order and no other`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const port = new FaultPort();
      await onPort(port, () => form.writeText(path, "new"));
      assert.deepEqual(port.names, REPLACE);
      const created = port.calls.find(({ name }) => name === "create")?.args[0];
      const renamed = port.calls.findIndex(({ name }) => name === "rename");
      assert.deepEqual(port.calls[renamed]?.args, [created, path]);
      const later = port.calls.slice(renamed + 1);
      assert.ok(!JSON.stringify(later).includes(String(created)));
    }));

  test(`${form.name}: ordered leaves the directory unsynced, none the file too, and the receipt says so`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort();
      await onPort(port, async () => {
        const full = await form.writeText(path, "1");
        assert.equal(full.fileSynced, true);
        assert.equal(full.directorySynced, true);
        assert.equal(port.names.filter((name) => name === "fsync").length, 2);
        port.calls.length = 0;
        const ordered = await form.writeText(path, "2", {
          durability: "ordered",
        });
        assert.equal(ordered.fileSynced, true);
        assert.equal(ordered.directorySynced, false);
        assert.equal(port.names.filter((name) => name === "fsync").length, 1);
        port.calls.length = 0;
        const none = await form.writeText(path, "3", { durability: "none" });
        assert.equal(none.fileSynced, false);
        assert.equal(none.directorySynced, false);
        assert.ok(!port.names.includes("fsync"));
      });
      assert.equal(readFileSync(path, "utf8"), "3\n");
    }));

  test(`${form.name}: power cut before any call leaves the old content or the new, whole`, () =>
    inScratch(async (directory) => {
      for (let index = 0;; index++) {
        const path = join(directory, `f${index}`);
        writeFileSync(path, "old");
        const port = new FaultPort().cutPowerAt(index);
        const outcome = await onPort(
          port,
          () => form.writeText(path, "new").catch((error) => error),
        );
        const content = readFileSync(path, "utf8");
        if (!(outcome instanceof Error)) {
          assert.equal(index, REPLACE.length);
          assert.equal(content, "new\n");
          break;
        }
        assert.ok(outcome.cause instanceof PowerCut);
        const committed = index > REPLACE.indexOf("rename");
        assert.equal(content, committed ? "new\n" : "old", `call ${index}`);
      }
    }));

  test(`${form.name}: any call failing once leaves no temporary file, and committed tells the truth`, () =>
    inScratch(async (directory) => {
      for (let index = 0; index < REPLACE.length; index++) {
        const path = join(directory, `f${index}`);
        writeFileSync(path, "old");
        const port = new FaultPort().failNth(index, "EIO");
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new")),
        );
        assert.ok(error instanceof AtomicError, `call ${index}`);
        assert.equal(error.code, "EIO");
        assert.equal(error.path, path);
        assert.equal(error.syscall, REPLACE[index]);
        const rename = REPLACE.indexOf("rename");
        assert.equal(
          error.committed,
          index < rename ? false : index === rename ? "unknown" : true,
        );
        assert.equal(error instanceof DurabilityError, index > rename);
        assert.equal(
          readFileSync(path, "utf8"),
          index > rename ? "new\n" : "old",
        );
        assert.deepEqual(leftovers(directory), []);
        const opened = port.names.filter((name) =>
          name === "open" || name === "create"
        ).length - (["open", "create"].includes(REPLACE[index] ?? "") ? 1 : 0);
        const closed = port.names.filter((name) =>
          name === "close"
        ).length;
        assert.equal(closed, opened, `handles at call ${index}`);
      }
    }));

  test(`${form.name}: short writes are continued until every byte is taken`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().shortenWrites(3);
      const receipt = await onPort(
        port,
        () => form.writeText(path, "0123456789"),
      );
      assert.equal(readFileSync(path, "utf8"), "0123456789\n");
      assert.equal(receipt.bytes, 11);
      assert.equal(port.names.filter((name) => name === "write").length, 4);
    }));

  test(`${form.name}: a write that takes nothing is an error, not a loop`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const port = new FaultPort().shortenWrites(0);
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "SHORT_WRITE");
      assert.equal(error.committed, false);
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: bytes that the system claims to have written but has not stop the write before the rename`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const port = new FaultPort().intercept(({ name }) =>
        name === "write" ? { result: 4 } : undefined
      );
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "SHORT_WRITE");
      assert.ok(!port.names.includes("rename"));
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: bytes whose buffer is given away during the write are an error, not a shorter file`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const bytes = new Uint8Array(1000);
      let writes = 0;
      const port = new FaultPort().intercept(({ name, args: [file] }) => {
        if (name !== "write") return undefined;
        if (writes++ === 1) {
          structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
        }
        return { args: [file, new Uint8Array(100)] };
      });
      const error = await onPort(
        port,
        () => rejection(form.writeBytes(path, bytes)),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "SHORT_WRITE");
      assert.match(
        error.message,
        /the bytes were changed after the call: there were/,
      );
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: once the new content is in place its temporary name is not touched, whatever fails`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (let after = 0; after < 2; after++) {
        let isRenamed = false;
        let calls = 0;
        const port = new FaultPort().intercept(({ name }) => {
          if (isRenamed && calls++ === after) return { code: "EIO" };
          isRenamed ||= name === "rename";
          return undefined;
        });
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new")),
        );
        assert.ok(error instanceof DurabilityError);
        const rename = port.names.indexOf("rename");
        const [temporary] = port.calls[rename]?.args ?? [];
        for (const { args } of port.calls.slice(rename + 1)) {
          assert.ok(!args.includes(temporary));
        }
      }
    }));

  test(`${form.name}: a disk that fills up half-way keeps the old content`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      let writes = 0;
      const port = new FaultPort().intercept(
        ({ name, args: [file, bytes] }) => {
          if (name !== "write" || !(bytes instanceof Uint8Array)) {
            return undefined;
          }
          return writes++ === 0
            ? { args: [file, bytes.subarray(0, 2)] }
            : { code: "ENOSPC" };
        },
      );
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof NoSpaceError);
      assert.equal(error.code, "ENOSPC");
      assert.equal(error.committed, false);
      assert.match(error.message, /^Cannot write ".*f": no space is left/);
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: a failed fsync is never repeated on the same file`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const port = new FaultPort().fail("fsync", "EIO", 1);
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.syscall, "fsync");
      assert.equal(port.names.filter((name) => name === "fsync").length, 1);
      assert.ok(!port.names.includes("rename"));
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: a link planted at the very name of the temporary file is not followed`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const victim = join(directory, "victim");
      writeFileSync(victim, "untouched");
      const port = new FaultPort();
      const uuid = "00000000-0000-4000-8000-000000000000";
      port.uuids.push(uuid, uuid);
      const planted = join(directory, `.f.${port.pid}.${uuid}.tmp`);
      symlinkSync(victim, planted);
      await onPort(port, () => form.writeText(path, "new"));
      assert.equal(port.names.filter((name) => name === "create").length, 3);
      assert.equal(readFileSync(path, "utf8"), "new\n");
      assert.equal(readFileSync(victim, "utf8"), "untouched");
      assert.deepEqual(leftovers(directory), [`.f.${port.pid}.${uuid}.tmp`]);
    }));

  test(`${form.name}: a random source that always repeats itself is an error, not a loop`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().fail("create", "EEXIST");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "EEXIST");
      assert.equal(existsSync(path), false);
    }));

  test(`${form.name}: a temporary file that cannot be removed is named in the error`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().fail("fsync", "EIO").fail("unlink", "EROFS");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      const [leftover = ""] = leftovers(directory);
      assert.ok(error.message.includes(leftover));
    }));

  test(`${form.name}: a temporary file that cannot be removed after a refusal is named too`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().shortenWrites(0).fail("unlink", "EROFS");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "SHORT_WRITE");
      const [leftover = ""] = leftovers(directory);
      assert.ok(leftover !== "" && error.message.includes(leftover));
    }));

  test(`${form.name}: where closing fails too, the first failure is told`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "f");
      const port = new FaultPort().fail("fsync", "ENOSPC").fail("close", "EIO");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof NoSpaceError);
      assert.equal(error.syscall, "fsync");
    }));

  test(`${form.name}: a rename whose answer was lost is unknown, and a link whose answer was lost is made`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      // A server that has done it, is asked again, and finds it done.
      const lost = (name: "rename" | "link", code: string) => {
        const port = new FaultPort();
        return port.intercept((call) => {
          if (call.name !== name) return undefined;
          const [from, to] = call.args as [string, string];
          (name === "rename" ? renameSync : linkSync)(from, to);
          return { code };
        });
      };
      const error = await onPort(
        lost("rename", "ENOENT"),
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.committed, "unknown");
      assert.equal(readFileSync(path, "utf8"), "new\n");
      const receipt = await onPort(
        lost("link", "EEXIST"),
        () => form.writeText(join(directory, "g"), "new", { createNew: true }),
      );
      assert.equal(receipt.created, true);
      assert.deepEqual(leftovers(directory), []);
      // With the temporary file still there, nothing was renamed.
      const refused = await onPort(
        new FaultPort().fail("rename", "ENOENT"),
        () => rejection(form.writeText(path, "newer")),
      );
      assert.ok(refused instanceof AtomicError);
      assert.equal(refused.committed, false);
    }));

  test(`${form.name}: a whole file of no bytes is written without a write call`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const receipt = await form.writeText(path, "");
      assert.equal(receipt.bytes, 0);
      assert.equal(readFileSync(path, "utf8"), "");
    }));

  test(`${form.name}: 40 MiB go through in bounded calls and come back the same`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const bytes = new Uint8Array(40 * 1024 * 1024);
      for (let i = 0; i < bytes.length; i += 4093) bytes[i] = i;
      const port = new FaultPort();
      await onPort(port, async () => {
        await form.writeBytes(path, bytes);
        assert.equal(port.names.filter((name) => name === "write").length, 3);
        const read = await form.readBytes(path);
        assert.ok(read.every((byte, index) => byte === bytes[index]));
        assert.equal(read.length, bytes.length);
      });
    }));
}

/** A port on which only so many files can be open at once. */
function portWithDescriptors(
  limit: number,
): { port: FaultPort; most(): number } {
  let open = 0;
  let most = 0;
  const port = new FaultPort().intercept(({ name }) => {
    if (name === "close") open--;
    if (name !== "open" && name !== "create") return undefined;
    if (open >= limit) return { code: "EMFILE" };
    most = Math.max(most, ++open);
    return undefined;
  });
  return { port, most: () => most };
}

test("a thousand writes at once hold at most two descriptors each of 64", () =>
  inScratch(async (directory) => {
    const { port, most } = portWithDescriptors(Infinity);
    await onPort(port, () =>
      Promise.all(
        Array.from({ length: 1000 }, (_, index) =>
          writeTextAtomic(join(directory, `f${index}`), "new", {
            durability: index % 2 === 0 ? "full" : "none",
          })),
      ));
    assert.ok(most() <= 128, `${most()}`);
    assert.deepEqual(leftovers(directory), []);
  }));

test("writers that have too few descriptors do not wait for each other's", () =>
  inScratch(async (directory) => {
    const { port, most } = portWithDescriptors(8);
    const receipts = await onPort(port, () =>
      Promise.all(
        Array.from(
          { length: 100 },
          (_, index) =>
            writeTextAtomic(join(directory, `f${index}`), "new", {
              retryMs: 10_000,
            }),
        ),
      ));
    assert.equal(receipts.length, 100);
    assert.equal(most(), 8);
    assert.ok(
      port.calls.filter(({ name }) => name === "sleep")
        .every(({ form }) => form === "async"),
    );
    assert.deepEqual(leftovers(directory), []);
  }));
