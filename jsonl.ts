/**
 * JSON lines: one JSON value on each line, written and read in a stream, or
 * appended to.
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

import { compact, type Compaction, compactSync } from "./_compact.ts";
import { describe } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import { stringifyJson } from "./_json_text.ts";
import {
  atEnd,
  atEndSync,
  type Lines,
  prepareAppend,
  prepareRepair,
} from "./_jsonl_append.ts";
import {
  type LineRead,
  prepareLineRead,
  readLines,
  readLinesSync,
} from "./_jsonl_read.ts";
import type {
  AppendReceipt,
  CompactReceipt,
  FallbackOption,
  JsonlAppendOptions,
  JsonlCompactOptions,
  JsonlReadOptions,
  JsonlRepairOptions,
  JsonlWriteOptions,
  RepairReport,
  WriteReceipt,
} from "./_options.ts";
import { promised } from "./_promised.ts";
import { isPlainObject } from "./_plain_object.ts";
import { isIterable, isSource } from "./_source.ts";
import { encodeText } from "./_utf8.ts";
import {
  END,
  prepare,
  type Prepared,
  type SourceWrite,
  writeFrom,
  writeFromSync,
} from "./_write.ts";

export type {
  AppendReceipt,
  ChecksumAlgorithm,
  CompactReceipt,
  Durability,
  FallbackOption,
  Guarantee,
  JsonlAppendOptions,
  JsonlCompactOptions,
  JsonlReadOptions,
  JsonlRepairOptions,
  JsonlWriteOptions,
  JsonReadOptions,
  JsonReplacer,
  JsonReviver,
  JsonWriteOptions,
  Lock,
  LockOptions,
  OwnBytes,
  Owner,
  ProgressOption,
  ReadOptions,
  RepairReport,
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
  TornLineError,
  type TornLineErrorOptions,
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

/**
 * Appends records to a file of JSON lines, one line each, or makes the file.
 * This is a weaker promise than that of `writeJsonlAtomic`, since the file is
 * changed in place:
 *
 * - earlier records are intact after every crash, as far as the device does not
 *   damage the rest of the block that it rewrites;
 * - when the promise has resolved, a power cut leaves the records;
 * - a crash before that leaves the first of the records, whole, and behind them
 *   at most one torn line; of a large append, a file system that brings the end
 *   of a file to the disk before the bytes in front of it may leave zeros there;
 * - readers and snapshots may see a part of what is being appended.
 *
 * The records are encoded before the disk is touched, and written in one piece,
 * under the lock of the file. An append that fails is taken back. A file that
 * ends in a torn line is not appended to: `repairJsonl` cuts it. Where the last
 * line is whole and only its newline is missing, that comes first.
 *
 * Appends take their places in call order, among the writes of the file. A
 * synchronous write called while one waits comes first, and the append is
 * rejected (code `"SUPERSEDED"`), nothing changed.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param records The records: what `JSON.stringify` accepts, from an array or a
 * generator.
 * @param options How to append them.
 * @returns What was appended, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {SerializationError} If a record has no JSON form. Nothing was written.
 * @throws {TornLineError} If the file ends in a torn line, with its offset.
 * @throws {LockTimeoutError} If its lock was not to be had in time.
 * @throws {DurabilityError} If the records are in the file, and what follows failed.
 * @throws {AtomicError} If anything else fails. `committed` is `false` where the
 * file is as it was, and `"unknown"` where the append could not be taken back:
 * only a full rewrite may follow.
 *
 * @example Usage
 * ```ts
 * import { appendJsonl, readJsonl } from "@aj/atomic/jsonl";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/events.jsonl`;
 * await appendJsonl(path, [{ id: 1 }]);
 * const receipt = await appendJsonl(path, [{ id: 2 }, { id: 3 }]);
 * assert.equal(receipt.records, 2);
 * assert.equal((await Array.fromAsync(readJsonl(path))).length, 3);
 * ```
 */
export function appendJsonl(
  path: string | URL,
  records: Iterable<unknown>,
  options: JsonlAppendOptions = {},
): Promise<AppendReceipt> {
  return promised(() =>
    atEnd(
      prepareAppend(
        "appendJsonl",
        path,
        options,
        (options, attempt) => encodeLines(records, options, attempt),
      ),
    )
  );
}

/**
 * The synchronous form of {@linkcode appendJsonl}. It cannot wait: where an
 * asynchronous write, move or append of the file is under way in this thread, it
 * throws (code `"PENDING"`, or `"LOCK_TIMEOUT"` where that holds the lock).
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param records The records, from an array or a generator.
 * @param options How to append them.
 * @returns What was appended, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {TornLineError} If the file ends in a torn line, with its offset.
 * @throws {AtomicError} If it fails, as {@linkcode appendJsonl} does.
 *
 * @example Usage
 * ```ts
 * import { appendJsonlSync } from "@aj/atomic/jsonl";
 *
 * const path = `${Deno.makeTempDirSync()}/events.jsonl`;
 * appendJsonlSync(path, [{ id: 1 }]);
 * ```
 */
export function appendJsonlSync(
  path: string | URL,
  records: Iterable<unknown>,
  options: JsonlAppendOptions = {},
): AppendReceipt {
  return atEndSync(
    prepareAppend(
      "appendJsonlSync",
      path,
      options,
      (options, attempt) => encodeLines(records, options, attempt),
    ),
  );
}

/**
 * Writes a file of JSON lines anew with what a function makes of its records: a
 * log that is appended to is kept short so, and no record that is appended
 * meanwhile is lost. The lock of the file is held from before the first record is
 * read until the new file is in its place; `appendJsonl` waits for it.
 *
 * The function is given the records as a stream, and returns those to keep, as a
 * stream too, so that the length of the file does not matter. It must not write
 * to the file itself. A torn last line, as a crash in the middle of an append
 * leaves it, is left out, and told. Where there is no file, there are no records,
 * and one is made.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @typeParam T What the records are.
 * @param path The file: a path or a `file:` URL.
 * @param change Given the records; returns those to keep.
 * @param options How to read and to write them.
 * @returns What was read and written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {ParseError} If a line is no JSON, unless `onError` says otherwise.
 * @throws {LockTimeoutError} If its lock was not to be had in time.
 * @throws {LockLostError} If its lock was lost; the file is as it was.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Keeping the newest records of a log
 * ```ts
 * import { appendJsonl, compactJsonl, readJsonl } from "@aj/atomic/jsonl";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/events.jsonl`;
 * await appendJsonl(path, [{ at: 1 }, { at: 2 }, { at: 3 }]);
 * await compactJsonl<{ at: number }>(path, async function* (events) {
 *   for await (const event of events) if (event.at > 1) yield event;
 * });
 * assert.equal((await Array.fromAsync(readJsonl(path))).length, 2);
 * ```
 */
export function compactJsonl<T = unknown>(
  path: string | URL,
  change: (
    records: AsyncIterable<T>,
  ) => Iterable<unknown> | AsyncIterable<unknown> | ReadableStream<unknown>,
  options: JsonlCompactOptions = {},
): Promise<CompactReceipt> {
  return promised(() =>
    compact(prepareCompaction("compactJsonl", path, change, options), change)
  );
}

/**
 * The synchronous form of {@linkcode compactJsonl}. It cannot wait: where an
 * asynchronous write, move or append of the file is under way in this thread, it
 * throws (code `"PENDING"`, or `"LOCK_TIMEOUT"` where that holds the lock).
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @typeParam T What the records are.
 * @param path The file: a path or a `file:` URL.
 * @param change Given the records; returns those to keep.
 * @param options How to read and to write them.
 * @returns What was read and written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode compactJsonl} does.
 *
 * @example Usage
 * ```ts
 * import { appendJsonlSync, compactJsonlSync } from "@aj/atomic/jsonl";
 *
 * const path = `${Deno.makeTempDirSync()}/events.jsonl`;
 * appendJsonlSync(path, [{ at: 1 }, { at: 2 }]);
 * compactJsonlSync(path, (events) => [...events].slice(-1));
 * ```
 */
export function compactJsonlSync<T = unknown>(
  path: string | URL,
  change: (records: Iterable<T>) => Iterable<unknown>,
  options: JsonlCompactOptions = {},
): CompactReceipt {
  return compactSync(
    prepareCompaction("compactJsonlSync", path, change, options),
    change,
  );
}

/**
 * Repairs the end of a file of JSON lines after a crash in the middle of an
 * append. A last line without its newline is given it where the line is a whole
 * object, array or string, and zeros behind it are cut. It is cut itself where it
 * is the beginning of a record, or what a crash may leave in its place: of a
 * number or a word the rest may be missing. Text that is no beginning of a record
 * is not cut: the file is none of JSON lines (`"NOT_JSONL"`). A file that ends in
 * a newline is left alone, and one that is missing is told as `missing`.
 *
 * The end is all that is looked at: a broken line in the middle stays, and
 * `readJsonl` tells of it.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to repair it.
 * @returns What it found, and did.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {LockTimeoutError} If its lock was not to be had in time.
 * @throws {AtomicError} If anything else fails: `"NOT_JSONL"` where its last line
 *   is no beginning of a record.
 *
 * @example Usage
 * ```ts
 * import { repairJsonl } from "@aj/atomic/jsonl";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/events.jsonl`;
 * await Deno.writeTextFile(path, '{"id":1}\n{"id":');
 * const report = await repairJsonl(path);
 * assert.equal(report.offset, 9);
 * assert.equal(new TextDecoder().decode(report.cut), '{"id":');
 * ```
 */
export function repairJsonl(
  path: string | URL,
  options: JsonlRepairOptions = {},
): Promise<RepairReport> {
  return promised(() => atEnd(prepareRepair("repairJsonl", path, options)));
}

/**
 * The synchronous form of {@linkcode repairJsonl}.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to repair it.
 * @returns What it found, and did.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode repairJsonl} does.
 *
 * @example Usage
 * ```ts
 * import { repairJsonlSync } from "@aj/atomic/jsonl";
 *
 * const path = `${Deno.makeTempDirSync()}/events.jsonl`;
 * Deno.writeTextFileSync(path, '{"id":1}');
 * repairJsonlSync(path).completed; // true
 * ```
 */
export function repairJsonlSync(
  path: string | URL,
  options: JsonlRepairOptions = {},
): RepairReport {
  return atEndSync(prepareRepair("repairJsonlSync", path, options));
}

function prepareLines<T>(
  operation: string,
  path: string | URL,
  options: JsonlReadOptions & FallbackOption<Iterable<NoInfer<T>>>,
): LineRead<T> {
  return prepareLineRead(operation, path, options);
}

function prepareCompaction(
  operation: string,
  path: string | URL,
  change: unknown,
  given: JsonlCompactOptions,
): Compaction {
  if (typeof change !== "function") {
    throw new TypeError(
      `The change must be a function of the records: received ${
        describe(change)
      }`,
    );
  }
  const prepared = prepare(operation, "jsonlCompact", path, given);
  return { ...encodingLines(prepared), options: prepared.options };
}

function prepareRecords(
  operation: string,
  path: string | URL,
  given: JsonlWriteOptions,
): SourceWrite<unknown> {
  return encodingLines(prepare(operation, "jsonlWrite", path, given));
}

function encodingLines(
  { port, attempt, request, options }: Prepared<JsonlWriteOptions>,
): SourceWrite<unknown> {
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

/** All of them, each with its newline. */
function encodeLines(
  records: Iterable<unknown>,
  options: JsonlAppendOptions,
  attempt: Attempt,
): Lines {
  if (!isIterable(records) || isNoList(records)) {
    throw new TypeError(
      `Records to append must come from an array or a generator, for they are written in one piece: received ${
        describe(records)
      }${hintForRecord(records)}`,
    );
  }
  const { replacer, sortKeys, onLossy } = options;
  const format = { replacer, sortKeys, onLossy, indent: 0 };
  const parts: Uint8Array[] = [];
  let lines = "";
  let count = 0;
  for (const record of records) {
    lines += `${stringifyJson(record, format, attempt, `$[${count}]`)}\n`;
    count++;
    if (lines.length < BATCH_CHARACTERS) continue;
    parts.push(encodeText(lines, attempt));
    lines = "";
  }
  parts.push(encodeText(lines, attempt));
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return { bytes, records: count };
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
    }${hintForRecord(records)}`,
  );
}

function hintForRecord(value: unknown): string {
  return isPlainObject(value) ? "; put brackets around one record" : "";
}
