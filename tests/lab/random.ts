/**
 * Random choices that can be made again.
 *
 * @module
 */

import process from "node:process";
import type { TestContext } from "node:test";

/** Numbers from 0 to 1, the same for the same seed, which is told and can be given in LAB_SEED. */
export function randomFrom(t: TestContext): () => number {
  let state = Number(process.env.LAB_SEED ?? Date.now() % 2 ** 32);
  t.diagnostic(`LAB_SEED=${state}`);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
