/**
 * The replace protocol. Read from top to bottom it is the whole guarantee:
 * whoever opens the target finds the old content or the new, never a part, at
 * every moment and after every crash; and once a write with
 * `durability: "full"` has resolved, the new.
 *
 * ```text
 * resolve   links, missing parents                D/f is the target
 * stage     create D/.f.PID.UUID.tmp, exclusive
 *           open D                                to sync it later
 * append    write, until all bytes are taken      once or more often
 * seal      fstat: are all bytes there?
 *           chown, chmod                          only where they differ
 *           fsync the file
 *           close it
 * commit    put D/f.sha256 into place             only where a checksum is kept
 *           is the lock still ours?               only where one is held
 *           rename it to D/f                      the one moment of change
 * confirm   fsync D, close D
 * discard   close, unlink                         instead, after a failure before commit
 * ```
 *
 * A write is in one of three states:
 *
 * - *staged*: the target is untouched, the temporary file exists;
 *   {@linkcode discard} takes it back.
 * - *committed*: the target has the new content and the temporary name is gone.
 *   Nothing touches that name again: it may be somebody else's by now.
 * - *confirmed*: a power cut cannot undo it.
 *
 * A checksum is a file of its own, replaced by this same protocol while the old
 * content is still there. It names both, the new content and the old.
 *
 * @module
 */

import type { ChecksumWish } from "./_checksum_choice.ts";
import { MET } from "./_demand.ts";
import { openToSync, syncMadeDirectories } from "./_directories.ts";
import { HASHED_AT_ONCE } from "./_hashing.ts";
import { stagedPath, stagedPrefix } from "./_claim.ts";
import { checkHeld, type HeldLock } from "./_lock.ts";
import {
  applyMetadata,
  creationMode,
  type IntendedMetadata,
  intendedMetadata,
  isExposed,
  type MetadataRequest,
  mustChangeOwner,
  PRIVATE_MODE,
} from "./_metadata.ts";
import type { ChecksumAlgorithm, WriteReceipt } from "./_options.ts";
import {
  attempt,
  blockingCall,
  call,
  callMoving,
  failedWith,
  inlineCall,
  type Protocol,
  ProtocolError,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import {
  type FileStatus,
  type Hash,
  NOT_CAPABLE,
  type OpenFile,
  type Port,
} from "./_runtime/port.ts";
import {
  type Digests,
  previousDigests,
  readSidecar,
  removeSidecars,
  sidecarPath,
  sidecarText,
} from "./_sidecar.ts";
import { isPlanted } from "./_sticky.ts";
import { lastSyncFailure, syncSince } from "./_sync_failures.ts";
import {
  lookAt,
  resolveTarget,
  type Target,
  type TargetRequest,
} from "./_target.ts";
import {
  createAt,
  createTemporary,
  removeAfterFailure,
  removeTemporary,
  trackTemporary,
  untrackTemporary,
} from "./_temporary.ts";

/** A write, with every option decided. */
export interface WriteRequest extends TargetRequest, MetadataRequest {
  /** The lock that it is made under. */
  readonly held: HeldLock | undefined;
  /** What the caller says of a checksum. */
  readonly wanted: ChecksumWish;
  /** What becomes of it, once that is chosen under the lock: it is written, or `false`, removed. */
  readonly checksum: ChecksumAlgorithm | false | undefined;
}

/** A write between its first system call and its last. */
export interface StagedWrite {
  readonly port: Port;
  request: WriteRequest;
  target: Target;
  intended: IntendedMetadata;
  /** The name that must be removed should the write fail now; none once committed. */
  temporary: string | undefined;
  /** Open until sealed. */
  file: OpenFile | undefined;
  /** Open before the commit, so that what would stop its sync stops the write. */
  directory: OpenFile | undefined;
  bytes: number;
  /** Of all bytes, where a checksum is kept. */
  hash: Hash | undefined;
  digest: string | undefined;
  notPreserved: WriteReceipt["notPreserved"];
  /** The last failed sync of the directory before the commit. */
  syncFailure: SystemCallError | undefined;
}

/** What a write has to do with others of the same file. */
export interface Company {
  /** Told when there is something to give back. */
  staged(write: StagedWrite): void;
  /** Throws where its turn has passed, so that it must not be committed any more. */
  checkTurn(): void;
  /** The temporary file of an older write that is under way, and must not come after this one. */
  olderTemporary(): string | undefined;
}

/** Replaces the target with what `appendAll` appends. */
export function* replace(
  port: Port,
  request: WriteRequest,
  target: Target,
  appendAll: (write: StagedWrite) => Protocol<void>,
  company: Company,
): Protocol<WriteReceipt> {
  const write = yield* stage(port, request, target);
  return yield* complete(write, appendAll, company);
}

/** All that follows the staging: puts it into place, or takes it back. */
export function* complete(
  write: StagedWrite,
  appendAll: (write: StagedWrite) => Protocol<void>,
  company: Company,
): Protocol<WriteReceipt> {
  try {
    company.staged(write);
    yield* appendAll(write);
    yield* seal(write);
    yield* commit(write, company);
    return yield* confirm(write);
  } catch (error) {
    yield* discard(write, error);
    throw error;
  }
}

/** Creates the temporary file beside the target. */
export function* stage(
  port: Port,
  request: WriteRequest,
  target: Target,
): Protocol<StagedWrite> {
  yield* syncMadeDirectories(port, request, target.directory);
  const write: StagedWrite = {
    port,
    request,
    target,
    intended: intendedMetadata(port, request, target.existing),
    temporary: undefined,
    file: undefined,
    directory: undefined,
    bytes: 0,
    hash: request.checksum ? port.createHash(request.checksum) : undefined,
    digest: undefined,
    notPreserved: [],
    syncFailure: undefined,
  };
  // Both files or none: writers that each hold one descriptor and wait for a
  // second would wait for each other.
  yield* retrying(port, request, () => openFiles(write));
  return write;
}

/** Appends all of `bytes` to the temporary file. */
export function* append(
  write: StagedWrite,
  bytes: Uint8Array,
  length: number = bytes.length,
): Protocol<void> {
  const { hash } = write;
  const most = hash === undefined ? LARGEST_WRITE : HASHED_AT_ONCE;
  for (let offset = 0; offset < length; offset += most) {
    write.request.signal?.throwIfAborted();
    refuseShrunk(bytes, length);
    const piece = bytes.subarray(offset, Math.min(offset + most, length));
    if (hash === undefined) {
      yield* appendPiece(write, piece);
    } else {
      // A copy: bytes that are changed after they were hashed would be taken
      // for damage as soon as they are read.
      const copy = new Uint8Array(piece);
      hash.update(copy);
      yield* appendPiece(write, copy);
    }
  }
}

function* appendPiece(write: StagedWrite, bytes: Uint8Array): Protocol<void> {
  const file = openFileOf(write);
  const { length } = bytes;
  for (let offset = 0; offset < length;) {
    write.request.signal?.throwIfAborted();
    refuseShrunk(bytes, length);
    const rest = bytes.subarray(offset);
    // A full disk takes a part without an error: without the loop a truncated
    // file would be installed.
    const taken = yield* callMoving(rest.length)("write", file, rest);
    if (taken === 0) {
      throw new Refusal("SHORT_WRITE", "the system takes no more bytes");
    }
    offset += taken;
    write.bytes += taken;
  }
}

/** A buffer that is transferred or shrunk meanwhile has no bytes any more. */
function refuseShrunk(bytes: Uint8Array, length: number): void {
  if (bytes.length === length) return;
  throw new Refusal(
    "SHORT_WRITE",
    `the bytes were changed after the call: there were ${length}, and there are ${bytes.length} now`,
  );
}

/** Looks again at what will be replaced: a stream may be committed long after it was staged. */
export function* lookAgain(write: StagedWrite): Protocol<void> {
  const { port, request, target } = write;
  write.target = yield* lookAt(request, target);
  const { existing } = write.target;
  const intended = intendedMetadata(port, request, existing);
  // Without a mode to keep it is what the kernel gave the file.
  write.intended = {
    ...intended,
    mode: intended.mode ?? write.intended.mode,
  };
  if (existing === undefined || existing.uid === target.existing?.uid) return;
  const created = yield* call("fstat", openFileOf(write));
  yield* refusePlantedFile(write, created);
}

/** Makes the temporary file what the target shall be, synced and closed. */
export function* seal(write: StagedWrite): Protocol<void> {
  const { port, request, target } = write;
  const file = openFileOf(write);
  const status = yield* call("fstat", file);
  // What the system says it took must be there, or the rename installs less.
  if (status.size !== write.bytes) {
    throw new Refusal(
      "SHORT_WRITE",
      `of ${write.bytes} bytes written the file has ${status.size}`,
    );
  }
  const { directory } = target;
  const written = { file, status, directory };
  const lost = yield* applyMetadata(port, write.intended, written);
  const hasOtherNames = (target.existing?.nlink ?? 1) > 1;
  write.notPreserved = hasOtherNames ? [...lost, "links"] : lost;
  request.signal?.throwIfAborted();
  // Without it a power cut after the rename may leave an empty file. Never
  // repeated: after a failure the kernel drops the data and reports success.
  if (request.durability !== "none") yield* blockingCall("fsync", file);
  write.file = undefined;
  yield* call("close", file);
}

/** Puts the new content in the place of the old, in one step. */
export function* commit(
  write: StagedWrite,
  company: Company,
): Protocol<void> {
  const { request } = write;
  let { temporary } = write;
  if (temporary === undefined) throw new Error("Cannot commit a write twice");
  // The last chance: from here on the write cannot be taken back.
  request.signal?.throwIfAborted();
  if (request.checksum !== undefined) {
    yield* commitChecksum(write, request.checksum);
  }
  company.checkTurn();
  const { held } = request;
  if (held !== undefined) {
    temporary = yield* stageUnder(write, temporary, held);
    // Lost, it may be somebody else's by now, whose change this would undo.
    yield* checkHeld(held);
  }
  const older = company.olderTemporary();
  if (older !== undefined) yield* removeOlder(older);
  write.syncFailure = lastSyncFailure(write.port, write.target.directory);
  if (request.createNew) {
    yield* linkNew(write, temporary);
    yield* afterCommit(removeTemporary(temporary, write.bytes));
  } else {
    yield* renameOver(write, temporary);
  }
  write.temporary = undefined;
  untrackTemporary(temporary);
}

/** Has the checksum name the new content beside the old, so that whichever a crash leaves is named. */
function* commitChecksum(
  write: StagedWrite,
  kept: ChecksumAlgorithm | false,
): Protocol<void> {
  const { port, request, target, hash, intended } = write;
  const { path } = target;
  if (request.createNew && (yield* exists(path))) {
    throw new Refusal("EEXIST", "it exists, and createNew asks for a new file");
  }
  try {
    if (hash !== undefined && kept) {
      const digest = write.digest = hash.digest();
      const previous = yield* previousDigests(port, path, kept, request);
      const digests = { digest, previous };
      yield* replaceSidecar(port, request, target, kept, digests, intended);
      // Too late for an abort: the checksum is another one.
      write.request = { ...request, signal: undefined };
    } else if (request.held !== undefined) {
      // As below: the checksum may be somebody else's by now. What replaces one
      // looks for itself.
      yield* checkHeld(request.held);
    }
    yield* removeSidecars(port, write.request, target, kept);
  } catch (error) {
    // The target is as it was, and the checksum names it.
    if (error instanceof SystemCallError) error.committed = false;
    throw error;
  }
}

/** Puts a checksum of the target into place, by this same protocol. */
export function* replaceSidecar(
  port: Port,
  request: WriteRequest,
  target: Target,
  algorithm: ChecksumAlgorithm,
  digests: Digests,
  { mode, owner }: Pick<IntendedMetadata, "mode" | "owner">,
): Protocol<WriteReceipt> {
  // What is not ours stays.
  yield* readSidecar(port, target.path, algorithm, request);
  const id = port.randomUUID();
  const text = sidecarText(target.name, { ...digests, id });
  const sidecar: WriteRequest = {
    ...request,
    path: sidecarPath(target.path, algorithm),
    // Who may not read the content may not guess at it either; but its owner
    // must be able to look, or he could not write the file any more.
    mode: mode === undefined ? undefined : mode & READ_AND_WRITE | OWNER_READS,
    symlinks: "reject",
    createNew: false,
    wanted: undefined,
    checksum: undefined,
    durability: request.durability === "none" ? "none" : "full",
    // What was insisted on is of the content, and in the same directory.
    demand: MET,
  };
  const bytes = new TextEncoder().encode(text);
  const place = yield* placeOf(port, sidecar);
  // As if it replaced one of the content's owner.
  const existing = place.existing ?? target.existing;
  const like = existing && { ...existing, ...owner, nlink: 1, size: 0 };
  return yield* replace(
    port,
    sidecar,
    { ...place, existing: like },
    (write) => append(write, bytes),
    ALONE,
  );
}

function* placeOf(port: Port, sidecar: WriteRequest): Protocol<Target> {
  try {
    return yield* resolveTarget(port, sidecar);
  } catch (error) {
    if (!failedWith(error, "ENAMETOOLONG")) throw error;
    throw new Refusal(
      "ENAMETOOLONG",
      `its checksum would be "${sidecar.path}", which is longer than the file system allows: give the file a shorter name, or write it without a checksum`,
    );
  }
}

/** Waits until a power cut cannot bring the old content back. */
export function* confirm(write: StagedWrite): Protocol<WriteReceipt> {
  const { port, request, target, directory } = write;
  if (directory !== undefined) {
    const { syncFailure } = write;
    yield* afterCommit(
      syncSince(port, directory, target.directory, syncFailure),
    );
    write.directory = undefined;
    yield* afterCommit(call("close", directory));
    // Once more: another task may have removed and made them meanwhile.
    yield* afterCommit(syncMadeDirectories(port, request, target.directory));
  }
  return {
    path: target.path,
    bytes: write.bytes,
    fileSynced: request.durability !== "none",
    directorySynced: directory !== undefined,
    digest: write.digest,
    created: target.absent,
    superseded: false,
    notPreserved: write.notPreserved,
  };
}

/**
 * Gives back what a failed write holds: its handles, and its temporary file
 * unless that is committed. Failures here do not hide the one that led here; a
 * temporary file that stays is reported with it, and returned.
 */
export function* discard(
  write: StagedWrite,
  reason: unknown,
): Protocol<SystemCallError | undefined> {
  const { file, directory, temporary } = write;
  write.file = write.directory = write.temporary = undefined;
  if (file !== undefined) yield* attempt(call("close", file));
  if (directory !== undefined) yield* attempt(call("close", directory));
  if (temporary === undefined) return undefined;
  return yield* removeAfterFailure(temporary, write.bytes, reason);
}

const READ_AND_WRITE = 0o666;
const OWNER_READS = 0o400;

/** A write that no other one has to do with. */
const ALONE: Company = {
  staged: () => {},
  checkTurn: () => {},
  olderTemporary: () => undefined,
};

/** Bounds the memory and the time of one call, so that an abort is soon seen. */
const LARGEST_WRITE = 16 * 1024 * 1024;

function* openFiles(write: StagedWrite): Protocol<void> {
  const { port, request, target } = write;
  request.signal?.throwIfAborted();
  try {
    yield* create(write, creationMode(write.intended));
    yield* hideUntilOwned(write);
    // Later than the file: were the directory removed and made anew between the
    // two, another one would be synced than the file is in.
    write.directory = yield* openToSync(port, request, target.directory);
  } catch (error) {
    yield* discard(write, error);
    throw error;
  }
}

function* create(write: StagedWrite, mode: number): Protocol<void> {
  const { port, request: { held }, target } = write;
  write.file = yield* held === undefined
    ? createTemporary(port, target.directory, target.name, mode)
    : createAt(port, () => nextStagedPath(held), mode);
  write.temporary = write.file.path;
}

function nextStagedPath(held: HeldLock): string {
  return stagedPath(held.place, held.claim, ++held.staged);
}

/** Who succeeds a holder that has lost its lock removes what has the name of its claim: without that name, a rename could follow that was checked before. */
function* stageUnder(
  write: StagedWrite,
  temporary: string,
  held: HeldLock,
): Protocol<string> {
  if (temporary.startsWith(stagedPrefix(held.place, held.claim))) {
    return temporary;
  }
  const path = nextStagedPath(held);
  trackTemporary(write.port, path);
  // Inline: a synchronous write of this realm must find one of the two names.
  yield* inlineCall("rename", temporary, path);
  write.temporary = path;
  untrackTemporary(temporary);
  return path;
}

/**
 * Where the owner must change, replaces the created file by a private one.
 * Whoever opened the first meanwhile holds an empty file without a name.
 */
function* hideUntilOwned(write: StagedWrite): Protocol<void> {
  const { intended, file, temporary } = write;
  if (
    file === undefined || temporary === undefined ||
    intended.owner === undefined
  ) return;
  const created = yield* call("fstat", file);
  if (!mustChangeOwner(intended, created)) return;
  yield* refusePlantedFile(write, created);
  if (!isExposed(created)) return;
  write.intended = { ...intended, mode: intended.mode ?? created.mode };
  write.file = undefined;
  yield* call("close", file);
  yield* removeTemporary(temporary, 0);
  write.temporary = undefined;
  yield* create(write, PRIVATE_MODE);
}

/** Whoever put a file there to be replaced shall not own what is written. */
function* refusePlantedFile(
  { intended, target: { path, directory } }: StagedWrite,
  created: FileStatus,
): Protocol<void> {
  if (intended.ownerRequired || !mustChangeOwner(intended, created)) return;
  const owner = intended.owner?.uid ?? created.uid;
  const planted = yield* isPlanted(directory, owner, function* () {
    return created.uid;
  });
  if (!planted) return;
  throw new Refusal(
    "EACCES",
    `"${path}" belongs to another user (uid ${owner}), who would own the new file too, in a directory everybody can write to: remove it, or write with preserve: false`,
  );
}

/** Without its temporary file an older write fails to rename it, however far it is. */
function* removeOlder(temporary: string): Protocol<void> {
  try {
    yield* call("unlink", temporary);
  } catch (error) {
    // It is renamed by now, and so comes before this write as it should.
    if (!failedWith(error, "ENOENT")) throw error;
  }
}

function* renameOver(write: StagedWrite, temporary: string): Protocol<void> {
  const { port, request, target } = write;
  // Freeing a large file holds the thread, and with it the event loop.
  const oldBytes = target.existing?.size ?? 0;
  try {
    yield* retrying(
      port,
      request,
      () => callMoving(oldBytes)("rename", temporary, target.path),
    );
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (failedWith(error, "ENOENT")) yield* checkNotSucceeded(write);
    // A server that has done it, and whose answer was lost, says so when asked
    // again.
    const isGone = failedWith(error, "ENOENT") && !(yield* exists(temporary));
    if (isGone || !failedWith(error, ...CHANGED_NOTHING)) {
      error.committed = "unknown";
    }
    throw error;
  }
}

/** Unlike rename, fails where another writer has made the target since we looked. */
function* linkNew(write: StagedWrite, temporary: string): Protocol<void> {
  try {
    yield* call("link", temporary, write.target.path);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (failedWith(error, "ENOENT")) yield* checkNotSucceeded(write);
    if (failedWith(error, "EEXIST") && (yield* isLinked(temporary))) return;
    if (!failedWith(error, ...CHANGED_NOTHING)) error.committed = "unknown";
    throw error;
  }
}

/** The temporary file is gone: by who has the lock now, perhaps. */
function* checkNotSucceeded(
  { request: { held } }: StagedWrite,
): Protocol<void> {
  if (held !== undefined) yield* checkHeld(held);
}

function* exists(path: string): Protocol<boolean> {
  try {
    yield* call("lstat", path);
    return true;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}

/** Whether a link that is said to have failed was made: by a server whose first answer was lost. */
function* isLinked(temporary: string): Protocol<boolean> {
  try {
    return (yield* call("lstat", temporary)).nlink > 1;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}

/** The errors after which rename and link have certainly changed nothing. */
export const CHANGED_NOTHING: readonly string[] = [
  NOT_CAPABLE,
  "EACCES",
  "EBUSY",
  "EDQUOT",
  "EEXIST",
  "EINVAL",
  "EISDIR",
  "ELOOP",
  "EMLINK",
  "ENAMETOOLONG",
  "ENOENT",
  "ENOSPC",
  "ENOSYS",
  "ENOTDIR",
  "ENOTEMPTY",
  "ENOTSUP",
  "EOPNOTSUPP",
  "EPERM",
  "EROFS",
  "EXDEV",
];

/** What comes after the new content is in place, and says so where it fails. */
export function* afterCommit<T>(protocol: Protocol<T>): Protocol<T> {
  try {
    return yield* protocol;
  } catch (error) {
    if (error instanceof ProtocolError) error.committed = true;
    throw error;
  }
}

function openFileOf(write: StagedWrite): OpenFile {
  if (write.file === undefined) throw new Error("The write is sealed");
  return write.file;
}
