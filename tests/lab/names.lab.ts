/**
 * What the runtimes really ask of the kernel for a move and for an append, in
 * which order.
 *
 * @module
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { lstatSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { test } from "node:test";
import { inLab, type Lab, run } from "./run.ts";
import { withMounts } from "./mounts.ts";
import { cachesIn, DENO, type Runtime, RUNTIMES } from "./runtimes.ts";
import { parseLog } from "./strace_log.ts";

/** Calls that change something or make it durable, as Linux names them on any runtime. */
const DEEDS: Readonly<Record<string, string>> = {
  fsync: "fsync",
  ftruncate: "truncate",
  link: "link",
  linkat: "link",
  pwrite64: "write",
  rename: "rename",
  renameat: "rename",
  renameat2: "rename",
  unlink: "unlink",
  unlinkat: "unlink",
  write: "write",
};

/** What one call of the library does below the directory, one line for each call of the kernel. */
async function deedsOf(
  { directory, outside }: Lab,
  runtime: Runtime,
  name: string,
  given: readonly unknown[],
): Promise<string[]> {
  const log = join(outside, "log");
  const task = JSON.stringify({ name, arguments: given });
  const { code, stdout, stderr } = await run([
    ...["strace", "-f", "-y", "-e", "trace=%file,%desc", "-o", log],
    ...runtime.command(directory, "../fixtures/write.ts", task),
  ], { env: cachesIn(join(outside, "deno")) });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /"result"/);
  return parseLog(readFileSync(log, "utf8")).flatMap(({ name, paths }) => {
    const deed = DEEDS[name];
    const own = paths.filter((path) => path.startsWith(directory));
    if (deed === undefined || own.length === 0) return [];
    const names = own.map((path) => relative(directory, path) || ".");
    return [[deed, ...names].join(" ")];
  });
}

for (const runtime of RUNTIMES) {
  for (const suffix of ["", "Sync"]) {
    test(`${runtime.name}: moveAtomic${suffix} syncs the file, links it, syncs, unlinks, syncs; or renames it and syncs`, () =>
      inLab(async (lab) => {
        const { directory } = lab;
        for (const name of ["a", "b"]) mkdirSync(join(directory, name));
        const [from, to] = [join(directory, "a/f"), join(directory, "b/g")];
        writeFileSync(from, "content");
        const name = `moveAtomic${suffix}`;
        assert.deepEqual(await deedsOf(lab, runtime, name, [from, to]), [
          "fsync a/f",
          "link a/f b/g",
          "fsync b",
          "unlink a/f",
          "fsync a",
        ]);
        writeFileSync(from, "newer");
        const given = [from, to, { overwrite: true }];
        assert.deepEqual(await deedsOf(lab, runtime, name, given), [
          "fsync a/f",
          "rename a/f b/g",
          "fsync b",
          "fsync a",
        ]);
        assert.equal(readFileSync(to, "utf8"), "newer");
      }));

    test(`${runtime.name}: appendJsonl${suffix} writes once and syncs, repairJsonl${suffix} cuts and syncs`, () =>
      inLab(async (lab) => {
        const { directory } = lab;
        const path = join(directory, "f");
        writeFileSync(path, "1\n");
        const options = { lock: false };
        const appended = await deedsOf(lab, runtime, `appendJsonl${suffix}`, [
          path,
          [2, 3],
          options,
        ]);
        assert.deepEqual(appended, ["write f", "fsync f", "fsync ."]);
        writeFileSync(path, "1\n{");
        const repaired = await deedsOf(lab, runtime, `repairJsonl${suffix}`, [
          path,
          options,
        ]);
        assert.deepEqual(repaired, ["truncate f", "fsync f"]);
        assert.equal(readFileSync(path, "utf8"), "1\n");
      }));
  }
}

for (const runtime of RUNTIMES) {
  test(`${runtime.name}: of two files whose inode numbers are one as doubles, one is moved over the other, or the move is refused`, async (t) => {
    if (spawnSync("which", ["mkfs.xfs"]).status !== 0) {
      return t.skip("there is no mkfs.xfs");
    }
    await withMounts(async (mounts) => {
      const lower = mounts.disk("lower", "xfs");
      for (const name of ["a", "b"]) writeFileSync(join(lower, name), name);
      const memory = mounts.mount("memory", "-t", "tmpfs", "tmpfs");
      for (const layer of ["upper", "work"]) mkdirSync(join(memory, layer));
      const directory = mounts.mount(
        "merged",
        ...["-t", "overlay", "-o"],
        `xino=on,lowerdir=${lower},upperdir=${memory}/upper,workdir=${memory}/work`,
        "overlay",
      );
      const [from, to] = [join(directory, "a"), join(directory, "b")];
      const inos = [from, to].map((path) => lstatSync(path, { bigint: true }));
      const [one, other] = inos.map(({ ino }) => ino);
      assert.notEqual(one, other);
      assert.equal(Number(one), Number(other));
      const task = JSON.stringify({
        name: "moveAtomic",
        arguments: [from, to, { overwrite: true }],
      });
      const { code, stdout, stderr } = await run(
        runtime.command(directory, "../fixtures/write.ts", task),
        { env: cachesIn(join(mounts.directory, "deno")) },
      );
      assert.equal(code, 0, stderr);
      if (runtime === DENO) {
        assert.match(stdout, /larger than this runtime can tell exactly/);
        assert.equal(readFileSync(to, "utf8"), "b");
      } else {
        assert.match(stdout, /"result"/);
        assert.equal(readFileSync(to, "utf8"), "a");
      }
    });
  });
}
