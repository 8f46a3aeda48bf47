/**
 * Text, written and read whole, always as UTF-8.
 *
 * @example Writing text, and reading it back
 * ```ts
 * import { readText, writeTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeTextAtomic(path, "hello");
 * assert.equal(await readText(path), "hello\n");
 * ```
 *
 * @module
 */

import { describe } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import type {
  FallbackOption,
  ProgressOption,
  ReadOptions,
  TextUpdateOptions,
  TextWriteOptions,
  UpdateResult,
  WriteReceipt,
} from "./_options.ts";
import { prepareRead, read, readSync, type WholeRead } from "./_read.ts";
import { MOST_TEXT_BYTES } from "./_read_file.ts";
import { decodeText, encodeText } from "./_utf8.ts";
import { promised } from "./_promised.ts";
import { type Format, update, updateSync } from "./_update.ts";
import { checkParts, isIterable, isSource, wrongChunk } from "./_source.ts";
import {
  END,
  prepare,
  prepareWrite,
  type SourceWrite,
  type WholeWrite,
  write,
  writeFrom,
  writeFromSync,
  writeSync,
} from "./_write.ts";

export type {
  ChecksumAlgorithm,
  Durability,
  FallbackOption,
  Guarantee,
  Lock,
  LockOptions,
  Owner,
  ProgressOption,
  ReadOptions,
  Safety,
  SymlinkPolicy,
  TextUpdateOptions,
  TextWriteOptions,
  UpdateResult,
  WriteOptions,
  WriteProgress,
  WriteReceipt,
} from "./_options.ts";

/**
 * Replaces the content of a file by `text`, or makes the file. Whoever opens it
 * finds the old content or the new, never a part; once the promise has
 * resolved, the new content survives a power cut. A newline is added where the
 * text ends without one, unless `trailingNewline` is `false`.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param text The content: a string, or a source of strings, which is taken part
 * by part; the file is replaced once the source has ended.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed, or the source
 * yields what is not a string. What the source throws is thrown as it is.
 * @throws {SerializationError} If the text has a lone surrogate, which UTF-8 cannot hold.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the directory.
 * @throws {AlreadyExistsError} If the file exists and `createNew` is set.
 * @throws {UnsupportedEnvironmentError} If what `require` names is not guaranteed there, or `safety` forbids a network mount.
 * @throws {NoSpaceError} If the disk is full. The old content is intact.
 * @throws {DurabilityError} If the new content is in place, but may not survive a power cut.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { writeTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * const receipt = await writeTextAtomic(path, "hello");
 * assert.equal(receipt.bytes, 6);
 * assert.equal(receipt.created, true);
 * ```
 */
export function writeTextAtomic(
  path: string | URL,
  text:
    | string
    | Iterable<string>
    | AsyncIterable<string>
    | ReadableStream<string>,
  options: TextWriteOptions & ProgressOption = {},
): Promise<WriteReceipt> {
  const operation = "writeTextAtomic";
  return promised(() =>
    isSource(text)
      ? writeFrom(text, prepareSource(operation, path, text, options))
      : write(prepareWhole(operation, path, text, options))
  );
}

/**
 * The synchronous form of {@linkcode writeTextAtomic}: it returns once the new
 * content survives a power cut, and blocks until then.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param text The content: a string, or an iterable of strings.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If the write fails, as {@linkcode writeTextAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { writeTextAtomicSync } from "@aj/atomic/text";
 *
 * writeTextAtomicSync(`${Deno.makeTempDirSync()}/notes.txt`, "hello");
 * ```
 */
export function writeTextAtomicSync(
  path: string | URL,
  text: string | Iterable<string>,
  options: TextWriteOptions & ProgressOption = {},
): WriteReceipt {
  const operation = "writeTextAtomicSync";
  return isIterable(text)
    ? writeFromSync(text, prepareSource(operation, path, text, options))
    : writeSync(prepareWhole(operation, path, text, options));
}

/**
 * Reads a whole file as UTF-8. The text is exactly what the file holds: a byte
 * order mark stays, and bytes that are no UTF-8 are an error.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam F The type of the fallback.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns Its text.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If the file is not UTF-8.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the file.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { readText } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/missing.txt`;
 * assert.equal(await readText(path, { fallback: "" }), "");
 * ```
 */
export async function readText<F = string>(
  path: string | URL,
  options: ReadOptions & FallbackOption<F> = {},
): Promise<string | F> {
  return await read(prepareTextRead("readText", path, options));
}

/**
 * The synchronous form of {@linkcode readText}.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam F The type of the fallback.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns Its text.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {ParseError} If the file is not UTF-8.
 * @throws {AtomicError} If the read fails, as {@linkcode readText} does.
 *
 * @example Usage
 * ```ts
 * import { readTextSync } from "@aj/atomic/text";
 *
 * const path = `${Deno.makeTempDirSync()}/missing.txt`;
 * readTextSync(path, { fallback: "" });
 * ```
 */
export function readTextSync<F = string>(
  path: string | URL,
  options: ReadOptions & FallbackOption<F> = {},
): string | F {
  return readSync(prepareTextRead("readTextSync", path, options));
}

/**
 * Changes the text of a file under its lock: reads it, calls `update` with it
 * and writes what that returns, without a newline of its own, so that no change of anybody who does the same
 * is lost, in other tasks, threads or processes. If the function throws, nothing
 * is written; if it returns what the file holds already, that is synced as
 * `durability` says, and not written again.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current text, or `initial` where there is no file, and returns the new one.
 * @param options How to write it. The default of `lock` is `true`; `initial` stands for a missing file.
 * @returns The new text, whether it was another one, and the receipt of the write.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {ParseError} If the file is not text in UTF-8.
 * @throws {LockTimeoutError} If the lock was not to be had in time.
 * @throws {LockLostError} If the lock was removed by hand meanwhile.
 * @throws {AtomicError} If the read or the write fails.
 *
 * @example Usage
 * ```ts
 * import { updateTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await updateTextAtomic(path, (text = "") => `${text}one more\n`);
 * const { changed } = await updateTextAtomic(path, (text = "") => text);
 * assert.equal(changed, false);
 * ```
 */
export function updateTextAtomic(
  path: string | URL,
  update: (current: string) => string | Promise<string>,
  options: TextUpdateOptions & { initial: string },
): Promise<UpdateResult<string>>;
/**
 * Without `initial` the function gets `undefined` where there is no file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current text, and returns the new one.
 * @param options How to write it.
 * @returns The new text, whether it was another one, and the receipt of the write.
 */
export function updateTextAtomic(
  path: string | URL,
  update: (current: string | undefined) => string | Promise<string>,
  options?: TextUpdateOptions,
): Promise<UpdateResult<string>>;
export async function updateTextAtomic(
  path: string | URL,
  change: (current: string) => string | Promise<string>,
  options: TextUpdateOptions & { initial?: string } = {},
): Promise<UpdateResult<string>> {
  const format = textFormat("updateTextAtomic");
  return await update(format, path, change, options);
}

/**
 * The synchronous form of {@linkcode updateTextAtomic}, with a function that returns at
 * once. A lock that this very thread holds cannot be waited for.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current text, or `initial` where there is no file, and returns the new one.
 * @param options How to write it.
 * @returns The new text, whether it was another one, and the receipt of the write.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode updateTextAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { updateTextAtomicSync } from "@aj/atomic/text";
 *
 * updateTextAtomicSync(`${Deno.makeTempDirSync()}/notes.txt`, (text = "") => `${text}more\n`);
 * ```
 */
export function updateTextAtomicSync(
  path: string | URL,
  update: (current: string) => string,
  options: TextUpdateOptions & { initial: string },
): UpdateResult<string>;
/**
 * Without `initial` the function gets `undefined` where there is no file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param update Gets the current text, and returns the new one.
 * @param options How to write it.
 * @returns The new text, whether it was another one, and the receipt of the write.
 */
export function updateTextAtomicSync(
  path: string | URL,
  update: (current: string | undefined) => string,
  options?: TextUpdateOptions,
): UpdateResult<string>;
export function updateTextAtomicSync(
  path: string | URL,
  change: (current: string) => string,
  options: TextUpdateOptions & { initial?: string } = {},
): UpdateResult<string> {
  const format = textFormat("updateTextAtomicSync");
  return updateSync(format, path, change, options);
}

function textFormat(operation: string): Format<string, TextUpdateOptions> {
  return {
    operation,
    kind: "textUpdate",
    decode: (bytes, _options, attempt) => decodeText(bytes, attempt),
    // What was read would be another text than what is written.
    encode: (text, { trailingNewline = false }, attempt) =>
      encodeWhole(text, { trailingNewline }, attempt),
  };
}

function prepareWhole(
  operation: string,
  path: string | URL,
  text: unknown,
  options: TextWriteOptions & ProgressOption,
): WholeWrite {
  return prepareWrite(
    operation,
    "textWrite",
    path,
    options,
    (checked, attempt) => encodeWhole(text, checked, attempt),
  );
}

function encodeWhole(
  text: unknown,
  options: TextWriteOptions,
  attempt: Attempt,
): Uint8Array {
  if (typeof text !== "string") {
    throw new TypeError(
      `Text must be a string, or a source of strings: received ${
        describe(text)
      }; other values are written with writeJsonAtomic or writeBytesAtomic`,
    );
  }
  return encodeText(endLine(text, options), attempt);
}

function prepareSource(
  operation: string,
  path: string | URL,
  source: unknown,
  given: TextWriteOptions & ProgressOption,
): SourceWrite<string> {
  const { port, attempt, request, options } = prepare(
    operation,
    "textWrite",
    path,
    given,
  );
  checkParts(source, (part) => typeof part === "string", "a string");
  const { trailingNewline = true, onProgress } = options;
  /** The first half of a character whose second is in the next chunk. */
  let half = "";
  let last = "\n";
  const encode = (chunk: string | typeof END, index: number) => {
    if (chunk === END) {
      const ending = trailingNewline && last !== "\n" ? "\n" : "";
      return encodeText(half + ending, attempt);
    }
    if (typeof chunk !== "string") throw wrongChunk(index, "a string", chunk);
    const text = half + chunk;
    half = /[\ud800-\udbff]$/.exec(text)?.[0] ?? "";
    last = text.at(-1) ?? last;
    return encodeText(text.slice(0, text.length - half.length), attempt);
  };
  return { port, attempt, request, onProgress, encode };
}

/** Ends the last line, where there is one. */
function endLine(
  text: string,
  { trailingNewline = true }: TextWriteOptions,
): string {
  return trailingNewline && text !== "" && !text.endsWith("\n")
    ? `${text}\n`
    : text;
}

function prepareTextRead<F>(
  operation: string,
  path: string | URL,
  options: ReadOptions & FallbackOption<F>,
): WholeRead<string | F> {
  return prepareRead<string | F, ReadOptions & FallbackOption<F>>(
    operation,
    "read",
    path,
    options,
    MOST_TEXT_BYTES,
    (bytes, _checked, attempt) => decodeText(bytes, attempt),
  );
}
