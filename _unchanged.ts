/**
 * A file that is already what a write of it would make. An update leaves it as
 * it is; but whoever wrote it may not have synced it, or may have been told that
 * a sync has failed, and makes the same update again.
 *
 * @module
 */

import type { WriteRequest } from "./_core.ts";
import { openToSync, syncMadeDirectories } from "./_directories.ts";
import { intendedMetadata } from "./_metadata.ts";
import { closing, type Protocol, ProtocolError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { ownSidecars, type Sidecar } from "./_sidecar.ts";
import { syncFileAt, syncSince } from "./_sync_failures.ts";
import { resolveTarget, type Target } from "./_target.ts";

/**
 * Whether the file has the mode, the owner and the checksum that the request
 * asks for, and is as durable by now: else only a write of it is.
 */
export function* needsNoWrite(
  port: Port,
  request: WriteRequest,
): Protocol<boolean> {
  const target = yield* resolveTarget(port, request);
  const { path } = target;
  const own = yield* ownSidecars(port, path, request);
  return hasMetadata(port, request, target) && hasChecksum(request, own) &&
    (yield* isDurable(port, request, target, own));
}

function hasMetadata(
  port: Port,
  request: WriteRequest,
  { existing }: Target,
): boolean {
  const { mode, owner } = intendedMetadata(port, request, existing);
  return (mode === undefined || existing?.mode === mode) &&
    (owner === undefined ||
      (existing?.uid === owner.uid && existing.gid === owner.gid));
}

/** The one that is asked for, and no other. */
function hasChecksum(
  { wanted }: WriteRequest,
  own: readonly Sidecar[],
): boolean {
  if (wanted === undefined) return true;
  const kept = wanted === true ? "sha256" : wanted;
  return own.every(({ algorithm }) => algorithm === kept) &&
    own.length === (kept ? 1 : 0);
}

/** Makes what a weaker write has put there as durable as the request asks for; whether it is. */
export function* makeDurable(
  port: Port,
  request: WriteRequest,
): Protocol<boolean> {
  const target = yield* resolveTarget(port, request);
  const own = yield* ownSidecars(port, target.path, request);
  return yield* isDurable(port, request, target, own);
}

/** Syncs it; a failure, now or before, may have lost what was to be synced. */
function* isDurable(
  port: Port,
  request: WriteRequest,
  { path, directory }: Target,
  own: readonly Sidecar[],
): Protocol<boolean> {
  if (request.durability === "none") return true;
  try {
    for (const file of [path, ...own.map(({ path }) => path)]) {
      yield* syncFileAt(port, request, file);
    }
    yield* syncMadeDirectories(port, request, directory);
    const handle = yield* openToSync(port, request, directory);
    if (handle === undefined) return true;
    // Counted from the beginning: what a failed sync of the directory has lost,
    // no later one brings back.
    yield* closing(
      handle,
      () => syncSince(port, handle, directory, undefined),
    );
    return true;
  } catch (error) {
    if (error instanceof ProtocolError) return false;
    throw error;
  }
}
