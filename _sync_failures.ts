/**
 * The syncs of directories that have failed in this realm. The kernel forgets
 * what a failed sync was to write and reports the next one as a success: who
 * has changed the directory before a failure, and syncs it after, has not synced
 * his change.
 *
 * @module
 */

import {
  blockingCall,
  call,
  closing,
  type Protocol,
  Refusal,
  sameFailure,
  syncDirectory,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import type { FileStatus, Host, OpenFile, Port } from "./_runtime/port.ts";

const failuresByHost = new WeakMap<Host, Map<string, SystemCallError>>();

/** The last failed sync of a directory, to be compared with that of another time. */
export function lastSyncFailure(
  host: Host,
  directory: string,
): SystemCallError | undefined {
  return failuresByHost.get(host)?.get(directory);
}

/**
 * Syncs a directory for what was changed in it when `before` was its last failed
 * sync. A success counts only where none has failed since, not even somebody
 * else's.
 */
export function* syncSince(
  host: Host,
  handle: OpenFile,
  directory: string,
  before: SystemCallError | undefined,
): Protocol<void> {
  try {
    yield* syncDirectory(handle, directory);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    note(host, directory, error);
    throw error;
  }
  const since = lastSyncFailure(host, directory);
  if (since !== undefined && since !== before) throw sameFailure(since);
}

function note(
  host: Host,
  directory: string,
  failure: SystemCallError,
): void {
  let failures = failuresByHost.get(host);
  if (failures === undefined) failuresByHost.set(host, failures = new Map());
  failures.set(directory, failure);
}

const unsyncedByHost = new WeakMap<Host, Set<string>>();

/** Bounds the memory: of so many, the oldest are forgotten. */
const MOST_UNSYNCED = 1000;

/** What is waited for, and for how long. */
interface SyncRequest {
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Opens the file there, syncs it and closes it; which one that was. */
export function* syncFileAt(
  port: Port,
  request: SyncRequest,
  path: string,
): Protocol<FileStatus> {
  request.signal?.throwIfAborted();
  // Windows syncs only what may be written.
  const file = yield* retrying(
    port,
    request,
    () => call(port.windows ? "openAppend" : "open", path),
  );
  return yield* closing(file, function* () {
    const status = yield* call("fstat", file);
    yield* syncFile(port, file, status);
    return status;
  });
}

/** Syncs a file that others may have written, unless a sync of it has failed since it was last changed. */
function* syncFile(
  host: Host,
  file: OpenFile,
  { dev, ino, birthMs, mtimeMs }: FileStatus,
): Protocol<void> {
  let unsynced = unsyncedByHost.get(host);
  if (unsynced === undefined) unsyncedByHost.set(host, unsynced = new Set());
  const key = `${dev}:${ino}:${birthMs}:${mtimeMs}`;
  if (unsynced.has(key)) {
    throw new Refusal(
      "BROKEN",
      "a sync of it has failed before, and what that was to write may be lost: write it anew",
    );
  }
  try {
    yield* blockingCall("fsync", file);
  } catch (error) {
    unsynced.add(key);
    const [oldest] = unsynced;
    if (unsynced.size > MOST_UNSYNCED && oldest !== undefined) {
      unsynced.delete(oldest);
    }
    throw error;
  }
}
