/**
 * A disk, or a quota, that has less room than the new content takes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { document, wholeLabel } from "./document.ts";
import { inLab, type Lab } from "./run.ts";
import { RUNTIMES } from "./runtimes.ts";

const MEBIBYTE = 1024 * 1024;

/** Runs `body` in a lab whose directory is a disk of 64 KiB, with a file on it. */
function onSmallDisk<T>(
  body: (lab: Lab, target: string, old: string) => Promise<T>,
): Promise<T> {
  return inLab(async (lab) => {
    const { directory } = lab;
    const type = ["-t", "tmpfs", "-o", "size=64k"];
    execFileSync("mount", [...type, "tmpfs", directory]);
    try {
      const target = join(directory, "f");
      const old = document("old", 4096);
      writeFileSync(target, old);
      return await body(lab, target, old);
    } finally {
      // A writer that had to be killed may still hold it for a moment.
      execFileSync("umount", ["--lazy", directory]);
    }
  });
}

for (const runtime of RUNTIMES) {
  for (const form of ["sync", "async"] as const) {
    test(`${runtime.name}, ${form}: a full disk is a NoSpaceError that leaves the old content and no temporary file`, () =>
      onSmallDisk(async ({ directory, write }, target, old) => {
        const [outcome] = await write(runtime, {
          form,
          path: target,
          label: "new",
          lengths: [MEBIBYTE],
        });
        assert.equal(outcome?.error?.name, "NoSpaceError");
        assert.equal(outcome.error.code, "ENOSPC");
        assert.equal(outcome.error.syscall, "write");
        assert.equal(outcome.error.committed, false);
        assert.equal(readFileSync(target, "utf8"), old);
        assert.deepEqual(readdirSync(directory), ["f"]);
      }));

    test(`${runtime.name}, ${form}: what fits is written by the process that found the disk full`, () =>
      onSmallDisk(async ({ directory, write }, target) => {
        const outcomes = await write(runtime, {
          form,
          path: target,
          label: "new",
          lengths: [MEBIBYTE, 1000, MEBIBYTE, 2000],
        });
        assert.deepEqual(
          outcomes.map(({ error }) => error?.code),
          ["ENOSPC", undefined, "ENOSPC", undefined],
        );
        assert.equal(readFileSync(target, "utf8"), document("new-3", 2000));
        assert.deepEqual(readdirSync(directory), ["f"]);
      }));
  }
}

/** Runs `body` in a lab whose directory is a btrfs with a quota of 4 MiB, with a file on it. */
function underQuota<T>(
  body: (lab: Lab, target: string, old: string) => Promise<T>,
): Promise<T> {
  return inLab(async (lab) => {
    const { directory, outside } = lab;
    const image = join(outside, "image");
    writeFileSync(image, "");
    truncateSync(image, 160 * MEBIBYTE);
    execFileSync("mkfs.btrfs", ["-q", image]);
    execFileSync("mount", ["-o", "loop", image, directory]);
    try {
      execFileSync("btrfs", ["quota", "enable", directory], { stdio: "pipe" });
      execFileSync("btrfs", ["qgroup", "limit", "4M", directory]);
      const target = join(directory, "f");
      const old = document("old", 4096);
      writeFileSync(target, old);
      return await body(lab, target, old);
    } finally {
      execFileSync("umount", ["--lazy", directory]);
    }
  });
}

for (const runtime of RUNTIMES) {
  for (const form of ["sync", "async"] as const) {
    test(`${runtime.name}, ${form}: a quota that is used up is a NoSpaceError that leaves the old content and no temporary file`, () =>
      underQuota(async ({ directory, write }, target, old) => {
        const [outcome] = await write(runtime, {
          form,
          path: target,
          label: "new",
          lengths: [16 * MEBIBYTE],
        });
        assert.equal(outcome?.error?.code, "EDQUOT");
        assert.equal(outcome.error.name, "NoSpaceError");
        assert.equal(outcome.error.committed, false);
        assert.equal(readFileSync(target, "utf8"), old);
        assert.deepEqual(readdirSync(directory), ["f"]);
      }));
  }
}

test("control: a write that does not look at what the system took installs a truncated file, without an error", () =>
  onSmallDisk(({ directory }, target) => {
    const bytes = new TextEncoder().encode(document("new", MEBIBYTE));
    const temporary = join(directory, "naive.tmp");
    const file = openSync(temporary, "wx");
    writeSync(file, bytes);
    closeSync(file);
    renameSync(temporary, target);
    const installed = readFileSync(target);
    assert.ok(installed.length > 0 && installed.length < bytes.length);
    assert.equal(wholeLabel(installed.toString()), undefined);
    return Promise.resolve();
  }));
