/**
 * The runtime's own digests. WebCrypto's take all bytes at once; those of
 * `node:crypto`, which all three runtimes have, take them part by part.
 *
 * @module
 */

import type { Hash } from "./port.ts";

/** Begins a digest. On Deno this loads its layer for Node. */
export function createHash(algorithm: string): Hash {
  const hash = globalThis.process.getBuiltinModule("node:crypto")
    .createHash(algorithm);
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => hash.digest("hex"),
  };
}
