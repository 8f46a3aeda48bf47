/**
 * How many whole values are written at once. Each write holds up to two file
 * descriptors, of which a process may have only 256; more writes at once are
 * not faster, since they wait for the same disk.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
import type { Port } from "./_runtime/port.ts";

const MOST_AT_ONCE = 64;

interface Slots {
  free: number;
  /** In order; a set, for its first one is taken in constant time. */
  readonly waiting: Set<() => void>;
}

const slotsByPort = new WeakMap<Port, Slots>();

function slotsOf(port: Port): Slots {
  let slots = slotsByPort.get(port);
  if (slots === undefined) {
    slotsByPort.set(port, slots = { free: MOST_AT_ONCE, waiting: new Set() });
  }
  return slots;
}

/** Runs `write` when its turn has come, at once if there is room. */
export async function inSlot<T>(
  port: Port,
  write: (hasWaited: boolean) => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  const slots = slotsOf(port);
  const mustWait = slots.free === 0;
  if (mustWait) await waitForSlot(slots, signal);
  else slots.free--;
  try {
    return await write(mustWait);
  } finally {
    // Handed on without becoming free, or one that comes just now would be
    // faster than those that wait.
    const [next] = slots.waiting;
    if (next === undefined) {
      slots.free++;
    } else {
      slots.waiting.delete(next);
      next();
    }
  }
}

/** Until a slot is handed over, or the signal ends the waiting. */
function waitForSlot(
  { waiting }: Slots,
  signal: AbortSignal | undefined,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const take = () => {
      stopWaiting();
      resolve();
    };
    const leave = () => {
      waiting.delete(take);
      reject(signal?.reason);
    };
    signal?.throwIfAborted();
    const stopWaiting = whenAborted(signal, leave);
    waiting.add(take);
  });
}
