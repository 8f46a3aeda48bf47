/**
 * The directory a target is in: resolved once, so that a link among the parents
 * that is turned elsewhere during a write cannot part the temporary file from
 * the target, and made, durably, where it is missing.
 *
 * @module
 */

import { directoryOf, joinPath, nameOf } from "./_path.ts";
import { blockingCall, call, failedWith, type Protocol } from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import { type Host, NOT_CAPABLE, type OpenFile } from "./_runtime/port.ts";
import type { Durability } from "./_options.ts";

/** What this needs to know of a write. */
export interface DirectoryRequest {
  readonly durability: Durability;
  readonly parents: boolean;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Directories this realm made whose own place in their parent is not synced
 * yet. A write into one by another task must not resolve before it is: to that
 * task the directory looks like one that was always there.
 */
const unsynced = new Set<string>();

/** The real path of `directory`, which exists from now on. */
export function* ensureDirectory(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<string> {
  let resolved: string;
  try {
    resolved = yield* realDirectory(host, directory);
  } catch (error) {
    if (!request.parents || !failedWith(error, "ENOENT")) throw error;
    yield* makeDirectories(host, request, directory);
    resolved = yield* realDirectory(host, directory);
  }
  if (unsynced.size > 0 && request.durability === "full") {
    yield* syncMadeAncestors(host, request, resolved);
  }
  return resolved;
}

/**
 * The real path, or the path as given where Deno's permissions cover only that
 * spelling of it (`--allow-write=/tmp/x` where `/tmp` is a link).
 */
function* realDirectory(host: Host, directory: string): Protocol<string> {
  try {
    const real = yield* call("realpath", directory);
    const permitted = real === directory ||
      (host.permits("read", real) && host.permits("write", real));
    return permitted ? real : directory;
  } catch (error) {
    if (failedWith(error, NOT_CAPABLE)) return directory;
    throw error;
  }
}

function* makeDirectories(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<void> {
  const missing: string[] = [];
  let existing = directory;
  let parent: string | undefined;
  while (parent === undefined) {
    missing.unshift(nameOf(host, existing));
    const above = directoryOf(host, existing);
    try {
      parent = yield* realDirectory(host, above);
    } catch (error) {
      const isRoot = directoryOf(host, above) === above;
      if (isRoot || !failedWith(error, "ENOENT")) throw error;
    }
    existing = above;
  }
  for (const name of missing) {
    request.signal?.throwIfAborted();
    const made = joinPath(host, parent, name);
    // Opened before anything is made: where the parent may not be read, and so
    // not synced, nothing is left behind.
    const handle = yield* openToSync(host, request, parent);
    try {
      unsynced.add(made);
      yield* makeDirectory(made);
      if (handle !== undefined) {
        yield* blockingCall("fsync", handle);
        unsynced.delete(made);
      }
    } finally {
      if (handle !== undefined) yield* call("close", handle);
    }
    parent = made;
  }
}

function* makeDirectory(path: string): Protocol<void> {
  try {
    yield* call("mkdir", path);
  } catch (error) {
    // Another writer was faster. Its place is synced all the same: that
    // writer may not have come so far.
    if (failedWith(error, "EEXIST")) return;
    unsynced.delete(path);
    throw error;
  }
}

function* syncMadeAncestors(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<void> {
  for (
    let made = directory, parent = directoryOf(host, made);
    parent !== made;
    made = parent, parent = directoryOf(host, made)
  ) {
    if (!unsynced.has(made)) continue;
    const handle = yield* openToSync(host, request, parent);
    if (handle === undefined) return;
    try {
      yield* blockingCall("fsync", handle);
      unsynced.delete(made);
    } finally {
      yield* call("close", handle);
    }
  }
}

/** Opens a directory for a later sync; `undefined` where none is asked for, or none is possible. */
export function* openToSync(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<OpenFile | undefined> {
  if (request.durability !== "full" || host.windows) return undefined;
  return yield* retrying(host, request, () => call("open", directory));
}
