/**
 * The end of a file of JSON lines: whether its last line has its newline, and if
 * not, whether it is whole all the same. Read backwards from the end, in bounded
 * memory.
 *
 * @module
 */

import { jsonErrorIndex } from "./_json_syntax.ts";
import type { OwnBytes } from "./_options.ts";
import { blockingCall, call, type Protocol, Refusal } from "./_protocol.ts";
import type { OpenFile } from "./_runtime/port.ts";

/** How a file ends. */
export interface Tail {
  /** Whether the last line has its newline, has none and is whole, or is torn. */
  readonly kind: "ended" | "whole" | "torn";
  /** Where a line begins that has no newline; else the end of the file. */
  readonly offset: number;
  /** Where what is whole ends. Behind a record that lacks its newline there may be zeros, of an append after it. */
  readonly end: number;
}

/** A last line that is no whole record. */
export class TornLine extends Refusal {
  readonly byteOffset: number;

  constructor(byteOffset: number) {
    super(
      "TORN",
      `its last line, from byte ${byteOffset} on, has no newline and is no whole object, array or string, so that it may be torn: cut it with repairJsonl, then append again`,
    );
    this.byteOffset = byteOffset;
  }
}

const NEWLINE = 0x0a;
const CHUNK_BYTES = 64 * 1024;
const LARGE_CHUNK_BYTES = 1024 * 1024;
/** A longer line is not taken into memory as a whole: of it only the brackets and the quotes are looked at. */
const LONGEST_TEXT = 64 * 1024 * 1024;

/** Looks at the end of a file of `size` bytes. */
export function* inspectTail(
  file: OpenFile,
  size: number,
  signal: AbortSignal | undefined,
): Protocol<Tail> {
  const ended: Tail = { kind: "ended", offset: size, end: size };
  if (size === 0) return ended;
  const last = new Uint8Array(1);
  // What was appended last is in memory as a rule.
  yield* call("read", file, last, size - 1);
  if (last[0] === NEWLINE) return ended;
  const offset = yield* lineStart(file, size, signal);
  const whole = yield* wholeRecord(file, offset, size, signal);
  if (whole === undefined) return ended;
  const end = offset + whole;
  return { kind: end === size ? "whole" : "torn", offset, end };
}

/** Reads from `offset` until `into` is full or the file ends. */
export function* readAt(
  file: OpenFile,
  into: OwnBytes,
  offset: number,
): Protocol<OwnBytes> {
  let length = 0;
  while (length < into.length) {
    const rest = into.subarray(length);
    const count = yield* blockingCall("read", file, rest, offset + length);
    if (count === 0) break;
    length += count;
  }
  return into.subarray(0, length);
}

/** Behind the last newline. */
function* lineStart(
  file: OpenFile,
  size: number,
  signal: AbortSignal | undefined,
): Protocol<number> {
  // Lines are short as a rule.
  let chunk = new Uint8Array(CHUNK_BYTES);
  for (let end = size; end > 0;) {
    signal?.throwIfAborted();
    const start = Math.max(0, end - chunk.length);
    const bytes = yield* readAt(file, chunk.subarray(0, end - start), start);
    const index = bytes.lastIndexOf(NEWLINE);
    if (index !== -1) return start + index + 1;
    end = start;
    if (chunk.length < LARGE_CHUNK_BYTES) {
      chunk = new Uint8Array(LARGE_CHUNK_BYTES);
    }
  }
  return 0;
}

/** How many bytes of a line are a whole record. Of a number or a word the rest may be missing, of these the end is seen; `undefined` of a line with nothing in it. */
function* wholeRecord(
  file: OpenFile,
  offset: number,
  size: number,
  signal: AbortSignal | undefined,
): Protocol<number | undefined> {
  const length = size - offset;
  // Cheap: zeros, as a crash may leave many, are told by the first.
  const beginning = new Uint8Array(Math.min(length, CHUNK_BYTES));
  const isPart = beginning.length < length;
  const text = textOf(yield* readAt(file, beginning, offset), offset, isPart);
  if (text === "" && !isPart) return undefined;
  const isBlank = isPart && /^[ \t\r]*$/.test(text ?? "-");
  if (!isBlank && !/^[ \t\r]*[[{"]/.test(text ?? "")) return 0;
  if (length > LONGEST_TEXT) return yield* scanned(file, offset, size, signal);
  const all = yield* readAt(file, new Uint8Array(length), offset);
  const bytes = all.subarray(0, all.findLastIndex((byte) => byte !== 0) + 1);
  const line = textOf(bytes, offset, false);
  if (line === undefined) return 0;
  try {
    JSON.parse(line);
    return bytes.length;
  } catch {
    return 0;
  }
}

/** The same of a line that is too long to be parsed. A record that was cut off is told all the same: its brackets, or its quotes, are open. */
function* scanned(
  file: OpenFile,
  offset: number,
  size: number,
  signal: AbortSignal | undefined,
): Protocol<number> {
  const scan = new RecordScan();
  const chunk = new Uint8Array(LARGE_CHUNK_BYTES);
  for (let position = offset; position < size;) {
    signal?.throwIfAborted();
    const rest = chunk.subarray(0, size - position);
    const bytes = yield* readAt(file, rest, position);
    if (bytes.length === 0 || !scan.take(bytes)) return 0;
    position += bytes.length;
  }
  return scan.end ?? 0;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}

/** How much deeper it is behind a byte that is in no string. */
function depthOf(byte: number): number {
  if (byte === 0x5b || byte === 0x7b) return 1;
  return byte === 0x5d || byte === 0x7d ? -1 : 0;
}

/** Finds the next of some bytes at or behind an index, which never goes back; the length where there is none. */
function skipping(
  bytes: Uint8Array,
  wanted: readonly number[],
): (index: number) => number {
  const next = wanted.map(() => -1);
  return (index) => {
    wanted.forEach((byte, place) => {
      if ((next[place] ?? -1) >= index) return;
      const found = bytes.indexOf(byte, index);
      next[place] = found === -1 ? bytes.length : found;
    });
    return Math.min(...next);
  };
}

/** Looks for the end of the object, the array or the string that a line begins with, and for zeros behind it. */
export class RecordScan {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #isBegun = false;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  #position = 0;
  #end: number | undefined;
  #hasZeros = false;

  /** Where the record ends, with the spaces behind it; `undefined` before its end. */
  get end(): number | undefined {
    return this.#end;
  }

  /** Takes a part of the line; whether it may be one of a record. */
  take(bytes: OwnBytes): boolean {
    try {
      this.#decoder.decode(bytes, { stream: true });
    } catch {
      return false;
    }
    const skip = skipping(bytes, [QUOTE, BACKSLASH, 0]);
    const start = this.#position;
    for (let index = 0; index < bytes.length; index++) {
      // Most bytes of a long line are those of strings.
      if (this.#isInString && !this.#isEscaped) index = skip(index);
      const byte = bytes[index];
      if (byte === undefined) break;
      this.#position = start + index + 1;
      const isPart = this.#end === undefined
        ? this.#takeInside(byte)
        : this.#takeBehind(byte);
      if (!isPart) return false;
    }
    this.#position = start + bytes.length;
    return true;
  }

  #takeBehind(byte: number): boolean {
    if (byte === 0) this.#hasZeros = true;
    else this.#end = this.#position;
    return byte === 0 || (isSpace(byte) && !this.#hasZeros);
  }

  #takeInside(byte: number): boolean {
    if (this.#isEscaped) {
      this.#isEscaped = false;
    } else if (this.#isInString) {
      if (byte === BACKSLASH) this.#isEscaped = true;
      if (byte === QUOTE) this.#isInString = false;
    } else if (byte === QUOTE) {
      this.#isInString = true;
    } else {
      this.#depth += depthOf(byte);
    }
    const isOpen = this.#depth > 0 || this.#isInString;
    // Before it there may be spaces, and a byte order mark.
    if (isOpen) this.#isBegun = true;
    else if (this.#isBegun) this.#end = this.#position;
    return byte !== 0;
  }
}

/** Refuses to cut what no append of records has begun: text that is no beginning of JSON. */
export function refuseOtherText(
  { offset }: Tail,
  beginning: OwnBytes,
  isPart: boolean,
): void {
  const last = beginning.findLastIndex((byte) => byte !== 0);
  const text = textOf(beginning.subarray(0, last + 1), offset, isPart);
  if (text === undefined || text.includes("\0")) return;
  const index = jsonErrorIndex(text);
  if (index === undefined || index === text.length) return;
  const shown = JSON.stringify(text.slice(0, MOST_SHOWN));
  throw new Refusal(
    "NOT_JSONL",
    `its last line, from byte ${offset} on, is no beginning of a record, so that no append was cut off there: it begins with ${shown}; if it is to go, write the file anew with writeJsonlAtomic`,
  );
}

const MOST_SHOWN = 60;

/** `undefined` of what is no UTF-8. A byte order mark may be at the start of a file, and nowhere else. */
function textOf(
  bytes: Uint8Array,
  offset: number,
  isPart: boolean,
): string | undefined {
  const decoder = new TextDecoder("utf-8", {
    fatal: true,
    ignoreBOM: offset > 0,
  });
  try {
    return decoder.decode(bytes, { stream: isPart });
  } catch {
    return undefined;
  }
}
