/**
 * The syncs of directories that have failed in this realm. The kernel forgets
 * what a failed sync was to write and reports the next one as a success: who
 * has changed the directory before a failure, and syncs it after, has not synced
 * his change.
 *
 * @module
 */

import {
  type Protocol,
  sameFailure,
  syncDirectory,
  SystemCallError,
} from "./_protocol.ts";
import type { Host, OpenFile } from "./_runtime/port.ts";

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
