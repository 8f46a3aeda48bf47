/**
 * Runs a command as a user would: in a folder, with an environment, to its end.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** A path below the root of the repository. */
export function inRepository(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

export const DENO: string = inRepository("node_modules/.bin/deno");
export const BUN: string = inRepository("node_modules/.bin/bun");

/**
 * Copies what a clone would hold to a new folder: commands that pack or publish
 * write to the lockfile beside what they read.
 */
export function cloneInto(folder: string): void {
  const list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
  const root = inRepository(".");
  const paths = execFileSync("git", list, { cwd: root, encoding: "utf8" });
  for (const path of paths.split("\0").filter((path) => path !== "")) {
    const source = join(root, path);
    if (existsSync(source)) cpSync(source, join(folder, path));
  }
}

/** A pinned Node: `tests/runtimes/node_modules/node24` for example. */
export function nodeIn(path: string): string {
  return inRepository(`${path}/bin/node`);
}

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What the commands of one test share. */
export interface Surroundings {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs a command, whatever becomes of it. */
export function tryCommand(
  command: readonly string[],
  { cwd, env = {} }: Surroundings,
): Promise<Ended> {
  const [file = "", ...args] = command;
  assert.ok(existsSync(cwd), `No folder ${cwd}`);
  return new Promise((resolve, reject) => {
    execFile(file, args, {
      cwd,
      env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...env },
      timeout: 600_000,
      maxBuffer: 64 * 1024 * 1024,
    }, (error, stdout, stderr) => {
      if (error === null) return resolve({ code: 0, stdout, stderr });
      if (typeof error.code !== "number") return reject(error);
      resolve({ code: error.code, stdout, stderr });
    });
  });
}

/** Runs a command that must succeed, and returns what it printed. */
export async function command(
  words: readonly string[],
  surroundings: Surroundings,
): Promise<string> {
  const { code, stdout, stderr } = await tryCommand(words, surroundings);
  assert.equal(code, 0, `${words.join(" ")}\n${stdout}\n${stderr}`);
  return stdout;
}
