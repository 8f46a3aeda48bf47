import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  AtomicError,
  NotFoundError,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

/** The paths that were synced, in order. */
function synced(port: FaultPort): string[] {
  return port.calls.filter(({ name }) => name === "fsync")
    .map(({ args: [file] }) => (file as { path: string }).path);
}

for (const form of FORMS) {
  test(`${form.name}: missing parents are made outermost first, each one's parent synced before the commit`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort();
      const path = join(directory, "a", "b", "c", "f");
      await onPort(port, () => form.writeText(path, "new"));
      assert.equal(readFileSync(path, "utf8"), "new\n");
      const made = port.calls.filter(({ name }) => name === "mkdir");
      assert.deepEqual(made.map(({ args: [made] }) => made), [
        join(directory, "a"),
        join(directory, "a", "b"),
        join(directory, "a", "b", "c"),
      ]);
      const [first, second, third, file, last] = synced(port);
      assert.deepEqual([first, second, third, last], [
        directory,
        join(directory, "a"),
        join(directory, "a", "b"),
        join(directory, "a", "b", "c"),
      ]);
      assert.match(file ?? "", /\.tmp$/);
    }));

  test(`${form.name}: parents are made without a sync where none is asked for`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort();
      await onPort(
        port,
        () =>
          form.writeText(join(directory, "a", "f"), "new", {
            durability: "none",
          }),
      );
      assert.deepEqual(synced(port), []);
    }));

  test(`${form.name}: a directory made without a sync is synced by the next write that must survive`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "b", "f");
      const port = new FaultPort();
      await onPort(port, async () => {
        await form.writeText(path, "1", { durability: "none" });
        await form.writeText(path, "2");
        const [b, a, file, target] = synced(port);
        assert.deepEqual([b, a, target], [
          join(directory, "a"),
          directory,
          join(directory, "a", "b"),
        ]);
        assert.match(file ?? "", /\.tmp$/);
        port.calls.length = 0;
        await form.writeText(path, "3");
        assert.equal(synced(port).length, 2);
      });
    }));

  test(`${form.name}: a parent that cannot be synced stops the write before anything is in place`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort().fail("fsync", "EIO", 1);
      const path = join(directory, "a", "f");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.committed, false);
      assert.equal(existsSync(path), false);
      const handles = port.names.filter((name) => name === "open").length;
      assert.equal(
        port.names.filter((name) => name === "close").length,
        handles,
      );
    }));

  test(`${form.name}: a parent that another writer makes first is used, and synced all the same`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort().intercept(({ name, args: [path] }) => {
        if (name === "mkdir") mkdirSync(String(path));
        return undefined;
      });
      const path = join(directory, "a", "f");
      await onPort(port, () => form.writeText(path, "new"));
      assert.equal(synced(port)[0], directory);
    }));

  test(`${form.name}: a parent that may not be made is an error, and is not taken for one that was`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "f");
      const refused = new FaultPort().fail("mkdir", "EACCES");
      const error = await onPort(
        refused,
        () => rejection(form.writeText(path, "new")),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "EACCES");
      mkdirSync(join(directory, "a"));
      const port = new FaultPort();
      await onPort(port, () => form.writeText(path, "new"));
      assert.equal(synced(port).length, 2);
    }));

  test(`${form.name}: where no ancestor exists it is an error, not a loop`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort().fail("realpath", "ENOENT");
      const error = await onPort(
        port,
        () => rejection(form.writeText(join(directory, "a", "f"), "new")),
      );
      assert.ok(error instanceof NotFoundError);
    }));

  test(`${form.name}: with parents false a missing directory is a NotFoundError, and nothing is made`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "f");
      const error = await rejection(
        form.writeText(path, "new", { parents: false }),
      );
      assert.ok(error instanceof NotFoundError);
      assert.equal(error.code, "ENOENT");
      assert.match(error.message, /parents: true/);
      assert.equal(existsSync(join(directory, "a")), false);
    }));

  test(`${form.name}: a file where a directory is needed is an error that says so`, () =>
    inScratch(async (directory) => {
      writeFileSync(join(directory, "file"), "old");
      const error = await rejection(
        form.writeText(join(directory, "file", "f"), "new"),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ENOTDIR");
      assert.equal(readFileSync(join(directory, "file"), "utf8"), "old");
    }));

  test(`${form.name}: a parent that is a dangling link is an error, not a loop`, () =>
    inScratch(async (directory) => {
      symlinkSync("nowhere", join(directory, "link"));
      const error = await rejection(
        form.writeText(join(directory, "link", "f"), "new"),
      );
      assert.ok(error instanceof NotFoundError);
    }));

  test(`${form.name}: names of up to 255 bytes are written, multi-byte ones too`, () =>
    inScratch(async (directory) => {
      for (
        const name of [
          "x".repeat(255),
          "é".repeat(127),
          "日".repeat(85),
          "😀".repeat(63),
          `a${"😀".repeat(63)}`,
          "x".repeat(143),
          "f",
        ]
      ) {
        const port = new FaultPort();
        const path = join(directory, name);
        await onPort(port, () => form.writeText(path, "new"));
        assert.equal(readFileSync(path, "utf8"), "new\n");
        const created = port.calls.find(({ name }) => name === "create");
        const temporary = String(created?.args[0]).slice(directory.length + 1);
        assert.ok(new TextEncoder().encode(temporary).length <= 255);
        assert.ok(temporary.isWellFormed());
      }
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: a name that is too long is an error before anything is made`, () =>
    inScratch(async (directory) => {
      const error = await rejection(
        form.writeText(join(directory, "x".repeat(256)), "new"),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ENAMETOOLONG");
    }));
}

test("a directory that another task removes and makes anew meanwhile is synced in its parent", () =>
  inScratch(async (directory) => {
    const made = join(directory, "a");
    mkdirSync(made);
    const port = new FaultPort();
    let isFirst = true;
    port.intercept(({ name, args: [path] }) => {
      if (name !== "create" || !String(path).includes(".first.") || !isFirst) {
        return undefined;
      }
      isFirst = false;
      rmSync(made, { recursive: true });
      writeTextAtomicSync(join(made, "second"), "2", { durability: "none" });
      return { code: "EMFILE" };
    });
    await onPort(port, () => writeTextAtomic(join(made, "first"), "1"));
    assert.ok(synced(port).includes(directory));
  }));

test("a writer into a directory that another one is making does not rely on that one's sync", () =>
  inScratch(async (directory) => {
    const made = join(directory, "a");
    const port = new FaultPort();
    await onPort(port, async () => {
      let second: Promise<unknown> | undefined;
      let isFirstSync = true;
      port.intercept(({ name, args: [file] }) => {
        const { path } = (file ?? {}) as { path?: string };
        if (name !== "fsync" || path !== directory || !isFirstSync) {
          return undefined;
        }
        isFirstSync = false;
        // The directory exists, and its maker waits for a slow disk.
        let isAtItsOwn = false;
        port.intercept(({ name, args: [path] }) => {
          if (name === "open" && path === directory) isAtItsOwn = true;
          return undefined;
        });
        second = writeTextAtomic(join(made, "second"), "2")
          .finally(() => isAtItsOwn = true);
        const slow = async () => {
          while (!isAtItsOwn) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
        };
        return { result: slow() };
      });
      await writeTextAtomic(join(made, "first"), "1");
      await second;
    });
    const paths = synced(port);
    const own = paths.findIndex((path) => path.includes(".second."));
    const parents = paths.slice(0, own).filter((path) => path === directory);
    assert.equal(parents.length, 2, "the maker's, and the other writer's own");
  }));
