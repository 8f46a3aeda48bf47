/**
 * The lock file as it is made everywhere, to have something that the lab sees
 * fail: made if it is not there, and taken for stale, removed and made again once
 * it has a certain age.
 *
 * @module
 */

import {
  closeSync,
  openSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { setTimeout } from "node:timers/promises";

/** Above what any holder needs that runs. */
export const STALE_MS = 60;

/** Calls `body` while it believes to hold the lock of a file. */
export async function withAgedLock<T>(
  path: string,
  body: () => Promise<T>,
): Promise<T> {
  const lockPath = `${path}.aged`;
  while (!isMade(lockPath)) {
    if (isStale(lockPath)) unlinkIfPresent(lockPath);
    else await setTimeout(1);
  }
  try {
    return await body();
  } finally {
    unlinkIfPresent(lockPath);
  }
}

function isMade(path: string): boolean {
  try {
    const file = openSync(path, "wx");
    writeFileSync(file, "held");
    closeSync(file);
    return true;
  } catch {
    return false;
  }
}

function isStale(path: string): boolean {
  const status = statSync(path, { throwIfNoEntry: false });
  return status !== undefined && Date.now() - status.mtimeMs > STALE_MS;
}

function unlinkIfPresent(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else took it for stale.
  }
}
