/**
 * The syncs of directories that have failed in this realm. The kernel forgets
 * what a failed sync was to write and reports the next one as a success: who
 * has changed the directory before a failure, and syncs it after, has not synced
 * his change.
 *
 * @module
 */

import type { SystemCallError } from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";

const failuresByHost = new WeakMap<Host, Map<string, SystemCallError>>();

/** The last failed sync of a directory, to be compared with that of another time. */
export function lastSyncFailure(
  host: Host,
  directory: string,
): SystemCallError | undefined {
  return failuresByHost.get(host)?.get(directory);
}

/** Remembers that a sync of a directory has failed. */
export function noteSyncFailure(
  host: Host,
  directory: string,
  failure: SystemCallError,
): void {
  let failures = failuresByHost.get(host);
  if (failures === undefined) failuresByHost.set(host, failures = new Map());
  failures.set(directory, failure);
}
