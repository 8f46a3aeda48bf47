/**
 * The functions that read, write, update, append, repair and move, with options of
 * your own as defaults. Those of locks, checksums, sweeps and guarantees are not
 * bound: they share few options with these.
 *
 * @module
 */

import {
  openAtomicWriter,
  openSnapshot,
  readBytes,
  readBytesSync,
  writeBytesAtomic,
  writeBytesAtomicSync,
} from "./bytes.ts";
import {
  readJson,
  readJsonSync,
  updateJsonAtomic,
  updateJsonAtomicSync,
  writeJsonAtomic,
  writeJsonAtomicSync,
} from "./json.ts";
import {
  appendJsonl,
  appendJsonlSync,
  compactJsonl,
  compactJsonlSync,
  readJsonl,
  readJsonlSync,
  repairJsonl,
  repairJsonlSync,
  writeJsonlAtomic,
  writeJsonlAtomicSync,
} from "./jsonl.ts";
import { moveAtomic, moveAtomicSync } from "./move.ts";
import {
  checkOptions,
  type FallbackOption,
  type JsonlReadOptions,
  type JsonReadOptions,
  type JsonUpdateOptions,
  type JsonWriteOptions,
  knowsOption,
  type OptionKind,
  type OwnBytes,
  type ReadOptions,
  type TextUpdateOptions,
} from "./_options.ts";
import { promised } from "./_promised.ts";
import { isPlainObject } from "./_plain_object.ts";
import {
  readText,
  readTextSync,
  updateTextAtomic,
  updateTextAtomicSync,
  writeTextAtomic,
  writeTextAtomicSync,
} from "./text.ts";

export type {
  AppendReceipt,
  ChecksumAlgorithm,
  Durability,
  FallbackOption,
  Guarantee,
  JsonlAppendOptions,
  JsonlReadOptions,
  JsonlRepairOptions,
  JsonlWriteOptions,
  JsonReadOptions,
  JsonReplacer,
  JsonReviver,
  JsonUpdateOptions,
  JsonWritable,
  JsonWriteOptions,
  Lock,
  LockOptions,
  MoveOptions,
  MoveReceipt,
  OwnBytes,
  Owner,
  ProgressOption,
  ReadOptions,
  RepairReport,
  Safety,
  SymlinkPolicy,
  TextUpdateOptions,
  TextWriteOptions,
  UpdateResult,
  WriteOptions,
  WriteProgress,
  WriteReceipt,
} from "./_options.ts";
export type { AtomicWriter, Snapshot } from "./bytes.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  ParseError,
  type ParsePosition,
} from "./errors.ts";

/** The options that can be defaults: all but `fallback`, `onProgress` and `overwrite`, which belong to one call. */
export interface DefaultOptions
  extends
    JsonWriteOptions,
    Omit<JsonReadOptions, "checksum">,
    Omit<JsonlReadOptions, "checksum"> {}

/** The functions that {@linkcode withDefaults} binds. */
export interface BoundFunctions {
  /** As {@linkcode appendJsonl}. */
  readonly appendJsonl: typeof appendJsonl;
  /** As {@linkcode appendJsonlSync}. */
  readonly appendJsonlSync: typeof appendJsonlSync;
  /** As {@linkcode compactJsonl}. */
  readonly compactJsonl: typeof compactJsonl;
  /** As {@linkcode compactJsonlSync}. */
  readonly compactJsonlSync: typeof compactJsonlSync;
  /** As {@linkcode moveAtomic}. */
  readonly moveAtomic: typeof moveAtomic;
  /** As {@linkcode moveAtomicSync}. */
  readonly moveAtomicSync: typeof moveAtomicSync;
  /** As {@linkcode openAtomicWriter}. */
  readonly openAtomicWriter: typeof openAtomicWriter;
  /** As {@linkcode openSnapshot}. */
  readonly openSnapshot: typeof openSnapshot;
  /** As {@linkcode readBytes}. */
  readonly readBytes: typeof readBytes;
  /** As {@linkcode readBytesSync}. */
  readonly readBytesSync: typeof readBytesSync;
  /** As {@linkcode readJson}. */
  readonly readJson: typeof readJson;
  /** As {@linkcode readJsonSync}. */
  readonly readJsonSync: typeof readJsonSync;
  /** As {@linkcode readJsonl}. */
  readonly readJsonl: typeof readJsonl;
  /** As {@linkcode readJsonlSync}. */
  readonly readJsonlSync: typeof readJsonlSync;
  /** As {@linkcode readText}. */
  readonly readText: typeof readText;
  /** As {@linkcode readTextSync}. */
  readonly readTextSync: typeof readTextSync;
  /** As {@linkcode repairJsonl}. */
  readonly repairJsonl: typeof repairJsonl;
  /** As {@linkcode repairJsonlSync}. */
  readonly repairJsonlSync: typeof repairJsonlSync;
  /** As {@linkcode updateJsonAtomic}. */
  readonly updateJsonAtomic: typeof updateJsonAtomic;
  /** As {@linkcode updateJsonAtomicSync}. */
  readonly updateJsonAtomicSync: typeof updateJsonAtomicSync;
  /** As {@linkcode updateTextAtomic}. */
  readonly updateTextAtomic: typeof updateTextAtomic;
  /** As {@linkcode updateTextAtomicSync}. */
  readonly updateTextAtomicSync: typeof updateTextAtomicSync;
  /** As {@linkcode writeBytesAtomic}. */
  readonly writeBytesAtomic: typeof writeBytesAtomic;
  /** As {@linkcode writeBytesAtomicSync}. */
  readonly writeBytesAtomicSync: typeof writeBytesAtomicSync;
  /** As {@linkcode writeJsonAtomic}. */
  readonly writeJsonAtomic: typeof writeJsonAtomic;
  /** As {@linkcode writeJsonAtomicSync}. */
  readonly writeJsonAtomicSync: typeof writeJsonAtomicSync;
  /** As {@linkcode writeJsonlAtomic}. */
  readonly writeJsonlAtomic: typeof writeJsonlAtomic;
  /** As {@linkcode writeJsonlAtomicSync}. */
  readonly writeJsonlAtomicSync: typeof writeJsonlAtomicSync;
  /** As {@linkcode writeTextAtomic}. */
  readonly writeTextAtomic: typeof writeTextAtomic;
  /** As {@linkcode writeTextAtomicSync}. */
  readonly writeTextAtomicSync: typeof writeTextAtomicSync;
}

/**
 * Binds defaults to the functions that read, write, update, append, repair and
 * move, which are all in {@linkcode BoundFunctions}. Each takes those of them that
 * it knows; an option given with a call goes before its default.
 *
 * @param defaults The options to use where a call does not name them.
 * @returns The same functions, with these defaults.
 * @throws {TypeError} If an option is unknown or malformed.
 *
 * @example Usage
 * ```ts
 * import { withDefaults } from "@aj/atomic/defaults";
 *
 * const cache = withDefaults({ durability: "none", indent: 0 });
 * const directory = await Deno.makeTempDir();
 * await cache.writeJsonAtomic(`${directory}/page.json`, { body: "hello" });
 * ```
 */
export function withDefaults(defaults: DefaultOptions): BoundFunctions {
  const checked = checkOptions("defaults", defaults);
  const open = knownTo("open", checked);
  const bytesWrite = knownTo("bytesWrite", checked);
  const textWrite = knownTo("textWrite", checked);
  const jsonWrite = knownTo("jsonWrite", checked);
  const read = knownTo("read", checked);
  const jsonUpdate = knownTo("jsonUpdate", checked);
  const textUpdate = knownTo("textUpdate", checked);
  const jsonRead = knownTo("jsonRead", checked);
  const jsonlRead = knownTo("jsonlRead", checked);
  const jsonlWrite = knownTo("jsonlWrite", checked);
  const jsonlAppend = knownTo("jsonlAppend", checked);
  const jsonlRepair = knownTo("jsonlRepair", checked);
  const jsonlCompact = knownTo("jsonlCompact", checked);
  const move = knownTo("move", checked);
  return {
    appendJsonl: (path, records, options) =>
      promised(() => appendJsonl(path, records, merge(jsonlAppend, options))),
    appendJsonlSync: (path, records, options) =>
      appendJsonlSync(path, records, merge(jsonlAppend, options)),
    moveAtomic: (from, to, options) =>
      promised(() => moveAtomic(from, to, merge(move, options))),
    moveAtomicSync: (from, to, options) =>
      moveAtomicSync(from, to, merge(move, options)),
    compactJsonl: (path, change, options) =>
      promised(() => compactJsonl(path, change, merge(jsonlCompact, options))),
    compactJsonlSync: (path, change, options) =>
      compactJsonlSync(path, change, merge(jsonlCompact, options)),
    repairJsonl: (path, options) =>
      promised(() => repairJsonl(path, merge(jsonlRepair, options))),
    repairJsonlSync: (path, options) =>
      repairJsonlSync(path, merge(jsonlRepair, options)),
    openAtomicWriter: (path, options) =>
      promised(() => openAtomicWriter(path, merge(bytesWrite, options))),
    openSnapshot: (path, options) =>
      promised(() => openSnapshot(path, merge(open, options))),
    readBytes: async <F = OwnBytes>(
      path: string | URL,
      options?: ReadOptions & FallbackOption<F>,
    ) => await readBytes<F>(path, merge(read, options)),
    readBytesSync: <F = OwnBytes>(
      path: string | URL,
      options?: ReadOptions & FallbackOption<F>,
    ) => readBytesSync<F>(path, merge(read, options)),
    readJson: async <T = unknown>(
      path: string | URL,
      options?: JsonReadOptions & FallbackOption<T>,
    ) => await readJson<T>(path, merge(jsonRead, options)),
    readJsonSync: <T = unknown>(
      path: string | URL,
      options?: JsonReadOptions & FallbackOption<T>,
    ) => readJsonSync<T>(path, merge(jsonRead, options)),
    readText: async <F = string>(
      path: string | URL,
      options?: ReadOptions & FallbackOption<F>,
    ) => await readText<F>(path, merge(read, options)),
    readTextSync: <F = string>(
      path: string | URL,
      options?: ReadOptions & FallbackOption<F>,
    ) => readTextSync<F>(path, merge(read, options)),
    updateJsonAtomic: <T>(
      path: string | URL,
      update: (current: T) => T | Promise<T>,
      options?: JsonUpdateOptions & { initial?: T },
    ) => updateJsonAtomic<T>(path, update, begun(merge(jsonUpdate, options))),
    updateJsonAtomicSync: <T>(
      path: string | URL,
      update: (current: T) => T,
      options?: JsonUpdateOptions & { initial?: T },
    ) =>
      updateJsonAtomicSync<T>(path, update, begun(merge(jsonUpdate, options))),
    updateTextAtomic: (
      path: string | URL,
      update: (current: string) => string | Promise<string>,
      options?: TextUpdateOptions & { initial?: string },
    ) => updateTextAtomic(path, update, begun(merge(textUpdate, options))),
    updateTextAtomicSync: (
      path: string | URL,
      update: (current: string) => string,
      options?: TextUpdateOptions & { initial?: string },
    ) => updateTextAtomicSync(path, update, begun(merge(textUpdate, options))),
    writeBytesAtomic: (path, bytes, options) =>
      promised(() => writeBytesAtomic(path, bytes, merge(bytesWrite, options))),
    writeBytesAtomicSync: (path, bytes, options) =>
      writeBytesAtomicSync(path, bytes, merge(bytesWrite, options)),
    writeJsonAtomic: (path, value, options) =>
      promised(() => writeJsonAtomic(path, value, merge(jsonWrite, options))),
    writeJsonAtomicSync: (path, value, options) =>
      writeJsonAtomicSync(path, value, merge(jsonWrite, options)),
    readJsonl: <T = unknown>(
      path: string | URL,
      options?: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>>,
    ) => readJsonl<T>(path, merge(jsonlRead, options)),
    readJsonlSync: <T = unknown>(
      path: string | URL,
      options?: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>>,
    ) => readJsonlSync<T>(path, merge(jsonlRead, options)),
    writeJsonlAtomic: (path, records, options) =>
      promised(() =>
        writeJsonlAtomic(path, records, merge(jsonlWrite, options))
      ),
    writeJsonlAtomicSync: (path, records, options) =>
      writeJsonlAtomicSync(path, records, merge(jsonlWrite, options)),
    writeTextAtomic: (path, text, options) =>
      promised(() => writeTextAtomic(path, text, merge(textWrite, options))),
    writeTextAtomicSync: (path, text, options) =>
      writeTextAtomicSync(path, text, merge(textWrite, options)),
  };
}

/** To the overload with an initial value: without one, the other says that the function may get `undefined`. */
function begun<T, Options extends { initial?: T }>(
  options: Options | undefined,
): Options & { initial: T } {
  return options as Options & { initial: T };
}

function knownTo(kind: OptionKind, defaults: DefaultOptions): DefaultOptions {
  return Object.fromEntries(
    Object.entries(defaults).filter(([name]) => knowsOption(kind, name)),
  );
}

/** An option that is `undefined` in a call is one that the call does not name. */
function merge<Options extends object>(
  defaults: DefaultOptions,
  options: Options | undefined,
): Options {
  // What are no options is passed on: the function itself rejects it.
  if (options !== undefined && !isPlainObject(options)) return options;
  const named = Object.entries(options ?? {}).filter(([name, value]) =>
    value !== undefined || !Object.hasOwn(defaults, name)
  );
  return { ...defaults, ...Object.fromEntries(named) } as Options;
}
