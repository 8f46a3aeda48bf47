/**
 * The functions of the library with options of your own as defaults.
 *
 * @module
 */

import {
  readBytes,
  readBytesSync,
  writeBytesAtomic,
  writeBytesAtomicSync,
} from "./bytes.ts";
import {
  readJson,
  readJsonSync,
  writeJsonAtomic,
  writeJsonAtomicSync,
} from "./json.ts";
import {
  checkOptions,
  type FallbackOption,
  type JsonReadOptions,
  type JsonWriteOptions,
  knowsOption,
  type OptionKind,
} from "./_options.ts";
import { promised } from "./_promised.ts";
import { isPlainObject } from "./_plain_object.ts";
import {
  readText,
  readTextSync,
  writeTextAtomic,
  writeTextAtomicSync,
} from "./text.ts";

export type {
  Durability,
  FallbackOption,
  JsonReadOptions,
  JsonReplacer,
  JsonReviver,
  JsonWriteOptions,
  Owner,
  ReadOptions,
  SymlinkPolicy,
  TextWriteOptions,
  WriteOptions,
  WriteReceipt,
} from "./_options.ts";

/** The options that can be defaults: all but `fallback`, which belongs to one file. */
export interface DefaultOptions extends JsonWriteOptions, JsonReadOptions {}

/** The functions that {@linkcode withDefaults} binds. */
export interface BoundFunctions {
  /** As {@linkcode readBytes}. */
  readonly readBytes: typeof readBytes;
  /** As {@linkcode readBytesSync}. */
  readonly readBytesSync: typeof readBytesSync;
  /** As {@linkcode readJson}. */
  readonly readJson: typeof readJson;
  /** As {@linkcode readJsonSync}. */
  readonly readJsonSync: typeof readJsonSync;
  /** As {@linkcode readText}. */
  readonly readText: typeof readText;
  /** As {@linkcode readTextSync}. */
  readonly readTextSync: typeof readTextSync;
  /** As {@linkcode writeBytesAtomic}. */
  readonly writeBytesAtomic: typeof writeBytesAtomic;
  /** As {@linkcode writeBytesAtomicSync}. */
  readonly writeBytesAtomicSync: typeof writeBytesAtomicSync;
  /** As {@linkcode writeJsonAtomic}. */
  readonly writeJsonAtomic: typeof writeJsonAtomic;
  /** As {@linkcode writeJsonAtomicSync}. */
  readonly writeJsonAtomicSync: typeof writeJsonAtomicSync;
  /** As {@linkcode writeTextAtomic}. */
  readonly writeTextAtomic: typeof writeTextAtomic;
  /** As {@linkcode writeTextAtomicSync}. */
  readonly writeTextAtomicSync: typeof writeTextAtomicSync;
}

/**
 * Binds defaults to the functions of the library. Each function takes those of
 * them that it knows; an option given with a call goes before its default.
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
  const write = knownTo("write", checked);
  const textWrite = knownTo("textWrite", checked);
  const jsonWrite = knownTo("jsonWrite", checked);
  const read = knownTo("read", checked);
  const jsonRead = knownTo("jsonRead", checked);
  return {
    readBytes: async (path, options) =>
      await readBytes(path, merge(read, options)),
    readBytesSync: (path, options) => readBytesSync(path, merge(read, options)),
    readJson: async <T = unknown>(
      path: string | URL,
      options?: JsonReadOptions & FallbackOption<T>,
    ) => await readJson<T>(path, merge(jsonRead, options)),
    readJsonSync: <T = unknown>(
      path: string | URL,
      options?: JsonReadOptions & FallbackOption<T>,
    ) => readJsonSync<T>(path, merge(jsonRead, options)),
    readText: async (path, options) =>
      await readText(path, merge(read, options)),
    readTextSync: (path, options) => readTextSync(path, merge(read, options)),
    writeBytesAtomic: (path, bytes, options) =>
      promised(() => writeBytesAtomic(path, bytes, merge(write, options))),
    writeBytesAtomicSync: (path, bytes, options) =>
      writeBytesAtomicSync(path, bytes, merge(write, options)),
    writeJsonAtomic: (path, value, options) =>
      promised(() => writeJsonAtomic(path, value, merge(jsonWrite, options))),
    writeJsonAtomicSync: (path, value, options) =>
      writeJsonAtomicSync(path, value, merge(jsonWrite, options)),
    writeTextAtomic: (path, text, options) =>
      promised(() => writeTextAtomic(path, text, merge(textWrite, options))),
    writeTextAtomicSync: (path, text, options) =>
      writeTextAtomicSync(path, text, merge(textWrite, options)),
  };
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
