/**
 * Programs that are stopped while they hold a lock, and go on later.
 *
 * @module
 */

import { setTimeout } from "node:timers/promises";
import type { Program } from "./program.ts";
import { testimonyOf } from "./witness.ts";

/** Programs that contend for a lock. */
export interface Contention {
  /** By the numbers of the holders, of which each has a hundred. */
  readonly programs: readonly (readonly [number, Program])[];
  readonly witness: string;
  /** A program is stopped for so long, at most. */
  readonly stopMs: number;
}

export interface Disturbance {
  readonly stops: number;
  /** Of the stops, how many met a holder, and kept it from freeing the lock. */
  readonly holdersStopped: number;
}

/** In which they all run. */
const LONGEST_PAUSE_MS = 60;

/** Stops one of them after the other, in turn the holder and any, until all have ended. */
export async function disturb(
  { programs, witness, stopMs }: Contention,
): Promise<Disturbance> {
  let hasEnded = false;
  const ended = Promise.all(programs.map(([, program]) => program.ended))
    .finally(() => hasEnded = true);
  let stops = 0;
  let holdersStopped = 0;
  while (!hasEnded) {
    const holder = stops % 3 === 0 ? 0 : awaitHolder(programs, witness);
    const random = Math.floor(Math.random() * programs.length);
    const [, program] = programs.find(([first]) => isOf(first, holder)) ??
      programs[random] ?? [];
    program?.signal("SIGSTOP");
    stops++;
    // It has come into force: a holder that is still there stays there.
    await setTimeout(1);
    const isHeld = holder !== 0 && testimonyOf(witness)[0] === holder;
    if (isHeld) holdersStopped++;
    await setTimeout(isHeld ? stopMs : Math.random() * stopMs / 4);
    program?.signal("SIGCONT");
    await setTimeout(Math.random() * LONGEST_PAUSE_MS);
  }
  await ended;
  return { stops, holdersStopped };
}

function isOf(first: number, holder: number): boolean {
  return holder >= first && holder < first + 100;
}

/** Who of them holds it, without giving him the time to leave; zero if nobody has come. */
function awaitHolder(
  programs: Contention["programs"],
  witness: string,
): number {
  const end = Date.now() + 10;
  while (Date.now() < end) {
    const [holder] = testimonyOf(witness);
    if (programs.some(([first]) => isOf(first, holder))) return holder;
  }
  return 0;
}
