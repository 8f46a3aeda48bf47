/**
 * Programs in processes of their own.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

export interface Outcome {
  /** The exit code, or the signal that ended it. */
  readonly ended: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

const isDeno = "Deno" in globalThis;

/** A program of `tests/fixtures`, also where the tests run compiled. */
export function fixture(name: string): string {
  const extension = import.meta.url.endsWith(".js") ? ".js" : ".ts";
  return fileURLToPath(
    new URL(`fixtures/${name}${extension}`, import.meta.url),
  );
}

/** Runs a program on the runtime that runs the test. */
export function runHere(
  program: string,
  ...args: readonly string[]
): Promise<Outcome> {
  return run(
    process.execPath,
    isDeno
      ? ["run", "--allow-all", "--no-check", program, ...args]
      : [program, ...args],
  );
}

/** Runs a program on Deno with no permissions but these flags. */
export function runOnDeno(
  flags: readonly string[],
  program: string,
  ...args: readonly string[]
): Promise<Outcome> {
  const root = new URL("../", import.meta.url);
  const installed = [
    "node_modules/@deno/linux-x64-glibc/deno",
    "../node_modules/@deno/linux-x64-glibc/deno",
    "node_modules/.bin/deno",
  ].map((path) => fileURLToPath(new URL(path, root))).find(existsSync);
  return run(isDeno ? process.execPath : installed ?? "deno", [
    "run",
    "--no-prompt",
    "--no-check",
    "--quiet",
    ...flags,
    program,
    ...args,
  ]);
}

function run(command: string, args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: 600_000 }, (error, stdout, stderr) => {
      if (error === null) return resolve({ ended: 0, stdout, stderr });
      const ended = error.signal ?? error.code;
      if (ended === undefined || ended === null || ended === "ENOENT") {
        return reject(error);
      }
      resolve({ ended, stdout, stderr });
    });
  });
}
