/**
 * Content that comes in parts: from an iterable, an async iterable or a
 * `ReadableStream`.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
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

/** Bytes in memory: an `ArrayBuffer`, or any view of one, as a `Uint8Array`, a `DataView` or a `Buffer`. */
export type BytesLike = ArrayBuffer | ArrayBufferView;

/** What gives its bytes as a stream: a `Blob`, or a file of `Bun.file`. */
export interface BlobLike {
  /** The stream. */
  stream(): ReadableStream<Uint8Array>;
}

/** What holds its bytes as a stream: a `Response` or a `Request`. */
export interface BodyLike {
  /** The stream; `null` where there are no bytes. */
  readonly body: ReadableStream<Uint8Array> | null;
  /** Whether somebody has read of it. */
  readonly bodyUsed: boolean;
}

/** The bytes that a value is, not copied; `undefined` if it is none. A string is none. */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (!ArrayBuffer.isView(value)) {
    return isBuffer(value) && !isDetached(value)
      ? new Uint8Array(value)
      : undefined;
  }
  if (isDetached(value.buffer)) return undefined;
  return isUint8Array(value)
    ? value
    : new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

function isDetached(buffer: ArrayBufferLike): boolean {
  return "detached" in buffer && buffer.detached;
}

/** By the getter of its brand: the class may be that of another realm, and a tag can be faked. */
function isUint8Array(value: ArrayBufferView): value is Uint8Array {
  const prototype = Object.getPrototypeOf(Uint8Array.prototype);
  return Reflect.get(prototype, Symbol.toStringTag, value) === "Uint8Array";
}

/** Likewise. */
function isBuffer(value: unknown): value is ArrayBuffer {
  return [ArrayBuffer, globalThis.SharedArrayBuffer].some((type) => {
    try {
      return type !== undefined &&
        Reflect.get(type.prototype, "byteLength", value) !== undefined;
    } catch {
      return false;
    }
  });
}

/** Where the bytes of a value come from, if they come in parts; `undefined` if they do not. */
export function byteSourceOf(value: unknown): Source<unknown> | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (isSource(value)) return value;
  if (isBlob(value)) return value.stream();
  if (!isBody(value)) return undefined;
  const { body, bodyUsed } = value;
  if (bodyUsed || body?.locked) {
    throw new TypeError(
      `The body of ${
        describe(value)
      } is read already: pass what was read of it`,
    );
  }
  return body ?? [];
}

/** By its shape: Bun, Node and a test runner's realm have classes of their own. */
function isBlob(value: object): value is BlobLike {
  return "stream" in value && typeof value.stream === "function" &&
    "arrayBuffer" in value && "size" in value;
}

function isBody(value: object): value is BodyLike {
  return "body" in value && "bodyUsed" in value &&
    (value.body === null || isStream(value.body));
}

function isStream(value: unknown): value is ReadableStream {
  return typeof value === "object" && value !== null && "getReader" in value;
}

/** Refuses an array with a part that is not to be written, before anything is made for it. */
export function checkParts(
  source: unknown,
  isPart: (value: unknown) => boolean,
  expected: string,
): void {
  if (!Array.isArray(source)) return;
  const index = [...source].findIndex((part) => !isPart(part));
  if (index !== -1) throw wrongChunk(index, expected, source[index]);
}

/** The chunks of a source, one by one. */
export interface Chunks<T> extends AsyncIterable<T> {
  /** Tells the source that it is left. */
  leave(): void;
}

/**
 * The chunks of a source. The signal ends them also while the source hangs; and
 * a source that is left early is told so.
 */
export function chunksOf<T>(
  source: Source<T>,
  signal: AbortSignal | undefined,
): Chunks<T> {
  // Else it would be found once a file is made for it, and hide why that failed.
  if (isStream(source) && source.locked) {
    throw new TypeError(
      "The source is a stream that somebody reads already: release its reader, or pass what was read of it",
    );
  }
  const begin = () => iteratorOf(source);
  return {
    leave: () => leave(begin()),
    [Symbol.asyncIterator]: () => iterate(begin(), signal),
  };
}

/** For so long a source may hold the event loop. */
const TURN_MS = 10;

async function* iterate<T>(
  iterator: AsyncIterator<T> | Iterator<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T, void, undefined> {
  const interruption = new Interruption(signal);
  let isDone = false;
  let turnedAt = performance.now();
  try {
    for (;;) {
      // What never waits, or only for what is there, would let nothing else run,
      // and no signal be aborted.
      if (performance.now() - turnedAt > TURN_MS) {
        await new Promise((resolve) => setTimeout(resolve));
        turnedAt = performance.now();
      }
      signal?.throwIfAborted();
      const step = iterator.next();
      const { done, value } = "then" in step
        ? await interruption.waitFor(Promise.resolve(step))
        : step;
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

function iteratorOf<T>(
  source: Source<T>,
): AsyncIterator<T> | Iterator<T> {
  if ("getReader" in source) return readerOf(source);
  return Symbol.asyncIterator in source
    ? source[Symbol.asyncIterator]()
    : source[Symbol.iterator]();
}

/** By a reader: the iterator of a stream can only be left when its next chunk has come. */
function readerOf<T>(stream: ReadableStream<T>): AsyncIterator<T> {
  const reader = stream.getReader();
  return {
    async next() {
      const step = await reader.read();
      if (step.done) {
        reader.releaseLock();
        return { done: true, value: undefined };
      }
      return { done: false, value: step.value };
    },
    async return() {
      await reader.cancel();
      reader.releaseLock();
      return { done: true, value: undefined };
    },
  };
}

function leave(iterator: AsyncIterator<unknown> | Iterator<unknown>): void {
  try {
    const left = iterator.return?.();
    if (left !== undefined && "then" in left) {
      Promise.resolve(left).catch(() => {});
    }
  } catch {
    // There is an error already, and that one is told.
  }
}

/** Waits for promises until a signal is aborted. One listener for all of them: a race with one promise for each record would keep every record. */
class Interruption {
  readonly #signal: AbortSignal | undefined;
  #reject: ((reason: unknown) => void) | undefined;
  /** Stops waiting for the signal. */
  readonly end: () => void;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
    this.end = whenAborted(
      signal,
      () => this.#reject?.(signal?.reason),
    );
  }

  waitFor<T>(promise: Promise<T>): Promise<T> {
    const signal = this.#signal;
    if (signal === undefined) return promise;
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      promise.then(resolve, reject);
      // By the source itself, when it was asked.
      if (signal.aborted) reject(signal.reason);
    });
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
