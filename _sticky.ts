/**
 * Sticky world-writable directories, as `/tmp` is: everybody may put something
 * there, and nobody may remove what others have put.
 *
 * @module
 */

import { call, closing, type Protocol } from "./_protocol.ts";
import type { FileStatus } from "./_runtime/port.ts";

const STICKY_WORLD_WRITABLE = 0o1002;

/**
 * Whether what belongs to `owner` may have been planted for us to find: the
 * rule of Linux's `protected_symlinks` and `protected_regular`, applied whether
 * or not those are switched on. `self` is asked only where it matters.
 */
export function* isPlanted(
  directory: string,
  owner: number,
  self: () => Protocol<number>,
): Protocol<boolean> {
  const { mode, uid } = yield* directoryStatus(directory);
  if ((mode & STICKY_WORLD_WRITABLE) !== STICKY_WORLD_WRITABLE) return false;
  return owner !== uid && owner !== (yield* self());
}

/** The status of a directory, also where it is spelled through a link. */
export function* directoryStatus(path: string): Protocol<FileStatus> {
  const status = yield* call("lstat", path);
  if (status.kind !== "symlink") return status;
  const handle = yield* call("open", path);
  return yield* closing(handle, () => call("fstat", handle));
}
