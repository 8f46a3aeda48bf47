import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { AlreadyExistsError, AtomicError } from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

const needsRoot = process.getuid?.() === 0
  ? {}
  : { skip: "only root may give links away" };

/** The file or the link itself. */
function giveAway(path: string, uid: number, gid: number): void {
  execFileSync("chown", ["--no-dereference", `${uid}:${gid}`, path]);
}

/** By another program: Bun before 1.4 cannot set the sticky bit. */
function setMode(path: string, mode: number): void {
  execFileSync("chmod", [mode.toString(8), path]);
}

for (const form of FORMS) {
  test(`${form.name}: follow replaces the file behind a chain of links, and the links stay`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "a"));
      mkdirSync(join(directory, "b"));
      const file = join(directory, "b", "file");
      writeFileSync(file, "old");
      symlinkSync("../b/second", join(directory, "a", "first"));
      symlinkSync("file", join(directory, "b", "second"));
      const receipt = await form.writeText(
        join(directory, "a", "first"),
        "new",
      );
      assert.equal(receipt.path, file);
      assert.equal(receipt.created, false);
      assert.equal(readFileSync(file, "utf8"), "new\n");
      assert.equal(
        readlinkSync(join(directory, "a", "first")),
        "../b/second",
      );
    }));

  test(`${form.name}: follow creates what a dangling link points to, and its parents`, () =>
    inScratch(async (directory) => {
      const link = join(directory, "link");
      symlinkSync("deep/er/file", link);
      const receipt = await form.writeText(link, "new");
      assert.equal(receipt.path, join(directory, "deep", "er", "file"));
      assert.equal(receipt.created, true);
      assert.equal(lstatSync(link).isSymbolicLink(), true);
      assert.equal(readFileSync(link, "utf8"), "new\n");
    }));

  test(`${form.name}: follow resolves .. in a link from the directory that really holds it`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "real", "sub"), { recursive: true });
      symlinkSync("real/sub", join(directory, "short"));
      symlinkSync("../file", join(directory, "real", "sub", "link"));
      await form.writeText(join(directory, "short", "link"), "new");
      assert.equal(
        readFileSync(join(directory, "real", "file"), "utf8"),
        "new\n",
      );
    }));

  test(`${form.name}: a link to a directory is refused before anything is made for it`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "real"));
      for (
        const text of ["missing/", "missing/.", "missing/..", "real", "real/"]
      ) {
        const link = join(directory, "link");
        if (lstatSync(link, { throwIfNoEntry: false })) unlinkSync(link);
        symlinkSync(text, link);
        const error = await rejection(form.writeText(link, "new"));
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "EISDIR");
        assert.deepEqual(readdirSync(directory).toSorted(), ["link", "real"]);
      }
    }));

  test(`${form.name}: a link of the kernel, whose text is not where it leads, is refused`, async () => {
    const error = await rejection(form.writeText("/proc/self/cwd", "new"));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.code, "NOT_A_FILE");
    assert.match(error.message, /the kernel's link to an open file/);
  });

  test(`${form.name}: a way through a name that is no UTF-8 is refused, not mistaken for another`, () =>
    inScratch(async (directory) => {
      const link = join(directory, "link");
      symlinkSync("caf\ufffd", link);
      await form.writeText(link, "its name does have that character", {
        symlinks: "replace",
      });
      unlinkSync(link);
      symlinkSync("x", link);
      for (const name of ["readlink", "realpath"] as const) {
        const port = new FaultPort().intercept((call) =>
          call.name === name ? { result: `${directory}/caf\ufffd` } : undefined
        );
        const error = await onPort(
          port,
          () => rejection(form.writeText(link, "new")),
        );
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "EILSEQ");
        assert.match(error.message, /bytes that are no UTF-8/);
        assert.ok(!port.names.includes("create"));
      }
    }));

  test(`${form.name}: links that lead in a circle are an error`, () =>
    inScratch(async (directory) => {
      symlinkSync("b", join(directory, "a"));
      symlinkSync("a", join(directory, "b"));
      const error = await rejection(
        form.writeText(join(directory, "a"), "new"),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ELOOP");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: replace puts the file in the link's place and leaves what it points to`, () =>
    inScratch(async (directory) => {
      const file = join(directory, "file");
      const link = join(directory, "link");
      writeFileSync(file, "old");
      symlinkSync("file", link);
      const receipt = await form.writeText(link, "new", {
        symlinks: "replace",
      });
      assert.equal(receipt.path, link);
      assert.equal(receipt.created, false);
      assert.equal(lstatSync(link).isFile(), true);
      assert.equal(readFileSync(link, "utf8"), "new\n");
      assert.equal(readFileSync(file, "utf8"), "old");
    }));

  test(`${form.name}: reject writes nothing through a link`, () =>
    inScratch(async (directory) => {
      const file = join(directory, "file");
      const link = join(directory, "link");
      writeFileSync(file, "old");
      symlinkSync("file", link);
      const error = await rejection(
        form.writeText(link, "new", { symlinks: "reject" }),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ELOOP");
      assert.match(error.message, /is a symbolic link/);
      assert.equal(readFileSync(file, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
      await form.writeText(file, "new", { symlinks: "reject" });
    }));

  test(`${form.name}: a link among the parents is followed under every policy`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "real"));
      symlinkSync("real", join(directory, "current"));
      for (const symlinks of ["follow", "replace", "reject"] as const) {
        const receipt = await form.writeText(
          join(directory, "current", symlinks),
          "new",
          { symlinks },
        );
        assert.equal(receipt.path, join(directory, "real", symlinks));
      }
    }));

  test(`${form.name}: a parent link that is turned elsewhere during the write cannot part it`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "one"));
      mkdirSync(join(directory, "two"));
      const current = join(directory, "current");
      symlinkSync("one", current);
      const port = new FaultPort();
      port.intercept(({ name }) => {
        if (name === "write") {
          port.sync.unlink(current);
          symlinkSync("two", current);
        }
        return undefined;
      });
      const receipt = await onPort(
        port,
        () => form.writeText(join(current, "f"), "new"),
      );
      assert.equal(receipt.path, join(directory, "one", "f"));
      assert.equal(readFileSync(receipt.path, "utf8"), "new\n");
      assert.deepEqual(leftovers(join(directory, "one")), []);
    }));

  test(
    `${form.name}: in a sticky world-writable directory a stranger's link is refused, one's own followed`,
    needsRoot,
    () =>
      inScratch(async (directory) => {
        const shared = join(directory, "shared");
        const victim = join(directory, "victim");
        mkdirSync(shared);
        setMode(shared, 0o1777);
        giveAway(shared, 1111, 1111);
        writeFileSync(victim, "old");
        const link = join(shared, "link");
        symlinkSync(victim, link);

        giveAway(link, 2222, 2222);
        const error = await rejection(form.writeText(link, "new"));
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "ELOOP");
        assert.match(error.message, /another user \(uid 2222\)/);
        assert.equal(readFileSync(victim, "utf8"), "old");
        assert.deepEqual(leftovers(shared), []);

        // Also where Deno's permissions leave only a spelling through a link.
        symlinkSync("shared", join(directory, "spelled"));
        const scoped = new FaultPort();
        scoped.permission = (_access, path) =>
          path === shared ? "missing" : "granted";
        const spelled = await onPort(
          scoped,
          () =>
            rejection(
              form.writeText(join(directory, "spelled", "link"), "new"),
            ),
        );
        assert.ok(spelled instanceof AtomicError);
        assert.equal(spelled.code, "ELOOP");

        for (const name of ["fstat", "close", "unlink"] as const) {
          const port = new FaultPort().fail(name, "EIO", 1);
          const failed = await onPort(
            port,
            () => rejection(form.writeText(link, "new")),
          );
          assert.ok(failed instanceof AtomicError);
          assert.equal(failed.syscall, name);
          const [left] = leftovers(shared);
          assert.equal(left === undefined, name !== "unlink");
          if (left === undefined) continue;
          assert.ok(failed.message.includes(left));
          rmSync(join(shared, left));
        }

        giveAway(link, 1111, 1111);
        await form.writeText(link, "by the directory's owner");
        giveAway(link, 0, 0);
        await form.writeText(link, "my own");
        assert.equal(readFileSync(victim, "utf8"), "my own\n");

        giveAway(link, 2222, 2222);
        setMode(shared, 0o777);
        await form.writeText(link, "not sticky");
        assert.equal(readFileSync(victim, "utf8"), "not sticky\n");
        assert.deepEqual(leftovers(shared), []);
      }),
  );

  test(`${form.name}: createNew rejects an existing file before anything is written, and a link to one`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      symlinkSync("f", join(directory, "link"));
      for (const name of ["f", "link"]) {
        const port = new FaultPort();
        const error = await onPort(
          port,
          () =>
            rejection(
              form.writeText(join(directory, name), "new", { createNew: true }),
            ),
        );
        assert.ok(error instanceof AlreadyExistsError);
        assert.equal(error.code, "EEXIST");
        assert.ok(!port.names.includes("create"));
      }
      assert.equal(readFileSync(path, "utf8"), "old");
    }));

  test(`${form.name}: createNew does not replace a file that appears while it writes`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort().intercept(({ name }) => {
        if (name === "write") writeFileSync(path, "theirs");
        return undefined;
      });
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "mine", { createNew: true })),
      );
      assert.ok(error instanceof AlreadyExistsError);
      assert.equal(error.committed, false);
      assert.equal(readFileSync(path, "utf8"), "theirs");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: createNew writes a new file under one name`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort();
      const receipt = await onPort(
        port,
        () => form.writeText(path, "new", { createNew: true, mode: 0o600 }),
      );
      assert.equal(receipt.created, true);
      assert.equal(lstatSync(path).nlink, 1);
      assert.equal(readFileSync(path, "utf8"), "new\n");
      assert.deepEqual(leftovers(directory), []);
      assert.ok(!port.names.includes("rename"));
    }));
}

test("of 20 concurrent createNew writers exactly one succeeds", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const [async] = FORMS;
    const outcomes = await Promise.allSettled(
      Array.from(
        { length: 20 },
        (_, index) => async?.writeText(path, `${index}`, { createNew: true }),
      ),
    );
    const won = outcomes.findIndex(({ status }) => status === "fulfilled");
    assert.equal(
      outcomes.filter(({ status }) => status === "fulfilled").length,
      1,
    );
    assert.equal(readFileSync(path, "utf8"), `${won}\n`);
    assert.ok(
      outcomes.every((outcome) =>
        outcome.status === "fulfilled" ||
        outcome.reason instanceof AlreadyExistsError
      ),
    );
    assert.equal(existsSync(path), true);
    assert.deepEqual(leftovers(directory), []);
  }));
