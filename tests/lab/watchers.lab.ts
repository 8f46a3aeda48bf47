/**
 * Locks beside watchers of their directory. On Deno a watcher opens each file
 * that an event names, and closes it: that drops the kernel's locks which the
 * process has of the file.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { increment } from "./increments.ts";
import { inLab } from "./run.ts";
import { DENO, RUNTIMES } from "./runtimes.ts";

const GROUPS = [
  ["three processes on Deno", [DENO, DENO, DENO]],
  ["a process on each runtime", RUNTIMES],
] as const;

for (const [name, runtimes] of GROUPS) {
  test(`${name} watch the directory while they update one number: each acknowledged increment is counted`, (t) =>
    inLab(async ({ directory, outside }) => {
      const path = join(directory, "count.json");
      const { count, acknowledged, refused } = await increment(
        path,
        directory,
        { runtimes, times: 200, isWatching: true, outside },
      );
      t.diagnostic(`${acknowledged} acknowledged, ${refused} refused`);
      assert.equal(acknowledged, 600);
      assert.equal(count, acknowledged);
    }));
}
