/**
 * Digests of bytes and files, and the checksum beside a file.
 *
 * A write with `checksum: true` puts `f.sha256` beside `f`, in the form that
 * `sha256sum -c` reads, and later writes keep it true. A read with
 * `checksum: true` refuses what does not fit.
 *
 * @example Writing with a checksum, and finding damage
 * ```ts
 * import { ChecksumMismatchError } from "@aj/atomic/errors";
 * import { readText, writeTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeTextAtomic(path, "hello", { checksum: true });
 * await Deno.writeTextFile(path, "hellp\n");
 * await assert.rejects(
 *   readText(path, { checksum: true }),
 *   ChecksumMismatchError,
 * );
 * ```
 *
 * @module
 */

import { writeSidecar, writeSidecarSync } from "./_checksum_write.ts";
import { describe } from "./_describe.ts";
import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import { digestOf, digestOfFile, DIGITS } from "./_hashing.ts";
import {
  checkOptions,
  type ChecksumAlgorithm,
  type ChecksumOptions,
  type ChecksumWriteOptions,
} from "./_options.ts";
import { absolutePath } from "./_path.ts";
import { unlessAborted } from "./_abort.ts";
import { promised } from "./_promised.ts";
import { closing, type Protocol } from "./_protocol.ts";
import { openFile } from "./_read_file.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import type { Sidecar } from "./_sidecar.ts";
import { type BytesLike, bytesOf } from "./_source.ts";
import {
  findSidecarOf,
  type VerifiedRequest,
  verify,
} from "./_verified_read.ts";

export type {
  ChecksumAlgorithm,
  ChecksumOptions,
  ChecksumWriteOptions,
  Durability,
  Guarantee,
  Lock,
  LockOptions,
  Safety,
} from "./_options.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  ChecksumMismatchError,
  type ChecksumMismatchErrorOptions,
  ChecksumMissingError,
  type LockCandidate,
  LockLostError,
  LockTimeoutError,
  type LockTimeoutErrorOptions,
  NotFoundError,
  PermissionScopeError,
} from "./errors.ts";

/** What the checksum of a file says. */
export interface ChecksumInfo {
  /** Where it is: the file's path with the algorithm behind it. */
  readonly path: string;
  /** How it is computed. */
  readonly algorithm: ChecksumAlgorithm;
  /** The digest of the file's content, in hexadecimal digits. */
  readonly digest: string;
  /** Those of the content before, which a crash may have left in place. */
  readonly previous: readonly string[];
}

/** What {@linkcode verifyChecksum} has found. */
export interface VerifiedChecksum extends ChecksumInfo {
  /** The digest of what the file holds: {@linkcode ChecksumInfo.digest}, or one of {@linkcode ChecksumInfo.previous}. */
  readonly actual: string;
}

/**
 * Computes the digest of bytes.
 *
 * It requires no permissions.
 *
 * @param bytes The bytes: an `ArrayBuffer`, or any view of one.
 * @param algorithm How to compute it.
 * @returns The digest in hexadecimal digits.
 * @throws {TypeError} If an argument is malformed.
 *
 * @example Usage
 * ```ts
 * import { hashBytes } from "@aj/atomic/checksum";
 * import assert from "node:assert/strict";
 *
 * const digest = await hashBytes(new TextEncoder().encode("a"), "sha1");
 * assert.equal(digest, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8");
 * ```
 */
export function hashBytes(
  bytes: BytesLike,
  algorithm: ChecksumAlgorithm = "sha256",
): Promise<string> {
  return promised(() => Promise.resolve(hashBytesSync(bytes, algorithm)));
}

/**
 * The synchronous form of {@linkcode hashBytes}.
 *
 * It requires no permissions.
 *
 * @param bytes The bytes: an `ArrayBuffer`, or any view of one.
 * @param algorithm How to compute it.
 * @returns The digest in hexadecimal digits.
 * @throws {TypeError} If an argument is malformed.
 *
 * @example Usage
 * ```ts
 * import { hashBytesSync } from "@aj/atomic/checksum";
 *
 * console.log(hashBytesSync(new Uint8Array(), "sha512"));
 * ```
 */
export function hashBytesSync(
  bytes: BytesLike,
  algorithm: ChecksumAlgorithm = "sha256",
): string {
  const found = bytesOf(bytes);
  if (found === undefined) {
    throw new TypeError(
      `Bytes must be an ArrayBuffer or a view of one: received ${
        describe(bytes)
      }`,
    );
  }
  if (!Object.hasOwn(DIGITS, algorithm)) {
    throw new TypeError(
      `Algorithm must be "sha256", "sha512" or "sha1": received ${
        describe(algorithm)
      }`,
    );
  }
  return digestOf(currentPort(), algorithm, found);
}

/**
 * Computes the digest of what a file holds: of one version of it, in memory that
 * does not grow with its length.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to compute it.
 * @returns The digest in hexadecimal digits.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If there is no such file.
 * @throws {AtomicError} If it cannot be read.
 *
 * @example Usage
 * ```ts
 * import { hashFile } from "@aj/atomic/checksum";
 * import { writeTextAtomic } from "@aj/atomic/text";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeTextAtomic(path, "hello");
 * console.log(await hashFile(path));
 * ```
 */
export async function hashFile(
  path: string | URL,
  options: ChecksumOptions = {},
): Promise<string> {
  const prepared = prepare("hashFile", path, options);
  return await explained(prepared, hashed(prepared));
}

/**
 * The synchronous form of {@linkcode hashFile}.
 *
 * On Deno it requires `--allow-read` for the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to compute it.
 * @returns The digest in hexadecimal digits.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode hashFile} does.
 *
 * @example Usage
 * ```ts
 * import { hashFileSync } from "@aj/atomic/checksum";
 * import { writeTextAtomicSync } from "@aj/atomic/text";
 *
 * const path = `${Deno.makeTempDirSync()}/notes.txt`;
 * writeTextAtomicSync(path, "hello");
 * console.log(hashFileSync(path, { algorithm: "sha512" }));
 * ```
 */
export function hashFileSync(
  path: string | URL,
  options: ChecksumOptions = {},
): string {
  const prepared = prepare("hashFileSync", path, options);
  return explainedSync(prepared, hashed(prepared));
}

/**
 * Writes the checksum of what a file holds now, under the file's lock: for a
 * file that has none yet, or one that was changed by something else and is right
 * as it is. What it holds is not questioned. Without `algorithm` one that is kept
 * stays of its algorithm.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to compute it.
 * @returns What was written.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If there is no such file.
 * @throws {LockTimeoutError} If the file's lock was not to be had in time.
 * @throws {LockLostError} If somebody has removed the lock by hand.
 * @throws {PermissionScopeError} If Deno's permissions do not cover it.
 * @throws {AtomicError} If it cannot be read, or its checksum not be written.
 * The code is `"FOREIGN_CHECKSUM"` where something else has that name.
 *
 * @example Usage
 * ```ts
 * import { writeChecksum } from "@aj/atomic/checksum";
 *
 * const path = `${await Deno.makeTempDir()}/photo.raw`;
 * await Deno.writeFile(path, new Uint8Array([1, 2, 3]));
 * const { digest } = await writeChecksum(path);
 * ```
 */
export function writeChecksum(
  path: string | URL,
  options: ChecksumWriteOptions = {},
): Promise<ChecksumInfo> {
  return promised(async () => infoOf(await writeSidecar(path, options)));
}

/**
 * The synchronous form of {@linkcode writeChecksum}. It cannot wait for what
 * this thread is writing to the file.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How to compute it.
 * @returns What was written.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode writeChecksum} does.
 *
 * @example Usage
 * ```ts
 * import { writeChecksumSync } from "@aj/atomic/checksum";
 *
 * const path = `${Deno.makeTempDirSync()}/photo.raw`;
 * Deno.writeFileSync(path, new Uint8Array([1, 2, 3]));
 * writeChecksumSync(path, { algorithm: "sha512" });
 * ```
 */
export function writeChecksumSync(
  path: string | URL,
  options: ChecksumWriteOptions = {},
): ChecksumInfo {
  return infoOf(writeSidecarSync(path, options));
}

/**
 * Reads the checksum of a file, without looking at what the file holds.
 *
 * On Deno it requires `--allow-read` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options Which one; without `algorithm` the strongest that is there.
 * @returns What it says.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {ChecksumMissingError} If there is none.
 * @throws {NotFoundError} If there is no such file.
 * @throws {PermissionScopeError} If Deno may not look for it.
 * @throws {AtomicError} If it cannot be read.
 *
 * @example Usage
 * ```ts
 * import { readChecksum } from "@aj/atomic/checksum";
 * import { writeTextAtomic } from "@aj/atomic/text";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeTextAtomic(path, "hello", { checksum: true });
 * console.log((await readChecksum(path)).digest);
 * ```
 */
export async function readChecksum(
  path: string | URL,
  options: ChecksumOptions = {},
): Promise<ChecksumInfo> {
  const prepared = prepare("readChecksum", path, options);
  return infoOf(await explained(prepared, found(prepared)));
}

/**
 * The synchronous form of {@linkcode readChecksum}.
 *
 * On Deno it requires `--allow-read` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options Which one; without `algorithm` the strongest that is there.
 * @returns What it says.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode readChecksum} does.
 *
 * @example Usage
 * ```ts
 * import { readChecksumSync } from "@aj/atomic/checksum";
 * import { writeTextAtomicSync } from "@aj/atomic/text";
 *
 * const path = `${Deno.makeTempDirSync()}/notes.txt`;
 * writeTextAtomicSync(path, "hello", { checksum: true });
 * console.log(readChecksumSync(path).algorithm);
 * ```
 */
export function readChecksumSync(
  path: string | URL,
  options: ChecksumOptions = {},
): ChecksumInfo {
  const prepared = prepare("readChecksumSync", path, options);
  return infoOf(explainedSync(prepared, found(prepared)));
}

/**
 * Compares what a file holds with its checksum. A write that comes meanwhile is
 * no mismatch: one version is looked at, with the checksum that belongs to it.
 *
 * On Deno it requires `--allow-read` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options Which checksum; without `algorithm` the strongest that is there.
 * @returns What was compared.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {ChecksumMismatchError} If they differ.
 * @throws {ChecksumMissingError} If the file has no checksum.
 * @throws {NotFoundError} If there is no such file.
 * @throws {PermissionScopeError} If Deno may not look for its checksum.
 * @throws {AtomicError} If either cannot be read.
 *
 * @example Usage
 * ```ts
 * import { verifyChecksum } from "@aj/atomic/checksum";
 * import { writeTextAtomic } from "@aj/atomic/text";
 *
 * const path = `${await Deno.makeTempDir()}/notes.txt`;
 * await writeTextAtomic(path, "hello", { checksum: true });
 * const { digest, actual } = await verifyChecksum(path);
 * console.log(digest === actual);
 * ```
 */
export async function verifyChecksum(
  path: string | URL,
  options: ChecksumOptions = {},
): Promise<VerifiedChecksum> {
  const prepared = prepare("verifyChecksum", path, options);
  return await explained(prepared, verified(prepared));
}

/**
 * The synchronous form of {@linkcode verifyChecksum}.
 *
 * On Deno it requires `--allow-read` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options Which checksum; without `algorithm` the strongest that is there.
 * @returns What was compared.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode verifyChecksum} does.
 *
 * @example Usage
 * ```ts
 * import { verifyChecksumSync } from "@aj/atomic/checksum";
 * import { writeTextAtomicSync } from "@aj/atomic/text";
 *
 * const path = `${Deno.makeTempDirSync()}/notes.txt`;
 * writeTextAtomicSync(path, "hello", { checksum: "sha512" });
 * verifyChecksumSync(path);
 * ```
 */
export function verifyChecksumSync(
  path: string | URL,
  options: ChecksumOptions = {},
): VerifiedChecksum {
  const prepared = prepare("verifyChecksumSync", path, options);
  return explainedSync(prepared, verified(prepared));
}

/** A call that is ready for its first system call. */
interface Prepared {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: VerifiedRequest;
}

function prepare(
  operation: string,
  path: string | URL,
  given: ChecksumOptions,
): Prepared {
  const { algorithm, retryMs = 1000, signal } = checkOptions("checksum", given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "read",
    path: absolutePath(port, path),
  };
  const request: VerifiedRequest = {
    checksum: algorithm ?? true,
    maxBytes: Infinity,
    capacity: Infinity,
    retryMs,
    signal,
  };
  return { port, attempt, request };
}

function* hashed({ port, attempt, request }: Prepared): Protocol<string> {
  const { checksum, signal } = request;
  const algorithm = typeof checksum === "string" ? checksum : "sha256";
  const { file } = yield* openFile(port, attempt.path, request);
  return yield* closing(
    file,
    () => digestOfFile(port, algorithm, file, signal),
  );
}

function found({ port, attempt, request }: Prepared): Protocol<Sidecar> {
  return findSidecarOf(port, attempt.path, request);
}

function* verified(
  { port, attempt, request }: Prepared,
): Protocol<VerifiedChecksum> {
  const { sidecar, actual } = yield* verify(port, attempt.path, request);
  return { ...infoOf(sidecar), actual };
}

function infoOf(
  { path, algorithm, digest, previous }: Sidecar,
): ChecksumInfo {
  return { path, algorithm, digest, previous };
}

async function explained<T>(
  { port, attempt, request }: Prepared,
  protocol: Protocol<T>,
): Promise<T> {
  try {
    return await unlessAborted(runAsync(port, protocol), request.signal);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function explainedSync<T>(
  { port, attempt }: Prepared,
  protocol: Protocol<T>,
): T {
  try {
    return runSync(port, protocol);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}
