/**
 * The directory a target is in: resolved once, so that a link among the parents
 * that is turned elsewhere during a write cannot part the temporary file from
 * the target, and made, durably, where it is missing.
 *
 * @module
 */

import { checkDemand, type Demand } from "./_demand.ts";
import type { Durability } from "./_options.ts";
import { directoryOf, joinPath, nameOf, refuseMangled } from "./_path.ts";
import {
  call,
  closing,
  failedWith,
  type Protocol,
  Refusal,
  type SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import { lastSyncFailure, syncSince } from "./_sync_failures.ts";
import { type Host, NOT_CAPABLE, type OpenFile } from "./_runtime/port.ts";

/** What this needs to know of a write. */
export interface DirectoryRequest {
  readonly durability: Durability;
  readonly parents: boolean;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
  readonly demand: Demand;
}

/** A directory by its real path. */
export interface Directory {
  readonly path: string;
  readonly isMissing: boolean;
  /** The nearest that existed before: what is made in it is on the same file system. */
  readonly existing: string;
}

/** The directory, which exists from now on. */
export function* ensureDirectory(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<Directory> {
  const { existing, missing } = yield* findDirectory(host, request, directory);
  if (missing.length === 0) {
    return { path: existing, existing, isMissing: false };
  }
  yield* checkDemand(host, request.demand, existing);
  yield* makeDirectories(host, request, existing, missing);
  const path = yield* realDirectory(host, directory);
  return { path, existing, isMissing: false };
}

/** The directory as it is, or as it will be once it is made. */
export function* plannedDirectory(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<Directory> {
  const { existing, missing } = yield* findDirectory(host, request, directory);
  const join = (path: string, name: string) => joinPath(host, path, name);
  return {
    path: missing.reduce(join, existing),
    existing,
    isMissing: missing.length > 0,
  };
}

/** The real path of as much of the way to `directory` as exists, and the names of the rest. */
function* findDirectory(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<{ existing: string; missing: string[] }> {
  const missing: string[] = [];
  for (let path = directory;; path = directoryOf(host, path)) {
    try {
      const existing = yield* realDirectory(host, path);
      return { existing, missing };
    } catch (error) {
      const isRoot = directoryOf(host, path) === path;
      if (isRoot || !request.parents || !failedWith(error, "ENOENT")) {
        throw error;
      }
    }
    missing.unshift(nameOf(host, path));
  }
}

/**
 * The real path, or the path as given where Deno's permissions cover only that
 * spelling of it (`--allow-write=/tmp/x` where `/tmp` is a link).
 */
export function* realDirectory(
  host: Host,
  directory: string,
): Protocol<string> {
  try {
    const real = yield* realPath(host, directory);
    refuseMangled(directory, real);
    const isPermitted = real === directory ||
      (host.permission("read", real) === "granted" &&
        host.permission("write", real) === "granted");
    return isPermitted ? real : directory;
  } catch (error) {
    if (failedWith(error, NOT_CAPABLE)) return directory;
    throw error;
  }
}

/**
 * On Bun `realpath` takes a descriptor. Where none is free it is done without:
 * to wait for one would hold the event loop, since a write's place among others
 * is found out at the call, and whoever could give one back.
 */
function* realPath(host: Host, path: string): Protocol<string> {
  try {
    return yield* call("realpath", path);
  } catch (error) {
    if (host.windows || !failedWith(error, "EMFILE", "ENFILE")) throw error;
    return yield* followEachLink(host, path);
  }
}

function* followEachLink(host: Host, path: string): Protocol<string> {
  const rest = path.split("/");
  let real = "/";
  let links = 0;
  for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      real = directoryOf(host, real);
      continue;
    }
    const next = joinPath(host, real, name);
    const { kind } = yield* call("lstat", next);
    if (kind !== "symlink") {
      real = next;
      continue;
    }
    if (++links > MOST_LINKS) {
      throw new Refusal("ELOOP", "too many symbolic links lead to it");
    }
    const text = yield* call("readlink", next);
    refuseMangled(next, text);
    if (text.startsWith("/")) real = "/";
    rest.unshift(...text.split("/"));
  }
  return real;
}

/** As many links as Linux follows in one path. */
export const MOST_LINKS = 40;

/**
 * Directories this realm made whose own place in their parent is not synced
 * yet, each with the mark of who made it. To another task they look like ones
 * that were always there, and a write into one must not resolve before it is
 * as durable as the write.
 */
const unsyncedByHost = new WeakMap<Host, Map<string, Mark>>();

/** Of who made a directory. */
interface Mark {
  /** The last failed sync of its parent before it was made: after another one, no sync makes its place durable. */
  readonly syncFailure: SystemCallError | undefined;
}

function unsyncedOf(host: Host): Map<string, Mark> {
  let unsynced = unsyncedByHost.get(host);
  if (unsynced === undefined) unsyncedByHost.set(host, unsynced = new Map());
  return unsynced;
}

/** Bounds the memory of what is never synced: of so many, the oldest are forgotten. */
const MOST_UNSYNCED = 10_000;

function markUnsynced(host: Host, directory: string): Mark {
  const unsynced = unsyncedOf(host);
  const parent = directoryOf(host, directory);
  const mark: Mark = { syncFailure: lastSyncFailure(host, parent) };
  unsynced.set(directory, mark);
  const [oldest] = unsynced.keys();
  if (unsynced.size > MOST_UNSYNCED && oldest !== undefined) {
    unsynced.delete(oldest);
  }
  return mark;
}

/** Only with one's own mark: it may have been removed and made again since. */
function unmark(host: Host, directory: string, mark: Mark): void {
  const unsynced = unsyncedOf(host);
  if (unsynced.get(directory) === mark) unsynced.delete(directory);
}

function* makeDirectories(
  host: Host,
  request: DirectoryRequest,
  existing: string,
  missing: readonly string[],
): Protocol<void> {
  let path = existing;
  for (const name of missing) {
    request.signal?.throwIfAborted();
    const above = path;
    path = joinPath(host, above, name);
    // Opened before anything is made: where the parent may not be read, and so
    // not synced, nothing is left behind.
    const handle = yield* retrying(
      host,
      request,
      () => openToSync(host, request, above),
    );
    yield* closing(handle, () => makeDirectory(host, path, handle));
  }
}

function* makeDirectory(
  host: Host,
  path: string,
  parent: OpenFile | undefined,
): Protocol<void> {
  const mark = markUnsynced(host, path);
  try {
    yield* call("mkdir", path);
  } catch (error) {
    if (!failedWith(error, "EEXIST")) {
      unmark(host, path, mark);
      throw error;
    }
    // Another writer was faster. Its place is synced all the same: that
    // writer may not have come so far.
  }
  if (parent === undefined) return;
  yield* syncPlace(host, path, parent, mark);
  unmark(host, path, mark);
}

/** Syncs the parent of a directory that was made. */
function syncPlace(
  host: Host,
  path: string,
  parent: OpenFile,
  mark: Mark,
): Protocol<void> {
  return syncSince(host, parent, directoryOf(host, path), mark.syncFailure);
}

/** Makes what this realm made of the way to `directory` as durable as a write with full durability is. */
export function* syncMadeDirectories(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<void> {
  const unsynced = unsyncedOf(host);
  if (unsynced.size === 0 || request.durability !== "full") return;
  for (
    let made = directory, parent = directoryOf(host, made);
    parent !== made;
    made = parent, parent = directoryOf(host, made)
  ) {
    const mark = unsynced.get(made);
    if (mark === undefined) continue;
    const above = parent;
    const handle = yield* retrying(
      host,
      request,
      () => openToSync(host, request, above),
    );
    if (handle === undefined) return;
    yield* closing(handle, () => syncPlace(host, made, handle, mark));
    unmark(host, made, mark);
  }
}

/** Opens a directory for a later sync; `undefined` where none is asked for, or none is possible. */
export function* openToSync(
  host: Host,
  request: DirectoryRequest,
  directory: string,
): Protocol<OpenFile | undefined> {
  if (request.durability !== "full" || host.windows) return undefined;
  return yield* call("open", directory);
}
