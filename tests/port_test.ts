import assert from "node:assert/strict";
import { readFileSync, readlinkSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { currentPort } from "../_runtime/current.ts";
import { NOT_CAPABLE, type SystemCalls } from "../_runtime/port.ts";
import { threadStartedAt } from "../_runtime/process.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

const port = currentPort();

type Calls = {
  readonly [Name in keyof SystemCalls]: (
    ...args: Parameters<SystemCalls[Name]>
  ) => ReturnType<SystemCalls[Name]> | Promise<ReturnType<SystemCalls[Name]>>;
};

const FORMS: readonly (readonly ["sync" | "async", Calls])[] = [
  ["sync", port.sync],
  ["async", port.async],
];

for (const [form, calls] of FORMS) {
  test(`${form}: each system call of the port does what it is named for`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "d", "f");
      await calls.mkdir(join(directory, "d"));
      const file = await calls.create(path, 0o640);
      assert.equal(file.path, path);
      const bytes = new TextEncoder().encode("0123456789");
      assert.equal(await calls.write(file, bytes.subarray(0, 4)), 4);
      assert.equal(await calls.write(file, bytes.subarray(4)), 6);
      await calls.fchmod(file, 0o600);
      const own = statSync(path);
      await calls.fchown(file, own.uid, own.gid);
      await calls.fsync(file);
      const { mtimeMs, birthMs, ...status } = await calls.fstat(file);
      assert.ok(Math.abs(Date.now() - mtimeMs) < 60_000);
      assert.ok(birthMs <= mtimeMs);
      assert.deepEqual(status, {
        kind: "file",
        size: 10,
        mode: 0o600,
        uid: own.uid,
        gid: own.gid,
        nlink: 1,
        dev: own.dev,
        ino: own.ino,
      });
      await calls.close(file);

      const reading = await calls.open(path);
      const room = new Uint8Array(7);
      assert.equal(await calls.read(reading, room), 7);
      assert.equal(await calls.read(reading, room), 3);
      assert.deepEqual(room.subarray(0, 3), bytes.subarray(7));
      assert.equal(await calls.read(reading, room), 0);
      await calls.close(reading);

      const appending = await calls.openAppend(path);
      assert.equal(await calls.read(appending, room, 8), 2);
      await calls.write(appending, bytes.subarray(0, 2));
      assert.equal(readFileSync(path, "utf8"), "012345678901");
      await calls.truncate(appending, 10);
      await calls.write(appending, bytes.subarray(0, 1));
      assert.equal(readFileSync(path, "utf8"), "01234567890");
      await calls.truncate(appending, 10);
      await calls.close(appending);

      await calls.link(path, join(directory, "g"));
      assert.equal((await calls.lstat(path)).nlink, 2);
      await calls.rename(join(directory, "g"), join(directory, "h"));
      symlinkSync("d", join(directory, "link"));
      const link = await calls.lstat(join(directory, "link"));
      assert.equal(link.kind, "symlink");
      assert.equal(
        await calls.readlink(join(directory, "link")),
        readlinkSync(join(directory, "link")),
      );
      assert.equal(
        await calls.realpath(join(directory, "link", "f")),
        path,
      );
      assert.equal(await calls.access(path), true);
      await calls.unlink(path);
      assert.equal(await calls.access(path), false);
      assert.equal(readFileSync(join(directory, "h"), "utf8"), "0123456789");

      const handle = await calls.open(directory);
      assert.equal((await calls.fstat(handle)).kind, "directory");
      await calls.fsync(handle);
      await calls.close(handle);
      assert.equal((await calls.lstat("/dev/null")).kind, "other");
      const before = port.now();
      await calls.sleep(5);
      assert.ok(port.now() - before >= 4);
    }));

  test(`${form}: a second process finds a lock that is held, and one that is free`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "lock");
      await calls.close(await calls.create(path, 0o600));
      const database = await calls.openDatabase(path);
      try {
        await calls.execute(database, "BEGIN EXCLUSIVE");
        await calls.execute(database, "PRAGMA user_version=1");
        assert.equal(await calls.lockElsewhere(path), "held");
        await calls.execute(database, "ROLLBACK");
        assert.equal(await calls.lockElsewhere(path), "free");
        const missing = join(directory, "missing", "lock");
        assert.equal(await calls.lockElsewhere(missing), undefined);
      } finally {
        await calls.closeDatabase(database);
      }
    }));

  test(`${form}: what fails has the code of its errno`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const code = async (call: () => unknown) =>
        port.errorCode(await rejection((async () => await call())()));
      assert.equal(await code(() => calls.open(path)), "ENOENT");
      await calls.close(await calls.create(path, 0o600));
      assert.equal(await code(() => calls.create(path, 0o600)), "EEXIST");
      assert.equal(await code(() => calls.mkdir(path)), "EEXIST");
      assert.equal(await code(() => calls.lstat(join(path, "x"))), "ENOTDIR");
      assert.equal(await code(() => calls.readlink(path)), "EINVAL");
      assert.equal(await code(() => calls.link(path, path)), "EEXIST");
      await calls.mkdir(join(directory, "d"));
      assert.equal(
        await code(() => calls.rename(path, join(directory, "d"))),
        "EISDIR",
      );
      // Writing through a handle that is open for reading.
      const reading = await calls.open(path);
      assert.equal(
        await code(() => calls.write(reading, new Uint8Array(1))),
        "EBADF",
      );
      await calls.close(reading);
    }));

  test(`${form}: on Deno, a handle that may not be asked is asked by its path`, () =>
    inScratch(async (directory) => {
      const { Deno } = globalThis as {
        Deno?: {
          FsFile: { prototype: Record<"stat" | "statSync", unknown> };
          errors: Record<"NotCapable" | "InvalidData", new () => Error>;
        };
      };
      // Nowhere else is a handle refused.
      if (Deno === undefined) return;
      const { prototype } = Deno.FsFile;
      const { stat, statSync } = prototype;
      const file = await calls.create(join(directory, "f"), 0o600);
      try {
        let thrown = new Deno.errors.NotCapable();
        prototype.statSync = prototype.stat = () => {
          throw thrown;
        };
        assert.equal((await calls.fstat(file)).kind, "file");
        thrown = new Deno.errors.InvalidData();
        const error = await rejection((async () => await calls.fstat(file))());
        assert.equal(error, thrown);
        assert.equal(port.errorCode(error), "EILSEQ");
        assert.equal(
          port.errorCode(new Deno.errors.NotCapable()),
          NOT_CAPABLE,
        );
      } finally {
        Object.assign(prototype, { stat, statSync });
        await calls.close(file);
      }
    }));
}

test("the host knows the process", () => {
  assert.equal(port.pid, process.pid);
  assert.equal(port.cwd(), process.cwd());
  assert.equal(port.windows, process.platform === "win32");
  assert.equal(port.permission("read", "/"), "granted");
  assert.notEqual(port.randomUUID(), port.randomUUID());
  assert.match(port.randomUUID(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-/);
  assert.equal(port.errorCode(new Error("no code")), undefined);
  assert.equal(port.errorCode("no error"), undefined);
});

test("a thread knows when it began, and says it as its process does where that is known", () => {
  const before = Date.now();
  const startedAt = threadStartedAt();
  assert.ok(startedAt < before && startedAt > before - 3_600_000);
  const told = port.startedAt();
  assert.ok(told === undefined || Math.abs(told - startedAt) < 1000);
});

test("an error without a name has that of its number", () => {
  if (process.platform !== "linux") return;
  const errors = "Deno" in globalThis
    ? [{ message: "Disk quota exceeded (os error 122)" }]
    : ["UNKNOWN", "Unknown system error -122", undefined].map((code) => ({
      message: "write",
      code,
      errno: -122,
    }));
  for (const error of errors) assert.equal(port.errorCode(error), "EDQUOT");
});

test("an error of another realm, as in a test runner's context, has its code", () => {
  const foreign = { message: "ENOENT: no such file", code: "ENOENT" };
  assert.equal(port.errorCode(foreign), "ENOENT");
  assert.equal(port.errorCode({ code: "ENOENT" }), undefined);
  assert.equal(port.errorCode("ENOENT"), undefined);
});
