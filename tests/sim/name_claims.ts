/**
 * What the library claims of moves and of appends, which do more to a file than
 * to replace it.
 *
 * @module
 */

import { inspectTail, type Tail } from "../../_jsonl_tail.ts";
import type { Protocol } from "../../_protocol.ts";
import { type Claim, Violation } from "./claims.ts";
import type { CrashModel } from "./crash.ts";
import { lookUp, type View } from "./view.ts";

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** What a path holds; bytes that are no UTF-8 stay distinct from those that are. */
function textAt(view: View, path: string): string | undefined {
  const node = lookUp(view, path);
  return node && decoder.decode(node.bytes);
}

/** A file that is to get another name. */
export interface Source {
  readonly path: string;
  readonly text: string;
}

/** Files that are to get one name. */
export class MoveClaim implements Claim {
  readonly path: string;
  readonly #sources: readonly Source[];
  readonly #old: string | undefined;
  readonly #survives: Survival;
  #promised: Source | undefined;
  #isDurable = false;

  /** `old` is what has the new name at first. */
  constructor(
    path: string,
    sources: readonly Source[],
    old: string | undefined,
    survives: Survival,
  ) {
    this.path = path;
    this.#sources = sources;
    this.#old = old;
    this.#survives = survives;
  }

  get key(): string {
    return `${this.#promised?.path} ${this.#isDurable}`;
  }

  observe(view: View): void {
    this.#check(view, "a reader finds", true);
    if (this.#promised !== undefined) this.#checkPromised(view, "now");
  }

  checkCrash(view: View, model: CrashModel): void {
    if (this.#survives.models.includes(model)) {
      this.#check(view, "after a crash there is", this.#survives.isSynced);
    }
    if (this.#promised !== undefined && this.#isDurable) {
      this.#checkPromised(view, "after a crash");
    }
  }

  /** A move has resolved. */
  promise(source: Source, isDurable: boolean): void {
    this.#promised = source;
    this.#isDurable = isDurable;
  }

  #check(view: View, who: string, isWhole: boolean): void {
    const at = textAt(view, this.path);
    const texts = this.#sources.map(({ text }) => text);
    if (at !== this.#old && !texts.includes(at ?? "")) {
      throw new Violation(`${who} ${JSON.stringify(at)} at ${this.path}`);
    }
    if (!isWhole) return;
    const lost = this.#sources.find(({ path, text }) =>
      at !== text && textAt(view, path) !== text
    );
    if (lost !== undefined) {
      throw new Violation(
        `${who} ${
          JSON.stringify(lost.text)
        } neither at ${lost.path} nor at ${this.path}`,
      );
    }
  }

  #checkPromised(view: View, when: string): void {
    const { path, text } = this.#promised ?? { path: "", text: "" };
    const [from, to] = [textAt(view, path), textAt(view, this.path)];
    if (to !== text || from !== undefined) {
      throw new Violation(
        `a move of ${path} to ${this.path} has resolved, but ${when} there is ${
          JSON.stringify(from)
        } and ${JSON.stringify(to)}`,
      );
    }
  }
}

/** What a power cut leaves. */
export interface Survival {
  /** With which disks a file is claimed to have one of its names at least. */
  readonly models: readonly CrashModel[];
  /** Whether the file was on the disk before the move. */
  readonly isSynced: boolean;
}

/** A file that records are appended to. */
export class AppendClaim implements Claim {
  readonly path: string;
  /** What is there for good. */
  #base: string | undefined;
  /** What may be there behind it. */
  #pieces: (readonly string[])[] = [[]];
  /** What is there behind it, and may be lost. */
  #inPlace: readonly string[] = [];
  readonly #survives: AppendSurvival;
  #isPlaced: boolean;

  constructor(
    path: string,
    base: string | undefined,
    survives: AppendSurvival,
  ) {
    this.path = path;
    this.#base = base;
    this.#survives = survives;
    this.#isPlaced = survives.isPlaced;
  }

  get key(): string {
    return JSON.stringify([this.#base, this.#pieces, this.#inPlace]);
  }

  /** Lines are being appended. */
  begin(lines: readonly string[]): void {
    this.#pieces.push([...this.#inPlace, ...lines]);
  }

  /** These lines are there; if they are durable, then all is. */
  promise(lines: readonly string[], isDurable: boolean): void {
    this.#inPlace = [...this.#inPlace, ...lines];
    if (!isDurable) return;
    this.#base = `${this.#base ?? ""}${this.#inPlace.join("")}`;
    this.#inPlace = [];
    this.#pieces = [[]];
    this.#isPlaced = true;
  }

  observe(view: View): void {
    const text = textAt(view, this.path);
    if (text === this.#base) return;
    const isPart = this.#pieces.some((lines) =>
      `${this.#base ?? ""}${lines.join("")}`.startsWith(text ?? "\0")
    );
    if (!isPart || !(text ?? "").startsWith(this.#base ?? "")) {
      throw new Violation(
        `a reader of ${this.path} finds ${JSON.stringify(text)}`,
      );
    }
  }

  checkCrash(view: View, model: CrashModel): void {
    const bytes = lookUp(view, this.path)?.bytes;
    const text = bytes && decoder.decode(bytes);
    if (text === this.#base || !this.#survives.isClaimed) return;
    const fail = (what: string): never => {
      throw new Violation(
        `after a crash ${this.path} ${what}: ${JSON.stringify(text)}`,
      );
    };
    if (bytes === undefined && !this.#isPlaced) return;
    if (bytes === undefined || !text?.startsWith(this.#base ?? "")) {
      return fail("has lost a record");
    }
    if (this.#pieces.length === 1) fail("has more than was promised");
    if (!this.#survives.models.includes(model)) return;
    const repaired = decoder.decode(repairedForm(bytes));
    const isLegal = this.#pieces.some((lines) =>
      [...lines, undefined].some((_, count) => {
        const whole = `${this.#base ?? ""}${lines.slice(0, count).join("")}`;
        return repaired === whole || repaired === `${whole}\n`;
      })
    );
    if (!isLegal) fail("has more than records and a torn line");
  }
}

/** What a power cut leaves of an append. */
export interface AppendSurvival {
  /** Whether the file itself is on the disk before. */
  readonly isPlaced: boolean;
  /** Whether earlier records are claimed to be intact. */
  readonly isClaimed: boolean;
  /** With which disks the new ones are claimed to be whole, but for one line. */
  readonly models: readonly CrashModel[];
}

/** What a repair makes of a file. */
function repairedForm(bytes: Uint8Array): Uint8Array {
  const { kind, offset } = tailOf(bytes);
  if (kind === "torn") return bytes.subarray(0, offset);
  const end = kind === "whole" ? "\n" : "";
  return Uint8Array.from([...bytes, ...encoder.encode(end)]);
}

/** By the code of the library, from memory. */
function tailOf(bytes: Uint8Array): Tail {
  const looking: Protocol<Tail> = inspectTail(
    { path: "" },
    bytes.length,
    undefined,
  );
  let step = looking.next();
  while (!step.done) {
    const [, into, position] = step.value.args;
    if (!(into instanceof Uint8Array) || typeof position !== "number") {
      throw new Error(`It does more than read: ${step.value.name}`);
    }
    const part = bytes.subarray(position, position + into.length);
    into.set(part);
    step = looking.next(part.length);
  }
  return step.value;
}
