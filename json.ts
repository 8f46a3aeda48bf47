/**
 * JSON documents, written and read whole.
 *
 * @example Writing a value, and reading it back
 * ```ts
 * import { readJson, writeJsonAtomic } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/config.json`;
 * await writeJsonAtomic(path, { port: 8080 });
 * assert.deepEqual(await readJson(path), { port: 8080 });
 * ```
 *
 * @module
 */

import { parseJson, stringifyJson } from "./_json_text.ts";
import type { Attempt } from "./_failure.ts";
import type {
  FallbackOption,
  JsonReadOptions,
  JsonReviver,
  JsonUpdateOptions,
  JsonWritable,
  JsonWriteOptions,
  OwnBytes,
  UpdateResult,
  WriteReceipt,
} from "./_options.ts";
import { prepareRead, read, readSync, type WholeRead } from "./_read.ts";
import { MOST_TEXT_BYTES } from "./_read_file.ts";
import { decodeText, encodeText } from "./_utf8.ts";
import { promised } from "./_promised.ts";
import { type Format, update, updateSync } from "./_update.ts";
import { prepareWrite, type WholeWrite, write, writeSync } from "./_write.ts";

export type {
  ChecksumAlgorithm,
  Durability,
  FallbackOption,
  Guarantee,
  JsonReadOptions,
  JsonReplacer,
  JsonReviver,
  JsonUpdateOptions,
  JsonWritable,
  JsonWriteOptions,
  Lock,
  LockOptions,
  Owner,
  ReadOptions,
  Safety,
  SymlinkPolicy,
  TextWriteOptions,
  UpdateResult,
  WriteOptions,
  WriteReceipt,
} from "./_options.ts";

/**
 * Replaces the content of a file by the JSON text of `value`, or makes the
 * file. Whoever opens it finds the old content or the new, never a part; once
 * the promise has resolved, the new content survives a power cut.
 *
 * The value is serialized before the function returns, so it may be changed
 * right after the call.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @typeParam T What the value is.
 * @param path The file: a path or a `file:` URL.
 * @param value What `JSON.stringify` accepts.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If the path or an option is malformed.
 * @throws {SerializationError} If the value has no JSON form: `undefined`, a
 * function, a BigInt, a cycle; or JSON would have nothing of it: a promise
 * anywhere in it, a Map or a Set. The message names the place, as in `$.a.b[3]`.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the directory.
 * @throws {AlreadyExistsError} If the file exists and `createNew` is set.
 * @throws {UnsupportedEnvironmentError} If what `require` names is not guaranteed there, or `safety` forbids a network mount.
 * @throws {NoSpaceError} If the disk is full. The old content is intact.
 * @throws {DurabilityError} If the new content is in place, but may not survive a power cut.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { writeJsonAtomic } from "@aj/atomic/json";
 *
 * const path = `${await Deno.makeTempDir()}/config.json`;
 * await writeJsonAtomic(path, { port: 8080, host: "localhost" }, {
 *   sortKeys: true,
 * });
 * ```
 */
export function writeJsonAtomic<T>(
  path: string | URL,
  value: T & JsonWritable<T>,
  options: JsonWriteOptions = {},
): Promise<WriteReceipt> {
  return promised(() =>
    write(prepare("writeJsonAtomic", path, value, options))
  );
}

/**
 * The synchronous form of {@linkcode writeJsonAtomic}: it returns once the new
 * content survives a power cut, and blocks until then.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @typeParam T What the value is.
 * @param path The file: a path or a `file:` URL.
 * @param value What `JSON.stringify` accepts.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If the path or an option is malformed.
 * @throws {SerializationError} If the value has no JSON form.
 * @throws {AtomicError} If the write fails, as {@linkcode writeJsonAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { writeJsonAtomicSync } from "@aj/atomic/json";
 *
 * writeJsonAtomicSync(`${Deno.makeTempDirSync()}/config.json`, { port: 8080 });
 * ```
 */
export function writeJsonAtomicSync<T>(
  path: string | URL,
  value: T & JsonWritable<T>,
  options: JsonWriteOptions = {},
): WriteReceipt {
  return writeSync(prepare("writeJsonAtomicSync", path, value, options));
}

/**
 * {@linkcode readJson}, where `null` stands for a missing file.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value, or `null`.
 *
 * @example Usage
 * ```ts
 * import { readJson } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/config.json`;
 * const config = await readJson<{ port: number }>(path, { fallback: null });
 * assert.equal(config?.port, undefined);
 * ```
 */
export function readJson<T = unknown>(
  path: string | URL,
  options: JsonReadOptions & Required<FallbackOption<null>>,
): Promise<T | null>;
/**
 * {@linkcode readJson}, where `undefined` stands for a missing file.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value, or `undefined`.
 *
 * @example Usage
 * ```ts
 * import { readJson } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/config.json`;
 * const config = await readJson<{ port: number }>(path, { fallback: undefined });
 * assert.equal(config?.port, undefined);
 * ```
 */
export function readJson<T = unknown>(
  path: string | URL,
  options: JsonReadOptions & Required<FallbackOption<undefined>>,
): Promise<T | undefined>;
/**
 * Reads a whole file as JSON: one version of it, whatever replaces it
 * meanwhile. A byte order mark is skipped.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If the file is not JSON in UTF-8, with the line, the
 * column and the byte offset where it stops being so.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the file.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { readJson } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/missing.json`;
 * const { port } = await readJson<{ port: number }>(path, {
 *   fallback: { port: 8080 },
 * });
 * assert.equal(port, 8080);
 * ```
 */
export function readJson<T = unknown>(
  path: string | URL,
  options?: JsonReadOptions & FallbackOption<T>,
): Promise<T>;
export async function readJson(
  path: string | URL,
  options: JsonReadOptions & FallbackOption<unknown> = {},
): Promise<unknown> {
  return await read(prepareJsonRead("readJson", path, options));
}

/**
 * {@linkcode readJsonSync}, where `null` stands for a missing file.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value, or `null`.
 *
 * @example Usage
 * ```ts
 * import { readJsonSync } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${Deno.makeTempDirSync()}/config.json`;
 * const config = readJsonSync<{ port: number }>(path, { fallback: null });
 * assert.equal(config?.port, undefined);
 * ```
 */
export function readJsonSync<T = unknown>(
  path: string | URL,
  options: JsonReadOptions & Required<FallbackOption<null>>,
): T | null;
/**
 * {@linkcode readJsonSync}, where `undefined` stands for a missing file.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value, or `undefined`.
 *
 * @example Usage
 * ```ts
 * import { readJsonSync } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${Deno.makeTempDirSync()}/config.json`;
 * const config = readJsonSync<{ port: number }>(path, { fallback: undefined });
 * assert.equal(config?.port, undefined);
 * ```
 */
export function readJsonSync<T = unknown>(
  path: string | URL,
  options: JsonReadOptions & Required<FallbackOption<undefined>>,
): T | undefined;
/**
 * The synchronous form of {@linkcode readJson}.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The value.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If the file is not JSON in UTF-8.
 * @throws {AtomicError} If the read fails, as {@linkcode readJson} does.
 *
 * @example Usage
 * ```ts
 * import { readJsonSync } from "@aj/atomic/json";
 *
 * const path = `${Deno.makeTempDirSync()}/missing.json`;
 * readJsonSync(path, { fallback: {} });
 * ```
 */
export function readJsonSync<T = unknown>(
  path: string | URL,
  options?: JsonReadOptions & FallbackOption<T>,
): T;
export function readJsonSync(
  path: string | URL,
  options: JsonReadOptions & FallbackOption<unknown> = {},
): unknown {
  return readSync(prepareJsonRead("readJsonSync", path, options));
}

/**
 * Changes the JSON of a file under its lock: reads it, calls `update` with it
 * and writes what that returns, so that no change of anybody who does the same
 * is lost, in other tasks, threads or processes. If the function throws, nothing
 * is written; if it returns what the file holds already, that is synced as
 * `durability` says, and not written again.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current JSON, or `initial` where there is no file, and returns the new one.
 * @param options How to write it. The default of `lock` is `true`; `initial` stands for a missing file.
 * @returns The new JSON, whether it was another one, and the receipt of the write.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {ParseError} If the file is not JSON in UTF-8.
 * @throws {LockTimeoutError} If the lock was not to be had in time.
 * @throws {LockLostError} If the lock was removed by hand meanwhile.
 * @throws {AtomicError} If the read or the write fails.
 *
 * @example Usage
 * ```ts
 * import { updateJsonAtomic } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/visits.json`;
 * const { value } = await updateJsonAtomic(
 *   path,
 *   ({ visits }) => ({ visits: visits + 1 }),
 *   { initial: { visits: 0 } },
 * );
 * assert.deepEqual(value, { visits: 1 });
 * ```
 */
export function updateJsonAtomic<T>(
  path: string | URL,
  update: (current: T) => T | Promise<T>,
  options: JsonUpdateOptions & { initial: T },
): Promise<UpdateResult<T>>;
/**
 * Without `initial` the function gets `undefined` where there is no file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current value, and returns the new one.
 * @param options How to write it.
 * @returns The new value, whether it was another one, and the receipt of the write.
 */
export function updateJsonAtomic<T = unknown>(
  path: string | URL,
  update: (current: T | undefined) => T | Promise<T>,
  options?: JsonUpdateOptions,
): Promise<UpdateResult<T>>;
export async function updateJsonAtomic<T>(
  path: string | URL,
  change: (current: T) => T | Promise<T>,
  options: JsonUpdateOptions & { initial?: T } = {},
): Promise<UpdateResult<T>> {
  const format = jsonFormat<T>("updateJsonAtomic");
  return await update(format, path, change, options);
}

/**
 * The synchronous form of {@linkcode updateJsonAtomic}, with a function that returns at
 * once. A lock that this very thread holds cannot be waited for.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current JSON, or `initial` where there is no file, and returns the new one.
 * @param options How to write it.
 * @returns The new JSON, whether it was another one, and the receipt of the write.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode updateJsonAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { updateJsonAtomicSync } from "@aj/atomic/json";
 *
 * updateJsonAtomicSync(`${Deno.makeTempDirSync()}/list.json`, (list) => list ?? []);
 * ```
 */
export function updateJsonAtomicSync<T>(
  path: string | URL,
  update: (current: T) => T,
  options: JsonUpdateOptions & { initial: T },
): UpdateResult<T>;
/**
 * Without `initial` the function gets `undefined` where there is no file.
 *
 * @typeParam T The type the caller knows the value to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current value, and returns the new one.
 * @param options How to write it.
 * @returns The new value, whether it was another one, and the receipt of the write.
 */
export function updateJsonAtomicSync<T = unknown>(
  path: string | URL,
  update: (current: T | undefined) => T,
  options?: JsonUpdateOptions,
): UpdateResult<T>;
export function updateJsonAtomicSync<T>(
  path: string | URL,
  change: (current: T) => T,
  options: JsonUpdateOptions & { initial?: T } = {},
): UpdateResult<T> {
  const format = jsonFormat<T>("updateJsonAtomicSync");
  return updateSync(format, path, change, options);
}

function jsonFormat<T>(operation: string): Format<T, JsonUpdateOptions> {
  return {
    operation,
    kind: "jsonUpdate",
    decode: (bytes, { reviver }, attempt) =>
      decodeJson<T>(bytes, reviver, attempt),
    encode: encodeJson,
  };
}

const BYTE_ORDER_MARK = "\ufeff";

function prepare(
  operation: string,
  path: string | URL,
  value: unknown,
  options: JsonWriteOptions,
): WholeWrite {
  return prepareWrite(
    operation,
    "jsonWrite",
    path,
    options,
    (checked, attempt) => encodeJson(value, checked, attempt),
  );
}

function encodeJson(
  value: unknown,
  options: JsonWriteOptions,
  attempt: Attempt,
): Uint8Array {
  const text = stringifyJson(value, options, attempt);
  const { trailingNewline = true } = options;
  return encodeText(trailingNewline ? `${text}\n` : text, attempt);
}

function decodeJson<T>(
  bytes: OwnBytes,
  reviver: JsonReviver | undefined,
  attempt: Attempt,
): T {
  const text = decodeText(bytes, attempt);
  const start = text.startsWith(BYTE_ORDER_MARK) ? 1 : 0;
  return parseJson<T>(text, reviver, attempt, { start });
}

function prepareJsonRead<T>(
  operation: string,
  path: string | URL,
  options: JsonReadOptions & FallbackOption<T>,
): WholeRead<T> {
  return prepareRead(
    operation,
    "jsonRead",
    path,
    options,
    MOST_TEXT_BYTES,
    (bytes, { reviver }, attempt) => decodeJson<T>(bytes, reviver, attempt),
  );
}
