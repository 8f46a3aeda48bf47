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
import { isBytes, isIterable, isSource, wrongChunk } from "./_source.ts";
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

/**
 * Replaces the content of a file by `bytes`, or makes the file. Whoever opens
 * it finds the old content or the new, never a part; once the promise has
 * resolved, the new content survives a power cut.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param bytes The content. A `Uint8Array` is not copied: do not change it before
 * the promise has settled. A source of them is taken part by part; the file is
 * replaced once the source has ended.
 * @param options How to write it.
 * @returns What was written, and how durably.
 * @throws {TypeError} If an argument or an option is malformed, or the source
 * yields what is not a `Uint8Array`. What the source throws is thrown as it is.
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
    | Uint8Array
    | Iterable<Uint8Array>
    | AsyncIterable<Uint8Array>
    | ReadableStream<Uint8Array>,
  options: WriteOptions & ProgressOption = {},
): Promise<WriteReceipt> {
  const operation = "writeBytesAtomic";
  return promised(() =>
    !isBytes(bytes) && isSource(bytes)
      ? writeFrom(bytes, prepareSource(operation, path, options))
      : write(prepareWhole(operation, path, bytes, options))
  );
}

/**
 * The synchronous form of {@linkcode writeBytesAtomic}: it returns once the new
 * content survives a power cut, and blocks until then.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file, where the new content is staged.
 *
 * @param path The file: a path or a `file:` URL.
 * @param bytes The whole content.
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
  bytes: Uint8Array | Iterable<Uint8Array>,
  options: WriteOptions & ProgressOption = {},
): WriteReceipt {
  const operation = "writeBytesAtomicSync";
  return !isBytes(bytes) && isIterable(bytes)
    ? writeFromSync(bytes, prepareSource(operation, path, options))
    : writeSync(prepareWhole(operation, path, bytes, options));
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
    return openWriter(prepareSource(operation, path, options));
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

function prepareWhole(
  operation: string,
  path: string | URL,
  bytes: unknown,
  options: WriteOptions & ProgressOption,
): WholeWrite {
  return prepareWrite(operation, "bytesWrite", path, options, () => {
    if (isBytes(bytes)) return bytes;
    throw new TypeError(
      `Bytes must be a Uint8Array, or a source of them: received ${
        describe(bytes)
      }; text is written with writeTextAtomic`,
    );
  });
}

function prepareSource(
  operation: string,
  path: string | URL,
  given: WriteOptions & ProgressOption,
): SourceWrite<Uint8Array> {
  const { port, attempt, request, options } = prepare(
    operation,
    "bytesWrite",
    path,
    given,
  );
  const { onProgress } = options;
  const encode = (chunk: Uint8Array | typeof END, index: number) => {
    if (chunk === END) return new Uint8Array();
    if (isBytes(chunk)) return chunk;
    throw wrongChunk(index, "a Uint8Array", chunk);
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
