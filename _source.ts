/**
 * Content that comes in parts: from an iterable, an async iterable or a
 * `ReadableStream`.
 *
 * @module
 */

import { describe } from "./_describe.ts";

/** Where content may come from. */
export type Source<T> = Iterable<T> | AsyncIterable<T> | ReadableStream<T>;

/** Whether the value can be iterated over. A string and a buffer are whole values, not sources. */
export function isSource(value: unknown): value is Source<unknown> {
  return isIterable(value) ||
    (typeof value === "object" && value !== null &&
      Symbol.asyncIterator in value);
}

/** Whether the value can be iterated over without waiting. */
export function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null &&
    Symbol.iterator in value && !ArrayBuffer.isView(value);
}

/**
 * The chunks of a source, one by one. The signal ends it also while the source
 * hangs; and a source that is left early is told so.
 */
export async function* chunksOf<T>(
  source: Source<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T, void, undefined> {
  const isAsync = Symbol.asyncIterator in source;
  const iterator: AsyncIterator<T> | Iterator<T> = isAsync
    ? source[Symbol.asyncIterator]()
    : source[Symbol.iterator]();
  const interruption = new Interruption(signal);
  let isDone = false;
  try {
    for (;;) {
      signal?.throwIfAborted();
      const step = iterator.next();
      const { done, value } =
        await (step instanceof Promise ? interruption.waitFor(step) : step);
      if (done === true) {
        isDone = true;
        return;
      }
      yield value;
    }
  } finally {
    interruption.end();
    // Not waited for: a source that hangs would hang here as well.
    if (!isDone) leave(iterator);
  }
}

function leave(iterator: AsyncIterator<unknown> | Iterator<unknown>): void {
  try {
    const left = iterator.return?.();
    if (left instanceof Promise) left.catch(() => {});
  } catch {
    // There is an error already, and that one is told.
  }
}

/** Waits for promises until a signal is aborted. One listener for all of them: a race with one promise for each record would keep every record. */
class Interruption {
  readonly #signal: AbortSignal | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  readonly #onAbort = (): void => this.#reject?.(this.#signal?.reason);

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
    signal?.addEventListener("abort", this.#onAbort);
  }

  waitFor<T>(promise: Promise<T>): Promise<T> {
    if (this.#signal === undefined) return promise;
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
    });
  }

  end(): void {
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}

/** An error for a chunk that is not what the function writes. */
export function wrongChunk(
  index: number,
  expected: string,
  received: unknown,
): TypeError {
  return new TypeError(
    `Chunk ${index} of the source must be ${expected}: received ${
      describe(received)
    }`,
  );
}
