/**
 * What the library claims of a file, checked against everything that is seen of
 * it: by those who look while it lives, and after a crash.
 *
 * @module
 */

import type { CrashModel, FoundNode } from "./crash.ts";
import { lookUp, type View } from "./view.ts";

/** What was found that must not be. */
export class Violation extends Error {
  override name = "Violation";
}

/** What is claimed of a file, or of several. */
export interface Claim {
  /** The file, beside which there may be temporary ones. */
  readonly path: string;
  /** What of the past decides about the future. */
  readonly key: string;
  /** Somebody looks. */
  observe(view: View): void;
  /** Somebody looks after a crash. */
  checkCrash(view: View, model: CrashModel): void;
}

/** A content that a file may come to have. */
export interface Legal {
  readonly text: string;
  /** The mode and the owner it must have then, where that is known. */
  readonly mode?: number | undefined;
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/** What a file was, from one replacement to the next. */
interface Version {
  readonly text: string | undefined;
  readonly seen: string;
}

/** One file, and the versions that it goes through. */
export class FileClaim implements Claim {
  readonly path: string;
  readonly #legal: ReadonlyMap<string, Legal>;
  readonly #versions: Version[];
  /** The oldest version that a crash may bring back. */
  #oldest = 0;
  /** Whether a power cut is claimed to leave a whole version at all. */
  readonly #survivesPowerCut: boolean;

  /** Whether the contents may only come in the order they are given in. */
  readonly #isInOrder: boolean;

  constructor(
    path: string,
    legal: readonly Legal[],
    survivesPowerCut: boolean,
    view: View,
    isInOrder = false,
  ) {
    this.path = path;
    this.#isInOrder = isInOrder;
    this.#legal = new Map(legal.map((content) => [content.text, content]));
    this.#versions = [versionOf(lookUp(view, path))];
    this.#survivesPowerCut = survivesPowerCut;
  }

  /** What the file is now. */
  get current(): string | undefined {
    return this.#versions.at(-1)?.text;
  }

  /** How often it was replaced. */
  get replacements(): number {
    return this.#versions.length - 1;
  }

  /** Which version this text is, the newest if it was there more than once; -1 if it never was. */
  indexOf(text: string): number {
    return this.#versions.findLastIndex((version) => version.text === text);
  }

  /** What the file was at first. */
  get first(): string | undefined {
    return this.#versions[0]?.text;
  }

  /** What of the past decides about the future. */
  get key(): string {
    return `${this.#oldest}/${
      this.#versions.map(({ seen }) => seen).join("|")
    }`;
  }

  /** Somebody looks. */
  observe(view: View): void {
    const node = lookUp(view, this.path);
    const version = versionOf(node);
    if (version.seen === this.#versions.at(-1)?.seen) return;
    const legal = this.#legal.get(version.text ?? "");
    if (node === undefined || legal === undefined) {
      throw new Violation(`a reader of ${this.path} finds ${version.seen}`);
    }
    const { mode, owner } = legal;
    const { metadata } = node;
    if (mode !== undefined && mode !== metadata.mode) {
      throw new Violation(
        `the mode should be 0o${
          mode.toString(8)
        }: a reader of ${this.path} finds ${version.seen}`,
      );
    }
    if (
      owner !== undefined &&
      (owner.uid !== metadata.uid || owner.gid !== metadata.gid)
    ) {
      throw new Violation(
        `the owner should be ${owner.uid}:${owner.gid}: a reader of ${this.path} finds ${version.seen}`,
      );
    }
    if (this.#versions.at(-1)?.text === version.text) {
      throw new Violation(
        `${this.path} was changed after it came into place, to ${version.seen}`,
      );
    }
    const order = [...this.#legal.keys()];
    const before = order.indexOf(this.current ?? "");
    if (this.#isInOrder && order.indexOf(legal.text) < before) {
      throw new Violation(
        `${JSON.stringify(legal.text)} comes after ${
          JSON.stringify(this.current)
        }, which was called later`,
      );
    }
    this.#versions.push(version);
  }

  /** A write has resolved: one of these contents, or a later one, must be there from now on. */
  promise(texts: readonly string[], isDurable: boolean): void {
    const index = this.#versions.findIndex(({ text }, version) =>
      version > 0 && text !== undefined && texts.includes(text)
    );
    if (index === -1) {
      throw new Violation(
        `a write of ${this.path} has resolved, but nobody can ever have read ${
          texts.join(" or ")
        }`,
      );
    }
    if (isDurable) this.#oldest = Math.max(this.#oldest, index);
  }

  /** Somebody looks after a crash. */
  checkCrash(view: View): void {
    if (!this.#survivesPowerCut) return;
    const { seen } = versionOf(lookUp(view, this.path));
    const index = this.#versions.findLastIndex((version) =>
      version.seen === seen
    );
    if (index === -1) {
      throw new Violation(`after a crash ${this.path} is ${seen}`);
    }
    if (index < this.#oldest) {
      throw new Violation(
        `a write of ${this.path} has resolved, but after a crash it is ${seen}`,
      );
    }
  }
}

function versionOf(node: FoundNode | undefined): Version {
  if (node === undefined) return { text: undefined, seen: "absent" };
  const { kind, bytes, metadata: { mode, uid, gid } } = node;
  const text = new TextDecoder().decode(bytes);
  return {
    text,
    seen: `a ${kind} with ${JSON.stringify(text)}, mode 0o${
      mode.toString(8)
    }, owner ${uid}:${gid}`,
  };
}

/** A file that nobody may change. */
export function checkInnocent(view: View, path: string, text: string): void {
  const node = lookUp(view, path);
  const found = node && new TextDecoder().decode(node.bytes);
  if (found !== text) {
    throw new Violation(
      `${path}, which is none of its business, should be ${
        JSON.stringify(text)
      } and is ${JSON.stringify(found)}`,
    );
  }
}
