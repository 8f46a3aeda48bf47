/**
 * Bytes, written and read whole.
 *
 * @example Writing bytes, and reading them back
 * ```ts
 * import { readBytes, writeBytesAtomic } from "@aj/atomic/bytes";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/image.bin`;
 * await writeBytesAtomic(path, new Uint8Array([1, 2, 3]));
 * assert.deepEqual(await readBytes(path), new Uint8Array([1, 2, 3]));
 * ```
 *
 * @module
 */

import { describe } from "./_describe.ts";
import { encodeText } from "./_utf8.ts";
import { type AtomicWriter, openWriter } from "./_atomic_writer.ts";
import type {
  FallbackOption,
  OwnBytes,
  ProgressOption,
  ReadOptions,
  WriteOptions,
  WriteReceipt,
} from "./_options.ts";
import { prepareRead, read, readSync, type WholeRead } from "./_read.ts";
import { MOST_BYTES } from "./_read_file.ts";
import { promised } from "./_promised.ts";
import { type Snapshot, snapshotOf } from "./_snapshot.ts";
import {
  type BlobLike,
  type BodyLike,
  type BytesLike,
  bytesOf,
  byteSourceOf,
  checkParts,
  isIterable,
  wrongChunk,
} from "./_source.ts";
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
  OwnBytes,
  Owner,
  ProgressOption,
  ReadOptions,
  Safety,
  SymlinkPolicy,
  WriteOptions,
  WriteProgress,
  WriteReceipt,
} from "./_options.ts";
export type { AtomicWriter } from "./_atomic_writer.ts";
export type { Snapshot } from "./_snapshot.ts";
export type { BlobLike, BodyLike, BytesLike } from "./_source.ts";

/**
 * Replaces the content of a file by `bytes`, or makes the file. Whoever opens
 * it finds the old content or the new, never a part; once the promise has
 * resolved, the new content survives a power cut.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param bytes The content: an `ArrayBuffer`, any view of one, or a source of
 * such: an iterable, a stream, a `Blob`, or the body of a `Response`, whatever its
 * status. Bytes in memory are not copied: do not change them before the promise
 * has settled. A source is taken part by part; the file is replaced once it has
 * ended.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed, or the source
 * yields what is not bytes. What the source throws is thrown as it is.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the directory.
 * @throws {AlreadyExistsError} If the file exists and `createNew` is set.
 * @throws {UnsupportedEnvironmentError} If what `require` names is not guaranteed there, or `safety` forbids a network mount.
 * @throws {NoSpaceError} If the disk is full. The old content is intact.
 * @throws {DurabilityError} If the new content is in place, but may not survive a power cut.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { writeBytesAtomic } from "@aj/atomic/bytes";
 *
 * const path = `${await Deno.makeTempDir()}/key.bin`;
 * await writeBytesAtomic(path, crypto.getRandomValues(new Uint8Array(32)), {
 *   mode: 0o600,
 * });
 * ```
 */
export function writeBytesAtomic(
  path: string | URL,
  bytes:
    | BytesLike
    | BlobLike
    | BodyLike
    | Iterable<BytesLike>
    | AsyncIterable<BytesLike>
    | ReadableStream<BytesLike>,
  options: WriteOptions & ProgressOption = {},
): Promise<WriteReceipt> {
  const operation = "writeBytesAtomic";
  return promised(() => {
    const source = byteSourceOf(bytes);
    if (source === undefined) {
      return write(prepareWhole(operation, path, bytes, options));
    }
    const prepared = prepareSource(operation, path, options);
    checkParts(source, isPart, BYTES);
    return writeFrom(source, prepared);
  });
}

/**
 * The synchronous form of {@linkcode writeBytesAtomic}: it returns once the new
 * content survives a power cut, and blocks until then.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param bytes The content: an `ArrayBuffer`, any view of one, or an iterable of
 * such.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If the write fails, as {@linkcode writeBytesAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { writeBytesAtomicSync } from "@aj/atomic/bytes";
 *
 * const path = `${Deno.makeTempDirSync()}/key.bin`;
 * writeBytesAtomicSync(path, new Uint8Array([1, 2, 3]));
 * ```
 */
export function writeBytesAtomicSync(
  path: string | URL,
  bytes: BytesLike | Iterable<BytesLike>,
  options: WriteOptions & ProgressOption = {},
): WriteReceipt {
  const operation = "writeBytesAtomicSync";
  if (!isIterable(bytes)) {
    return writeSync(prepareWhole(operation, path, bytes, options));
  }
  const prepared = prepareSource(operation, path, options);
  checkParts(bytes, isPart, BYTES);
  return writeFromSync(bytes, prepared);
}

/**
 * Reads a whole file: one version of it, whatever replaces it meanwhile.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam F The type of the fallback.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns Its content.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the file.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { readBytes } from "@aj/atomic/bytes";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/missing.bin`;
 * assert.deepEqual(
 *   await readBytes(path, { fallback: new Uint8Array() }),
 *   new Uint8Array(),
 * );
 * ```
 */
export async function readBytes<F = OwnBytes>(
  path: string | URL,
  options: ReadOptions & FallbackOption<F> = {},
): Promise<OwnBytes | F> {
  return await read(prepareBytesRead("readBytes", path, options));
}

/**
 * The synchronous form of {@linkcode readBytes}.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @typeParam F The type of the fallback.
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns Its content.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist and there is no `fallback`.
 * @throws {AtomicError} If the read fails, as {@linkcode readBytes} does.
 *
 * @example Usage
 * ```ts
 * import { readBytesSync } from "@aj/atomic/bytes";
 *
 * const path = `${Deno.makeTempDirSync()}/missing.bin`;
 * readBytesSync(path, { fallback: new Uint8Array() });
 * ```
 */
export function readBytesSync<F = OwnBytes>(
  path: string | URL,
  options: ReadOptions & FallbackOption<F> = {},
): OwnBytes | F {
  return readSync(prepareBytesRead("readBytesSync", path, options));
}

/**
 * Opens a file to be written part by part. Nothing is in place before
 * {@linkcode AtomicWriter.commit}, or the closing of
 * {@linkcode AtomicWriter.writable}; a writer that is disposed of before that
 * leaves the file as it was.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to write it.
 * @returns The writer.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If the file cannot be written, as {@linkcode writeBytesAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { openAtomicWriter, readBytes } from "@aj/atomic/bytes";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/log.bin`;
 * await using writer = await openAtomicWriter(path);
 * await writer.write(new Uint8Array([1, 2]));
 * await writer.write(new Uint8Array([3]));
 * await writer.commit();
 * assert.deepEqual(await readBytes(path), new Uint8Array([1, 2, 3]));
 * ```
 */
export function openAtomicWriter(
  path: string | URL,
  options: WriteOptions & ProgressOption = {},
): Promise<AtomicWriter> {
  return promised(() => {
    const operation = "openAtomicWriter";
    const prepared = prepareSource(operation, path, options);
    const { attempt, encode } = prepared;
    return openWriter({
      ...prepared,
      encode: (chunk, index) =>
        typeof chunk === "string"
          ? encodeText(chunk, attempt)
          : encode(chunk, index),
    });
  });
}

/**
 * Opens a file to be read in parts, or several times: always the one version
 * that was there, whatever replaces the file meanwhile. (What is written to
 * the file in place, or appended to it, shows.)
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to read it.
 * @returns The snapshot, which is to be disposed of.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If the file does not exist.
 * @throws {AtomicError} If it cannot be opened.
 *
 * @example Usage
 * ```ts
 * import { openSnapshot, writeBytesAtomic } from "@aj/atomic/bytes";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeBytesAtomic(path, new TextEncoder().encode("old\n"));
 * await using snapshot = await openSnapshot(path);
 * await writeBytesAtomic(path, new TextEncoder().encode("new\n"));
 * assert.equal(await snapshot.text(), "old\n");
 * ```
 */
export function openSnapshot(
  path: string | URL,
  options: ReadOptions = {},
): Promise<Snapshot> {
  return promised(() => snapshotOf(path, options));
}

const BYTES = "an ArrayBuffer or a view of one, as a Uint8Array is";

function isPart(value: unknown): boolean {
  return bytesOf(value) !== undefined;
}

function prepareWhole(
  operation: string,
  path: string | URL,
  bytes: unknown,
  options: WriteOptions & ProgressOption,
): WholeWrite {
  return prepareWrite(operation, "bytesWrite", path, options, () => {
    const found = bytesOf(bytes);
    if (found !== undefined) return found;
    throw new TypeError(
      `Bytes must be ${BYTES}, or a source of such: received ${
        describe(bytes)
      }; text is written with writeTextAtomic${
        byteSourceOf(bytes) === undefined
          ? ""
          : ", and what comes in parts that have to be waited for with writeBytesAtomic"
      }`,
    );
  });
}

function prepareSource(
  operation: string,
  path: string | URL,
  given: WriteOptions & ProgressOption,
): SourceWrite<unknown> {
  const { port, attempt, request, options } = prepare(
    operation,
    "bytesWrite",
    path,
    given,
  );
  const { onProgress } = options;
  const encode = (chunk: unknown, index: number) => {
    if (chunk === END) return new Uint8Array();
    const bytes = bytesOf(chunk);
    if (bytes === undefined) throw wrongChunk(index, BYTES, chunk);
    return bytes;
  };
  return { port, attempt, request, onProgress, encode };
}

function prepareBytesRead<F>(
  operation: string,
  path: string | URL,
  options: ReadOptions & FallbackOption<F>,
): WholeRead<OwnBytes | F> {
  return prepareRead<OwnBytes | F, ReadOptions & FallbackOption<F>>(
    operation,
    "read",
    path,
    options,
    MOST_BYTES,
    (bytes) => bytes,
  );
}
