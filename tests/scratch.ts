/**
 * A directory for one test.
 *
 * @module
 */

import { mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs `body` with a new empty directory, and removes it. */
export async function inScratch<T>(
  body: (directory: string) => T | Promise<T>,
): Promise<T> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "atomic-")));
  try {
    return await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Temporary files of the library in a directory. */
export function leftovers(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.endsWith(".tmp"));
}
