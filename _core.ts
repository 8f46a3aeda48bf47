/**
 * The replace protocol. Read from top to bottom it is the whole guarantee:
 * whoever opens the target finds the old content or the new, never a part, at
 * every moment and after every crash; and once a write with
 * `durability: "full"` has resolved, the new.
 *
 * ```text
 * stage     resolve links, make missing parents   D/f is the target
 *           open D                                to sync it later
 *           create D/.f.PID.UUID.tmp, exclusive
 * append    write, until all bytes are taken      once or more often
 * seal      fstat: are all bytes there?
 *           chown, chmod                          only where they differ
 *           fsync the file
 *           close it
 * commit    rename it to D/f                      the one moment of change
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
 * @module
 */

import { openToSync } from "./_directories.ts";
import {
  applyMetadata,
  creationMode,
  type IntendedMetadata,
  intendedMetadata,
  isExposed,
  type MetadataRequest,
  PRIVATE_MODE,
} from "./_metadata.ts";
import type { WriteReceipt } from "./_options.ts";
import { joinPath } from "./_path.ts";
import {
  blockingCall,
  call,
  callMoving,
  failedWith,
  type Protocol,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import { NOT_CAPABLE, type OpenFile, type Port } from "./_runtime/port.ts";
import { resolveTarget, type Target, type TargetRequest } from "./_target.ts";
import {
  temporaryName,
  trackTemporary,
  untrackTemporary,
} from "./_temporary.ts";

/** A write, with every option decided. */
export interface WriteRequest extends TargetRequest, MetadataRequest {}

/** A write between its first system call and its last. */
export interface StagedWrite {
  readonly port: Port;
  readonly request: WriteRequest;
  readonly target: Target;
  intended: IntendedMetadata;
  /** The name that must be removed should the write fail now; none once committed. */
  temporary: string | undefined;
  /** Open until sealed. */
  file: OpenFile | undefined;
  /** Open from the start, so that what would stop its sync stops the write before the commit. */
  directory: OpenFile | undefined;
  bytes: number;
  notPreserved: WriteReceipt["notPreserved"];
}

/** Replaces the target with `bytes`. */
export function* replace(
  port: Port,
  request: WriteRequest,
  bytes: Uint8Array,
): Protocol<WriteReceipt> {
  const write = yield* stage(port, request);
  try {
    yield* append(write, bytes);
    yield* seal(write);
    yield* commit(write);
    return yield* confirm(write);
  } catch (error) {
    yield* discard(write, error);
    throw error;
  }
}

/** Finds the target and creates the temporary file beside it. */
export function* stage(
  port: Port,
  request: WriteRequest,
): Protocol<StagedWrite> {
  request.signal?.throwIfAborted();
  const target = yield* resolveTarget(port, request);
  const write: StagedWrite = {
    port,
    request,
    target,
    intended: intendedMetadata(port, request, target.existing),
    temporary: undefined,
    file: undefined,
    directory: undefined,
    bytes: 0,
    notPreserved: [],
  };
  try {
    request.signal?.throwIfAborted();
    write.directory = yield* openToSync(port, request, target.directory);
    write.file = yield* createTemporary(write, creationMode(write.intended));
    yield* hideUntilOwned(write, write.file);
    return write;
  } catch (error) {
    yield* discard(write, error);
    throw error;
  }
}

/** Appends all of `bytes` to the temporary file. */
export function* append(
  write: StagedWrite,
  bytes: Uint8Array,
): Protocol<void> {
  const file = openFileOf(write);
  const { length } = bytes;
  for (let offset = 0; offset < length;) {
    write.request.signal?.throwIfAborted();
    // A buffer that is transferred or shrunk meanwhile has no bytes any more.
    if (bytes.length !== length) {
      throw new Refusal(
        "SHORT_WRITE",
        `the bytes were changed during the write: of ${length} only ${bytes.length} are left`,
      );
    }
    const rest = bytes.subarray(offset, offset + LARGEST_WRITE);
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

/** Makes the temporary file what the target shall be, synced and closed. */
export function* seal(write: StagedWrite): Protocol<void> {
  const { request, target } = write;
  const file = openFileOf(write);
  const status = yield* call("fstat", file);
  // What the system says it took must be there, or the rename installs less.
  if (status.size !== write.bytes) {
    throw new Refusal(
      "SHORT_WRITE",
      `of ${write.bytes} bytes written the file has ${status.size}`,
    );
  }
  const lost = yield* applyMetadata(file, write.intended, status);
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
export function* commit(write: StagedWrite): Protocol<void> {
  const { port, request, target, temporary } = write;
  if (temporary === undefined) throw new Error("Cannot commit a write twice");
  // The last chance: from here on the write cannot be taken back.
  request.signal?.throwIfAborted();
  try {
    if (request.createNew) {
      // rename would replace a file that another writer made since we looked.
      yield* call("link", temporary, target.path);
    } else {
      // Freeing a large file holds the thread, and with it the event loop.
      const oldBytes = target.existing?.size ?? 0;
      yield* retrying(
        port,
        request,
        () => callMoving(oldBytes)("rename", temporary, target.path),
      );
    }
  } catch (error) {
    if (error instanceof SystemCallError && !changedNothing(error)) {
      error.committed = "unknown";
    }
    throw error;
  }
  if (request.createNew) yield* afterCommit(call("unlink", temporary));
  write.temporary = undefined;
  untrackTemporary(temporary);
}

/** Waits until a power cut cannot bring the old content back. */
export function* confirm(write: StagedWrite): Protocol<WriteReceipt> {
  const { request, target, directory } = write;
  if (directory !== undefined) {
    yield* afterCommit(blockingCall("fsync", directory));
    write.directory = undefined;
    yield* afterCommit(call("close", directory));
  }
  return {
    path: target.path,
    bytes: write.bytes,
    fileSynced: request.durability !== "none",
    directorySynced: directory !== undefined,
    created: target.absent,
    superseded: false,
    notPreserved: write.notPreserved,
  };
}

/**
 * Gives back what a failed write holds: its handles, and its temporary file
 * unless that is committed. Failures here do not hide the one that led here; a
 * temporary file that stays is reported with it.
 */
export function* discard(
  write: StagedWrite,
  reason: unknown,
): Protocol<void> {
  const { file, directory, temporary } = write;
  write.file = write.directory = write.temporary = undefined;
  if (file !== undefined) yield* unlessFailing(call("close", file));
  if (directory !== undefined) yield* unlessFailing(call("close", directory));
  if (temporary === undefined) return;
  try {
    yield* callMoving(write.bytes)("unlink", temporary);
  } catch (error) {
    if (!failedWith(error, "ENOENT")) {
      if (reason instanceof SystemCallError) reason.leftover = temporary;
      return;
    }
  }
  untrackTemporary(temporary);
}

/** Bounds the memory and the time of one call, so that an abort is soon seen. */
const LARGEST_WRITE = 16 * 1024 * 1024;

/** More are no accident. */
const MOST_NAMES_TRIED = 16;

function* createTemporary(
  write: StagedWrite,
  mode: number,
): Protocol<OpenFile> {
  const { port, request, target } = write;
  for (let tried = 1;; tried++) {
    const temporary = joinPath(
      port,
      target.directory,
      temporaryName(port, target.name),
    );
    // Before it exists: the process may exit while another thread creates it.
    trackTemporary(port, temporary);
    try {
      const file = yield* retrying(
        port,
        request,
        () => call("create", temporary, mode),
      );
      write.temporary = temporary;
      return file;
    } catch (error) {
      untrackTemporary(temporary);
      // Somebody has put something there, a link perhaps: it is theirs, and
      // opening it could write through it.
      if (!failedWith(error, "EEXIST") || tried === MOST_NAMES_TRIED) {
        throw error;
      }
    }
  }
}

/**
 * Where the owner must change, replaces the created file by a private one.
 * Whoever opened the first meanwhile holds an empty file without a name.
 */
function* hideUntilOwned(
  write: StagedWrite,
  file: OpenFile,
): Protocol<void> {
  const { intended, temporary } = write;
  if (intended.owner === undefined || temporary === undefined) return;
  const created = yield* call("fstat", file);
  if (!isExposed(intended, created)) return;
  write.intended = { ...intended, mode: intended.mode ?? created.mode };
  yield* call("unlink", temporary);
  write.temporary = undefined;
  untrackTemporary(temporary);
  write.file = undefined;
  yield* call("close", file);
  write.file = yield* createTemporary(write, PRIVATE_MODE);
}

/** The errors after which rename and link have certainly changed nothing. */
const CHANGED_NOTHING = [
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
  "ENOTSUP",
  "EOPNOTSUPP",
  "EPERM",
  "EROFS",
  "EXDEV",
];

function changedNothing(error: SystemCallError): boolean {
  return failedWith(error, ...CHANGED_NOTHING);
}

function* afterCommit<T>(protocol: Protocol<T>): Protocol<T> {
  try {
    return yield* protocol;
  } catch (error) {
    if (error instanceof SystemCallError) error.committed = true;
    throw error;
  }
}

function* unlessFailing(protocol: Protocol<void>): Protocol<void> {
  try {
    yield* protocol;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
  }
}

function openFileOf(write: StagedWrite): OpenFile {
  if (write.file === undefined) throw new Error("The write is sealed");
  return write.file;
}
