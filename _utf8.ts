/**
 * UTF-8 that loses nothing: bytes that are no UTF-8 are an error with a
 * position, not a silent U+FFFD, and a byte order mark stays in the text.
 *
 * @module
 */

import type { Attempt } from "./_failure.ts";
import {
  AtomicError,
  ParseError,
  type ParsePosition,
  SerializationError,
} from "./errors.ts";

/** The bytes of a text, or a `SerializationError` where it is ill-formed. */
export function encodeText(text: string, attempt: Attempt): Uint8Array {
  if (!text.isWellFormed()) {
    const index = text.search(/\p{Surrogate}/u);
    throw new SerializationError(
      `Cannot write "${attempt.path}": the text is ill-formed UTF-16, with a lone surrogate (\\u${
        text.charCodeAt(index).toString(16)
      }) at index ${index}, which no encoding keeps: mend it with toWellFormed(), or write bytes`,
      { ...attempt, code: "SERIALIZATION" },
    );
  }
  return new TextEncoder().encode(text);
}

/** Where a piece of text begins in its file. */
export interface Origin {
  readonly line: number;
  readonly byteOffset: number;
}

const START_OF_FILE: Origin = { line: 1, byteOffset: 0 };

/** The text of the bytes, or a `ParseError` at the first one that is no UTF-8. */
export function decodeText(
  bytes: Uint8Array,
  attempt: Attempt,
  origin: Origin = START_OF_FILE,
): string {
  try {
    return decode(bytes);
  } catch (cause) {
    // What the error is about the runtimes do not tell alike.
    const byteOffset = invalidByteOffset(bytes);
    if (byteOffset === undefined) {
      throw new AtomicError(
        `Cannot read "${attempt.path}": its ${bytes.length} bytes are more than a string can hold: read them with readBytes`,
        { ...attempt, code: "TOO_LARGE", cause },
      );
    }
    const position = from(origin, bytePosition(bytes, byteOffset));
    throw new ParseError(
      `Cannot read "${attempt.path}": it is not UTF-8 at ${
        describePosition(position)
      }: read it with readBytes`,
      { ...attempt, ...position, code: "PARSE", cause },
    );
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Where the first sequence of bytes starts that is no character, by the table of well-formed sequences in the Unicode standard (3-7). */
function invalidByteOffset(bytes: Uint8Array): number | undefined {
  let offset = 0;
  while (offset < bytes.length) {
    const lead = bytes[offset] ?? 0;
    if (lead < 0x80) {
      offset++;
      continue;
    }
    const length = sequenceLength(lead);
    if (length === 0) return offset;
    for (let index = 1; index < length; index++) {
      const byte = bytes[offset + index] ?? 0;
      const [from, to] = index === 1 ? secondByteRange(lead) : CONTINUATION;
      if (byte < from || byte > to) return offset;
    }
    offset += length;
  }
  return undefined;
}

const CONTINUATION = [0x80, 0xbf] as const;

function sequenceLength(lead: number): number {
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/** Without overlong forms, surrogates, and what is beyond U+10FFFF. */
function secondByteRange(lead: number): readonly [from: number, to: number] {
  switch (lead) {
    case 0xe0:
      return [0xa0, 0xbf];
    case 0xed:
      return [0x80, 0x9f];
    case 0xf0:
      return [0x90, 0xbf];
    case 0xf4:
      return [0x80, 0x8f];
    default:
      return CONTINUATION;
  }
}

const NEWLINE = 0x0a;

function bytePosition(bytes: Uint8Array, byteOffset: number): ParsePosition {
  const before = bytes.subarray(0, byteOffset);
  let line = 1;
  for (const byte of before) if (byte === NEWLINE) line++;
  const lineStart = before.lastIndexOf(NEWLINE) + 1;
  const column = decode(before.subarray(lineStart)).length + 1;
  return { line, column, byteOffset };
}

function from(origin: Origin, { line, column, byteOffset }: ParsePosition) {
  return {
    line: origin.line + line - 1,
    column,
    byteOffset: origin.byteOffset + byteOffset,
  };
}

/** Where in its file the character at `index` of a text is. */
export function textPosition(
  text: string,
  index: number,
  origin: Origin = START_OF_FILE,
): ParsePosition {
  let line = 1;
  let lineStart = 0;
  for (;;) {
    const newline = text.indexOf("\n", lineStart);
    if (newline === -1 || newline >= index) break;
    line++;
    lineStart = newline + 1;
  }
  const byteOffset = new TextEncoder().encode(text.slice(0, index)).length;
  return from(origin, { line, column: index - lineStart + 1, byteOffset });
}

/** A position in an error message. */
export function describePosition(position: ParsePosition): string {
  const { line, column, byteOffset } = position;
  return `line ${line}, column ${column} (byte ${byteOffset})`;
}
