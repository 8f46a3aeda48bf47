/**
 * The checksum of a file that gets another name: written beside the new name
 * before the file is there, removed beside the old one once it is gone.
 *
 * @module
 */

import { checksumCameMeanwhile } from "./_checksum_choice.ts";
import { replaceSidecar, type WriteRequest } from "./_core.ts";
import type { DirectoryRequest } from "./_directories.ts";
import { checkHeld, type HeldLock } from "./_lock.ts";
import { type Protocol, Refusal, SystemCallError } from "./_protocol.ts";
import type { FileStatus, Port } from "./_runtime/port.ts";
import {
  currentDigest,
  type Digests,
  isNamed,
  MOST_PREVIOUS,
  ownSidecars,
  previousDigests,
  readSidecar,
  removeSidecars,
} from "./_sidecar.ts";
import type { Target } from "./_target.ts";

/** What this needs to know of a move. */
interface ChecksumMove extends DirectoryRequest {
  readonly held: readonly HeldLock[];
}

/** What was done beside the new name. */
interface Placement {
  /** Whether there is a checksum where there was none before. */
  isMade: boolean;
}

/** Has a checksum beside the new name say what the file holds, and what it replaces; returns whether there is one. */
export function* placeChecksum(
  port: Port,
  request: ChecksumMove,
  from: string,
  to: Target,
  status: FileStatus,
  progress: Placement,
): Protocol<boolean> {
  const [own] = yield* ownSidecars(port, from, request);
  const [replaced] = yield* ownSidecars(port, to.path, request);
  const kept = own ?? replaced;
  if (kept === undefined) return false;
  if (request.held.length === 0) throw checksumCameMeanwhile();
  const { algorithm } = kept;
  const there = yield* readSidecar(port, to.path, algorithm, request);
  if (there !== undefined && there.id === undefined) {
    throw new Refusal(
      "FOREIGN_CHECKSUM",
      `"${there.path}" is a checksum that somebody else has made of it, and would be replaced: move it away, or write the file that is moved whole with checksum: false, which gives its own one up`,
    );
  }
  const actual = yield* currentDigest(port, from, algorithm, request);
  if (actual === undefined) {
    throw new Refusal("ENOENT", "somebody else has moved or removed it");
  }
  // What the old name says of damage is kept: else it would be called good.
  const digests = own === undefined || isNamed(own, actual)
    ? { digest: actual, previous: [] }
    : own;
  const before = yield* previousDigests(port, to.path, algorithm, request);
  const previous = new Set([...before, ...digests.previous]);
  const named: Digests = {
    digest: digests.digest,
    // First what a crash may leave at the new name.
    previous: [...previous].slice(0, MOST_PREVIOUS),
  };
  const write: WriteRequest = {
    ...request,
    path: to.path,
    mode: undefined,
    owner: undefined,
    preserve: true,
    symlinks: "reject",
    createNew: false,
    held: lockOf(request, to),
    wanted: undefined,
    checksum: undefined,
  };
  const like = { mode: status.mode, owner: status };
  const place = { ...to, existing: to.existing ?? status };
  progress.isMade = replaced === undefined;
  try {
    yield* replaceSidecar(port, write, place, algorithm, named, like);
    yield* removeSidecars(port, request, to, algorithm);
  } catch (error) {
    // The file has its old name, and both checksums name it.
    if (error instanceof SystemCallError) error.committed = false;
    throw error;
  }
  return true;
}

/** Not that of the old name, which fences the move itself. */
function lockOf(
  { held }: ChecksumMove,
  { path }: Target,
): HeldLock | undefined {
  return held.find(({ place }) => place.file === path);
}

/** Removes the checksum that was made beside the new name, unless it may be somebody else's by now. */
export function* takeBackChecksum(
  port: Port,
  request: ChecksumMove,
  to: Target,
): Protocol<void> {
  const held = lockOf(request, to);
  if (held !== undefined) yield* checkHeld(held);
  yield* removeChecksum(port, request, to);
}

/** Removes the checksum beside the old name. */
export function removeChecksum(
  port: Port,
  request: DirectoryRequest,
  from: Pick<Target, "path" | "directory">,
): Protocol<void> {
  return removeSidecars(port, request, from, false);
}
