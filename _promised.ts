/**
 * Calls whose arguments are not kept while they are waited for, and waiting that
 * a signal ends. An async function keeps its parameters as long as it is
 * suspended: the text of every write that waits for its turn, superseded or not.
 *
 * @module
 */

/** Starts a call; what is thrown before it is under way is a rejection. */
export function promised<T>(start: () => Promise<T>): Promise<T> {
  return new Promise((resolve) => resolve(start()));
}

/** What the promise comes to, unless the signal ends the waiting for it. */
export async function unlessAborted<T>(
  value: T | Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return await value;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([promise, value]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
