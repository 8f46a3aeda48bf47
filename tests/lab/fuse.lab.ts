/**
 * Locks on FUSE daemons that go by path names: two names of a file are two
 * inodes to the kernel there, and a lock of one excludes nobody who locks the
 * other. On some of them the two names have two numbers as well, so that
 * nothing can tell that they are one file: there is no lock.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { sweepTemporaries } from "../../sweep.ts";
import { increment } from "./increments.ts";
import { type Mounts, withMounts } from "./mounts.ts";
import { run } from "./run.ts";
import {
  BUN,
  cachesIn,
  DENO,
  NODE_24,
  type Runtime,
  RUNTIMES,
} from "./runtimes.ts";

interface Daemon {
  readonly name: string;
  /** The program of it. */
  readonly command: string;
  /** Starts it, and returns where it is mounted. */
  mount(mounts: Mounts): string;
}

function mergerfs(options: string): Daemon {
  return {
    name: `mergerfs with ${options}`,
    command: "mergerfs",
    mount: (mounts) =>
      mounts.fuse("m", "mergerfs", "-o", options, mounts.made("d")),
  };
}

const BINDFS: Daemon = {
  name: "bindfs",
  command: "bindfs",
  mount: (mounts) => mounts.fuse("m", "bindfs", mounts.made("d")),
};

const NTFS: Daemon = {
  name: "ntfs-3g",
  command: "ntfs-3g",
  mount(mounts) {
    const image = join(mounts.directory, "ntfs.image");
    writeFileSync(image, "");
    truncateSync(image, 32 * 1024 * 1024);
    execFileSync("mkntfs", ["-F", "-Q", "-q", image], { stdio: "pipe" });
    return mounts.fuse("m", "ntfs-3g", image);
  },
};

const UNIONFS: Daemon = {
  name: "unionfs-fuse",
  command: "unionfs",
  mount: (mounts) =>
    mounts.fuse("m", "unionfs", "-o", "cow", `${mounts.made("d")}=RW`),
};

const HASHED = mergerfs("use_ino");

function isMissing({ command }: Daemon, t: TestContext): boolean {
  const isThere = existsSync("/dev/fuse") &&
    spawnSync("which", [command]).status === 0;
  if (!isThere) t.skip(`there is no FUSE here, or no ${command}`);
  return !isThere;
}

const EXCLUDING: readonly (readonly [Daemon, readonly Runtime[]])[] = [
  [BINDFS, RUNTIMES],
  [mergerfs("use_ino,inodecalc=passthrough"), RUNTIMES],
  [NTFS, RUNTIMES],
  // Its numbers are larger than Deno can tell.
  [HASHED, [BUN, NODE_24]],
];

for (const [daemon, runtimes] of EXCLUDING) {
  test(`${daemon.name}: two processes on each runtime update one number, and each acknowledged increment is counted`, async (t) => {
    if (isMissing(daemon, t)) return;
    await withMounts(async (mounts) => {
      const directory = daemon.mount(mounts);
      const counted = await increment(
        join(directory, "count.json"),
        directory,
        {
          runtimes: [...runtimes, ...runtimes],
          times: 50,
          outside: mounts.directory,
        },
      );
      const { count, acknowledged, refused } = counted;
      t.diagnostic(`${acknowledged} acknowledged, ${refused} refused`);
      assert.equal(count, 100 * runtimes.length);
      assert.equal(acknowledged, count);
      assert.equal(refused, 0);
      // A daemon may still close what was open when a holder left.
      await sweepTemporaries(directory, { olderThanMs: 0 });
      assert.deepEqual(readdirSync(directory), ["count.json"]);
    });
  });
}

const REFUSING: readonly (readonly [Daemon, readonly Runtime[], RegExp])[] = [
  [
    mergerfs("inodecalc=passthrough"),
    RUNTIMES,
    /gives each name an inode number of its own/,
  ],
  [UNIONFS, RUNTIMES, /gives each name an inode number of its own/],
  [HASHED, [DENO], /is larger than this runtime can tell exactly/],
];

for (const [daemon, runtimes, reason] of REFUSING) {
  for (const { name, command } of runtimes) {
    test(`${daemon.name}: a lock is refused at once on ${name}, and nothing is left`, async (t) => {
      if (isMissing(daemon, t)) return;
      await withMounts(async (mounts) => {
        const directory = daemon.mount(mounts);
        const path = join(directory, "f");
        const { code, stderr } = await run(
          command(directory, "./incrementer.ts", path, "1", ""),
          { env: cachesIn(join(mounts.directory, "deno")) },
        );
        assert.notEqual(code, 0);
        assert.match(stderr, /UnsupportedEnvironmentError/);
        assert.match(stderr, reason);
        assert.deepEqual(readdirSync(directory), []);
      });
    });
  }
}
