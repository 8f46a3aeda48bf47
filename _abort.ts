/**
 * Waiting that a signal ends. One listener for each signal, however many wait: to
 * add one more takes the longer on Node the more there are.
 *
 * @module
 */

interface Waiting {
  readonly callbacks: Set<() => void>;
  stop(): void;
}

const waitingFor = new WeakMap<AbortSignal, Waiting>();

/** Calls `callback` once the signal is aborted, unless what is returned is called before. */
export function whenAborted(
  signal: AbortSignal | undefined,
  callback: () => void,
): () => void {
  if (signal === undefined) return () => {};
  const waiting = waitingFor.get(signal) ?? listen(signal);
  const { callbacks } = waiting;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    // Or a signal that lives long would keep what it is no longer waited for.
    if (callbacks.size === 0) waiting.stop();
  };
}

function listen(signal: AbortSignal): Waiting {
  const callbacks = new Set<() => void>();
  const onAbort = () => {
    stop();
    for (const callback of callbacks) callback();
  };
  const stop = () => {
    signal.removeEventListener("abort", onAbort);
    if (waitingFor.get(signal) === waiting) waitingFor.delete(signal);
  };
  const waiting = { callbacks, stop };
  waitingFor.set(signal, waiting);
  signal.addEventListener("abort", onAbort);
  return waiting;
}

/** What the promise comes to, unless the signal ends the waiting for it. */
export async function unlessAborted<T>(
  value: T | Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return await value;
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  const stop = whenAborted(signal, onAbort);
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([promise, value]);
  } finally {
    stop();
  }
}
