/**
 * A program that says nothing for a long time hangs. However long its work takes,
 * and however busy the machine is, one that gets on says something.
 *
 * @module
 */

const LONGEST_MS = 600_000;

/** Calls back when nothing was heard for so long. */
export class Silence {
  readonly #end: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(end: () => void) {
    this.#end = end;
    this.#timer = setTimeout(end, LONGEST_MS);
  }

  broken(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#end, LONGEST_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
