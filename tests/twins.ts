/**
 * Both forms of the functions under one signature, so that a test runs on each.
 *
 * @module
 */

import * as atomic from "../mod.ts";

type Promised<F> = F extends (...args: infer A) => infer R
  ? (...args: A) => Promise<Awaited<R>>
  : never;

export interface Form {
  readonly name: "async" | "sync";
  readonly writeText: Promised<typeof atomic.writeTextAtomicSync>;
  readonly writeJson: Promised<typeof atomic.writeJsonAtomicSync>;
  readonly writeBytes: Promised<typeof atomic.writeBytesAtomicSync>;
  readonly updateText: (
    path: string,
    change: (text: string) => string,
    options?: atomic.TextUpdateOptions & { initial?: string },
  ) => Promise<atomic.UpdateResult<string>>;
  readonly append: (
    path: string,
    records: readonly unknown[],
    options?: atomic.JsonlAppendOptions,
  ) => Promise<atomic.AppendReceipt>;
  readonly verifyChecksum: Promised<typeof atomic.verifyChecksumSync>;
  readonly readChecksum: Promised<typeof atomic.readChecksumSync>;
  readonly writeChecksum: Promised<typeof atomic.writeChecksumSync>;
  readonly hashFile: Promised<typeof atomic.hashFileSync>;
  readonly hashBytes: Promised<typeof atomic.hashBytesSync>;
  readonly readText: (
    path: string | URL,
    options?: atomic.ReadOptions & atomic.FallbackOption<string>,
  ) => Promise<string>;
  readonly readJson: (
    ...args: Parameters<typeof atomic.readJsonSync>
  ) => Promise<unknown>;
  readonly readBytes: (
    path: string | URL,
    options?: atomic.ReadOptions & atomic.FallbackOption<atomic.OwnBytes>,
  ) => Promise<atomic.OwnBytes>;
}

/** The sync form as a promise, which a throw rejects. */
function promised<A extends unknown[], R>(
  twin: (...args: A) => R,
): (...args: A) => Promise<R> {
  return (...args) =>
    new Promise((resolve) => {
      resolve(twin(...args));
    });
}

export const FORMS: readonly Form[] = [
  {
    name: "async",
    writeText: atomic.writeTextAtomic,
    writeJson: atomic.writeJsonAtomic,
    writeBytes: atomic.writeBytesAtomic,
    updateText: (path, change, options = {}) =>
      atomic.updateTextAtomic(path, change, { initial: "", ...options }),
    append: atomic.appendJsonl,
    verifyChecksum: atomic.verifyChecksum,
    readChecksum: atomic.readChecksum,
    writeChecksum: atomic.writeChecksum,
    hashFile: atomic.hashFile,
    hashBytes: atomic.hashBytes,
    readText: atomic.readText,
    readJson: atomic.readJson,
    readBytes: atomic.readBytes,
  },
  {
    name: "sync",
    writeText: promised(atomic.writeTextAtomicSync),
    writeJson: promised(atomic.writeJsonAtomicSync),
    writeBytes: promised(atomic.writeBytesAtomicSync),
    updateText: promised((path, change, options = {}) =>
      atomic.updateTextAtomicSync(path, change, { initial: "", ...options })
    ),
    append: promised(atomic.appendJsonlSync),
    verifyChecksum: promised(atomic.verifyChecksumSync),
    readChecksum: promised(atomic.readChecksumSync),
    writeChecksum: promised(atomic.writeChecksumSync),
    hashFile: promised(atomic.hashFileSync),
    hashBytes: promised(atomic.hashBytesSync),
    readText: promised(atomic.readTextSync),
    readJson: promised(atomic.readJsonSync),
    readBytes: promised(atomic.readBytesSync),
  },
];
