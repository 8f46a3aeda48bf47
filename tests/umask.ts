/**
 * Tests under another umask.
 *
 * @module
 */

import process from "node:process";

// Deno 2.5 has a process.umask that sets nothing.
const setUmask: (mask: number) => number =
  (globalThis as { Deno?: { umask(mask: number): number } }).Deno?.umask ??
    process.umask;

/** Calls `body` under that umask. */
export async function withUmask<T>(
  mask: number,
  body: () => Promise<T>,
): Promise<T> {
  const before = setUmask(mask);
  try {
    return await body();
  } finally {
    setUmask(before);
  }
}
