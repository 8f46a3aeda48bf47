/**
 * Copies of the code with a line that is broken on purpose.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What is found exactly once in a file, and what takes its place. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** Copies the code of this checkout. */
export function copyTo(directory: string): void {
  const tracked = execFileSync("git", [
    "ls-files",
    "--cached",
    "--others",
    "--exclude-standard",
  ], {
    cwd: root,
    encoding: "utf8",
  });
  for (const path of tracked.trimEnd().split("\n")) {
    if (!/\.(?:ts|json)$/.test(path)) continue;
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    cpSync(join(root, path), join(directory, path));
  }
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
}

/** Breaks the copy there; returns what mends it. */
export function breakCopy(
  directory: string,
  edits: readonly Edit[],
): () => void {
  const whole = new Map<string, string>();
  const mend = () => {
    for (const [path, code] of whole) writeFileSync(path, code);
  };
  for (const { file, find, replace } of edits) {
    const path = join(directory, file);
    const code = readFileSync(path, "utf8");
    if (!whole.has(path)) whole.set(path, code);
    const parts = code.split(find);
    if (parts.length !== 2) mend();
    assert.equal(parts.length, 2, `${file} has once: ${find}`);
    writeFileSync(path, parts.join(replace));
  }
  return mend;
}
