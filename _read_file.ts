/**
 * A file read to its end. One open, so one version: a rename that comes later
 * does not change what the handle reads.
 *
 * @module
 */

import type { OwnBytes } from "./_options.ts";
import {
  attempt,
  blockingCall,
  call,
  closing,
  type Protocol,
  Refusal,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import type { Host, OpenFile } from "./_runtime/port.ts";

/** A read, with every option decided. */
export interface ReadRequest {
  readonly maxBytes: number;
  /** How many bytes the result can hold. */
  readonly capacity: number;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/** As many bytes as one buffer can have everywhere. */
export const MOST_BYTES: number = 2 ** 32;
/** Beyond them some runtimes decode nothing, or the rest, without an error. */
export const MOST_TEXT_BYTES: number = 2 ** 31 - 1;

/** Reads the file at `path` to its end. */
export function* readWhole(
  host: Host,
  path: string,
  request: ReadRequest,
): Protocol<OwnBytes> {
  const { file, size } = yield* openFile(host, path, request);
  // In sequence: a pipe has no positions.
  const read = (into: Uint8Array) => blockingCall("read", file, into);
  return yield* closing(file, () => readToEnd(read, size, request));
}

/** Reads an open file from its beginning to its end; each piece is shown to `look` as it comes. */
export function* readFrom(
  file: OpenFile,
  request: ReadRequest,
  look: (piece: Uint8Array) => void = () => {},
): Protocol<OwnBytes> {
  const { size } = yield* call("fstat", file);
  refuseLarger(size, request);
  function* read(into: Uint8Array, position: number): Protocol<number> {
    const count = yield* blockingCall("read", file, into, position);
    look(into.subarray(0, count));
    return count;
  }
  return yield* readToEnd(read, size, request);
}

/** Opens a file to be read, and refuses what is none or is too large. */
export function* openFile(
  host: Host,
  path: string,
  request: ReadRequest,
): Protocol<{ file: OpenFile; size: number }> {
  request.signal?.throwIfAborted();
  // It may have to wait: for a disk, or for somebody to write to a pipe.
  const file = yield* retrying(
    host,
    request,
    () => blockingCall("open", path),
  );
  try {
    // Who has asked may have left meanwhile.
    request.signal?.throwIfAborted();
    const { kind, size } = yield* call("fstat", file);
    if (kind === "directory") {
      throw new Refusal("EISDIR", "it is a directory: name a file inside it");
    }
    refuseLarger(size, request);
    return { file, size };
  } catch (error) {
    yield* attempt(call("close", file));
    throw error;
  }
}

/** Does not trust `size`: a pipe and a file in /proc report 0, and a file that is written in place grows. */
function* readToEnd(
  read: (into: Uint8Array, position: number) => Protocol<number>,
  size: number,
  request: ReadRequest,
): Protocol<OwnBytes> {
  // Exactly: who asks for the buffer of the bytes gets all of it.
  let buffer = allocate(size);
  let length = 0;
  for (;;) {
    request.signal?.throwIfAborted();
    const isFull = length === buffer.length;
    const room = isFull
      ? allocate(1)
      : buffer.subarray(length, length + LARGEST_READ);
    // The content may have to come from the disk, however small it is.
    const count = yield* read(room, length);
    if (count === 0) return isFull ? buffer : buffer.slice(0, length);
    if (isFull) {
      const larger = allocate(Math.max(2 * length, SMALLEST_GROWTH));
      larger.set(buffer);
      larger.set(room, length);
      buffer = larger;
    }
    length += count;
    refuseLarger(length, request);
  }
}

/** Bounds the time of one call, so that an abort is soon seen. */
const LARGEST_READ = 16 * 1024 * 1024;
const SMALLEST_GROWTH = 64 * 1024;

function refuseLarger(size: number, { maxBytes, capacity }: ReadRequest): void {
  if (size > maxBytes) {
    throw new Refusal(
      "TOO_LARGE",
      `it has ${size} bytes or more, and maxBytes allows ${maxBytes}`,
    );
  }
  if (size > capacity) {
    throw new Refusal(
      "TOO_LARGE",
      `it has ${size} bytes or more, of which at most ${capacity} can be read at once`,
    );
  }
}

function allocate(length: number): OwnBytes {
  try {
    return new Uint8Array(length);
  } catch {
    throw new Refusal(
      "TOO_LARGE",
      `there is not enough memory for its ${length} bytes or more`,
    );
  }
}
