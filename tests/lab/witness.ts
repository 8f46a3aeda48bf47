/**
 * Sees two holders of a lock at once by means that no lock needs: a file with the
 * holder's number and a count, which each holder changes without any protection.
 *
 * @module
 */

import { openSync, readFileSync, readSync, writeSync } from "node:fs";

export class Witness {
  readonly #file: number;
  readonly #holder: number;
  #count = 0;

  /** The holder is a number above zero, and of nobody else; the file is there, with eight bytes. */
  constructor(path: string, holder: number) {
    this.#file = openSync(path, "r+");
    this.#holder = holder;
  }

  /** Called once the lock is held; tells who held it last and never left it, or zero. */
  enter(): number {
    const [before, count] = this.#read();
    this.#count = count;
    this.#write(this.#holder, count);
    return before;
  }

  /** Called before the lock is freed; tells whether nobody else was there. */
  leave(): boolean {
    const [holder, count] = this.#read();
    this.#write(0, this.#count + 1);
    return holder === this.#holder && count === this.#count;
  }

  #read(): Testimony {
    const record = new Int32Array(2);
    readSync(this.#file, record, 0, 8, 0);
    return testimony(record);
  }

  #write(holder: number, count: number): void {
    writeSync(this.#file, new Int32Array([holder, count]), 0, 8, 0);
  }
}

/** Who holds the lock, or zero; and how often it was left. */
export type Testimony = readonly [holder: number, count: number];

function testimony([holder = 0, count = 0]: Int32Array): Testimony {
  return [holder, count];
}

/** What the file says just now. */
export function testimonyOf(path: string): Testimony {
  const { buffer, byteOffset } = readFileSync(path);
  return testimony(new Int32Array(buffer.slice(byteOffset, byteOffset + 8)));
}
