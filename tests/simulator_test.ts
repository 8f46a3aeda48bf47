/**
 * The simulated machine behaves as the real one: what it says of crashes is
 * worth as much as that.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import * as fs from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { inScratch } from "./scratch.ts";
import { crashImages, type CrashModel } from "./sim/crash.ts";
import {
  Machine,
  PosixError,
  type Process as SimulatedProcess,
} from "./sim/posix.ts";
import { crashView, lookUp, written } from "./sim/view.ts";

const seed = Number(process.env.FC_SEED ?? 20261120);
const numRuns = Number(process.env.FC_RUNS ?? 300);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

// Against the real file system.

const aPath = fc.constantFrom(
  ..."a b d d/a d/b d/e d/e/a link link/a a/a dangling d/../a d/./b loop loop/a"
    .split(" "),
);

const anOperation = fc.oneof(
  fc.record({
    name: fc.constant("create" as const),
    path: aPath,
    text: fc.constantFrom("", "one", "three"),
    mode: fc.constantFrom(0o600, 0o644),
  }),
  fc.record({
    name: fc.constantFrom(
      "mkdir",
      "unlink",
      "lstat",
      "readlink",
      "realpath",
      "read",
    ),
    path: aPath,
  }),
  fc.record({
    name: fc.constantFrom("rename", "link", "symlink"),
    path: aPath,
    to: aPath,
  }),
);

type Operation = typeof anOperation extends fc.Arbitrary<infer T> ? T : never;

function outcomeOf(body: () => unknown): unknown {
  try {
    return body() ?? "ok";
  } catch (error) {
    const code = error instanceof PosixError
      ? error.code
      : error instanceof Error && "code" in error
      ? error.code
      : undefined;
    if (code === undefined) throw error;
    return code;
  }
}

function onRealDisk(root: string, operation: Operation): unknown {
  const path = join(root, "/") + operation.path;
  const { name } = operation;
  if ("text" in operation) {
    const file = fs.openSync(path, "wx", operation.mode);
    fs.writeSync(file, operation.text);
    return fs.closeSync(file);
  }
  if ("to" in operation) {
    if (name === "symlink") return fs.symlinkSync(operation.to, path);
    const to = join(root, "/") + operation.to;
    return name === "rename" ? fs.renameSync(path, to) : fs.linkSync(path, to);
  }
  switch (name) {
    case "mkdir":
      return fs.mkdirSync(path);
    case "unlink":
      return fs.unlinkSync(path);
    case "read":
      return fs.readFileSync(path, "utf8");
    case "readlink":
      return fs.readlinkSync(path);
    case "realpath":
      return fs.realpathSync.native(path).slice(root.length) || "/";
    default: {
      const status = fs.lstatSync(path);
      const { mode, nlink, size } = status;
      return status.isDirectory()
        ? `directory ${mode & 0o777}`
        : `${status.isFile() ? "file" : "symlink"} ${
          mode & 0o777
        } ${nlink} ${size}`;
    }
  }
}

function onSimulator(
  simulated: SimulatedProcess,
  operation: Operation,
): unknown {
  const path = `/${operation.path}`;
  const { name } = operation;
  if ("text" in operation) {
    const file = simulated.create(path, operation.mode);
    simulated.write(file, encoder.encode(operation.text));
    return simulated.close(file);
  }
  if ("to" in operation) {
    if (name === "symlink") return simulated.symlink(operation.to, path);
    const to = `/${operation.to}`;
    return name === "rename"
      ? simulated.rename(path, to)
      : simulated.link(path, to);
  }
  switch (name) {
    case "mkdir":
      return simulated.mkdir(path);
    case "unlink":
      return simulated.unlink(path);
    case "read":
      return read(simulated, path);
    case "readlink":
      return simulated.readlink(path);
    case "realpath":
      return simulated.realpath(path);
    default: {
      const { kind, mode, nlink, bytes, text } = simulated.lstat(path);
      return kind === "directory"
        ? `directory ${mode}`
        : `${kind} ${mode} ${nlink} ${
          kind === "file" ? bytes.length : text.length
        }`;
    }
  }
}

/** No protocol here does, and so neither does the simulator. */
function takesDirectory(
  simulated: SimulatedProcess,
  { name, path }: Operation,
): boolean {
  return (name === "rename" || name === "unlink") &&
    String(outcomeOf(() => onSimulator(simulated, { name: "lstat", path })))
      .startsWith("directory");
}

function read(simulated: SimulatedProcess, path: string): string {
  const file = simulated.open(path);
  try {
    const into = new Uint8Array(100);
    return decoder.decode(into.subarray(0, simulated.read(file, into)));
  } finally {
    simulated.close(file);
  }
}

test("random calls have the same outcome on the real file system and on the simulated one", () =>
  inScratch(async (directory) => {
    let count = 0;
    const umask = process.umask(0o022);
    try {
      await fc.assert(
        fc.asyncProperty(
          fc.array(anOperation, { minLength: 1, maxLength: 30 }),
          (operations) => {
            const root = join(directory, `${count++}`);
            fs.mkdirSync(root);
            const simulated = new Machine().start("tester", 1);
            const setup: Operation[] = [
              { name: "mkdir", path: "d" },
              { name: "symlink", path: "link", to: "d" },
              { name: "symlink", path: "dangling", to: "nowhere" },
              { name: "symlink", path: "loop", to: "loop" },
            ];
            for (const operation of [...setup, ...operations]) {
              if (takesDirectory(simulated, operation)) continue;
              assert.deepEqual(
                outcomeOf(() => onSimulator(simulated, operation)),
                outcomeOf(() => onRealDisk(root, operation)),
                JSON.stringify(operation),
              );
            }
            return Promise.resolve();
          },
        ),
        { seed, numRuns },
      );
    } finally {
      process.umask(umask);
    }
  }));

// What the real one is not asked for lightly.

function put(simulated: SimulatedProcess, path: string, text: string): void {
  const file = simulated.create(path, 0o644);
  simulated.write(file, encoder.encode(text));
  simulated.close(file);
}

function failure(code: string): (error: unknown) => boolean {
  return (error) => error instanceof PosixError && error.code === code;
}

test("an inode number is used again once nothing has the file any more, and not before", () => {
  const machine = new Machine();
  const one = machine.start("one", 1);
  put(one, "/a", "a");
  const { ino } = one.lstat("/a");
  const held = one.open("/a");
  one.unlink("/a");
  put(one, "/b", "b");
  assert.notEqual(one.lstat("/b").ino, ino);
  assert.equal(one.read(held, new Uint8Array(10)), 1);
  one.close(held);
  put(one, "/c", "c");
  assert.equal(one.lstat("/c").ino, ino);
  assert.notEqual(one.lstat("/c").id, held.inode.id);
});

test("a lock excludes other processes, until its own closes any descriptor of the file or is killed", () => {
  const machine = new Machine();
  const [one, two] = [machine.start("one", 1), machine.start("two", 2)];
  put(one, "/lock", "");
  const mine = one.open("/lock");
  const theirs = two.open("/lock");
  assert.ok(one.tryLock(mine));
  assert.ok(one.tryLock(mine));
  assert.ok(!two.tryLock(theirs));
  one.close(one.open("/lock"));
  assert.ok(two.tryLock(theirs));
  assert.ok(!one.tryLock(mine));
  two.kill();
  assert.ok(one.tryLock(mine));
});

test("a full disk takes a part, and then nothing; what is removed makes room once it is closed", () => {
  const machine = new Machine();
  const one = machine.start("one", 1);
  machine.limits.capacity = 5;
  const file = one.create("/a", 0o644);
  assert.equal(one.write(file, encoder.encode("123")), 3);
  assert.equal(one.write(file, encoder.encode("456")), 2);
  assert.throws(() => one.write(file, encoder.encode("6")), failure("ENOSPC"));
  one.unlink("/a");
  const other = one.create("/b", 0o644);
  assert.throws(() => one.write(other, encoder.encode("1")), failure("ENOSPC"));
  one.close(file);
  assert.equal(one.write(other, encoder.encode("1")), 1);
});

test("writes are short, names have a limit, descriptors too, and another file system is another device", () => {
  const machine = new Machine();
  machine.mount("other", 2);
  const one = machine.start("one", 1);
  machine.limits.writeBytes = 2;
  const file = one.create("/a", 0o644);
  assert.equal(one.write(file, encoder.encode("123")), 2);
  one.create(`/${"n".repeat(255)}`, 0o644);
  for (const name of ["n".repeat(256), "é".repeat(128)]) {
    assert.throws(() => one.create(`/${name}`, 0o644), failure("ENAMETOOLONG"));
  }
  machine.limits.descriptors = one.descriptors.size;
  assert.throws(() => one.open("/a"), failure("EMFILE"));
  assert.throws(() => one.rename("/a", "/other/a"), failure("EXDEV"));
  assert.throws(() => one.link("/a", "/other/a"), failure("EXDEV"));
});

test("permissions hold for users and not for root, and a sticky directory protects what others put there", () => {
  const machine = new Machine();
  const root = machine.start("root", 1);
  const user = machine.start("user", 2, 1000);
  const other = machine.start("other", 3, 2000);
  root.mkdir("/closed");
  root.mkdir("/tmp");
  const tmp = root.open("/tmp");
  root.chmod(tmp, 0o1777);
  assert.throws(() => user.create("/closed/a", 0o644), failure("EACCES"));
  put(user, "/tmp/mine", "mine");
  put(other, "/tmp/theirs", "theirs");
  assert.throws(() => other.unlink("/tmp/mine"), failure("EPERM"));
  assert.throws(
    () => other.rename("/tmp/theirs", "/tmp/mine"),
    failure("EPERM"),
  );
  const mine = user.open("/tmp/mine", { append: true });
  user.chmod(mine, 0o600);
  assert.throws(() => other.open("/tmp/mine"), failure("EACCES"));
  assert.throws(() => user.chown(mine, 2000, 2000), failure("EPERM"));
  assert.equal(read(root, "/tmp/mine"), "mine");
});

// After a crash.

const ALL = { changes: 10, images: 4096, random: Math.random };

/** What a crash may leave of a file, as texts. */
function remains(
  machine: Machine,
  path: string,
  model: CrashModel,
): Set<string> {
  const found = new Set<string>();
  for (const image of crashImages(machine.disk, model, ALL)) {
    const node = lookUp(crashView(image), path);
    found.add(node === undefined ? "absent" : decoder.decode(node.bytes));
  }
  return found;
}

function machineWith(
  text: string,
): { machine: Machine; one: SimulatedProcess } {
  const machine = new Machine();
  const one = machine.start("one", 1);
  put(one, "/f", text);
  machine.syncAll();
  return { machine, one };
}

test("what is not synced may be lost, whole, half, zeros or what was there before; what is synced is there", () => {
  const { machine, one } = machineWith("old!");
  const file = one.openToOverwrite("/f", 0o644);
  one.write(file, encoder.encode("news"));
  const any = remains(machine, "/f", "any");
  for (const text of ["old!", "", "news", "ne", "\0\0\0\0"]) {
    assert.ok(any.has(text), JSON.stringify(text));
  }
  assert.deepEqual(
    remains(machine, "/f", "ordered"),
    new Set(["old!", "", "ne", "news"]),
  );
  one.fsync(file);
  assert.deepEqual(remains(machine, "/f", "any"), new Set(["news"]));
});

test("a rename is there or not, and any of several without the others; a sync of its directory makes it last", () => {
  const { machine, one } = machineWith("old");
  put(one, "/t", "new");
  const file = one.open("/t", { append: true });
  one.fsync(file);
  one.rename("/t", "/f");
  put(one, "/u", "");
  assert.deepEqual(remains(machine, "/f", "any"), new Set(["old", "new"]));
  const withoutRename = [...crashImages(machine.disk, "any", ALL)].some(
    (image) => {
      const view = crashView(image);
      const text = lookUp(view, "/f")?.bytes;
      return text !== undefined && decoder.decode(text) === "old" &&
        lookUp(view, "/u") !== undefined;
    },
  );
  assert.ok(withoutRename);
  const inOrder = [...crashImages(machine.disk, "ordered", ALL)].map((image) =>
    lookUp(crashView(image), "/u") === undefined ||
    decoder.decode(lookUp(crashView(image), "/f")?.bytes) === "new"
  );
  assert.ok(inOrder.every(Boolean));
  const directory = one.open("/");
  one.fsync(directory);
  assert.deepEqual(remains(machine, "/f", "any"), new Set(["new"]));
});

test("after a sync that failed, another one does not bring the data to the disk", () => {
  const { machine, one } = machineWith("");
  const file = one.open("/f", { append: true });
  one.write(file, encoder.encode("new"));
  one.failSync(file);
  one.fsync(file);
  assert.equal(read(one, "/f"), "new");
  assert.deepEqual(remains(machine, "/f", "any"), new Set([""]));
});

test("a rename between directories may leave both names, and a sync of one of them settles its own", () => {
  const machine = new Machine();
  const one = machine.start("one", 1);
  for (const path of ["/a", "/b"]) one.mkdir(path);
  put(one, "/a/f", "text");
  machine.syncAll();
  one.rename("/a/f", "/b/f");
  const states = new Set(
    Array.from(crashImages(machine.disk, "any", ALL), (image) => {
      const view = crashView(image);
      return ["/a/f", "/b/f"].map((path) => lookUp(view, path) !== undefined)
        .join();
    }),
  );
  assert.deepEqual(
    states,
    new Set(["true,false", "true,true", "false,false", "false,true"]),
  );
  const directory = one.open("/b");
  one.fsync(directory);
  for (const image of crashImages(machine.disk, "any", ALL)) {
    assert.ok(lookUp(crashView(image), "/b/f") !== undefined);
  }
});

test("two states are written the same only where they are the same", () => {
  const { machine, one } = machineWith("old");
  const images = (model: CrashModel) =>
    new Set(
      Array.from(
        crashImages(machine.disk, model, ALL),
        (image) => written(crashView(image)),
      ),
    );
  assert.equal(images("any").size, 1);
  one.link("/f", "/g");
  assert.equal(images("any").size, 2);
  const file = one.open("/f", { append: true });
  one.chmod(file, 0o600);
  assert.equal(images("any").size, 4);
});
