import assert from "node:assert/strict";
import {
  existsSync,
  linkSync,
  lstatSync,
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
import { basename, dirname, join } from "node:path";
import { test } from "node:test";
import { withDefaults } from "../defaults.ts";
import {
  AlreadyExistsError,
  AtomicError,
  CrossDeviceError,
  DurabilityError,
  LockLostError,
  LockTimeoutError,
  NotFoundError,
  UnsupportedEnvironmentError,
} from "../errors.ts";
import { acquireLock, isLocked, type Lock, withLock } from "../lock.ts";
import {
  moveAtomic,
  moveAtomicSync,
  type MoveOptions,
  type MoveReceipt,
} from "../move.ts";
import { currentPort } from "../_runtime/current.ts";
import type { OpenFile } from "../_runtime/port.ts";
import { readText, writeTextAtomic, writeTextAtomicSync } from "../text.ts";
import { FaultPort, onPort, PowerCut } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

type Move = (
  from: string,
  to: string,
  options?: MoveOptions,
) => Promise<MoveReceipt>;

const FORMS: readonly { readonly name: string; readonly move: Move }[] = [
  { name: "async", move: moveAtomic },
  {
    name: "sync",
    move: (...args) =>
      new Promise((resolve) => resolve(moveAtomicSync(...args))),
  },
];

/** What a file holds, if it is there. */
function text(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

/** Directories with a file to move in the first. */
async function between<T>(
  body: (from: string, to: string, directory: string) => Promise<T>,
): Promise<T> {
  return await inScratch(async (directory) => {
    mkdirSync(join(directory, "a"));
    mkdirSync(join(directory, "b"));
    const from = join(directory, "a", "f");
    writeFileSync(from, "content");
    return await body(from, join(directory, "b", "g"), directory);
  });
}

/** Calls that only look. */
const LOOKS = ["access", "lstat", "realpath", "fstat"];

function changes(port: FaultPort): string[] {
  return port.names.filter((name) => !LOOKS.includes(name));
}

for (const { name, move } of FORMS) {
  test(`${name}: a move gives the file its new name and takes the old one`, () =>
    between(async (from, to, directory) => {
      const { ino } = statSync(from);
      const receipt = await move(from, to);
      assert.deepEqual(receipt, {
        from,
        to,
        bytes: 7,
        fileSynced: true,
        directorySynced: true,
        replaced: false,
      });
      assert.equal(text(to), "content");
      assert.equal(statSync(to).ino, ino);
      assert.equal(existsSync(from), false);
      const deep = join(directory, "b", "c", "d", "h");
      await move(to, deep, { overwrite: true });
      assert.equal(text(deep), "content");
      assert.deepEqual(readdirSync(join(directory, "b")), ["c"]);
    }));

  test(`${name}: a move syncs the file first, then links, syncs, unlinks and syncs`, () =>
    between(async (from, to) => {
      const port = new FaultPort();
      await onPort(port, () => move(from, to));
      const synced = port.calls.filter(({ name }) => name === "fsync")
        .map(({ args: [file] }) => (file as { path: string }).path);
      assert.deepEqual(synced, [from, join(to, ".."), join(from, "..")]);
      assert.deepEqual(changes(port), [
        ...["open", "open", "open", "fsync", "close"],
        ...["link", "fsync", "unlink", "fsync", "close", "close"],
      ]);
    }));

  test(`${name}: a move that overwrites renames, and syncs both directories, that of the new name first`, () =>
    between(async (from, to) => {
      writeFileSync(to, "old");
      const port = new FaultPort();
      const receipt = await onPort(
        port,
        () => move(from, to, { overwrite: true }),
      );
      assert.equal(receipt.replaced, true);
      assert.equal(text(to), "content");
      assert.deepEqual(changes(port), [
        ...["open", "open", "open", "fsync", "close"],
        ...["rename", "fsync", "fsync", "close", "close"],
      ]);
      const synced = port.calls.filter(({ name }) => name === "fsync")
        .map(({ args: [file] }) => (file as { path: string }).path);
      assert.deepEqual(synced, [from, join(to, ".."), join(from, "..")]);
    }));

  test(`${name}: within one directory that is synced once after a rename`, () =>
    between(async (from) => {
      const port = new FaultPort();
      await onPort(port, () => move(from, `${from}2`, { overwrite: true }));
      assert.deepEqual(changes(port), [
        ...["open", "open", "fsync", "close", "rename", "fsync", "close"],
      ]);
    }));

  test(`${name}: durability says what is synced, and the receipt repeats it`, () =>
    between(async (from, to) => {
      const port = new FaultPort();
      const none = await onPort(
        port,
        () => move(from, to, { durability: "none" }),
      );
      assert.ok(!port.names.includes("fsync"));
      assert.equal(none.fileSynced, false);
      assert.equal(none.directorySynced, false);
      const other = new FaultPort();
      const ordered = await onPort(
        other,
        () => move(to, from, { durability: "ordered" }),
      );
      assert.equal(ordered.fileSynced, true);
      assert.equal(ordered.directorySynced, false);
      // The link must be on the disk before the old name is taken away.
      assert.deepEqual(
        changes(other).slice(-6),
        ["fsync", "close", "link", "fsync", "unlink", "close"],
      );
    }));

  test(`${name}: nothing is overwritten unless it is asked for`, () =>
    between(async (from, to, directory) => {
      writeFileSync(to, "old");
      const error = await rejection(move(from, to));
      assert.ok(error instanceof AlreadyExistsError);
      assert.match(error.message, /overwrite: true/);
      assert.match(error.message, new RegExp(`^Cannot move "${from}" to "`));
      assert.equal(error.path, from);
      assert.equal(text(from), "content");
      assert.equal(text(to), "old");
      mkdirSync(join(directory, "d"));
      for (const overwrite of [false, true]) {
        assert.ok(
          await rejection(move(from, join(directory, "d"), { overwrite })),
        );
      }
      assert.equal(text(from), "content");
    }));

  test(`${name}: what comes to the new name meanwhile is not overwritten`, () =>
    between(async (from, to) => {
      const port = new FaultPort().intercept((call) => {
        if (call.name === "fsync" && !existsSync(to)) {
          writeFileSync(to, "faster");
        }
        return undefined;
      });
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof AlreadyExistsError);
      assert.equal(error.committed, false);
      assert.equal(text(to), "faster");
      assert.equal(text(from), "content");
    }));

  test(`${name}: what is no file is refused before anything is done`, () =>
    between(async (from, to, directory) => {
      const port = new FaultPort();
      const new_ = join(directory, "c", "g");
      symlinkSync(from, join(directory, "link"));
      const found = await onPort(port, async () => [
        await rejection(move(join(directory, "a"), new_)),
        await rejection(move(join(directory, "link"), new_)),
        await rejection(move(join(directory, "none"), new_)),
        await rejection(move(join(directory, "none", "f"), new_)),
        await rejection(move(from, from)),
        await rejection(move(from, join(directory, "b", "..", "a", "f"))),
      ]);
      assert.deepEqual(
        found.map((error) => error instanceof AtomicError && error.code),
        ["EISDIR", "ELOOP", "ENOENT", "ENOENT", "SAME_FILE", "SAME_FILE"],
      );
      assert.ok(found[2] instanceof NotFoundError);
      assert.deepEqual(changes(port), []);
      assert.equal(text(from), "content");
      assert.equal(existsSync(to), false);
    }));

  test(`${name}: two names of one file are not moved onto each other, however they are spelled`, () =>
    between(async (from, to) => {
      const same = async (one: string, other: string) => {
        for (const overwrite of [false, true]) {
          const error = await rejection(move(one, other, { overwrite }));
          assert.ok(error instanceof AtomicError);
          assert.equal(error.code, "SAME_FILE");
          assert.equal(text(from), "content");
        }
      };
      await same(from, join(dirname(from), ".", basename(from)));
      await same(from, `${dirname(from)}/missing/../${basename(from)}`);
      linkSync(from, to);
      await same(from, to);
      await same(to, from);
      assert.equal(text(to), "content");
    }));

  test(`${name}: a name that is the only one is not removed, whoever has taken the other`, () =>
    between(async (from, to) => {
      let isLinked = false;
      const port = new FaultPort().intercept(({ name, args: [path] }) => {
        if (name === "link") isLinked = true;
        // Between the link and the last look.
        if (isLinked && name === "lstat" && path === from) {
          isLinked = false;
          unlinkSync(to);
        }
        return undefined;
      });
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "CHANGED");
      assert.equal(error.committed, "unknown");
      assert.equal(text(from), "content");
    }));

  test(`${name}: of two that move one file to two names, one has it`, () =>
    between(async (from, to) => {
      const other = `${to}2`;
      let isLinked = false;
      const port = new FaultPort().intercept(({ name, args: [path] }) => {
        if (name === "link") isLinked = true;
        if (isLinked && name === "lstat" && path === from) {
          isLinked = false;
          renameSync(from, other);
        }
        return undefined;
      });
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof NotFoundError);
      assert.equal(error.committed, false);
      assert.equal(existsSync(to), false);
      assert.equal(text(other), "content");
    }));

  test(`${name}: what has changed since it was looked at is not moved, nor taken for something else`, () =>
    between(async (from, to) => {
      const changing = (change: () => void) => {
        let synced = 0;
        return new FaultPort().intercept(({ name, args: [path] }) => {
          // The last looks for a checksum; the first were at the call.
          if (name === "access" && `${path}`.startsWith(to) && synced++ === 3) {
            change();
          }
          return undefined;
        });
      };
      const replaced = changing(() => {
        writeFileSync(`${from}2`, "newer");
        renameSync(`${from}2`, from);
      });
      const error = await rejection(onPort(replaced, () => move(from, to)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "CHANGED");
      assert.equal(error.committed, false);
      const linked = changing(() => linkSync(from, to));
      const overwrite = { overwrite: true };
      const same = await rejection(
        onPort(linked, () => move(from, to, overwrite)),
      );
      assert.ok(same instanceof AtomicError);
      assert.equal(same.code, "SAME_FILE");
      unlinkSync(to);
      const made = changing(() => writeFileSync(to, "made"));
      const receipt = await onPort(made, () => move(from, to, overwrite));
      assert.equal(receipt.replaced, true);
      assert.equal(text(to), "newer");
    }));

  test(`${name}: where the old name may not be removed, the new one is taken back`, () =>
    between(async (from, to) => {
      const port = new FaultPort().intercept(({ name, args: [path] }) =>
        name === "unlink" && path === from ? { code: "EACCES" } : undefined
      );
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "EACCES");
      assert.equal(error.committed, false);
      assert.equal(existsSync(to), false);
      assert.equal(text(from), "content");
    }));

  test(`${name}: a file whose sync has failed is not moved, until it is another one`, () =>
    between(async (from, to) => {
      const port = new FaultPort().fail("fsync", "EIO", 1);
      await onPort(port, async () => {
        await rejection(move(from, to));
        const again = await rejection(move(from, to));
        assert.ok(again instanceof AtomicError);
        assert.equal(again.code, "BROKEN");
        writeFileSync(`${from}2`, "anew");
        renameSync(`${from}2`, from);
        await move(from, to);
      });
      assert.equal(text(to), "anew");
    }));

  test(`${name}: a file is never copied to another file system`, () =>
    between(async (from, to) => {
      for (const overwrite of [false, true]) {
        const port = new FaultPort()
          .fail(overwrite ? "rename" : "link", "EXDEV");
        const error = await rejection(
          onPort(port, () => move(from, to, { overwrite })),
        );
        assert.ok(error instanceof CrossDeviceError);
        assert.equal(error.committed, false);
        assert.ok(!port.names.includes("create"));
        assert.equal(text(from), "content");
        assert.equal(existsSync(to), false);
      }
    }));

  for (const overwrite of [false, true]) {
    const kind = overwrite ? "that overwrites" : "to a new name";

    test(`${name}: any call of a move ${kind} may fail: the file is whole at one of its names, and committed tells which`, () =>
      inScratch(async (root) => {
        for (let index = 0;; index++) {
          const directory = join(root, `${index}`);
          mkdirSync(join(directory, "a"), { recursive: true });
          const from = join(directory, "a", "f");
          const to = join(directory, "b", "g");
          writeFileSync(from, "content");
          const port = new FaultPort().failNth(index, "EIO");
          const opened = () =>
            port.names.filter((name) => name === "open").length;
          const error = await onPort(
            port,
            () =>
              move(from, to, { overwrite }).then(
                () => undefined,
                (error) => error,
              ),
          );
          if (port.calls.length <= index) break;
          const failed = port.calls[index]?.name;
          const at = [from, to].filter(existsSync);
          assert.ok(at.length > 0);
          for (const path of at) assert.equal(text(path), "content");
          const isOpened = failed === "open" ? 1 : 0;
          assert.equal(
            port.names.filter((name) => name === "close").length,
            opened() - isOpened,
            `a file stays open: ${port.names}`,
          );
          if (error === undefined) {
            assert.deepEqual(at, [to]);
            continue;
          }
          assert.ok(error instanceof AtomicError, String(error));
          if (error.committed === true) assert.ok(at.includes(to));
          if (error.committed === false) assert.deepEqual(at, [from]);
          if (error.committed === "unknown") {
            assert.ok(failed === "link" || failed === "rename");
          }
        }
      }));

    test(`${name}: a stop before any call of a move ${kind} leaves the whole file, at one name or at both`, () =>
      inScratch(async (root) => {
        for (let index = 0;; index++) {
          const directory = join(root, `${index}`);
          mkdirSync(join(directory, "a"), { recursive: true });
          const from = join(directory, "a", "f");
          const to = join(directory, "b", "g");
          writeFileSync(from, "content");
          const port = new FaultPort().cutPowerAt(index);
          const stopped = await onPort(
            port,
            () =>
              move(from, to, { overwrite }).then(
                () => undefined,
                (error) => error,
              ),
          );
          const at = [from, to].filter(existsSync);
          assert.ok(at.length > 0);
          for (const path of at) assert.equal(text(path), "content");
          if (stopped === undefined) break;
          assert.ok(
            stopped instanceof PowerCut || stopped.cause instanceof PowerCut,
            String(stopped),
          );
          if (at.length === 2) {
            // Which of the two is to stay is not for the library to say.
            const error = await rejection(move(from, to, { overwrite }));
            assert.ok(error instanceof AtomicError);
            assert.equal(error.code, "SAME_FILE");
            unlinkSync(from);
          } else if (at.includes(from)) {
            await move(from, to, { overwrite });
          }
          assert.equal(text(to), "content");
          assert.equal(existsSync(from), false);
        }
      }));
  }

  test(`${name}: a failed sync of the file is not repeated, and nothing is moved`, () =>
    between(async (from, to) => {
      const port = new FaultPort().fail("fsync", "EIO", 1);
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof AtomicError && error.committed === false);
      assert.equal(port.names.filter((name) => name === "fsync").length, 1);
      assert.equal(existsSync(to), false);
    }));

  test(`${name}: where the directory of the new name is not synced, the old name stays`, () =>
    between(async (from, to) => {
      let isLinked = false;
      const port = new FaultPort().intercept(({ name }) => {
        if (name === "link") isLinked = true;
        return isLinked && name === "fsync" ? { code: "EIO" } : undefined;
      });
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof DurabilityError);
      assert.equal(text(from), "content");
      assert.equal(text(to), "content");
    }));

  test(`${name}: an old name that cannot be removed is told`, () =>
    between(async (from, to) => {
      const port = new FaultPort().fail("unlink", "EPERM");
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.committed, true);
      assert.match(error.message, /could not be removed \(EPERM\)/);
      assert.equal(text(to), "content");
    }));

  test(`${name}: a file system without hard links is an error that says what to do`, () =>
    between(async (from, to) => {
      const port = new FaultPort().fail("link", "EPERM");
      const error = await rejection(onPort(port, () => move(from, to)));
      assert.ok(error instanceof UnsupportedEnvironmentError);
      assert.match(error.message, /overwrite: true/);
      await onPort(port, () => move(from, to, { overwrite: true }));
      assert.equal(text(to), "content");
    }));

  test(`${name}: what a server has done although its answer was lost is done, or told`, () =>
    between(async (from, to) => {
      const linked = new FaultPort().intercept((call) => {
        if (call.name !== "link") return undefined;
        linkSync(from, to);
        return { code: "EEXIST" };
      });
      const error = await rejection(onPort(linked, () => move(from, to)));
      assert.ok(error instanceof AtomicError);
      // It may be somebody else's as well: both stay.
      assert.equal(error.code, "SAME_FILE");
      assert.equal(error.committed, "unknown");
      assert.equal(text(from), "content");
      unlinkSync(from);
      const renamed = new FaultPort().intercept((call) => {
        if (call.name !== "rename") return undefined;
        renameSync(to, from);
        return { code: "ENOENT" };
      });
      await onPort(renamed, () => move(to, from, { overwrite: true }));
      assert.equal(text(from), "content");
    }));

  test(`${name}: a file that replaces the old name while it is synced is synced too before it is moved`, () =>
    between(async (from, to) => {
      let isReplaced = false;
      const port = new FaultPort().intercept((call) => {
        if (call.name === "fsync" && !isReplaced) {
          isReplaced = true;
          writeFileSync(`${from}2`, "newer");
          renameSync(`${from}2`, from);
        }
        return undefined;
      });
      const receipt = await onPort(port, () => move(from, to));
      assert.equal(receipt.bytes, 5);
      assert.equal(text(to), "newer");
      const synced = port.calls.filter(({ name, args: [file] }) =>
        name === "fsync" && (file as { path: string }).path === from
      );
      assert.equal(synced.length, 2);
    }));

  test(`${name}: a file that came to the old name after the link stays`, () =>
    between(async (from, to) => {
      let isLinked = false;
      const port = new FaultPort().intercept((call) => {
        if (call.name === "link") isLinked = true;
        if (call.name === "fsync" && isLinked) {
          isLinked = false;
          writeFileSync(`${from}2`, "newer");
          renameSync(`${from}2`, from);
        }
        return undefined;
      });
      await onPort(port, () => move(from, to));
      assert.equal(text(to), "content");
      assert.equal(text(from), "newer");
    }));

  test(`${name}: a link at the new name is followed, replaced or refused`, () =>
    between(async (from, to, directory) => {
      const target = join(directory, "target");
      symlinkSync(target, to);
      const refused = await rejection(move(from, to, { symlinks: "reject" }));
      assert.ok(refused instanceof AtomicError && refused.code === "ELOOP");
      assert.equal((await move(from, to)).to, target);
      assert.ok(lstatSync(to).isSymbolicLink());
      const taken = await rejection(move(target, to, { symlinks: "replace" }));
      assert.ok(taken instanceof AlreadyExistsError);
      await move(target, to, { symlinks: "replace", overwrite: true });
      assert.ok(lstatSync(to).isFile());
    }));

  test(`${name}: missing parents are made, or not`, () =>
    between(async (from, _to, directory) => {
      const deep = join(directory, "c", "g");
      const error = await rejection(move(from, deep, { parents: false }));
      assert.ok(error instanceof NotFoundError);
      assert.match(error.message, /parents: true/);
      assert.equal(text(from), "content");
      await move(from, deep);
      assert.equal(text(deep), "content");
    }));

  test(`${name}: an aborted move changes nothing`, () =>
    between(async (from, to) => {
      const controller = new AbortController();
      const reason = new Error("enough");
      const port = new FaultPort().intercept((call) => {
        if (call.name === "fsync") controller.abort(reason);
        return undefined;
      });
      const { signal } = controller;
      const error = await rejection(
        onPort(port, () => move(from, to, { signal })),
      );
      assert.equal(error, reason);
      assert.equal(text(from), "content");
      assert.equal(existsSync(to), false);
      assert.equal(await rejection(move(from, to, { signal })), reason);
    }));

  test(`${name}: under a lock a move takes those of both names, and frees them`, () =>
    between(async (from, to, directory) => {
      await move(from, to, { lock: true });
      assert.equal(text(to), "content");
      assert.equal(await isLocked(to), false);
      assert.deepEqual(readdirSync(join(directory, "a")), []);
      assert.deepEqual(readdirSync(join(directory, "b")), ["g"]);
      const lock = await acquireLock(from);
      const error = await rejection(
        move(to, from, { lock: { timeoutMs: 10 } }),
      );
      assert.ok(error instanceof LockTimeoutError);
      await lock.release();
      assert.equal(text(to), "content");
    }));

  test(`${name}: a lock that is held is passed on, and only the other is taken`, () =>
    between(async (from, to, directory) => {
      const port = new FaultPort();
      const taken = () =>
        port.calls.filter(({ name }) => name === "openDatabase").length;
      const there = await acquireLock(to);
      await onPort(port, () => move(from, to, { lock: there }));
      assert.equal(taken(), 1);
      const here = await acquireLock(from);
      await onPort(port, () => move(to, from, { lock: [here, there] }));
      assert.equal(taken(), 1);
      assert.equal(await isLocked(from) && await isLocked(to), true);
      assert.equal(text(from), "content");
      // A checksum takes the locks too.
      await writeTextAtomic(from, "kept", { checksum: true, lock: here });
      await move(from, to, { lock: [there, here] });
      assert.equal(await readText(to, { checksum: true }), "kept\n");
      const other = await acquireLock(join(directory, "other"));
      await here.release();
      const release = () => Promise.resolve();
      const wrong: [MoveOptions["lock"], RegExp][] = [
        [other, /Lock must be that of ".*g" or ".*f": received .*other"/],
        [[there, other], /Lock must be that of .* received .*other"/],
        [here, /Lock must be held: received .*released/],
        [
          { path: to, release } as unknown as Lock,
          /Lock must come from acquireLock/,
        ],
        [[true] as unknown as MoveOptions["lock"], /an array of such/],
      ];
      for (const [lock, message] of wrong) {
        const error = await rejection(move(to, from, { lock }));
        assert.ok(error instanceof TypeError);
        assert.match(error.message, message);
        assert.equal(existsSync(from), false);
      }
      renameSync(join(directory, "b", ".g.lock"), join(directory, "gone"));
      const lost = await rejection(move(to, from, { lock: there }));
      assert.ok(lost instanceof AtomicError && lost.code === "LOCK_LOST");
      assert.equal(existsSync(from), false);
      await there.release();
      await other.release();
    }));

  test(`${name}: a lock that is removed by hand stops the move`, () =>
    between(async (from, to, directory) => {
      const port = new FaultPort().intercept((call) => {
        if (call.name === "fsync") {
          const [lock] = readdirSync(join(directory, "a"))
            .filter((name) => name === ".f.lock");
          if (lock !== undefined) {
            renameSync(join(directory, "a", lock), join(directory, "gone"));
          }
        }
        return undefined;
      });
      const error = await rejection(
        onPort(port, () => move(from, to, { lock: true })),
      );
      assert.ok(error instanceof AtomicError && error.code === "LOCK_LOST");
      assert.equal(text(from), "content");
      assert.equal(existsSync(to), false);
    }));

  test(`${name}: malformed arguments are a TypeError`, async () => {
    for (
      const options of [
        { overwrite: 1 },
        { createNew: true },
        { durability: "maybe" },
      ]
    ) {
      const error = await rejection(
        move("a", "b", options as unknown as MoveOptions),
      );
      assert.ok(error instanceof TypeError);
    }
    assert.ok(await rejection(move("", "b")) instanceof TypeError);
    assert.ok(await rejection(move("a", "b/")) instanceof TypeError);
  });
}

test("opposite moves under locks do not wait for each other for ever", () =>
  between(async (from, to) => {
    const options = { lock: true, overwrite: true };
    for (let round = 0; round < 5; round++) {
      const settled = await Promise.allSettled([
        moveAtomic(from, to, options),
        moveAtomic(to, from, options),
        moveAtomic(from, to, options),
      ]);
      assert.deepEqual(
        settled.map(({ status }) => status),
        ["fulfilled", "fulfilled", "fulfilled"],
      );
      await moveAtomic(to, from);
    }
  }));

test("moves and writes of the same files keep their call order", () =>
  between(async (from, to) => {
    const settled = await Promise.all([
      writeTextAtomic(from, "one"),
      moveAtomic(from, to),
      writeTextAtomic(from, "two"),
      moveAtomic(to, `${to}.old`),
      moveAtomic(from, to),
      writeTextAtomic(to, "three"),
      moveAtomic(`${to}.old`, from),
    ]);
    assert.equal(settled.length, 7);
    assert.equal(text(from), "one\n");
    assert.equal(text(to), "three\n");
    assert.equal(existsSync(`${to}.old`), false);
  }));

test("a new file is made where a move before it has taken the old one away", () =>
  between(async (from, to) => {
    const [, written] = await Promise.all([
      moveAtomic(from, to),
      writeTextAtomic(from, "new", { createNew: true }),
    ]);
    assert.equal(written.created, true);
    assert.equal(text(from), "new\n");
    assert.equal(text(to), "content");
  }));

test("a file that is still to be made by a write is moved when it has been", () =>
  inScratch(async (directory) => {
    const from = join(directory, "a", "b", "f");
    const to = join(directory, "c", "g");
    const [, receipt] = await Promise.all([
      writeTextAtomic(from, "new"),
      moveAtomic(from, to),
    ]);
    assert.equal(receipt.bytes, 4);
    assert.equal(text(to), "new\n");
  }));

test("opposite moves swap nothing and lose nothing, in call order", () =>
  between(async (from, to) => {
    writeFileSync(to, "other");
    await Promise.all([
      moveAtomic(from, `${from}.swap`),
      moveAtomic(to, from),
      moveAtomic(`${from}.swap`, to),
    ]);
    assert.equal(text(from), "other");
    assert.equal(text(to), "content");
  }));

test("a move that a synchronous write overtakes is refused, and nothing is moved", () =>
  between(async (from, to) => {
    for (const path of [from, to]) {
      for (const waits of [true, false]) {
        writeFileSync(from, "content");
        const first = waits ? writeTextAtomic(to, "first") : undefined;
        const moved = rejection(moveAtomic(from, to, { overwrite: true }));
        writeTextAtomicSync(path, "newest");
        const error = await moved;
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "SUPERSEDED");
        assert.equal(error.committed, false);
        await first;
        assert.equal(text(path), "newest\n");
        assert.equal(text(from), path === from ? "newest\n" : "content");
      }
    }
    await moveAtomic(from, to, { overwrite: true });
    assert.equal(text(to), "content");
  }));

test("a synchronous move is refused while an asynchronous call changes one of its files", () =>
  between(async (from, to) => {
    const pending = [
      () => writeTextAtomic(from, "new"),
      () => writeTextAtomic(to, "new"),
      () => moveAtomic(from, `${to}2`),
    ];
    for (const begin of pending) {
      writeFileSync(from, "content");
      const done = begin();
      assert.throws(
        () => moveAtomicSync(from, to, { overwrite: true }),
        (error) => error instanceof AtomicError && error.code === "PENDING",
      );
      await done;
    }
    moveAtomicSync(`${to}2`, to, { overwrite: true });
    assert.equal(text(to), "content");
  }));

test("of many moves to one name exactly one succeeds, and no file is lost", () =>
  inScratch(async (directory) => {
    const to = join(directory, "to");
    const names = Array.from({ length: 20 }, (_, index) => `f${index}`);
    for (const name of names) writeFileSync(join(directory, name), name);
    const settled = await Promise.allSettled(
      names.map((name) => moveAtomic(join(directory, name), to)),
    );
    const done = settled.flatMap(({ status }, index) =>
      status === "fulfilled" ? [index] : []
    );
    assert.equal(done.length, 1);
    assert.equal(text(to), names[done[0] ?? -1]);
    assert.equal(readdirSync(directory).length, 20);
    for (const outcome of settled) {
      if (outcome.status === "fulfilled") continue;
      assert.ok(outcome.reason instanceof AlreadyExistsError);
    }
  }));

test("a move that is aborted while it waits leaves its places to others", () =>
  between(async (from, to) => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const first = writeTextAtomic(to, "first");
    const moved = rejection(
      moveAtomic(from, to, { overwrite: true, signal: controller.signal }),
    );
    const after = [writeTextAtomic(from, "a"), writeTextAtomic(to, "b")];
    controller.abort(reason);
    assert.equal(await moved, reason);
    await Promise.all([first, ...after]);
    assert.equal(text(from), "a\n");
    assert.equal(text(to), "b\n");
  }));

for (const { name, move } of FORMS) {
  for (const there of [undefined, "there"]) {
    test(`${name}: a move that fails at any call leaves no checksum to ${there ?? "a name without a file"}`, async () => {
      let isDone = false;
      for (let index = 0; !isDone; index++) {
        await between(async (from, to, directory) => {
          await writeTextAtomic(from, "content", { checksum: true });
          if (there !== undefined) writeFileSync(to, there);
          const names = () =>
            readdirSync(directory, { recursive: true, encoding: "utf8" })
              .filter((path) => !path.includes(".lock")).toSorted();
          const before = names();
          const port = new FaultPort().failNth(index, "EIO");
          const overwrite = there !== undefined;
          const error = await onPort(
            port,
            () => move(from, to, { overwrite }).then(() => undefined, (e) => e),
          );
          isDone = port.calls.length <= index;
          if (!(error instanceof AtomicError) || error.committed !== false) {
            return;
          }
          const failed = `${port.names[index]}, call ${index}`;
          assert.deepEqual(names(), before, failed);
          assert.equal(text(to), there, failed);
        });
      }
    });
  }
}

test("a move that loses one of its locks leaves no checksum beside the new name", async () => {
  await between(async (from, to) => {
    await writeTextAtomic(from, "content", { checksum: true });
    const port = new FaultPort().intercept(({ name, args: [, path] }) => {
      const isPlaced = name === "rename" && path === `${to}.sha256`;
      if (isPlaced) {
        rmSync(join(dirname(from), ".f.lock"), { recursive: true });
      }
      return undefined;
    });
    const error = await rejection(onPort(port, () => moveAtomic(from, to)));
    assert.ok(error instanceof LockLostError);
    assert.deepEqual(readdirSync(dirname(to)), []);
    assert.equal(await readText(from, { checksum: true }), "content\n");
  });
});

test("a checksum of the old name that cannot be removed is told", () =>
  between(async (from, to) => {
    const checksum = `${from}.sha256`;
    await writeTextAtomic(from, "content", { checksum: true });
    const port = new FaultPort().intercept(({ name, args: [path] }) =>
      name === "unlink" && path === checksum ? { code: "EIO" } : undefined
    );
    const error = await rejection(onPort(port, () => moveAtomic(from, to)));
    assert.ok(error instanceof AtomicError);
    assert.equal(error.committed, true);
    assert.match(
      error.message,
      /its new name, but ".*f\.sha256", the checksum/,
    );
    assert.deepEqual(readdirSync(dirname(from)), ["f.sha256"]);
  }));

test("an abort before any call of a move with a checksum changes nothing, or comes too late", async () => {
  let isDone = false;
  for (let index = 0; !isDone; index++) {
    await between(async (from, to, directory) => {
      const checksum = `${from}.sha256`;
      await writeTextAtomic(from, "content", { checksum: true });
      const controller = new AbortController();
      const { signal } = controller;
      const reason = new Error("enough");
      const port = new FaultPort().abortAt(index, controller, reason);
      const moved = await onPort(
        port,
        () => moveAtomic(from, to, { signal }).catch((error) => error),
      );
      const found = ["a", "b"].flatMap((name) =>
        readdirSync(join(directory, name)).toSorted().map((file) =>
          join(directory, name, file)
        )
      );
      if (moved === reason) {
        assert.deepEqual(found, [from, checksum], `call ${index}`);
      } else {
        assert.equal(moved.bytes, 8);
        assert.deepEqual(found, [to, `${to}.sha256`], `call ${index}`);
      }
      isDone = !signal.aborted;
    });
  }
});

test("a move waits for the locks of others", () =>
  between(async (from, to) => {
    const order: string[] = [];
    const held = withLock(to, async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      order.push("held");
    });
    const moved = moveAtomic(from, to, { lock: true })
      .then(() => order.push("moved"));
    await Promise.all([held, moved]);
    assert.deepEqual(order, ["held", "moved"]);
  }));

test("a move that is aborted while it waits for both locks is rejected once, and by nothing else", async () => {
  for (const foreign of ["from", "to"] as const) {
    await between(async (from, to) => {
      const theirs = await onPort(
        new FaultPort(),
        () => acquireLock(foreign === "from" ? from : to),
      );
      const ours = await acquireLock(foreign === "from" ? to : from);
      const controller = new AbortController();
      const { signal } = controller;
      const reason = new Error("enough");
      const moved = rejection(moveAtomic(from, to, { lock: true, signal }));
      setTimeout(() => controller.abort(reason), 20);
      assert.equal(await moved, reason);
      await ours.release();
      await theirs.release();
      assert.equal(text(from), "content");
      assert.equal(text(to), undefined);
    });
  }
});

test("a lock is not freed before the move that it was passed to has come to its end", () =>
  between(async (from, to) => {
    const other = await acquireLock(to);
    const lock = await acquireLock(from);
    const moving = moveAtomic(from, to, { lock });
    let isReleased = false;
    const releasing = lock.release().then(() => isReleased = true);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(isReleased, false);
    await other.release();
    await moving;
    await releasing;
    assert.equal(text(to), "content");
  }));

test("withDefaults binds moves", () =>
  between(async (from, to) => {
    await withLock(from, async (lock) => {
      const bound = withDefaults({ lock });
      await bound.moveAtomic(from, to);
      bound.moveAtomicSync(to, from, { lock: [lock] });
    });
    const bound = withDefaults({ durability: "none", indent: 0 });
    assert.equal((await bound.moveAtomic(from, to)).fileSynced, false);
    assert.equal(bound.moveAtomicSync(to, from).directorySynced, false);
  }));

/** A port on which files have numbers that no double tells apart. */
function withNumbers(numberOf: (ino: bigint) => number | bigint): FaultPort {
  const base = currentPort();
  const port = new FaultPort();
  const HIGH = 2n ** 63n;
  return port.intercept(({ name, args: [file] }) => {
    if (name !== "lstat" && name !== "fstat") return undefined;
    const status = name === "lstat"
      ? base.sync.lstat(String(file))
      : base.sync.fstat(file as OpenFile);
    return {
      result: { ...status, ino: numberOf(HIGH + BigInt(status.ino)) },
    };
  });
}

for (const { name, move } of FORMS) {
  test(`${name}: two files whose inode numbers differ only as integers are two files`, () =>
    between(async (from, to) => {
      writeFileSync(from, "new");
      writeFileSync(to, "old");
      const port = withNumbers((ino) => ino);
      await onPort(port, () => move(from, to, { overwrite: true }));
      assert.equal(text(to), "new");
      assert.equal(text(from), undefined);
    }));

  test(`${name}: where a runtime rounds inode numbers, a file that may be the same is not moved`, () =>
    between(async (from, to) => {
      writeFileSync(from, "new");
      writeFileSync(to, "old");
      const port = withNumbers(Number);
      const error = await rejection(
        onPort(port, () => move(from, to, { overwrite: true })),
      );
      assert.ok(error instanceof UnsupportedEnvironmentError);
      assert.match(error.message, /larger than this runtime can tell exactly/);
      assert.doesNotMatch(error.message, /remove the one/);
      assert.equal(error.committed, false);
      assert.equal(text(to), "old");
      assert.equal(text(from), "new");
    }));
}
