/**
 * Digests, as the runtime computes them: of bytes at hand, and of an open file,
 * in memory that does not grow with its length.
 *
 * @module
 */

import { blockingCall, type Protocol } from "./_protocol.ts";
import type { ChecksumAlgorithm } from "./_options.ts";
import type { Host, OpenFile } from "./_runtime/port.ts";

/** How many hexadecimal digits the digests have. */
export const DIGITS: Readonly<Record<ChecksumAlgorithm, number>> = {
  sha512: 128,
  sha256: 64,
  sha1: 40,
};

/** Bounds the time that one call holds the event loop. */
export const HASHED_AT_ONCE: number = 1024 * 1024;

const CHUNK_BYTES = 256 * 1024;

/** The digest of bytes at hand. */
export function digestOf(
  host: Host,
  algorithm: ChecksumAlgorithm,
  bytes: Uint8Array,
): string {
  const hash = host.createHash(algorithm);
  // At once, node:crypto takes less than 2 GiB.
  for (let offset = 0; offset < bytes.length; offset += HASHED_AT_ONCE) {
    hash.update(bytes.subarray(offset, offset + HASHED_AT_ONCE));
  }
  return hash.digest();
}

/** The digest of an open file, whatever has its path by now. */
export function* digestOfFile(
  host: Host,
  algorithm: ChecksumAlgorithm,
  file: OpenFile,
  signal: AbortSignal | undefined,
): Protocol<string> {
  const hash = host.createHash(algorithm);
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let position = 0;;) {
    signal?.throwIfAborted();
    const length = yield* blockingCall("read", file, chunk, position);
    if (length === 0) return hash.digest();
    hash.update(chunk.subarray(0, length));
    position += length;
  }
}
