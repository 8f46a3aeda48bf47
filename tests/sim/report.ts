/**
 * What was looked at, and how much of it was different.
 *
 * @module
 */

import type { CrashModel } from "./crash.ts";
import { hash } from "./hash.ts";

/** The states of one operation. */
export class Tally {
  readonly name: string;
  runs = 0;
  /** States of the machine, each with what its processes have been through. */
  readonly #states = new Set<number>();
  readonly #disks = new Set<number>();
  /** What crashes have left, under each model. */
  readonly #images: Readonly<Record<CrashModel, Set<number>>> = {
    any: new Set(),
    ordered: new Set(),
  };
  readonly #allImages = new Set<number>();
  /** Whether some states were sampled, there being too many. */
  isSampled = false;

  constructor(name: string) {
    this.name = name;
  }

  /** Returns whether it is new. */
  state(text: string): boolean {
    const key = hash(text);
    if (this.#states.has(key)) return false;
    this.#states.add(key);
    return true;
  }

  /** What may crash; returns whether it is new. */
  disk(text: string): boolean {
    const key = hash(text);
    if (this.#disks.has(key)) return false;
    this.#disks.add(key);
    return true;
  }

  /** Returns whether it is new. */
  image(model: CrashModel, text: string): boolean {
    const key = hash(text);
    this.#images[model].add(key);
    if (this.#allImages.has(key)) return false;
    this.#allImages.add(key);
    return true;
  }

  get states(): number {
    return this.#states.size;
  }

  images(model: CrashModel): number {
    return this.#images[model].size;
  }

  /** All states that differ, of the living machine and of its disk. */
  get distinct(): number {
    return this.#states.size + this.#allImages.size;
  }
}
