/**
 * Several processes that increment one number, each by an update of its own.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Program } from "./program.ts";
import { cachesIn, type Runtime } from "./runtimes.ts";

/** What became of the increments. */
export interface Counted {
  /** What is in the file in the end. */
  readonly count: number;
  /** Of the increments, how many were reported as made. */
  readonly acknowledged: number;
  /** How often a process was told that it has lost its lock. */
  readonly refused: number;
}

export interface Increments {
  readonly runtimes: readonly Runtime[];
  /** Of each process. */
  readonly times: number;
  /** Whether each process watches the directory. */
  readonly isWatching?: boolean;
  /** For caches. */
  readonly outside: string;
}

/** Has a process on each of the runtimes increment the number at `path`. */
export async function increment(
  path: string,
  directory: string,
  { runtimes, times, isWatching = false, outside }: Increments,
): Promise<Counted> {
  const watching = isWatching ? "watching" : "";
  const programs = runtimes.map(({ command }) =>
    new Program(
      command(directory, "./incrementer.ts", path, String(times), watching),
      cachesIn(join(outside, "deno")),
    )
  );
  let acknowledged = 0;
  let refused = 0;
  try {
    for (const program of programs) {
      assert.equal(await program.ended, 0, program.stderr);
      const said = /^(\d+) acknowledged, (\d+) refused$/m.exec(
        program.stdout,
      );
      acknowledged += Number(said?.[1]);
      refused += Number(said?.[2]);
    }
  } finally {
    for (const program of programs) program.signal("SIGKILL");
    await Promise.allSettled(programs.map(({ ended }) => ended));
  }
  const count = Number(readFileSync(path, "utf8"));
  return { count, acknowledged, refused };
}
