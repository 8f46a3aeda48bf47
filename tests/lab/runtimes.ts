/**
 * The runtimes that the labs run their programs on.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Runtime {
  readonly name: string;
  /** The command that runs a program of this directory, which may read and write `directory`. */
  command(
    directory: string,
    program: string,
    ...args: readonly string[]
  ): string[];
}

function inRepository(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

function programPath(program: string): string {
  return fileURLToPath(new URL(program, import.meta.url));
}

// The script that npm puts before it would be one more process in every log.
const nativeDeno = inRepository("node_modules/@deno/linux-x64-glibc/deno");
const denoPath = existsSync(nativeDeno)
  ? nativeDeno
  : inRepository("node_modules/.bin/deno");

function deno(
  name: string,
  flags: (directory: string) => readonly string[],
): Runtime {
  return {
    name,
    command: (directory, program, ...args) => [
      denoPath,
      "run",
      "--no-prompt",
      "--quiet",
      ...flags(directory),
      programPath(program),
      ...args,
    ],
  };
}

const scoped = (directory: string) => [
  `--allow-read=${directory}`,
  `--allow-write=${directory}`,
];

export const DENO: Runtime = deno("Deno", scoped);

/** May look at file systems, but not at the list of mounts. */
export const DENO_STATFS: Runtime = deno(
  "Deno with --allow-sys=statfs",
  (directory) => [...scoped(directory), "--allow-sys=statfs"],
);

export const DENO_ALL: Runtime = deno(
  "Deno with --allow-all",
  () => ["--allow-all"],
);

export const BUN: Runtime = {
  name: "Bun",
  command: (_directory, program, ...args) => [
    inRepository("node_modules/.bin/bun"),
    programPath(program),
    ...args,
  ],
};

function node(version: number): Runtime {
  return {
    name: `Node ${version}`,
    command: (_directory, program, ...args) => [
      inRepository(`tests/runtimes/node_modules/node${version}/bin/node`),
      programPath(program),
      ...args,
    ],
  };
}

export const NODE_22: Runtime = node(22);
export const NODE_24: Runtime = node(24);
export const NODE_26: Runtime = node(26);

/** One of each kind. */
export const RUNTIMES: readonly Runtime[] = [DENO, BUN, NODE_24];

/** Keeps the caches of the runtimes below `directory`, or away. */
export function cachesIn(directory: string): Record<string, string> {
  return {
    BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0",
    DENO_DIR: directory,
    DENO_NO_UPDATE_CHECK: "1",
  };
}
