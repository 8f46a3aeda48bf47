/**
 * The move protocol: a file gets another name, in the same directory or in
 * another one of the same file system. It is never copied.
 *
 * ```text
 * find      from is a file; links, missing parents of to
 * sync      open from, fsync it, close it         what is renamed unsynced may be empty after a power cut
 *           open both directories                 to sync them later
 * commit    are the locks still ours?             only where they are held
 *           put the checksum of to into place     only where one is kept
 *           is from still the file that was synced?
 *           link from as to                       fails where to exists
 *           rename from to to                     instead, with overwrite
 * confirm   fsync the directory of to
 *           is from still the same file?
 *           unlink from                           only after a link
 *           fsync the directory of from
 *           remove the checksum of from           only where one was kept
 * ```
 *
 * What a crash leaves, at every point: the whole file at `from`, at `to`, or at
 * both.
 *
 * - *before the commit*: at `from`, and `to` is as it was.
 * - *between link and unlink*: at both; one file with two names, whose link
 *   count is 2 meanwhile. Which of them is to stay only a person can tell: the
 *   same move, made again, is refused. The directory of `to` is synced before
 *   `from` is removed, or a power cut could take both names.
 * - *after a rename that is not synced*: at either; between two directories this
 *   relies on the file system to make a rename one step on the disk, as those
 *   with a journal do.
 * - *confirmed*: at `to`.
 *
 * Two names that are one file are never moved onto each other, however they are
 * spelled: of one entry under two spellings (a bind mount, a file system that
 * takes `A` for `a`) nothing would be left. Of two processes that move one file to
 * different names, the one that finds `from` gone takes its own name back.
 *
 * Another process that replaces `from`, or removes `to`, between the last look
 * at it and the `unlink`, the next system call, loses what it has written, or the
 * file: only a lock that both take excludes that.
 *
 * @module
 */

import { CHANGED_NOTHING } from "./_core.ts";
import {
  type DirectoryRequest,
  openToSync,
  plannedDirectory,
  syncMadeDirectories,
} from "./_directories.ts";
import { checkHeld, type HeldLock } from "./_lock.ts";
import {
  placeChecksum,
  removeChecksum,
  takeBackChecksum,
} from "./_move_checksum.ts";
import type { MoveReceipt, SymlinkPolicy } from "./_options.ts";
import { directoryOf, joinPath, nameOf } from "./_path.ts";
import {
  attempt,
  call,
  closing,
  failedWith,
  inline,
  inlineCall,
  type Protocol,
  ProtocolError,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import type { FileStatus, Host, OpenFile, Port } from "./_runtime/port.ts";
import { lastSyncFailure, syncFileAt, syncSince } from "./_sync_failures.ts";
import {
  isSame,
  locateAgain,
  locateTarget,
  lstatIfPresent,
  type Target,
  type TargetRequest,
} from "./_target.ts";

/** A move, with every option decided. */
export interface MoveRequest extends DirectoryRequest {
  /** Absolute. */
  readonly from: string;
  /** Absolute. */
  readonly to: string;
  readonly symlinks: SymlinkPolicy;
  readonly overwrite: boolean;
  /** The locks that it is made under. */
  readonly held: readonly HeldLock[];
}

/** The two names of a move. */
export interface Route {
  readonly from: Name;
  readonly to: Target;
}

interface Name {
  readonly path: string;
  readonly directory: string;
}

/** Both names, links resolved; nothing is made, and nothing need be there yet. */
export function* locateRoute(
  port: Port,
  request: MoveRequest,
): Protocol<Route> {
  const { from } = request;
  const { path: directory } = yield* plannedDirectory(
    port,
    { ...request, parents: true },
    directoryOf(port, from),
  );
  const path = joinPath(port, directory, nameOf(port, from));
  const to = yield* locateTarget(port, targetRequest(request));
  if (path === to.path) throw sameFile(path);
  return { from: { path, directory }, to };
}

/** Gives the file its new name; `checkTurn` is called just before. */
export function* move(
  port: Port,
  request: MoveRequest,
  located: Route,
  checkTurn: () => void,
): Protocol<MoveReceipt> {
  request.signal?.throwIfAborted();
  const { from } = located;
  // Before parents are made for what cannot be moved.
  const found = yield* fileAt(from.path);
  const placing = placingRequest(request);
  const to = yield* locateAgain(port, targetRequest(placing), located.to);
  // Found out only now where a parent before a ".." was missing.
  if (from.path === to.path) throw sameFile(to.path);
  refuseExisting(request, found, to);
  yield* syncMadeDirectories(port, placing, to.directory);
  const route = { from, to };
  const directories = yield* retrying(
    port,
    request,
    () => openDirectories(port, request, placing, route),
  );
  const progress = { isCommitted: false, isMade: false };
  try {
    return yield* closing(
      directories.to,
      () =>
        closing(directories.from, function* () {
          const status = yield* syncSource(port, request, from.path);
          yield* checkAllHeld(request);
          request.signal?.throwIfAborted();
          checkTurn();
          const isKept = yield* placeChecksum(
            port,
            request,
            from.path,
            to,
            status,
            progress,
          );
          const commitment = yield* commit(
            port,
            // With the checksum in place it is too late for an abort.
            isKept ? { ...request, signal: undefined } : request,
            route,
            status,
            checkTurn,
          );
          progress.isCommitted = true;
          yield* confirm(port, request, route, directories, commitment, status);
          if (isKept) yield* removeChecksum(port, request, from);
          return {
            from: from.path,
            to: to.path,
            bytes: status.size,
            fileSynced: request.durability !== "none",
            directorySynced: request.durability === "full" &&
              directories.to !== undefined,
            replaced: commitment.replaced,
          };
        }),
    );
  } catch (error) {
    if (progress.isCommitted && error instanceof SystemCallError) {
      error.committed = true;
    }
    const isUndone = error instanceof ProtocolError &&
      error.committed === false;
    if (isUndone && progress.isMade) {
      yield* attempt(takeBackChecksum(port, request, to));
    }
    throw error;
  }
}

/** What the new name needs: it must be on the disk before the old one is unlinked, or a power cut could take both. */
function placingRequest(request: MoveRequest): MoveRequest {
  return request.durability === "ordered" && !request.overwrite
    ? { ...request, durability: "full" }
    : request;
}

function targetRequest(request: MoveRequest): TargetRequest {
  return { ...request, path: request.to, createNew: false };
}

/** What is to be moved, or why it cannot be. */
function* fileAt(path: string): Protocol<FileStatus> {
  const status = yield* lstatIfPresent(path);
  switch (status?.kind) {
    case "file":
      return status;
    case undefined:
      throw new Refusal("ENOENT", `"${path}" does not exist`);
    case "directory":
      throw new Refusal(
        "EISDIR",
        `"${path}" is a directory, and only a file is moved: move its files, or rename it with the functions of the runtime`,
      );
    case "symlink":
      // Behind another name its text may lead elsewhere, and it cannot be synced.
      throw new Refusal(
        "ELOOP",
        `"${path}" is a symbolic link: name the file that it leads to`,
      );
    default:
      throw new Refusal(
        "NOT_A_FILE",
        `"${path}" is a device, a pipe or a socket`,
      );
  }
}

function refuseExisting(
  { overwrite }: MoveRequest,
  source: FileStatus,
  { absent, existing, path }: Target,
): void {
  // A rename would remove none of two names, an unlink perhaps the only one.
  if (isSame(source, existing)) throw sameFile(path);
  if (overwrite || absent) return;
  throw exists();
}

function sameFile(path: string): Refusal {
  return new Refusal(
    "SAME_FILE",
    `"${path}" is that file already: by another spelling of its name, as a hard link, or because a move was cut off between its two steps; where both names are there, remove the one that is not wanted`,
  );
}

function exists(): Refusal {
  return new Refusal(
    "EEXIST",
    "something has the new name already: move it to another one, or with overwrite: true",
  );
}

interface Directories {
  readonly to: OpenFile | undefined;
  /** None where it is the same one. */
  readonly from: OpenFile | undefined;
}

/** Both or none: moves that each hold one descriptor and wait for a second would wait for each other. */
function* openDirectories(
  host: Host,
  request: MoveRequest,
  placing: MoveRequest,
  { from, to }: Route,
): Protocol<Directories> {
  request.signal?.throwIfAborted();
  const opened = yield* openToSync(host, placing, to.directory);
  if (from.directory === to.directory) return { to: opened, from: undefined };
  try {
    return {
      to: opened,
      from: yield* openToSync(host, request, from.directory),
    };
  } catch (error) {
    if (opened !== undefined) yield* attempt(call("close", opened));
    throw error;
  }
}

/** Syncs the file, and tells which one that was. */
function* syncSource(
  port: Port,
  request: MoveRequest,
  path: string,
): Protocol<FileStatus> {
  if (request.durability === "none") return yield* fileAt(path);
  for (;;) {
    // Without it, a power cut after the rename may leave an empty file.
    const status = yield* syncFileAt(port, request, path);
    // Another one, that somebody has put there meanwhile, is not synced.
    if (isSame(status, yield* fileAt(path))) return status;
  }
}

/** How the file got its new name; what else was changed by it. */
interface Commitment {
  /** Whether the old name is still to be removed. */
  readonly isLinked: boolean;
  /** Whether something had the new name. */
  readonly replaced: boolean;
  /** The last failed syncs before. */
  readonly syncFailures: {
    readonly to: SystemCallError | undefined;
    readonly from: SystemCallError | undefined;
  };
}

function* checkAllHeld(request: MoveRequest): Protocol<void> {
  for (const held of request.held) yield* checkHeld(held);
}

function* commit(
  port: Port,
  request: MoveRequest,
  { from, to }: Route,
  status: FileStatus,
  checkTurn: () => void,
): Protocol<Commitment> {
  // The last chance: from here on the move cannot be taken back.
  request.signal?.throwIfAborted();
  const syncFailures = {
    to: lastSyncFailure(port, to.directory),
    from: lastSyncFailure(port, from.directory),
  };
  const { overwrite } = request;
  const replaced = yield* retrying(port, request, function* () {
    checkTurn();
    // Inline, all: on another thread they could come after a newer write, or
    // after that of who has the lock by then.
    yield* inline(checkAllHeld(request));
    yield* refuseChanged(from.path, status);
    const existing = yield* inlineStatus(to.path);
    if (existing !== undefined && isSame(status, existing)) {
      throw sameFile(to.path);
    }
    yield* overwrite
      ? renameOver(from.path, to.path, status)
      : linkNew(from.path, to.path, status);
    return existing !== undefined;
  });
  return { isLinked: !overwrite, replaced, syncFailures };
}

/** Another file than the one that was synced may be lost after a power cut. */
function* refuseChanged(from: string, status: FileStatus): Protocol<void> {
  const now = yield* inlineStatus(from);
  if (now === undefined) {
    throw new Refusal("ENOENT", "somebody else has moved or removed it");
  }
  if (isSame(status, now)) return;
  throw new Refusal(
    "CHANGED",
    "it was replaced while it was to be moved: move it again, under its lock",
  );
}

function* inlineStatus(path: string): Protocol<FileStatus | undefined> {
  try {
    return yield* inlineCall("lstat", path);
  } catch (error) {
    if (failedWith(error, "ENOENT")) return undefined;
    throw error;
  }
}

function* renameOver(
  from: string,
  to: string,
  status: FileStatus,
): Protocol<void> {
  try {
    yield* inlineCall("rename", from, to);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (failedWith(error, "ENOENT") && (yield* isAt(to, status))) return;
    if (!failedWith(error, ...CHANGED_NOTHING)) error.committed = "unknown";
    throw error;
  }
}

/** Whether it is there although the call failed: by a server whose first answer was lost, or by another task that makes the same move. */
function* isAt(path: string, status: FileStatus): Protocol<boolean> {
  try {
    return isSame(status, yield* lstatIfPresent(path));
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}

/** Unlike rename, fails where something has the new name. */
function* linkNew(
  from: string,
  to: string,
  status: FileStatus,
): Protocol<void> {
  try {
    yield* inlineCall("link", from, to);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (failedWith(error, "EEXIST")) {
      if (!(yield* isAt(to, status))) throw exists();
      // Its first answer may have been lost; or somebody else has linked it.
      const same = sameFile(to);
      same.committed = "unknown";
      throw same;
    }
    if (!failedWith(error, ...CHANGED_NOTHING)) error.committed = "unknown";
    throw error;
  }
}

/** Waits until a power cut cannot bring the file back to its old name. */
function* confirm(
  port: Port,
  request: MoveRequest,
  { from, to }: Route,
  directories: Directories,
  { isLinked, syncFailures }: Commitment,
  status: FileStatus,
): Protocol<void> {
  if (directories.to !== undefined) {
    yield* syncSince(port, directories.to, to.directory, syncFailures.to);
  }
  if (isLinked) yield* removeOldName(from.path, to.path, status);
  // Else its sync above has covered the old name as well.
  const isToSync = isLinked || directories.from !== undefined;
  const handle = directories.from ?? directories.to;
  if (request.durability !== "full" || handle === undefined) return;
  if (isToSync) {
    yield* syncSince(port, handle, from.directory, syncFailures.from);
  }
  // Once more: another task may have removed and made them meanwhile.
  yield* syncMadeDirectories(port, request, to.directory);
}

/** Only of the file that was moved: what somebody has put there since stays. */
function* removeOldName(
  from: string,
  to: string,
  status: FileStatus,
): Protocol<void> {
  try {
    // Inline, both: nothing of this thread may come in between.
    const now = yield* inlineCall("lstat", from);
    if (!isSame(status, now)) return;
    if (now.nlink < 2 || !(yield* isAtInline(to, status))) {
      const gone = new Refusal(
        "CHANGED",
        `somebody has removed "${to}" meanwhile, so that "${from}" was left`,
      );
      gone.committed = "unknown";
      throw gone;
    }
    yield* inlineCall("unlink", from);
  } catch (error) {
    if (!failedWith(error, "ENOENT", "EACCES", "EPERM", "EROFS")) throw error;
    const isTakenBack = yield* takeBack(to, status);
    if (failedWith(error, "ENOENT")) {
      // Who has made the same move has done what this one was to do.
      if (!isTakenBack && (yield* isAt(to, status))) return;
      throw new Refusal("ENOENT", "somebody else has moved or removed it");
    }
    if (!isTakenBack) throw error;
    throw new Refusal(
      "EACCES",
      `this process may not remove "${from}", which was left as it was: grant write permission on its directory`,
    );
  }
}

function* isAtInline(path: string, status: FileStatus): Protocol<boolean> {
  const now = yield* inlineStatus(path);
  return now !== undefined && isSame(status, now);
}

/** Removes the new name, if the file has another one. */
function* takeBack(to: string, status: FileStatus): Protocol<boolean> {
  try {
    const now = yield* inlineCall("lstat", to);
    if (!isSame(status, now) || now.nlink < 2) return false;
    yield* inlineCall("unlink", to);
    return true;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}
