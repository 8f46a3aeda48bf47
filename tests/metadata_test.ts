import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import type { FileStatus } from "../_runtime/port.ts";
import {
  AtomicError,
  openAtomicWriter,
  writeBytesAtomic,
  writeBytesAtomicSync,
  type WriteOptions,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { withUmask } from "./umask.ts";
import { FORMS } from "./twins.ts";

const needsRoot = process.getuid?.() === 0
  ? {}
  : { skip: "only root may give files away" };

function modeOf(path: string): number {
  return statSync(path).mode & 0o7777;
}

const FOREIGN = { uid: 4321, gid: 4321 };

/** By another program: Bun before 1.4 cannot set the sticky bit. */
function setMode(path: string, mode: number): void {
  execFileSync("chmod", [mode.toString(8), path]);
}

/** A port on which the file to replace belongs to user and group 4321, and `fchown` never works. */
function foreignFilePort(path: string, mode: number): FaultPort {
  const { size } = statSync(path);
  const status: FileStatus = {
    kind: "file",
    size,
    mode,
    uid: 4321,
    gid: 4321,
    nlink: 1,
    mtimeMs: 0,
    birthMs: 0,
    dev: 1,
    ino: 1,
  };
  return new FaultPort().fail("fchown", "EPERM").intercept((
    { name, args: [asked] },
  ) => name === "lstat" && asked === path ? { result: status } : undefined);
}

/** Bun before 1.4 drops setuid, setgid and sticky from every chmod, without an error. */
const keepsSpecialBits = await inScratch((directory) => {
  chmodSync(directory, 0o1700);
  return modeOf(directory) === 0o1700;
});

/** Those of the modes that this runtime can set at all. */
function settable(...modes: readonly number[]): readonly number[] {
  return modes.filter((mode) => keepsSpecialBits || mode <= 0o777);
}

for (const form of FORMS) {
  test(`${form.name}: a new file gets 0666 less the umask`, () =>
    inScratch(async (directory) => {
      await withUmask(0o027, async () => {
        await form.writeText(join(directory, "f"), "new");
      });
      assert.equal(modeOf(join(directory, "f")), 0o640);
    }));

  test(`${form.name}: a mode is set exactly, whatever the umask`, () =>
    inScratch(async (directory) => {
      for (const mode of settable(0o600, 0o666, 0o777, 0o2755, 0o400)) {
        const path = join(directory, mode.toString(8));
        await withUmask(0o077, () => form.writeText(path, "new", { mode }));
        assert.equal(modeOf(path), mode);
        assert.equal(readFileSync(path, "utf8"), "new\n");
      }
    }));

  test(`${form.name}: a replaced file keeps its mode, and the new one is never more open than it`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const mode of settable(0o600, 0o640, 0o664, 0o755, 0o4755)) {
        writeFileSync(path, "old");
        chmodSync(path, mode);
        const port = new FaultPort();
        const open: number[] = [];
        port.intercept(({ name, args: [temporary] }) => {
          if (name === "write" || name === "fsync") {
            const { path } = temporary as { path: string };
            if (path.endsWith(".tmp")) open.push(modeOf(path));
          }
          return undefined;
        });
        await withUmask(0, () =>
          onPort(port, async () => {
            const receipt = await form.writeText(path, "new");
            assert.deepEqual(receipt.notPreserved, []);
          }));
        assert.equal(modeOf(path), mode);
        assert.ok(open.length >= 2);
        assert.ok(open.every((seen) => (seen & ~mode) === 0));
        assert.equal(
          port.names.includes("fchmod"),
          mode > 0o777,
          "chmod goes by path on Deno: only where it must",
        );
      }
    }));

  test(`${form.name}: with preserve false the replaced file's mode is forgotten`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      chmodSync(path, 0o640);
      await withUmask(
        0o022,
        () => form.writeText(path, "new", { preserve: false }),
      );
      assert.equal(modeOf(path), 0o644);
    }));

  test(
    `${form.name}: owner, setuid and mode of a file of another user are kept`,
    needsRoot,
    () =>
      inScratch(async (directory) => {
        const path = join(directory, "f");
        for (const mode of settable(0o640, 0o4755, 0o6770)) {
          writeFileSync(path, "old");
          chownSync(path, 1234, 2345);
          chmodSync(path, mode);
          const receipt = await form.writeText(path, "new");
          assert.deepEqual(receipt.notPreserved, []);
          const { uid, gid } = statSync(path);
          assert.deepEqual([uid, gid], [1234, 2345]);
          assert.equal(modeOf(path), mode);
        }
      }),
  );

  test(
    `${form.name}: an owner that is asked for is set, with the mode the umask gives`,
    needsRoot,
    () =>
      inScratch(async (directory) => {
        const path = join(directory, "f");
        await withUmask(0o026, async () => {
          await form.writeText(path, "new", {
            owner: { uid: 1234, gid: 2345 },
          });
        });
        const { uid, gid } = statSync(path);
        assert.deepEqual([uid, gid], [1234, 2345]);
        assert.equal(modeOf(path), 0o640);
      }),
  );

  test(
    `${form.name}: until the owner is set nobody else can open the file`,
    needsRoot,
    () =>
      inScratch(async (directory) => {
        const path = join(directory, "f");
        writeFileSync(path, "old");
        chownSync(path, 1234, 2345);
        chmodSync(path, 0o640);
        const port = new FaultPort();
        const seen: number[] = [];
        port.intercept(({ name, args: [file] }) => {
          if (name === "write" || name === "fchown") {
            seen.push(modeOf((file as { path: string }).path));
          }
          return undefined;
        });
        await onPort(port, () => form.writeText(path, "new"));
        assert.deepEqual(seen, [0o600, 0o600]);
        assert.ok(port.names.indexOf("fchown") < port.names.indexOf("fchmod"));
        assert.equal(modeOf(path), 0o640);
        assert.deepEqual(leftovers(directory), []);
      }),
  );

  test(`${form.name}: only where the owner changes and the mode tells people apart is the file made private first`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [mode, isHidden] of [
          [0o600, false],
          [0o644, false],
          [0o755, false],
          [0o666, false],
          [0o640, true],
          [0o664, true],
          [0o604, true],
          [0o044, true],
        ] as const
      ) {
        writeFileSync(path, "old");
        const port = foreignFilePort(path, mode);
        await withUmask(
          0,
          () => onPort(port, () => form.writeText(path, "new")),
        );
        const modes = port.calls.filter(({ name }) => name === "create")
          .map(({ args: [, mode] }) => mode);
        assert.deepEqual(modes, isHidden ? [mode, 0o600] : [mode]);
      }
    }));

  test(`${form.name}: where the owner cannot be kept nobody gains access, and the receipt says so`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [old, expected] of [
          [0o660, 0o600],
          // Whom the old group shut out, everybody now counts in.
          [0o604, 0o600],
          [0o664, 0o644],
          [0o644, 0o644],
          [0o6775, 0o755],
          [0o4711, 0o711],
        ] as const
      ) {
        writeFileSync(path, "old");
        const port = foreignFilePort(path, old);
        const receipt = await onPort(port, () => form.writeText(path, "new"));
        assert.equal(modeOf(path), expected, old.toString(8));
        assert.deepEqual(
          receipt.notPreserved,
          old === expected ? ["owner"] : ["owner", "mode"],
        );
        assert.equal(readFileSync(path, "utf8"), "new\n");
        assert.deepEqual(leftovers(directory), []);
      }
    }));

  test(`${form.name}: where only the group can be kept, its bits stay and setuid goes`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const port = foreignFilePort(path, 0o6660);
      // The second, with the user as it is, any member of the group may do.
      const grouped = new FaultPort(port).intercept(({ name, args }) =>
        name === "fchown" && args[1] !== 4321
          ? { result: undefined }
          : undefined
      );
      const receipt = await onPort(grouped, () => form.writeText(path, "new"));
      assert.equal(modeOf(path), 0o660);
      assert.deepEqual(receipt.notPreserved, ["owner", "mode"]);
      const chowns = grouped.calls.filter(({ name }) => name === "fchown");
      assert.deepEqual(chowns.map(({ args }) => args.slice(1)), [
        [4321, 4321],
        [statSync(path).uid, 4321],
      ]);
    }));

  test(`${form.name}: where they go by path, owner and mode are set only in a directory that no stranger may write to`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [directoryMode, isSafe] of [
          [0o700, true],
          [0o755, true],
          [0o775, false],
          [0o777, false],
          [0o1777, false],
        ] as const
      ) {
        setMode(directory, directoryMode);
        writeFileSync(path, "old");
        chmodSync(path, 0o666);
        const port = new FaultPort();
        port.changesByPath = true;
        await withUmask(0o022, () =>
          onPort(port, async () => {
            const receipt = await form.writeText(path, "new");
            assert.deepEqual(receipt.notPreserved, isSafe ? [] : ["mode"]);
            assert.equal(modeOf(path), isSafe ? 0o666 : 0o644);
            assert.equal(port.names.includes("fchmod"), isSafe);
            if (isSafe) return;
            for (const required of [{ mode: 0o666 }, { owner: FOREIGN }]) {
              const error = await rejection(
                form.writeText(path, "newer", required),
              );
              assert.ok(error instanceof AtomicError);
              assert.equal(error.code, "EPERM");
              assert.match(error.message, /set by path, which is not safe/);
            }
            assert.equal(readFileSync(path, "utf8"), "new\n");
            // Modes within the umask need no change.
            await form.writeText(path, "newer", { mode: 0o600 });
            assert.equal(modeOf(path), 0o600);
          }));
        assert.ok(!port.names.includes("fchown"));
      }
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: where they go by path, a foreign owner's file in an unsafe directory stays private`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      setMode(directory, 0o777);
      const port = foreignFilePort(path, 0o660);
      port.changesByPath = true;
      const receipt = await onPort(port, () => form.writeText(path, "new"));
      assert.deepEqual(receipt.notPreserved, ["owner", "mode"]);
      assert.equal(modeOf(path), 0o600);
      assert.ok(!port.names.includes("fchown"));
      assert.ok(!port.names.includes("fchmod"));
    }));

  test(
    `${form.name}: another user's file in a sticky world-writable directory is not replaced in his name`,
    needsRoot,
    () =>
      inScratch(async (directory) => {
        const shared = join(directory, "shared");
        mkdirSync(shared);
        const path = join(shared, "f");
        writeFileSync(path, "old");
        chownSync(path, 4321, 4321);
        await form.writeText(path, "not sticky");
        assert.equal(statSync(path).uid, 4321);
        setMode(shared, 0o1777);
        const error = await rejection(form.writeText(path, "new"));
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "EACCES");
        assert.match(error.message, /belongs to another user \(uid 4321\)/);
        assert.equal(readFileSync(path, "utf8"), "not sticky\n");
        assert.deepEqual(leftovers(shared), []);
        await form.writeText(path, "new", { preserve: false });
        assert.equal(statSync(path).uid, 0);
        chownSync(path, 4321, 4321);
        const port = new FaultPort();
        port.changesByPath = false;
        await onPort(
          port,
          () => form.writeText(path, "newer", { owner: FOREIGN }),
        );
        assert.equal(statSync(path).uid, 4321);
      }),
  );

  test(`${form.name}: an owner or a mode that was asked for and cannot be set is an error`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const owner = { uid: 4321, gid: 4321 };
      for (
        const [port, options] of [
          [new FaultPort().fail("fchown", "EPERM"), { owner }],
          [new FaultPort().fail("fchmod", "EPERM"), { mode: 0o4777 }],
          // Some file systems accept and ignore.
          [
            new FaultPort().intercept(({ name }) =>
              name === "fchmod" ? { result: undefined } : undefined
            ),
            { mode: 0o4777 },
          ],
        ] as const
      ) {
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new", options)),
        );
        assert.ok(error instanceof AtomicError);
        assert.equal(error.code, "EPERM");
        assert.equal(error.committed, false);
        assert.equal(readFileSync(path, "utf8"), "old");
        assert.deepEqual(leftovers(directory), []);
      }
    }));

  test(`${form.name}: a kept mode that the file system does not take is in the receipt`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      chmodSync(path, 0o664);
      const port = new FaultPort().fail("fchmod", "ENOTSUP");
      // The umask takes bits away that only chmod could give back.
      const receipt = await withUmask(
        0o077,
        () => onPort(port, () => form.writeText(path, "new")),
      );
      assert.deepEqual(receipt.notPreserved, ["mode"]);
    }));

  test(`${form.name}: other names of the replaced file keep the old content, and the receipt says so`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      linkSync(path, join(directory, "other"));
      const receipt = await form.writeText(path, "new");
      assert.deepEqual(receipt.notPreserved, ["links"]);
      assert.equal(readFileSync(join(directory, "other"), "utf8"), "old");
    }));
}

/** Streams of every kind, which call `midway` when they are open. */
const STREAMS: readonly (readonly [
  name: string,
  write: (
    path: string,
    midway: () => void,
    options?: WriteOptions,
  ) => Promise<unknown>,
])[] = [
  ["openAtomicWriter", async (path, midway, options) => {
    const writer = await openAtomicWriter(path, options);
    await writer.write(new Uint8Array([1]));
    midway();
    return await writer.commit();
  }],
  ["openAtomicWriter, writable", async (path, midway, options) => {
    const writer = await openAtomicWriter(path, options);
    const part = writer.writable.getWriter();
    await part.write(new Uint8Array([1]));
    part.releaseLock();
    midway();
    return await writer.commit();
  }],
  ["an async source", (path, midway, options) =>
    writeBytesAtomic(
      path,
      (async function* () {
        yield new Uint8Array([1]);
        await Promise.resolve();
        midway();
      })(),
      options,
    )],
  ["a sync source", (path, midway, options) =>
    new Promise((resolve) =>
      resolve(
        writeBytesAtomicSync(
          path,
          (function* () {
            yield new Uint8Array([1]);
            midway();
          })(),
          options,
        ),
      )
    )],
];

for (const [name, write] of STREAMS) {
  for (const options of [{}, { mode: 0o600 }]) {
    test(
      `${name}: a file that another user puts there meanwhile, in a sticky directory, does not get the content, ${
        JSON.stringify(options)
      }`,
      needsRoot,
      () =>
        inScratch(async (directory) => {
          setMode(directory, 0o1777);
          const path = join(directory, "token");
          const plant = () => {
            writeFileSync(path, "planted", { mode: 0o666 });
            chownSync(path, 4321, 4321);
          };
          const error = await rejection(write(path, plant, options));
          assert.ok(error instanceof AtomicError, String(error));
          assert.equal(error.code, "EACCES");
          assert.match(error.message, /belongs to another user \(uid 4321\)/);
          assert.equal(readFileSync(path, "utf8"), "planted");
          assert.deepEqual(leftovers(directory), []);
        }),
    );
  }

  test(`${name}: what must not be replaced at the beginning must not be at the end`, () =>
    inScratch(async (directory) => {
      const cases = [
        [
          "ELOOP",
          { symlinks: "reject" },
          (path: string) => symlinkSync("elsewhere", path),
        ],
        ["NOT_A_FILE", {}, (path: string) => execFileSync("mkfifo", [path])],
        ["EISDIR", {}, (path: string) => mkdirSync(path)],
        [
          "EEXIST",
          { createNew: true },
          (path: string) => writeFileSync(path, "made"),
        ],
      ] as const;
      for (const [code, options, plant] of cases) {
        const path = join(directory, code);
        const error = await rejection(
          write(path, () => plant(path), options),
        );
        assert.ok(error instanceof AtomicError, `${code}: ${error}`);
        assert.equal(error.code, code);
        assert.equal(error.committed, false);
        assert.deepEqual(leftovers(directory), []);
      }
    }));
}
