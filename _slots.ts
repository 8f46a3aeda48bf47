/**
 * How many whole values are written at once. Each write holds up to two file
 * descriptors, of which a process may have only 256; more writes at once are
 * not faster, since they wait for the same disk.
 *
 * @module
 */

const MOST_AT_ONCE = 64;

let free = MOST_AT_ONCE;
/** In order; a set, for its first one is taken in constant time. */
const waiting = new Set<() => void>();

/** Runs `write` when its turn has come, at once if there is room. */
export async function inSlot<T>(
  write: (hasWaited: boolean) => Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  const mustWait = free === 0;
  if (mustWait) await waitForSlot(signal);
  else free--;
  try {
    return await write(mustWait);
  } finally {
    // Handed on without becoming free, or one that comes just now would be
    // faster than those that wait.
    const [next] = waiting;
    if (next === undefined) {
      free++;
    } else {
      waiting.delete(next);
      next();
    }
  }
}

/** Until a slot is handed over, or the signal ends the waiting. */
function waitForSlot(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const take = () => {
      signal?.removeEventListener("abort", leave);
      resolve();
    };
    const leave = () => {
      waiting.delete(take);
      reject(signal?.reason);
    };
    signal?.throwIfAborted();
    signal?.addEventListener("abort", leave, { once: true });
    waiting.add(take);
  });
}
