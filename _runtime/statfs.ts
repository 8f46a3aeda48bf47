/**
 * What Node's `statfs` reports, on every runtime.
 *
 * @module
 */

import type { FilesystemStatus } from "./port.ts";

/** In the port's terms. */
export function filesystemStatus(
  { type, bavail, bsize }: {
    readonly type: number;
    readonly bavail: number;
    readonly bsize: number;
  },
): FilesystemStatus {
  // The kernel's numbers have 32 bits; some come with a sign.
  return { type: type >>> 0, freeBytes: bavail * bsize };
}
