/**
 * UTF-8 that loses nothing: bytes that are no UTF-8 are an error with a
 * position, not a silent U+FFFD, and a byte order mark stays in the text.
 *
 * @module
 */

import {
  AtomicError,
  ParseError,
  type ParsePosition,
  SerializationError,
} from "./errors.ts";
import type { Attempt } from "./_failure.ts";

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

/** The text of the bytes, or a `ParseError` at the first one that is no UTF-8. */
export function decodeText(bytes: Uint8Array, attempt: Attempt): string {
  try {
    return decode(bytes);
  } catch (cause) {
    // Only a TypeError speaks of the bytes; a string may also be too long.
    if (!(cause instanceof TypeError)) {
      throw new AtomicError(
        `Cannot read "${attempt.path}": its ${bytes.length} bytes are more than a string can hold: read them with readBytes`,
        { ...attempt, code: "TOO_LARGE", cause },
      );
    }
    const valid = validPrefix(bytes);
    const position = positionIn(valid, valid.length);
    throw new ParseError(
      `Cannot read "${attempt.path}": it is not UTF-8 at ${
        describePosition(position)
      }: read it with readBytes`,
      { ...attempt, ...position, code: "PARSE", cause },
    );
  }
}

/** Where the character at `index` of a file's text is. */
export function positionIn(text: string, index: number): ParsePosition {
  const before = text.slice(0, index);
  const lineStart = before.lastIndexOf("\n") + 1;
  return {
    line: before.split("\n").length,
    column: index - lineStart + 1,
    byteOffset: new TextEncoder().encode(before).length,
  };
}

/** A position in an error message. */
export function describePosition(position: ParsePosition): string {
  const { line, column, byteOffset } = position;
  return `line ${line}, column ${column} (byte ${byteOffset})`;
}

/** As a stream, the bytes may end within a character. */
function decode(bytes: Uint8Array, stream = false): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
    .decode(bytes, { stream });
}

/** The text before the first byte that is no UTF-8, found by halving: only failures pay for it. */
function validPrefix(bytes: Uint8Array): string {
  let valid = 0;
  let invalid = bytes.length + 1;
  let text = "";
  while (invalid - valid > 1) {
    const middle = Math.floor((valid + invalid) / 2);
    try {
      text = decode(bytes.subarray(0, middle), true);
      valid = middle;
    } catch {
      invalid = middle;
    }
  }
  return text;
}
