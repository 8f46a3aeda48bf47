/**
 * Bytes to lines, wherever the chunks are cut. A line ends in LF or CRLF; the
 * last one may end in nothing.
 *
 * @module
 */

import type { Origin } from "./_utf8.ts";

/** A line, without what ends it. */
export interface Line {
  readonly bytes: Uint8Array;
  /** Where it begins in the file. */
  readonly origin: Origin;
  /** Whether it was longer than allowed, and `bytes` is only its beginning. */
  readonly isCut: boolean;
}

const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** Splits chunks into lines. */
export class LineSplitter {
  readonly #mostBytes: number;
  /** The beginning of a line whose end is in a later chunk. */
  #parts: Uint8Array[] = [];
  #length = 0;
  #line = 1;
  #byteOffset = 0;

  /** Of a line of more than `mostBytes` no more than that is kept. */
  constructor(mostBytes: number = Infinity) {
    this.#mostBytes = mostBytes;
  }

  /** The lines that end in this chunk, which may be used again once they are taken. */
  *take(chunk: Uint8Array): Generator<Line, void, undefined> {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start);
      if (end === -1) break;
      yield this.#endLine(chunk.subarray(start, end), 1);
      start = end + 1;
    }
    if (start < chunk.length) this.#keep(chunk.subarray(start));
  }

  /** The last line, where it does not end in a newline. */
  *end(): Generator<Line, void, undefined> {
    if (this.#length > 0) yield this.#endLine(new Uint8Array(), 0);
  }

  #keep(part: Uint8Array): void {
    const room = Math.max(0, this.#mostBytes + 1 - this.#length);
    // A copy: the chunk is used again.
    if (room > 0) this.#parts.push(part.slice(0, room));
    this.#length += part.length;
  }

  #endLine(rest: Uint8Array, newlineBytes: number): Line {
    const whole = this.#parts.length === 0 ? rest : this.#joined(rest);
    const length = this.#length + rest.length;
    const isReturned = length <= this.#mostBytes + 1 && newlineBytes > 0 &&
      whole.at(-1) === CARRIAGE_RETURN;
    const bytes = isReturned ? whole.subarray(0, -1) : whole;
    const isCut = length - (isReturned ? 1 : 0) > this.#mostBytes;
    const origin = { line: this.#line, byteOffset: this.#byteOffset };
    this.#parts = [];
    this.#length = 0;
    this.#line++;
    this.#byteOffset += length + newlineBytes;
    return { bytes, origin, isCut };
  }

  #joined(rest: Uint8Array): Uint8Array {
    this.#parts.push(rest);
    const kept = this.#parts.reduce((sum, part) => sum + part.length, 0);
    const joined = new Uint8Array(kept);
    let length = 0;
    for (const part of this.#parts) {
      joined.set(part, length);
      length += part.length;
    }
    return joined;
  }
}
