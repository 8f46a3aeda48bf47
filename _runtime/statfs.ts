/**
 * What Node's `statfs` reports, on every runtime.
 *
 * @module
 */

import type { FilesystemStatus } from "./port.ts";

/** In the port's terms. */
export function filesystemStatus(
  { type, blocks, bavail, bsize }: {
    readonly type: number;
    readonly blocks: number;
    readonly bavail: number;
    readonly bsize: number;
  },
): FilesystemStatus {
  // The kernel's numbers have 32 bits; some come with a sign.
  const freeBytes = blocks === 0 ? undefined : bavail * bsize;
  return { type: type >>> 0, freeBytes };
}
