/**
 * JSON lines: one JSON value on each line, written and read in a stream.
 *
 * @example Writing records, and reading them back
 * ```ts
 * import { readJsonl, writeJsonlAtomic } from "@aj/atomic/jsonl";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/events.jsonl`;
 * await writeJsonlAtomic(path, [{ id: 1 }, { id: 2 }]);
 * const ids: number[] = [];
 * for await (const { id } of readJsonl<{ id: number }>(path)) ids.push(id);
 * assert.deepEqual(ids, [1, 2]);
 * ```
 *
 * @module
 */

import { describe } from "./_describe.ts";
import { stringifyJson } from "./_json_text.ts";
import {
  type LineRead,
  prepareLineRead,
  readLines,
  readLinesSync,
} from "./_jsonl_read.ts";
import type {
  FallbackOption,
  JsonlReadOptions,
  JsonlWriteOptions,
  WriteReceipt,
} from "./_options.ts";
import { promised } from "./_promised.ts";
import { isIterable, isSource } from "./_source.ts";
import { encodeText } from "./_utf8.ts";
import {
  END,
  prepare,
  type SourceWrite,
  writeFrom,
  writeFromSync,
} from "./_write.ts";

export type {
  ChecksumAlgorithm,
  Durability,
  FallbackOption,
  Guarantee,
  JsonlReadOptions,
  JsonlWriteOptions,
  JsonReadOptions,
  JsonReplacer,
  JsonReviver,
  JsonWriteOptions,
  Lock,
  LockOptions,
  Owner,
  ProgressOption,
  ReadOptions,
  Safety,
  SymlinkPolicy,
  TextWriteOptions,
  WriteOptions,
  WriteProgress,
  WriteReceipt,
} from "./_options.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  ParseError,
  type ParsePosition,
} from "./errors.ts";

/**
 * Replaces the content of a file by one line of JSON for each record, or makes
 * the file. The records are taken one by one, as fast as the disk takes them,
 * and the memory it needs does not grow with their number. The file is replaced
 * once they have ended; where their source throws, it is left as it was.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param records The records: what `JSON.stringify` accepts, from an array, a
 * generator, an async generator, a stream.
 * @param options How to write them.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed. What the source
 * throws is thrown as it is.
 * @throws {SerializationError} If a record has no JSON form. The message names
 * the place, as in `$[3].a`.
 * @throws {AtomicError} If the write fails, as `writeBytesAtomic` does.
 *
 * @example Usage
 * ```ts
 * import { writeJsonlAtomic } from "@aj/atomic/jsonl";
 *
 * async function* events() {
 *   yield { id: 1, kind: "start" };
 *   yield { id: 2, kind: "end" };
 * }
 * const path = `${await Deno.makeTempDir()}/events.jsonl`;
 * await writeJsonlAtomic(path, events());
 * ```
 */
export function writeJsonlAtomic(
  path: string | URL,
  records:
    | Iterable<unknown>
    | AsyncIterable<unknown>
    | ReadableStream<unknown>,
  options: JsonlWriteOptions = {},
): Promise<WriteReceipt> {
  return promised(() => {
    const prepared = prepareRecords("writeJsonlAtomic", path, options);
    if (isSource(records) && !isNoList(records)) {
      return writeFrom(records, prepared);
    }
    throw noRecords(records);
  });
}

/**
 * The synchronous form of {@linkcode writeJsonlAtomic}.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param records The records, from an array or a generator.
 * @param options How to write them.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {SerializationError} If a record has no JSON form.
 * @throws {AtomicError} If the write fails, as `writeBytesAtomicSync` does.
 *
 * @example Usage
 * ```ts
 * import { writeJsonlAtomicSync } from "@aj/atomic/jsonl";
 *
 * const path = `${Deno.makeTempDirSync()}/events.jsonl`;
 * writeJsonlAtomicSync(path, [{ id: 1 }, { id: 2 }]);
 * ```
 */
export function writeJsonlAtomicSync(
  path: string | URL,
  records: Iterable<unknown>,
  options: JsonlWriteOptions = {},
): WriteReceipt {
  const prepared = prepareRecords("writeJsonlAtomicSync", path, options);
  if (!isIterable(records) || isNoList(records)) throw noRecords(records);
  return writeFromSync(records, prepared);
}

/**
 * Reads the lines of a file as JSON, one by one: one version of the file,
 * whatever replaces it meanwhile. Lines end in LF or CRLF, blank ones are
 * skipped, and so is a byte order mark. The file is closed when the loop ends,
 * however it does.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the values to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it; `fallback` are the values for a missing file.
 * @returns The values.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If a line is not JSON in UTF-8, with its number, the
 * column and the byte offset in the file, unless `onError` says otherwise.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Going on after a line that a crash has torn
 * ```ts
 * import { readJsonl } from "@aj/atomic/jsonl";
 *
 * const path = `${await Deno.makeTempDir()}/missing.jsonl`;
 * const events = readJsonl(path, {
 *   fallback: [],
 *   onError: (error) => console.warn(error.message),
 * });
 * for await (const event of events) console.log(event);
 * ```
 */
export function readJsonl<T = unknown>(
  path: string | URL,
  options: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>> = {},
): AsyncIterable<T> {
  return readLines(prepareLines("readJsonl", path, options));
}

/**
 * The synchronous form of {@linkcode readJsonl}.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam T The type the caller knows the values to have. It is not checked.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it; `fallback` are the values for a missing file.
 * @returns The values.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If a line is not JSON in UTF-8, unless `onError` says otherwise.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { readJsonlSync } from "@aj/atomic/jsonl";
 *
 * const path = `${Deno.makeTempDirSync()}/missing.jsonl`;
 * const events = [...readJsonlSync(path, { fallback: [] })];
 * ```
 */
export function readJsonlSync<T = unknown>(
  path: string | URL,
  options: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>> = {},
): Iterable<T> {
  return readLinesSync(prepareLines("readJsonlSync", path, options));
}

function prepareLines<T>(
  operation: string,
  path: string | URL,
  options: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>>,
): LineRead<T> {
  return prepareLineRead(operation, path, options);
}

function prepareRecords(
  operation: string,
  path: string | URL,
  given: JsonlWriteOptions,
): SourceWrite<unknown> {
  const { port, attempt, request, options } = prepare(
    operation,
    "jsonlWrite",
    path,
    given,
  );
  const { trailingNewline = true, onProgress } = options;
  /** Lines are encoded many at a time: a buffer for each would cost more than its JSON. */
  let lines = "";
  const encode = (record: unknown, index: number) => {
    if (record === END) {
      const rest = trailingNewline && index > 0 ? `${lines}\n` : lines;
      return encodeText(rest, attempt);
    }
    const json = stringifyJson(
      record,
      { ...options, indent: 0 },
      attempt,
      `$[${index}]`,
    );
    lines += index > 0 ? `\n${json}` : json;
    if (lines.length < BATCH_CHARACTERS) return NOTHING;
    const bytes = encodeText(lines, attempt);
    lines = "";
    return bytes;
  };
  return { port, attempt, request, onProgress, encode };
}

const BATCH_CHARACTERS = 32 * 1024;
const NOTHING = new Uint8Array();

/** What is iterable and still no list of records. */
function isNoList(records: object): boolean {
  return records instanceof Map || records instanceof ArrayBuffer;
}

function noRecords(records: unknown): TypeError {
  return new TypeError(
    `Records must come from an array, a generator or a stream: received ${
      describe(records)
    }`,
  );
}
