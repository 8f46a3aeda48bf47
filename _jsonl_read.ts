/**
 * JSON lines, read one by one.
 *
 * @module
 */

import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import { parseJson } from "./_json_text.ts";
import { type Line, LineSplitter } from "./_lines.ts";
import {
  checkOptions,
  type FallbackOption,
  type JsonlReadOptions,
} from "./_options.ts";
import { absolutePath } from "./_path.ts";
import { unlessAborted } from "./_abort.ts";
import { blockingCall, call, failedWith, type Protocol } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { OpenFile, Port } from "./_runtime/port.ts";
import { decodeText } from "./_utf8.ts";
import {
  type OpenedToRead,
  openUnlessAborted,
  openVerified,
  type VerifiedRequest,
  Verifier,
} from "./_verified_read.ts";
import { ParseError } from "./errors.ts";

/** A read of JSON lines that is ready for its first system call. */
export interface LineRead<T> {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: VerifiedRequest;
  readonly options: JsonlReadOptions & FallbackOption<Iterable<T>>;
}

const CHUNK_BYTES = 256 * 1024;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
const BLANK = /^[ \t\r]*$/;

/** Checks the arguments, before the disk is touched. */
export function prepareLineRead<T>(
  operation: string,
  path: string | URL,
  given: JsonlReadOptions & FallbackOption<Iterable<T>>,
): LineRead<T> {
  const options = checkOptions("jsonlRead", given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "read",
    path: absolutePath(port, path),
  };
  const request: VerifiedRequest = {
    maxBytes: Infinity,
    checksum: options.checksum,
    capacity: Infinity,
    retryMs: options.retryMs ?? 1000,
    signal: options.signal,
  };
  return { port, attempt, request, options };
}

/** The values of the lines. The file is closed however the reading ends. */
export async function* readLines<T>(
  read: LineRead<T>,
): AsyncGenerator<T, void, undefined> {
  const { port, attempt, request, options } = read;
  const run = async <R>(protocol: Protocol<R>): Promise<R> => {
    try {
      return await runAsync(port, protocol);
    } catch (error) {
      throw explain(port, attempt, error);
    }
  };
  let opened: OpenedToRead;
  try {
    opened = await openUnlessAborted(port, attempt.path, request);
  } catch (error) {
    yield* fallBack(read, error);
    return;
  }
  const { file, sidecar } = opened;
  let reading: Promise<number> | undefined;
  try {
    const parser = new LineParser<T>(attempt, options);
    const verifier = new Verifier(port, sidecar);
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      request.signal?.throwIfAborted();
      // In sequence: a pipe has no positions.
      reading = run(blockingCall("read", file, chunk));
      const length = await unlessAborted(reading, request.signal);
      reading = undefined;
      if (length === 0) break;
      const piece = chunk.subarray(0, length);
      verifier.take(piece);
      yield* parser.take(piece);
    }
    endVerified(read, verifier);
    yield* parser.end();
  } finally {
    const close = () => run(call("close", file));
    // One that was left, and may never end, still has the descriptor.
    const isLeft = reading !== undefined && request.signal?.aborted;
    if (isLeft) reading?.then(close, close).catch(() => {});
    else await close();
  }
}

/** The values of the lines, blocking. */
export function* readLinesSync<T>(
  read: LineRead<T>,
): Generator<T, void, undefined> {
  const { port, attempt, request, options } = read;
  const run = <R>(protocol: Protocol<R>): R => {
    try {
      return runSync(port, protocol);
    } catch (error) {
      throw explain(port, attempt, error);
    }
  };
  let opened: OpenedToRead;
  try {
    opened = runSync(port, openVerified(port, attempt.path, request));
  } catch (error) {
    yield* fallBack(read, error);
    return;
  }
  const { file, sidecar } = opened;
  try {
    const parser = new LineParser<T>(attempt, options);
    const verifier = new Verifier(port, sidecar);
    const chunk = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      request.signal?.throwIfAborted();
      // In sequence: a pipe has no positions.
      const length = run(blockingCall("read", file, chunk));
      if (length === 0) break;
      const piece = chunk.subarray(0, length);
      verifier.take(piece);
      yield* parser.take(piece);
    }
    endVerified(read, verifier);
    yield* parser.end();
  } finally {
    run(call("close", file));
  }
}

/** Before the last line is handed out: of damage it may be what was added. */
function endVerified<T>(
  { port, attempt }: LineRead<T>,
  verifier: Verifier,
): void {
  try {
    verifier.end();
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function* fallBack<T>(
  { port, attempt, options }: LineRead<T>,
  error: unknown,
): Generator<T, void, undefined> {
  if (!failedWith(error, "ENOENT") || options.fallback === undefined) {
    throw explain(port, attempt, error);
  }
  yield* options.fallback;
}

/** Records of an open file as far as `end`, whatever follows. */
export async function* recordsOf<T>(
  port: Port,
  { file, sidecar }: OpenedToRead,
  end: number,
  parser: LineParser<T>,
): AsyncGenerator<T, void, undefined> {
  const verifier = new Verifier(port, sidecar);
  for (const piece of piecesOf(file, end)) {
    const length = await runAsync(port, piece.read);
    const bytes = piece.into.subarray(0, length);
    verifier.take(bytes);
    yield* parser.take(bytes);
    if (!piece.isTaken(length)) break;
  }
  verifier.end();
  yield* parser.end();
}

/** The same, blocking. */
export function* recordsOfSync<T>(
  port: Port,
  { file, sidecar }: OpenedToRead,
  end: number,
  parser: LineParser<T>,
): Generator<T, void, undefined> {
  const verifier = new Verifier(port, sidecar);
  for (const piece of piecesOf(file, end)) {
    const length = runSync(port, piece.read);
    const bytes = piece.into.subarray(0, length);
    verifier.take(bytes);
    yield* parser.take(bytes);
    if (!piece.isTaken(length)) break;
  }
  verifier.end();
  yield* parser.end();
}

/** A part of a file, which the same buffer is filled with each time. */
interface Piece {
  readonly read: Protocol<number>;
  readonly into: Uint8Array;
  /** Says how much was read; whether there is more. */
  isTaken(length: number): boolean;
}

function* piecesOf(file: OpenFile, end: number): Generator<Piece> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  let position = 0;
  while (position < end) {
    const into = chunk.subarray(0, end - position);
    yield {
      read: blockingCall("read", file, into, position),
      into,
      isTaken(length) {
        position += length;
        return length > 0;
      },
    };
  }
}

/** Chunks to values. */
export class LineParser<T> {
  readonly #attempt: Attempt;
  readonly #options: JsonlReadOptions;
  readonly #splitter: LineSplitter;

  constructor(attempt: Attempt, options: JsonlReadOptions) {
    this.#attempt = attempt;
    this.#options = options;
    this.#splitter = new LineSplitter(options.maxLineBytes);
  }

  *take(chunk: Uint8Array): Generator<T, void, undefined> {
    for (const line of this.#splitter.take(chunk)) yield* this.#parse(line);
  }

  *end(): Generator<T, void, undefined> {
    for (const line of this.#splitter.end()) yield* this.#parse(line);
  }

  *#parse(line: Line): Generator<T, void, undefined> {
    let value: T;
    try {
      if (line.isCut) throw this.#tooLong(line);
      const { bytes, origin } = withoutMark(line);
      const text = decodeText(bytes, this.#attempt, origin);
      if (BLANK.test(text)) return;
      value = parseJson<T>(text, this.#options.reviver, this.#attempt, {
        origin,
      });
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      const { onError = "throw" } = this.#options;
      if (onError === "throw") throw error;
      if (onError !== "skip") onError(error);
      return;
    }
    yield value;
  }

  #tooLong({ origin: { line, byteOffset } }: Line): ParseError {
    return new ParseError(
      `Cannot read "${this.#attempt.path}": line ${line} (byte ${byteOffset}) is longer than the ${this.#options.maxLineBytes} bytes that maxLineBytes allows`,
      { ...this.#attempt, line, column: 1, byteOffset, code: "PARSE" },
    );
  }
}

/** The first line of a file may begin with a byte order mark. */
function withoutMark(line: Line): Line {
  const { bytes, origin } = line;
  const isMarked = origin.byteOffset === 0 &&
    BYTE_ORDER_MARK.every((byte, index) => bytes[index] === byte);
  if (!isMarked) return line;
  const { length } = BYTE_ORDER_MARK;
  return {
    ...line,
    bytes: bytes.subarray(length),
    origin: { ...origin, byteOffset: length },
  };
}
