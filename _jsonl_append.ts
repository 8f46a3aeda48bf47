/**
 * Records at the end of a file of JSON lines, and the repair of that end. This
 * is a weaker promise than that of a replacement: the file is changed in place.
 *
 * ```text
 * find      links; a missing file is made as any other, by the replace protocol
 * open      to read and to append
 * look      does the last line have its newline?
 * append    write all records in one piece, fsync
 * sync      the directory                            once for each file, by whomever it was made
 * compare   does the path still lead to this file?
 * take back ftruncate to the old size                instead, after a failure
 * ```
 *
 * - Earlier records are not touched. They are intact after every crash, as far
 *   as the device does not damage the rest of the block that it rewrites.
 * - Of an append that was cut off, by a crash or a power cut, there are the
 *   first of its records, whole, and behind them at most one torn line. Of a
 *   large one, a file system that brings the end of a file to the disk before
 *   the bytes in front of it may leave zeros in place of the line.
 * - A reader may see the records while they are written.
 * - A torn line is never appended to: with what follows it would be a broken
 *   line in the middle. The repair cuts it.
 *
 * A sync that fails has lost what it was to write, and the next one says
 * nothing of it. So what was appended is taken back at once; where that fails,
 * or what an earlier append has not synced is lost as well, this realm appends
 * no more to that file, in which there may be a hole.
 *
 * @module
 */

import { isPlaced, knownOf, note } from "./_appended.ts";
import { hasChecksum } from "./_checksum_choice.ts";
import { append, replace, type WriteRequest } from "./_core.ts";
import { openToSync, syncMadeDirectories } from "./_directories.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  inspectTail,
  readAt,
  refuseOtherText,
  TornLine,
} from "./_jsonl_tail.ts";
import { checkHeld } from "./_lock.ts";
import type {
  AppendReceipt,
  JsonlAppendOptions,
  JsonlRepairOptions,
  RepairReport,
} from "./_options.ts";
import { enterLines, refusePending } from "./_order.ts";
import {
  attempt,
  blockingCall,
  call,
  callMoving,
  closing,
  failedWith,
  inline,
  type Protocol,
  ProtocolError,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import type { FileStatus, OpenFile, Port } from "./_runtime/port.ts";
import { inSlot } from "./_slots.ts";
import { isPlanted } from "./_sticky.ts";
import { lastSyncFailure, syncSince } from "./_sync_failures.ts";
import {
  isSame,
  locateTarget,
  lstatIfPresent,
  ownUserIn,
  resolveTarget,
  type Target,
} from "./_target.ts";
import {
  type LockableRequest,
  underLockAlone,
  underLockAloneSync,
} from "./_under_lock.ts";
import { lockedUnlessForbidden } from "./_update.ts";
import { prepare } from "./_write.ts";

/** Something done to the end of a file; `checkTurn` is called just before the first change. */
export type EndOfFile<T> = (
  port: Port,
  request: WriteRequest,
  checkTurn: () => void,
) => Protocol<T>;

/** What is to be done, ready for its first system call. */
export interface Prepared<T> {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: LockableRequest;
  readonly perform: EndOfFile<T>;
  /** What is told of a file that is missing, where that is no error. */
  readonly ifMissing?: () => T;
}

/** Records as lines. */
export interface Lines {
  readonly bytes: Uint8Array;
  readonly records: number;
}

/** Checks the arguments and encodes the records. */
export function prepareAppend(
  operation: string,
  path: string | URL,
  given: JsonlAppendOptions,
  encode: (options: JsonlAppendOptions, attempt: Attempt) => Lines,
): Prepared<AppendReceipt> {
  const { options, ...prepared } = prepare(
    operation,
    "jsonlAppend",
    path,
    given,
  );
  const attempt: Attempt = { ...prepared.attempt, access: "append" };
  const lines = encode(options, attempt);
  const perform: EndOfFile<AppendReceipt> = (port, request, checkTurn) =>
    appendLines(port, request, lines, checkTurn);
  return { ...prepared, attempt, perform };
}

/** Checks the arguments. */
export function prepareRepair(
  operation: string,
  path: string | URL,
  given: JsonlRepairOptions,
): Prepared<RepairReport> {
  const prepared = prepare(operation, "jsonlRepair", path, given);
  const { port } = prepared;
  const attempt: Attempt = { ...prepared.attempt, access: "repair" };
  const request = { ...prepared.request, parents: false };
  const ifMissing = () => missingReport(attempt.path);
  return { port, attempt, request, perform: repairEnd, ifMissing };
}

/** Of a program's first start, which is no other than the next ones. */
function missingReport(path: string): RepairReport {
  return {
    path,
    missing: true,
    offset: 0,
    completed: false,
    cutBytes: 0,
    cut: new Uint8Array(),
  };
}

/** Does it under the lock, and when its turn has come. */
export async function atEnd<T>(
  { port, attempt, request, perform, ifMissing }: Prepared<T>,
): Promise<T> {
  try {
    const locked = lockedUnlessForbidden(port, request);
    return await underLockAlone(port, attempt, locked, (request) => {
      request.signal?.throwIfAborted();
      // Without a retry, which would hold the event loop.
      const located = locateTarget(port, { ...request, retryMs: 0 });
      const found = at(runInline(port, located), request);
      return enterLines(
        port,
        [found.path],
        found,
        (checkTurn) =>
          inSlot(
            port,
            () => runAsync(port, perform(port, found, checkTurn)),
            found.signal,
          ),
      );
    });
  } catch (error) {
    if (ifMissing !== undefined && failedWith(error, "ENOENT")) {
      return ifMissing();
    }
    throw explain(port, attempt, error);
  }
}

/** The same, blocking. */
export function atEndSync<T>(
  { port, attempt, request, perform, ifMissing }: Prepared<T>,
): T {
  try {
    const locked = lockedUnlessForbidden(port, request);
    return underLockAloneSync(port, attempt, locked, (request) => {
      const found = at(runSync(port, locateTarget(port, request)), request);
      refusePending(port, found.path);
      return runSync(port, perform(port, found, () => {}));
    });
  } catch (error) {
    if (ifMissing !== undefined && failedWith(error, "ENOENT")) {
      return ifMissing();
    }
    throw explain(port, attempt, error);
  }
}

/** The file that the path leads to now, and no other that it may lead to by then. */
function at({ path }: Target, request: WriteRequest): WriteRequest {
  const symlinks = request.symlinks === "reject" ? "reject" : "replace";
  return { ...request, path, symlinks };
}

/** More that come and go are no accident. */
const MOST_TRIED = 16;

function* appendLines(
  port: Port,
  request: WriteRequest,
  lines: Lines,
  checkTurn: () => void,
): Protocol<AppendReceipt> {
  for (let tried = 1;; tried++) {
    request.signal?.throwIfAborted();
    const target = yield* resolveTarget(port, request);
    yield* refuseChecksum(port, request, target);
    try {
      if (target.absent) {
        return yield* createWith(port, request, target, lines, checkTurn);
      }
      return yield* appendTo(port, request, target, lines, checkTurn);
    } catch (error) {
      // Somebody else has made it, or taken it away.
      const hasChanged = failedWith(error, "EEXIST") ||
        (error instanceof Refusal && error.code === "CHANGED");
      if (!hasChanged || tried === MOST_TRIED) throw error;
    }
  }
}

/** What is changed in place has no moment at which a checksum could name both contents. */
function* refuseChecksum(
  port: Port,
  request: WriteRequest,
  { path }: Target,
): Protocol<void> {
  if (!(yield* hasChecksum(port, path, request))) return;
  throw new Refusal(
    "HAS_CHECKSUM",
    "it has a checksum, which cannot be kept true while the file is changed in place: write it whole, as with writeJsonlAtomic, which gives the checksum up with checksum: false",
  );
}

/** Makes the file as any other, but never over one that has come meanwhile. */
function* createWith(
  port: Port,
  request: WriteRequest,
  target: Target,
  { bytes, records }: Lines,
  checkTurn: () => void,
): Protocol<AppendReceipt> {
  const made = replace(
    port,
    { ...request, createNew: true },
    target,
    (write) => append(write, bytes),
    { staged() {}, checkTurn, olderTemporary: () => undefined },
  );
  const { path } = target;
  try {
    const { fileSynced, directorySynced } = yield* made;
    return {
      path,
      records,
      offset: 0,
      bytes: bytes.length,
      fileSynced,
      directorySynced,
      created: true,
    };
  } catch (error) {
    // There, and nothing that follows can make its place in the directory durable.
    if (error instanceof SystemCallError && error.committed !== false) {
      yield* attempt(noteBrokenAt(port, path));
    }
    throw error;
  }
}

function* noteBrokenAt(port: Port, path: string): Protocol<void> {
  const status = yield* lstatIfPresent(path);
  if (status !== undefined) note(port, { path, status }, "broken");
}

function* appendTo(
  port: Port,
  request: WriteRequest,
  target: Target,
  { bytes, records }: Lines,
  checkTurn: () => void,
): Protocol<AppendReceipt> {
  return yield* withEnd(port, request, target, function* (end, progress) {
    const { path, size } = end;
    const tail = yield* inspectTail(end.file, size, request.signal);
    if (tail.kind === "torn") throw new TornLine(tail.offset);
    const isWhole = tail.kind === "whole";
    const piece = isWhole ? withNewlineBefore(bytes) : bytes;
    // Whoever made the file may not have synced its place.
    let directory: OpenFile | undefined;
    if (!isPlaced(port, end)) {
      yield* syncMadeDirectories(port, request, target.directory);
      directory = yield* openToSync(port, request, target.directory);
    }
    return yield* closing(directory, function* () {
      const syncFailure = lastSyncFailure(port, target.directory);
      yield* checkBeforeChange(request, checkTurn);
      yield* appendPiece(port, request, end, piece);
      progress.isDone = true;
      if (directory !== undefined) {
        // If it fails, no later one makes the place durable.
        const status = { ...end.status, size: size + piece.length };
        note(port, { path, status }, "broken");
        yield* syncSince(port, directory, target.directory, syncFailure);
        note(port, { path, status }, "placed");
      }
      yield* compare(end);
      yield* checkStillHeld(request);
      return {
        path,
        records,
        offset: size + (isWhole ? 1 : 0),
        bytes: bytes.length,
        fileSynced: request.durability !== "none",
        directorySynced: request.durability === "full" && !port.windows,
        created: false,
      };
    });
  });
}

/** Gives the last line its newline, or cuts it. The lines before it are not looked at. */
function* repairEnd(
  port: Port,
  request: WriteRequest,
  checkTurn: () => void,
): Protocol<RepairReport> {
  const target = yield* resolveTarget(port, request);
  if (target.absent) return missingReport(target.path);
  yield* refuseChecksum(port, request, target);
  return yield* withEnd(port, request, target, function* (end, progress) {
    const { file, path, size } = end;
    const tail = yield* inspectTail(file, size, request.signal);
    const { kind, offset, end: whole } = tail;
    const report = {
      path,
      missing: false,
      offset,
      completed: kind !== "ended" && whole > offset,
      cutBytes: size - whole,
      cut: new Uint8Array(),
    };
    if (kind === "ended") return report;
    const isPart = report.cutBytes > MOST_TOLD;
    const beginning = new Uint8Array(isPart ? MOST_TOLD : report.cutBytes);
    const cut = yield* readAt(file, beginning, whole);
    let left = end;
    if (kind === "torn") {
      if (whole === offset) refuseOtherText(tail, cut, isPart);
      yield* inline(checkBeforeCut(end, request, checkTurn));
      yield* callMoving(report.cutBytes)("truncate", file, whole);
      progress.isDone = true;
      yield* syncCut(port, end, whole);
      left = { ...end, size: whole, status: { ...end.status, size: whole } };
    }
    if (report.completed) {
      yield* checkBeforeChange(request, checkTurn);
      yield* appendPiece(port, request, left, Uint8Array.of(NEWLINE));
    }
    progress.isDone = true;
    yield* compare(end);
    yield* checkStillHeld(request);
    return { ...report, cut };
  });
}

/** What somebody has appended since stays: he may hold the lock by now. */
function* checkBeforeCut(
  { file, size }: End,
  request: WriteRequest,
  checkTurn: () => void,
): Protocol<void> {
  yield* checkBeforeChange(request, checkTurn);
  if ((yield* call("fstat", file)).size !== size) {
    throw new Refusal(
      "CHANGED",
      "somebody has changed it meanwhile: repair it under its lock",
    );
  }
}

/** If it fails, what was appended before and not synced may be lost as well. */
function* syncCut(port: Port, end: End, size: number): Protocol<void> {
  const cut = { ...end, status: { ...end.status, size } };
  const known = isPlaced(port, end) ? "placed" : "synced";
  note(port, cut, "broken");
  yield* blockingCall("fsync", end.file);
  note(port, cut, known);
}

/** Of what was cut, so many bytes are told. */
const MOST_TOLD = 65536;
const NEWLINE = 0x0a;

function withNewlineBefore(bytes: Uint8Array): Uint8Array {
  const piece = new Uint8Array(1 + bytes.length);
  piece[0] = NEWLINE;
  piece.set(bytes, 1);
  return piece;
}

/** A file that is open to be appended to, and its size then. */
interface End {
  readonly path: string;
  readonly file: OpenFile;
  readonly status: FileStatus;
  readonly size: number;
}

/** Opens the file for `body`, which tells when what it does is done. */
function* withEnd<T>(
  port: Port,
  request: WriteRequest,
  target: Target,
  body: (end: End, progress: { isDone: boolean }) => Protocol<T>,
): Protocol<T> {
  const end = yield* openEnd(port, request, target);
  const progress = { isDone: false };
  let result: T;
  try {
    refuseBroken(port, end);
    result = yield* body(end, progress);
  } catch (error) {
    if (progress.isDone && error instanceof SystemCallError) {
      error.committed = true;
    }
    yield* attempt(call("close", end.file));
    throw error;
  }
  try {
    yield* call("close", end.file);
  } catch (error) {
    if (error instanceof SystemCallError) error.committed = progress.isDone;
    throw error;
  }
  return result;
}

function* openEnd(
  port: Port,
  request: WriteRequest,
  { path, directory, existing }: Target,
): Protocol<End> {
  if (existing === undefined) throw hasChanged();
  if (!port.windows) {
    const isStrangers = yield* isPlanted(
      directory,
      existing.uid,
      () => ownUserIn(port, request, directory),
    );
    if (isStrangers) {
      throw new Refusal(
        "EACCES",
        `it belongs to another user (uid ${existing.uid}), who would read what is appended, in a directory everybody can write to: append to a file somewhere else`,
      );
    }
  }
  const file = yield* retrying(
    port,
    request,
    () => openIfPresent(path),
  );
  try {
    const status = yield* call("fstat", file);
    if (!isSame(status, existing)) throw hasChanged();
    return { path, file, status, size: status.size };
  } catch (error) {
    yield* attempt(call("close", file));
    throw error;
  }
}

function* openIfPresent(path: string): Protocol<OpenFile> {
  try {
    return yield* call("openAppend", path);
  } catch (error) {
    if (failedWith(error, "ENOENT")) throw hasChanged();
    throw error;
  }
}

/** Before the first byte: with another file there, it is begun again. */
function hasChanged(): Refusal {
  return new Refusal(
    "CHANGED",
    "it was replaced or removed again and again meanwhile: try it under its lock",
  );
}

/** The last chance: from here on the file is changed. */
function* checkBeforeChange(
  { held, signal }: WriteRequest,
  checkTurn: () => void,
): Protocol<void> {
  if (held !== undefined) yield* checkHeld(held);
  signal?.throwIfAborted();
  checkTurn();
}

/** What was done under a lost lock may be undone by who holds it now. */
function* checkStillHeld({ held }: WriteRequest): Protocol<void> {
  if (held === undefined) return;
  try {
    yield* checkHeld(held);
  } catch (error) {
    if (error instanceof ProtocolError) error.committed = "unknown";
    throw error;
  }
}

/** Appends all of it, or takes back what came of it. */
function* appendPiece(
  port: Port,
  { durability }: WriteRequest,
  end: End,
  piece: Uint8Array,
): Protocol<void> {
  const { file, size } = end;
  let taken = 0;
  try {
    while (taken < piece.length) {
      const rest = piece.subarray(taken, taken + LARGEST_WRITE);
      // A full disk takes a part without an error.
      const count = yield* callMoving(rest.length)("write", file, rest);
      if (count === 0) {
        throw new Refusal("SHORT_WRITE", "the system takes no more bytes");
      }
      taken += count;
    }
    const now = yield* call("fstat", file);
    if (now.size < size + piece.length) {
      throw new Refusal(
        "SHORT_WRITE",
        `of ${piece.length} bytes appended the file has ${now.size - size}`,
      );
    }
    // The size is synced with the content. Never repeated: after a failure the
    // kernel drops the data and reports success.
    if (durability !== "none") yield* blockingCall("fsync", file);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    yield* takeBack(port, end, taken, error);
    throw error;
  }
  const synced = isPlaced(port, end) ? "placed" : "synced";
  const status = { ...end.status, size: size + piece.length };
  note(port, { ...end, status }, durability === "none" ? "unsynced" : synced);
}

/** Bounds the memory and the time of one call. */
const LARGEST_WRITE = 16 * 1024 * 1024;

/** Cuts the file to what it was, or notes that it has to be written anew. */
function* takeBack(
  port: Port,
  end: End,
  taken: number,
  reason: ProtocolError,
): Protocol<void> {
  const { file, size } = end;
  // What is lost and was not synced before cannot be taken back.
  const isLost = reason instanceof SystemCallError &&
    reason.syscall === "fsync" && knownOf(port, end)?.knowledge === "unsynced";
  if (isLost) note(port, end, "broken");
  try {
    const now = yield* call("fstat", file);
    // Somebody who heeds no lock has appended behind it.
    if (now.size > size + taken) throw reason;
    yield* blockingCall("truncate", file, size);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    note(port, end, "broken");
    reason.committed = "unknown";
    return;
  }
  // Proves nothing: where it works, a power cut does not bring them back.
  yield* attempt(blockingCall("fsync", file));
}

/** The records must be where the path leads, not in a file that was replaced. */
function* compare({ path, status }: End): Protocol<void> {
  if (isSame(status, yield* lstatIfPresent(path))) return;
  const replaced = new Refusal(
    "REPLACED",
    "somebody replaced it meanwhile, without its lock: what was done was done to the file that was there before, and is not in the one that is there now; do it again",
  );
  replaced.committed = "unknown";
  throw replaced;
}

function refuseBroken(port: Port, end: End): void {
  if (knownOf(port, end)?.knowledge !== "broken") return;
  throw new Refusal(
    "BROKEN",
    "an append to it has failed before, and could not be taken back, so that there may be a hole in it: write it anew, as with writeJsonlAtomic",
  );
}
