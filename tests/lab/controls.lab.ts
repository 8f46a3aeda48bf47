/**
 * Is each guard of the protocol really watched? Each control breaks one line
 * of a copy of the code and requires the test that is named beside it to fail,
 * and requires it to pass on the unbroken copy.
 *
 * @module
 */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, before, test } from "node:test";
import { breakCopy, copyTo } from "./broken_copy.ts";
import { run } from "./run.ts";

interface Control {
  /** What the broken code does. */
  readonly breaks: string;
  readonly file: string;
  /** Each of the first is found exactly once, and replaced by the second. */
  readonly edits: readonly (readonly [find: string, replace: string])[];
  readonly testFile: string;
  readonly testName: string;
}

const FSYNC =
  'if (request.durability !== "none") yield* blockingCall("fsync", file);';

const CONTROLS: readonly Control[] = [
  {
    breaks: "the file is not synced",
    file: "_core.ts",
    edits: [[FSYNC, ""]],
    testFile: "protocol_test.ts",
    testName:
      "sync: the protocol makes its system calls in this order and no other",
  },
  {
    breaks: "the file is synced after the rename",
    file: "_core.ts",
    edits: [
      ["    yield* seal(write);\n", ""],
      [
        "    yield* commit(write, company);\n",
        "    yield* commit(write, company);\n    yield* seal(write);\n",
      ],
    ],
    testFile: "protocol_test.ts",
    testName:
      "async: power cut before any call leaves the old content or the new, whole",
  },
  {
    breaks: "the directory is not synced",
    file: "_core.ts",
    edits: [[
      "    yield* afterCommit(\n      syncSince(port, directory, target.directory, syncFailure),\n    );\n",
      "",
    ]],
    testFile: "protocol_test.ts",
    testName:
      "async: the protocol makes its system calls in this order and no other",
  },
  {
    breaks: "a temporary file is opened without O_EXCL",
    file: "_runtime/node.ts",
    edits: [['fs.openSync(path, "wx", mode)', 'fs.openSync(path, "w", mode)']],
    testFile: "protocol_test.ts",
    testName:
      "sync: a link planted at the very name of the temporary file is not followed",
  },
  {
    breaks: "a short write is taken for a whole one",
    file: "_core.ts",
    edits: [["offset += taken;", "offset = length;"]],
    testFile: "protocol_test.ts",
    testName: "sync: short writes are continued until every byte is taken",
  },
  {
    breaks: "the size is not checked before the rename",
    file: "_core.ts",
    edits: [["if (status.size !== write.bytes) {", "if (status.size < 0) {"]],
    testFile: "protocol_test.ts",
    testName:
      "sync: bytes that the system claims to have written but has not stop the write before the rename",
  },
  {
    breaks: "a write that takes nothing is repeated for ever",
    file: "_core.ts",
    edits: [["if (taken === 0) {", "if (write.bytes > 1e6) {"], [
      "offset += taken;",
      "offset += taken || length;",
    ]],
    testFile: "protocol_test.ts",
    testName: "sync: a write that takes nothing is an error, not a loop",
  },
  {
    breaks: "a failed fsync is repeated",
    file: "_core.ts",
    edits: [[
      FSYNC,
      `try { ${FSYNC} } catch { yield* blockingCall("fsync", file); }`,
    ]],
    testFile: "protocol_test.ts",
    testName: "sync: a failed fsync is never repeated on the same file",
  },
  {
    breaks: "the temporary name is unlinked after the rename",
    file: "_core.ts",
    edits: [[
      "  write.temporary = undefined;\n  untrackTemporary(temporary);\n}\n\n/** Has the",
      "}\n\n/** Has the",
    ]],
    testFile: "protocol_test.ts",
    testName:
      "sync: once the new content is in place its temporary name is not touched, whatever fails",
  },
  {
    breaks: "a failed write leaves its temporary file",
    file: "_core.ts",
    edits: [[
      "return yield* removeAfterFailure(temporary, write.bytes, reason);",
      "return undefined;",
    ]],
    testFile: "protocol_test.ts",
    testName:
      "sync: any call failing once leaves no temporary file, and committed tells the truth",
  },
  {
    breaks: "a failed rename is said to have changed nothing",
    file: "_core.ts",
    edits: [[
      '      error.committed = "unknown";\n    }\n    throw error;',
      "    }\n    throw error;",
    ]],
    testFile: "failure_test.ts",
    testName:
      "sync: rename failing with EIO is a AtomicError that says what to do",
  },
  {
    breaks: "a failed sync of the directory is said to have changed nothing",
    file: "_core.ts",
    edits: [[
      "if (error instanceof ProtocolError) error.committed = true;",
      "",
    ]],
    testFile: "protocol_test.ts",
    testName:
      "async: any call failing once leaves no temporary file, and committed tells the truth",
  },
  {
    breaks: "createNew renames",
    file: "_core.ts",
    edits: [[
      'yield* call("link", temporary, write.target.path);',
      'yield* call("rename", temporary, write.target.path);',
    ]],
    testFile: "symlinks_test.ts",
    testName:
      "sync: createNew does not replace a file that appears while it writes",
  },
  {
    breaks: "an abort between the sync and the rename is not seen",
    file: "_core.ts",
    edits: [[
      "  // The last chance: from here on the write cannot be taken back.\n  request.signal?.throwIfAborted();\n",
      "",
    ]],
    testFile: "abort_test.ts",
    testName:
      "sync: aborted at any call before the rename it leaves the target and no trace, after it it is done",
  },
  {
    breaks: "the mode is set before the owner",
    file: "_metadata.ts",
    edits: [
      [
        "  let lost: LostOwner",
        '  if (mode !== undefined) yield* call("fchmod", file, mode);\n  let lost: LostOwner',
      ],
      [
        "if (isSafe) actual = yield* changeMode(file, wanted, modeRequired);",
        "if (isSafe) actual = wanted;",
      ],
    ],
    testFile: "metadata_test.ts",
    testName: "sync: owner, setuid and mode of a file of another user are kept",
  },
  {
    breaks: "a file whose owner will change is created with its final mode",
    file: "_core.ts",
    edits: [["if (!isExposed(created)) return;", "return;"]],
    testFile: "metadata_test.ts",
    testName: "sync: until the owner is set nobody else can open the file",
  },
  {
    breaks: "the group keeps its rights where the group is lost",
    file: "_metadata.ts",
    edits: [["  if (lost.group) {\n", "  if (lost.group && mode < 0) {\n"]],
    testFile: "metadata_test.ts",
    testName:
      "sync: where the owner cannot be kept nobody gains access, and the receipt says so",
  },
  {
    breaks: "the parents of new directories are not synced",
    file: "_directories.ts",
    edits: [[
      "return syncSince(host, parent, directoryOf(host, path), mark.syncFailure);",
      "return (function* () {})();",
    ]],
    testFile: "directories_test.ts",
    testName:
      "sync: missing parents are made outermost first, each one's parent synced before the commit",
  },
  {
    breaks: "a writer does not wait for a directory that another one is making",
    file: "_directories.ts",
    edits: [["if (unsynced.size === 0 ||", "if (unsynced.size >= 0 ||"]],
    testFile: "directories_test.ts",
    testName:
      "a writer into a directory that another one is making does not rely on that one's sync",
  },
  {
    breaks: "the real directory is not looked up",
    file: "_directories.ts",
    edits: [["return isPermitted ? real : directory;", "return directory;"]],
    testFile: "symlinks_test.ts",
    testName:
      "sync: a parent link that is turned elsewhere during the write cannot part it",
  },
  {
    breaks: "a stranger's link in a sticky directory is followed",
    file: "_target.ts",
    edits: [[
      "yield* refuseUnsafeLink(port, request, directory, target, status);",
      "",
    ]],
    testFile: "symlinks_test.ts",
    testName:
      "sync: in a sticky world-writable directory a stranger's link is refused, one's own followed",
  },
  {
    breaks: "a pipe is replaced by a file",
    file: "_target.ts",
    edits: [['if (status?.kind === "other") {', "if (status?.nlink === -1) {"]],
    testFile: "failure_test.ts",
    testName: "sync: a directory and a pipe are told before anything is made",
  },
  {
    breaks: "temporary files in flight are not recorded for the exit",
    file: "_temporary.ts",
    edits: [["trackTemporary(port, path);", ""]],
    testFile: "processes_test.ts",
    testName:
      "a process that exits in the middle of writes removes their temporary files",
  },
  {
    breaks: "a temporary file may be created by another thread",
    file: "_temporary.ts",
    edits: [[
      'yield* inlineCall("create", path, mode)',
      'yield* blockingCall("create", path, mode)',
    ], ["inlineCall,", "blockingCall,"]],
    testFile: "drive_test.ts",
    testName: "a small write leaves the event loop's thread only to sync",
  },
  {
    breaks: "mode and owner are set by path in anybody's directory",
    file: "_metadata.ts",
    edits: [[
      "if (!host.changesByPath) return true;",
      "if (!host.windows) return true;",
    ]],
    testFile: "metadata_test.ts",
    testName:
      "sync: where they go by path, owner and mode are set only in a directory that no stranger may write to",
  },
  {
    breaks: "writers hold one descriptor and wait for another",
    file: "_core.ts",
    edits: [[
      "write.directory = yield* openToSync(port, request, target.directory);",
      "write.directory = yield* retrying(port, request, () => openToSync(port, request, target.directory));",
    ]],
    testFile: "protocol_test.ts",
    testName:
      "writers that have too few descriptors do not wait for each other's",
  },
  {
    breaks: "any number of writes is staged at once",
    file: "_slots.ts",
    edits: [["const MOST_AT_ONCE = 64;", "const MOST_AT_ONCE = 1e6;"]],
    testFile: "protocol_test.ts",
    testName:
      "a thousand writes at once hold at most two descriptors each of 64",
  },
  {
    breaks: "a directory made anew is not looked at again after the commit",
    file: "_core.ts",
    edits: [[
      "    yield* afterCommit(syncMadeDirectories(port, request, target.directory));\n",
      "",
    ]],
    testFile: "directories_test.ts",
    testName:
      "a directory that another task removes and makes anew meanwhile is synced in its parent",
  },
  {
    breaks: "a rename that says ENOENT is taken at its word",
    file: "_core.ts",
    edits: [[
      'const isGone = failedWith(error, "ENOENT") &&',
      'const isGone = failedWith(error, "ENOENT!") &&',
    ]],
    testFile: "protocol_test.ts",
    testName:
      "sync: a rename whose answer was lost is unknown, and a link whose answer was lost is made",
  },
  {
    breaks: "a stranger's file in a sticky directory is replaced in his name",
    file: "_core.ts",
    edits: [["if (!planted) return;", "if (planted || !planted) return;"]],
    testFile: "metadata_test.ts",
    testName:
      "sync: another user's file in a sticky world-writable directory is not replaced in his name",
  },
  {
    breaks: "a sync of the directory that began earlier is shared",
    file: "_shared_sync.ts",
    edits: [[
      "const done = running.done.then(begin, begin);",
      "const done = running.done;",
    ]],
    testFile: "order_test.ts",
    testName:
      "a sync of the directory serves the writers that asked before it began, and no others",
  },
  {
    breaks: "a sync write leaves the temporary file of an older one",
    file: "_core.ts",
    edits: [["if (older !== undefined) yield* removeOlder(older);", ""]],
    testFile: "order_test.ts",
    testName:
      "a sync write is not overtaken by an older async one that is at its rename",
  },
  {
    breaks: "a write waits for a descriptor before it has its place",
    file: "_directories.ts",
    edits: [[
      'if (host.windows || !failedWith(error, "EMFILE", "ENFILE")) throw error;',
      "if (error !== undefined) throw error;",
    ]],
    testFile: "failure_test.ts",
    testName:
      "where realpath finds no free descriptor the links are followed without, in call order and without holding the event loop",
  },
  {
    breaks: "a write that waits follows its links once more",
    file: "_write.ts",
    edits: [[
      "? yield* locateAgain(port, request, located)",
      "? yield* resolveTarget(port, request)",
    ]],
    testFile: "order_test.ts",
    testName:
      "a write that waits goes to the file that its path led to when it was called",
  },
  {
    breaks: "an async write does not look whether it was overtaken",
    file: "_order.ts",
    edits: [[
      "if (entry.overtakenBy !== undefined) throw new Overtaken();",
      "",
    ]],
    testFile: "order_model_test.ts",
    testName: "the disk, the receipts and the errors agree with call order",
  },
  {
    breaks: "a sync write is no more durable than it was asked to be",
    file: "_write.ts",
    edits: [[
      "const durability = turn.strengthened(request.durability);",
      "const { durability } = request;",
    ]],
    testFile: "order_test.ts",
    testName: "a sync write keeps the promises of those that it overtakes",
  },
  {
    breaks: "what is superseded is not performed when the newest fails",
    file: "_order.ts",
    edits: [[
      "      this.#lastError = error;\n      this.#waiting.unshift(...followers);\n",
      "      for (const follower of followers) follower.settleAs(outcome);\n",
    ]],
    testFile: "order_test.ts",
    testName:
      "the newest failing before its rename makes the waiting one happen",
  },
  {
    breaks: "the payloads of superseded writes are kept",
    file: "_order.ts",
    edits: [["if (isSuperseded) old.write.payload = undefined;", ""]],
    testFile: "order_test.ts",
    testName: "memory does not grow with what is superseded",
  },
  {
    breaks: "createNew is skipped like any other write",
    file: "_write.ts",
    edits: [[
      "kind: createNew || request.held ? undefined : kindOf(request),",
      "kind: kindOf(request),",
    ]],
    testFile: "order_test.ts",
    testName:
      "createNew does not take the place of a write that was called before it",
  },
  {
    breaks: "a stream that never had its turn keeps its temporary file",
    file: "_stream_write.ts",
    edits: [["        await this.discard(undefined);\n", ""]],
    testFile: "streams_test.ts",
    testName:
      "a stream that is aborted or overtaken while it waits for its turn leaves nothing",
  },
  {
    breaks: "a stream that lost its turn is closed under a running write",
    file: "_stream_write.ts",
    edits: [["        await appended.catch(() => {});\n", ""]],
    testFile: "streams_test.ts",
    testName:
      "a stream that is overtaken closes nothing while a chunk is being written",
  },
  {
    breaks: "a source that is left early is not told",
    file: "_source.ts",
    edits: [["if (!isDone) leave(iterator);", ""]],
    testFile: "streams_test.ts",
    testName: "a source that hangs is ended by the signal, and told so",
  },
  {
    breaks: "the beginning of a line is kept without a copy",
    file: "_lines.ts",
    edits: [["part.slice(0, room)", "part.subarray(0, room)"]],
    testFile: "jsonl_test.ts",
    testName:
      "whatever the bytes and however they are cut, the reader agrees with a slow and obvious one",
  },
  {
    breaks: "large writes are made on the event loop's thread",
    file: "_protocol.ts",
    edits: [[
      "return bytes > CHEAP_BYTES ? blockingCall : call;",
      "return bytes < 0 ? blockingCall : call;",
    ]],
    testFile: "drive_test.ts",
    testName:
      "writing much, and freeing much, is done off the event loop's thread",
  },
  {
    breaks: "a write calls damage good",
    file: "_sidecar.ts",
    edits: [[
      ": [old.digest, ...old.previous].slice(0, MOST_PREVIOUS);",
      ": [current];",
    ]],
    testFile: "checksum_test.ts",
    testName: "async: what is damaged is not called good by a write that fails",
  },
  {
    breaks: "a checksum is removed under a lock that is lost",
    file: "_core.ts",
    edits: [["      yield* checkHeld(request.held);\n", ""]],
    testFile: "checksum_test.ts",
    testName: "async: under a lock that is lost the checksum stays as it is",
  },
  {
    breaks: "a move calls damage good",
    file: "_move_checksum.ts",
    edits: [["isNamed(own, actual)", "true"]],
    testFile: "checksum_test.ts",
    testName: "async: a file that is moved takes its checksum along",
  },
  {
    breaks: "a move takes along what the old name held before",
    file: "_move_checksum.ts",
    edits: [["own === undefined || isNamed(own, actual)", "own === undefined"]],
    testFile: "checksum_test.ts",
    testName:
      "async: after many moves a checksum names what the new name held last, and nothing else",
  },
  {
    breaks: "a checksum of something else is overwritten",
    file: "_core.ts",
    edits: [[
      "  yield* readSidecar(port, target.path, algorithm, request);\n",
      "",
    ]],
    testFile: "checksum_test.ts",
    testName:
      "async: what is no checksum of this file is never overwritten, and not asked",
  },
  {
    breaks: "the bytes that are hashed are not those that are written",
    file: "_core.ts",
    edits: [["const copy = new Uint8Array(piece);", "const copy = piece;"]],
    testFile: "checksum_test.ts",
    testName:
      "bytes that change during the write do not part from their digest",
  },
  {
    breaks: "a reader looks at the checksum only once",
    file: "_verified_read.ts",
    edits: [["isSame(before, after)", "isSame(before, before)"]],
    testFile: "checksum_test.ts",
    testName:
      "a reader whose checksum is replaced at every look gives up, and accuses nobody",
  },
  {
    breaks: "an update reads what is damaged",
    file: "_update.ts",
    edits: [["      checksum: isKept,\n", "      checksum: false,\n"]],
    testFile: "checksum_test.ts",
    testName: "what is damaged is neither read to its end nor updated",
  },
  {
    breaks: "a later write does not wait for one with a checksum",
    file: "_under_lock.ts",
    edits: [[
      "return wanted || isKept ? expectChecksum(port, place.file) : () => {};",
      "return () => {};",
    ]],
    testFile: "checksum_test.ts",
    testName: "a write that is called after one with a checksum comes after it",
  },
  {
    breaks: "the checksum of a secret can be read by all",
    file: "_core.ts",
    edits: [[
      "mode: mode === undefined ? undefined : mode & READ_AND_WRITE | OWNER_READS,",
      "mode: undefined,",
    ]],
    testFile: "checksum_test.ts",
    testName: "async: who may not read the file may not read its checksum",
  },
  {
    breaks: "a write does not look at its file system",
    file: "_target.ts",
    edits: [[
      "    yield* checkDemand(port, request.demand, existing, target);\n",
      "",
    ]],
    testFile: "safety_test.ts",
    testName:
      "writeTextAtomic on a network mount is an error before anything is made",
  },
  {
    breaks: "a write looks once its parents are made",
    file: "_directories.ts",
    edits: [["  yield* checkDemand(host, request.demand, existing);\n", ""]],
    testFile: "safety_test.ts",
    testName:
      "writeTextAtomicSync with require is an error before anything is made where that is not guaranteed",
  },
  {
    breaks: "a write looks where a link is on the way",
    file: "_target.ts",
    edits: [
      ["    yield* checkDemand(port, request.demand, existing, target);\n", ""],
      [
        "    const target = joinPath(port, directory, name);\n    const status",
        "    yield* checkDemand(port, request.demand, existing);\n    const target = joinPath(port, directory, name);\n    const status",
      ],
    ],
    testFile: "safety_test.ts",
    testName: "where a link is does not matter, where it leads does",
  },
  {
    breaks: "a stream asks for its lock when it is committed",
    file: "_write.ts",
    edits: [[
      "const needs = needsOf(options.lock, options.checksum);",
      'const needs = ["rename"] as const;',
    ]],
    testFile: "safety_test.ts",
    testName:
      "openAtomicWriter with a lock where a rename is trusted and a lock is not is an error before anything is made",
  },
  {
    breaks: "a lock that is held is asked for again",
    file: "_under_lock.ts",
    edits: [["lock ? !isLock(lock) :", "lock ? true :"]],
    testFile: "safety_test.ts",
    testName:
      "a write where a rename is trusted needs no lock, nor one that is held already",
  },
  {
    breaks: "a lock is freed at once under a write",
    file: "_file_lock.ts",
    edits: [[
      "    if (this.isBusy) {\n",
      "    if (this.isBusy && this.isReleased) {\n",
    ]],
    testFile: "lock_test.ts",
    testName: "a lock is not freed at once while something is written under it",
  },
  {
    breaks: "who has the lock of a file that was replaced waits for the holder",
    file: "_lock.ts",
    edits: [[
      "    if (!(yield* isOurs(place, claim))) return;\n    if (yield* endsInTime",
      "    if (yield* endsInTime",
    ]],
    testFile: "lock_test.ts",
    testName:
      "who has the lock of a file that was replaced neither takes the holder's place nor waits for it to end",
  },
  {
    breaks: "a checksum that cannot be read counts as missing",
    file: "_sidecar.ts",
    edits: [[
      "if (strongest === undefined && foreign !== undefined) {",
      "if (strongest !== undefined && foreign !== undefined) {",
    ]],
    testFile: "checksum_test.ts",
    testName:
      "sync: what is no checksum of this file is never overwritten, and not asked",
  },
  {
    breaks: "a source that never waits lets nobody run",
    file: "_source.ts",
    edits: [[
      "if (performance.now() - turnedAt > TURN_MS) {",
      "if (turnedAt < 0) {",
    ]],
    testFile: "streams_test.ts",
    testName:
      "a source that never waits lets others run, and its signal end it",
  },
  {
    breaks: "a read of a pipe is not left at the abort",
    file: "_read.ts",
    edits: [["await unlessAborted(reading, request.signal)", "await reading"]],
    testFile: "abort_test.ts",
    testName:
      "a read of a pipe that nobody writes to is aborted, and closes it once somebody does",
  },
  {
    breaks: "a writer that is idle does not hear its signal",
    file: "_atomic_writer.ts",
    edits: [[
      "      if (this.#receipt !== undefined) return;\n      this.abort(",
      "      if (this.#receipt === undefined) return;\n      this.abort(",
    ]],
    testFile: "abort_test.ts",
    testName:
      "a writer that has nothing to do when its signal is aborted leaves no temporary file",
  },
  {
    breaks: "a part that is none is found once its directory is made",
    file: "_source.ts",
    edits: [[
      "  if (!Array.isArray(source)) return;\n",
      "  if (source !== undefined) return;\n",
    ]],
    testFile: "arguments_test.ts",
    testName:
      "async: a value of the wrong kind is an error that says what to call instead",
  },
  {
    breaks: "who only waits for a lock is taken for its holder",
    file: "_lock_queue.ts",
    edits: [["      if (index === 0) line.holder = undefined;\n", ""]],
    testFile: "lock_test.ts",
    testName:
      "who comes after a holder of this realm, and waits for another process, is not taken for a holder",
  },
  {
    breaks: "every write warns",
    file: "_demand.ts",
    edits: [["  warned.add(directory);\n", ""]],
    testFile: "safety_test.ts",
    testName: "a warning comes once for each directory",
  },
  {
    breaks: "what was seen is not kept",
    file: "_demand.ts",
    edits: [["if (isSeen) known.set(directory, found);", ""]],
    testFile: "safety_test.ts",
    testName:
      "a directory is looked at once, by however many writes, and by each realm",
  },
  {
    breaks: "what could not be looked at is kept",
    file: "_demand.ts",
    edits: [["if (isSeen) known.set", "known.set"]],
    testFile: "safety_test.ts",
    testName:
      "of very many directories the oldest are forgotten, and what failed is looked at again",
  },
  {
    breaks: "what is unknown is taken for guaranteed",
    file: "_demand.ts",
    edits: [[
      'finding.level === "guaranteed") continue;',
      '["guaranteed", "unknown"].includes(finding.level)) continue;',
    ]],
    testFile: "safety_test.ts",
    testName:
      "what is required and unknown is an error that says how to find out",
  },
  {
    breaks: "what may be a shortfall is taken for one",
    file: "_demand.ts",
    edits: [["candidates.every((candidate)", "candidates.some((candidate)"]],
    testFile: "safety_test.ts",
    testName: "a daemon's mount is told from others by the list of mounts",
  },
  {
    breaks: "the first mount in the list is taken",
    file: "_mounts.ts",
    edits: [["mount.point.length <= best.point.length", "false"]],
    testFile: "guarantees_test.ts",
    testName:
      "the mount of a path is the one on the way to it, not one that is hidden, nor one whose name only begins alike",
  },
  {
    breaks: "the longest match is taken, though it is hidden",
    file: "_mounts.ts",
    edits: [[
      "let reached = mounts.filter(({ id, parent }) =>\n    id === parent || !ids.has(parent)\n  );",
      "let reached = mounts.filter(() => ids.size > 0);",
    ], [
      "mount.point.length <= best.point.length",
      "mount.point.length >= best.point.length",
    ]],
    testFile: "guarantees_test.ts",
    testName:
      "the mount of a path is the one on the way to it, not one that is hidden, nor one whose name only begins alike",
  },
  {
    breaks: "an octal escape is taken for a name",
    file: "_mounts.ts",
    edits: [["point: unescaped(point)", "point"]],
    testFile: "guarantees_test.ts",
    testName:
      "the mount of a path is the one on the way to it, not one that is hidden, nor one whose name only begins alike",
  },
  {
    breaks: "a list of mounts is believed against statfs",
    file: "_surroundings.ts",
    edits: [[
      "if (mount !== undefined && fits) {",
      "if (mount !== undefined) {",
    ]],
    testFile: "guarantees_test.ts",
    testName: "a list of mounts that contradicts statfs is not believed",
  },
  {
    breaks: "statfs is called without the permission",
    file: "_surroundings.ts",
    edits: [["if (missing.length > 0) {", "if (missing.length > 9) {"]],
    testFile: "guarantees_test.ts",
    testName:
      "what is not permitted is not tried: the level is unknown, and the evidence names the flag",
  },
  {
    breaks: "the upper layer of a container is looked for here",
    file: "_surroundings.ts",
    edits: [[
      "if (isOverlay || !(yield* isDirectory(host, path))) {",
      "if (!(yield* isDirectory(host, path))) {",
    ]],
    testFile: "guarantees_test.ts",
    testName:
      "an overlay whose upper layer cannot be seen is unknown, and says so",
  },
  {
    breaks: "a volatile overlay is known by its old spelling alone",
    file: "_levels.ts",
    edits: [["/^(?:volatile|fsync=volatile)$/", "/^volatile$/"]],
    testFile: "guarantees_test.ts",
    testName:
      "an overlay that is volatile is not durable, in the words of old kernels and new",
  },
  {
    breaks: "options that cannot be seen are taken for absent",
    file: "_levels.ts",
    edits: [["around.mount === undefined) {", 'around.filesystem === "") {']],
    testFile: "guarantees_test.ts",
    testName:
      "without the list of mounts nothing is durable for certain, since what weakens it cannot be seen",
  },
  {
    breaks: "the fsync of Bun on macOS is taken for the others'",
    file: "_levels.ts",
    edits: [[
      'host.platform === "darwin" && host.runtime === "Bun"',
      'host.platform === "Bun"',
    ]],
    testFile: "guarantees_test.ts",
    testName:
      "on macOS nothing is guaranteed but what the library does itself; on Bun content stays in the drive's cache",
  },
  {
    breaks: "the doctor does not look at what a rename did",
    file: "_probes.ts",
    edits: [[
      'if (before === "old" && now === "new") {',
      'if (before === "old") {',
    ]],
    testFile: "doctor_test.ts",
    testName:
      "a system that does the wrong thing without an error is found out",
  },
  {
    breaks: "the doctor leaves its lock where a call fails",
    file: "_probes.ts",
    edits: [["    yield* attempt(removeLock(port, place));\n", ""]],
    testFile: "doctor_test.ts",
    testName:
      "whatever call fails, once, the doctor ends with a report and leaves nothing, unless it was the removal",
  },
  {
    breaks: "what is staged under a lock has any name",
    file: "_core.ts",
    edits: [[
      "  const { port, request: { held }, target } = write;\n",
      "  const { port, target } = write;\n  const held = undefined as HeldLock | undefined;\n",
    ], [
      "    temporary = yield* stageUnder(write, temporary, held);\n",
      "    void stageUnder;\n",
    ]],
    testFile: "lock_test.ts",
    testName:
      "sync: the next holder removes what is staged by one who has lost the lock",
  },
  {
    breaks: "a lost lock is not told where the staged file is gone",
    file: "_core.ts",
    edits: [[
      '    if (failedWith(error, "ENOENT")) yield* checkNotSucceeded(write);\n    // A server',
      "    // A server",
    ]],
    testFile: "lock_test.ts",
    testName:
      "sync: who has lost the kernel's lock cannot put anything into place once another has it",
  },
  {
    breaks: "an append does not look at its lock afterwards",
    file: "_jsonl_append.ts",
    edits: [[
      "      yield* compare(end);\n      yield* checkStillHeld(request);\n      return {",
      "      yield* compare(end);\n      return {",
    ]],
    testFile: "lock_test.ts",
    testName:
      "sync: an append is not reported as made where its lock was lost meanwhile",
  },
  {
    breaks: "the next holder does not wait for one to finish",
    file: "_lock.ts",
    edits: [["const GRACE_MS = 100;", "const GRACE_MS = 0;"]],
    testFile: "lock_test.ts",
    testName:
      "the next holder lets one finish whose lock the system has freed, and takes its place when that takes too long",
  },
  {
    breaks: "the next holder waits for ever for one to finish",
    file: "_lock.ts",
    edits: [["const GRACE_MS = 100;", "const GRACE_MS = 1e6;"]],
    testFile: "lock_test.ts",
    testName:
      "the next holder lets one finish whose lock the system has freed, and takes its place when that takes too long",
  },
  {
    breaks: "rounded inode numbers are taken for exact ones",
    file: "_target.ts",
    edits: [[
      "  if (isExact(one)) return;\n",
      "  if (isExact(one) || one.ino) return;\n",
    ]],
    testFile: "move_test.ts",
    testName:
      "sync: where a runtime rounds inode numbers, a file that may be the same is not moved",
  },
  {
    breaks: "large inode numbers are compared as numbers",
    file: "_target.ts",
    edits: [[
      "one.ino !== other.ino) return false",
      "Number(one.ino) !== Number(other.ino)) return false",
    ]],
    testFile: "move_test.ts",
    testName:
      "sync: two files whose inode numbers differ only as integers are two files",
  },
  {
    breaks: "that names of a file look like several is not found out",
    file: "_claim.ts",
    edits: [[
      "  if (isSame(found, now) && isSame(found, status)) return true;\n",
      "  if (status.kind) return true;\n",
    ]],
    testFile: "lock_test.ts",
    testName:
      "a lock is refused at once where each name of a file has a number of its own",
  },
  {
    breaks: "a lock is not shared with who may write beside it",
    file: "_claim.ts",
    edits: [[
      "  if (isSticky || isGranted(like, created)) return;\n",
      "  if (isSticky || created.kind) return;\n",
    ]],
    testFile: "lock_test.ts",
    testName:
      "a lock and its file let those in who may write in their directory, whatever the umask",
  },
  {
    breaks: "what stands in the place of a lock is changed",
    file: "_claim.ts",
    edits: [[
      "    if (opened.uid !== uid || !isSame(named, opened)) return;\n",
      "    if (opened.uid !== uid) return;\n",
    ]],
    testFile: "lock_test.ts",
    testName:
      "a directory that somebody puts in the place of the lock is not changed",
  },
  {
    breaks: "an update takes its place when it has its lock",
    file: "_update.ts",
    edits: [[
      "      const bytes = await own.read(() =>\n        runAsync(port, readIfPresent(port, request))\n      );\n",
      "      const bytes = await runAsync(port, readIfPresent(port, request));\n",
    ]],
    testFile: "update_order_test.ts",
    testName:
      'an update sees the write that was called before it, {"lock":false}',
  },
  {
    breaks: "an update comes after the writes that were called after it",
    file: "_order.ts",
    edits: [[
      '      if (place.state === "locking") return undefined;\n',
      '      if (place.state === "locking") continue;\n',
    ]],
    testFile: "update_order_test.ts",
    testName: "a write that is called after an update comes after it, {}",
  },
  {
    breaks: "an update undoes a newer write",
    file: "_order.ts",
    edits: [[
      "      if (!entry.write.isOther) this.#supersede(outcome, entry);\n",
      "",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "while the function of an update runs, a write comes first, and the update is superseded, {}",
  },
  {
    breaks: "a move comes between the reading and the writing of an update",
    file: "_order.ts",
    edits: [[
      "        if (!place.write.isOther || this.#open === undefined) {\n",
      "        if (place.write.isOther !== undefined || this.#open !== place as never) {\n",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "a move does not come between the reading and the writing of an update, {}",
  },
  {
    breaks: "who holds a lock waits for an update that waits for it",
    file: "_update.ts",
    edits: [["    }, own.letPass);\n", "    }, () => {});\n"]],
    testFile: "update_order_test.ts",
    testName:
      "who holds a lock is not kept waiting by an update that waits for it",
  },
  {
    breaks: "updates without a lock are made at once",
    file: "_under_lock.ts",
    edits: [[
      "      (request) => inTurn(() => body(request)),\n",
      "      (request) => (void inTurn, body(request)),\n",
    ]],
    testFile: "update_order_test.ts",
    testName: 'a hundred updates at once all land, {"lock":false}',
  },
  {
    breaks: "what an update promised is not kept by what takes its place",
    file: "_update.ts",
    edits: [[
      "  if (!receipt.superseded || isKept) return receipt;\n",
      "  if (!receipt.superseded || isKept || isFull) return receipt;\n",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "what an update promised is kept by the write that takes its place",
  },
  {
    breaks: "a snapshot does not compare what it has handed out",
    file: "_snapshot.ts",
    edits: [[
      "    verifier.end();\n    this.#isVerified",
      "    this.#isVerified",
    ]],
    testFile: "checksum_test.ts",
    testName:
      "what a snapshot and a stream of records hand out is what is verified",
  },
  {
    breaks: "a stream of records does not compare what it has handed out",
    file: "_jsonl_read.ts",
    edits: [[
      "  try {\n    verifier.end();\n  } catch (error) {\n",
      "  try {\n    void verifier;\n  } catch (error) {\n",
    ]],
    testFile: "checksum_test.ts",
    testName:
      "what a snapshot and a stream of records hand out is what is verified",
  },
  {
    breaks: "a compaction gives a torn line to its function",
    file: "_compact.ts",
    edits: [[
      "    const { end } = yield* inspectTail(file, size, signal);\n",
      "    const end = size;\n    yield* inspectTail(file, size, signal);\n",
    ]],
    testFile: "compact_test.ts",
    testName:
      "async: a torn last line is left out and told, one that lacks its newline is kept",
  },
  {
    breaks: "a repair cuts what is no beginning of a record",
    file: "_jsonl_tail.ts",
    edits: [[
      "  if (index === undefined || index === text.length) return;\n",
      "  if (index !== text.length + 1) return;\n",
    ]],
    testFile: "append_test.ts",
    testName: "sync: a repair cuts nothing that no append of records has begun",
  },
  {
    breaks: "a repair cuts a whole record that zeros follow",
    file: "_jsonl_tail.ts",
    edits: [[
      "    return bytes.length;\n",
      "    return bytes.length === all.length ? bytes.length : 0;\n",
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: a whole record that zeros follow instead of its newline is kept",
  },
  {
    breaks: "a compaction calls good what is damaged",
    file: "_compact.ts",
    edits: [["      checksum,\n", "      checksum: checksum && false,\n"]],
    testFile: "compact_test.ts",
    testName:
      "sync: a checksum is kept, and what is damaged is not called good",
  },
  {
    breaks: "a promise is written as an empty object",
    file: "_json_text.ts",
    edits: [[
      "  if (level > MOST_LEVELS || hasOwnForm(value) || isThenable(value)) {\n",
      "  if (level > MOST_LEVELS || hasOwnForm(value)) {\n",
    ]],
    testFile: "formats_test.ts",
    testName:
      "sync: a value without a JSON form is a SerializationError that names the place",
  },
  {
    breaks: "a promise behind a toJSON is written as an empty object",
    file: "_json_text.ts",
    edits: [[
      "  if (level > MOST_LEVELS || hasOwnForm(value) || isThenable(value)) {\n",
      "  if (level > MOST_LEVELS || isThenable(value)) {\n",
    ]],
    testFile: "formats_test.ts",
    testName:
      "sync: a value without a JSON form is a SerializationError that names the place",
  },
  {
    breaks: "an update waits for what is called later under its lock",
    file: "_under_lock.ts",
    edits: [[
      "  const earlier = held.isBusy ? held.idle() : undefined;\n  return await held.during(() =>\n    inTurn(async () => {\n",
      "  return await Promise.resolve().then(() =>\n    inTurn(async () => {\n      const earlier = held.isBusy ? held.idle() : undefined;\n      onWait = undefined;\n",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "under a lock that is passed on, an update and what is called beside it come to their ends",
  },
  {
    breaks: "a lock is freed before the update that it was passed to",
    file: "_under_lock.ts",
    edits: [[
      "  return await held.during(() =>\n    inTurn(",
      "  return await Promise.resolve().then(() =>\n    inTurn(",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "a lock is not freed before the update that it was passed to has come to its end",
  },
  {
    breaks: "a synchronous update undoes what is written within its function",
    file: "_order.ts",
    edits: [[
      "    if (update.newer !== undefined) throw new Overtaken();\n",
      "    if (update.newer === null) throw new Overtaken();\n",
    ]],
    testFile: "update_order_test.ts",
    testName:
      "a write within the function of a synchronous update comes first, what changes a part is refused, lock: false",
  },
  {
    breaks: "what is called within a synchronous update runs before it",
    file: "_order.ts",
    edits: [["    this.#isHeld = true;\n", ""]],
    testFile: "update_order_test.ts",
    testName:
      "a write within the function of a synchronous update comes first, what changes a part is refused, lock: false",
  },
  {
    breaks: "a compaction calls good what its function has not read",
    file: "_compact.ts",
    edits: [[
      "  yield* compareOpened(port, { file, sidecar }, request);\n",
      "  void [file, sidecar, port, request, compareOpened];\n",
    ]],
    testFile: "compact_test.ts",
    testName:
      "sync: what is damaged is not called good where the function does not read it to its end",
  },
  {
    breaks: "records are read after their compaction",
    file: "_compact.ts",
    edits: [["        await records.return();\n", ""]],
    testFile: "compact_test.ts",
    testName:
      "async: the records that a function has not read end with the compaction",
  },
  {
    breaks: "the length of bytes is that of when their turn comes",
    file: "_write.ts",
    edits: [[
      "append(write, left, bytes);",
      "append(write, left, Math.min(bytes, left.length));",
    ]],
    testFile: "order_test.ts",
    testName:
      "bytes whose buffer is transferred, or has another size, after the call are refused, and the old content stays",
  },
  {
    breaks: "a payload is let go of where newer writes may be aborted",
    file: "_order.ts",
    edits: [[" && write.signal === undefined\n", "\n"]],
    testFile: "order_test.ts",
    testName:
      "a write is not superseded for good by newer ones that may still be aborted",
  },
  {
    breaks: "an error of another realm is no error",
    file: "_runtime/errno.ts",
    edits: [[
      '  return typeof value === "object" && value !== null && "message" in value &&\n',
      '  return value instanceof Error && "message" in value &&\n',
    ]],
    testFile: "port_test.ts",
    testName:
      "an error of another realm, as in a test runner's context, has its code",
  },
  {
    breaks:
      "a stream takes for its owner whoever has put a file there meanwhile",
    file: "_core.ts",
    edits: [[
      '  const created = yield* call("fstat", openFileOf(write));\n  yield* refusePlantedFile(write, created);\n',
      "",
    ]],
    testFile: "metadata_test.ts",
    testName:
      "openAtomicWriter: a file that another user puts there meanwhile, in a sticky directory, does not get the content, {}",
  },
  {
    breaks: "a stream replaces whatever has come meanwhile",
    file: "_target.ts",
    edits: [[
      '  if (status?.kind === "symlink") refuseLink(request, path);\n  return targetAt(request, directory, name, path, status, false);\n',
      "  return { ...targetAt(request, directory, name, path, undefined, false), absent: status === undefined };\n",
    ]],
    testFile: "metadata_test.ts",
    testName:
      "a sync source: what must not be replaced at the beginning must not be at the end",
  },
  {
    breaks: "a mode in decimal is taken",
    file: "_options.ts",
    edits: [[
      "  MISTAKEN_MODES.has(value)\n",
      "  MISTAKEN_MODES.has(value) && value === 0\n",
    ]],
    testFile: "arguments_test.ts",
    testName:
      "a mode that was written in decimal is a TypeError that names the octal one",
  },
  {
    breaks: "a URL as a string is taken for a path",
    file: "_path.ts",
    edits: [[
      '  if (typeof path === "string") refuseMistaken(path);\n',
      '  if (typeof path === "number") refuseMistaken(path);\n',
    ]],
    testFile: "arguments_test.ts",
    testName:
      "sync: a malformed path is a TypeError that shows it, before the disk is touched",
  },
  {
    breaks: "what is moved is not synced",
    file: "_sync_failures.ts",
    edits: [["    yield* syncFile(port, file, status);\n", ""]],
    testFile: "move_test.ts",
    testName:
      "sync: a move syncs the file first, then links, syncs, unlinks and syncs",
  },
  {
    breaks: "the directory of the new name is not synced",
    file: "_move.ts",
    edits: [[
      "    yield* syncSince(port, directories.to, to.directory, syncFailures.to);\n",
      "",
    ]],
    testFile: "move_test.ts",
    testName:
      "async: a move that overwrites renames, and syncs both directories, that of the new name first",
  },
  {
    breaks: "a move that must not overwrite renames",
    file: "_move.ts",
    edits: [['inlineCall("link", from, to)', 'inlineCall("rename", from, to)']],
    testFile: "move_test.ts",
    testName: "sync: what comes to the new name meanwhile is not overwritten",
  },
  {
    breaks: "another file that came to the old name is moved without a sync",
    file: "_move.ts",
    edits: [[
      "if (isSame(status, yield* fileAt(path))) return status;",
      "if (status.size >= 0) return status;",
    ]],
    testFile: "move_test.ts",
    testName:
      "sync: a file that replaces the old name while it is synced is synced too before it is moved",
  },
  {
    breaks: "whatever came to the old name is removed",
    file: "_move.ts",
    edits: [[
      "if (!isSame(status, now)) return;",
      "if (now.size < 0) return;",
    ]],
    testFile: "move_test.ts",
    testName: "async: a file that came to the old name after the link stays",
  },
  {
    breaks: "a move heeds no lock that is lost",
    file: "_move.ts",
    edits: [[
      "  for (const held of request.held) yield* checkHeld(held);\n",
      "  if (request.held.length > 9) yield* checkHeld(request.held[0] as HeldLock);\n",
    ]],
    testFile: "move_test.ts",
    testName: "sync: a lock that is removed by hand stops the move",
  },
  {
    breaks: "a move takes its place among the writes of the old name alone",
    file: "move.ts",
    edits: [[
      "    [from.path, to.path],\n    request,",
      "    [from.path],\n    request,",
    ]],
    testFile: "move_test.ts",
    testName: "moves and writes of the same files keep their call order",
  },
  {
    breaks: "a move comes after a newer synchronous write",
    file: "_order.ts",
    edits: [[
      "      for (const progress of progresses) progress.checkTurn();\n",
      "      for (const progress of progresses) void progress.hasWaited;\n",
    ]],
    testFile: "move_test.ts",
    testName:
      "a move that a synchronous write overtakes is refused, and nothing is moved",
  },
  {
    breaks: "a synchronous move does not look at what is under way",
    file: "_order.ts",
    edits: [[
      "  if (!linesOf(port).get(path)?.isBusy) return;\n",
      "  if (port !== undefined || path !== '') return;\n",
    ]],
    testFile: "move_test.ts",
    testName:
      "a synchronous move is refused while an asynchronous call changes one of its files",
  },
  {
    breaks: "moves ask for their locks one after the other, in their own order",
    file: "_under_lock.ts",
    edits: [[
      "const asked = stillToTake(wanted, handed).map(askFor);",
      "const asked = Object.assign((function* () { for (const one of wanted) yield askFor(one); })(), { slice: () => [] });",
    ]],
    testFile: "move_test.ts",
    testName: "opposite moves under locks do not wait for each other for ever",
  },
  {
    breaks: "a lock is freed while a move is made under it",
    file: "_under_lock.ts",
    edits: [["() => lock.during(work), work)();", "work ?? lock, work)();"]],
    testFile: "move_test.ts",
    testName:
      "a lock is not freed before the move that it was passed to has come to its end",
  },
  {
    breaks: "an append is not synced",
    file: "_jsonl_append.ts",
    edits: [[
      'if (durability !== "none") yield* blockingCall("fsync", file);',
      "",
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: an append opens, looks, writes once, syncs, compares and closes",
  },
  {
    breaks: "the end of the file is not looked at",
    file: "_jsonl_append.ts",
    edits: [[
      '    if (tail.kind === "torn") throw new TornLine(tail.offset);\n',
      "    if (tail.offset < 0) throw new TornLine(tail.offset);\n",
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: cut at every byte of the last append, a file keeps its earlier records, and can be repaired and appended to",
  },
  {
    breaks: "a number without a newline is taken for a whole record",
    file: "_jsonl_tail.ts",
    edits: [['/^[ \\t\\r]*[[{"]/', '/^[ \\t\\r]*[[{"1-9]/']],
    testFile: "append_test.ts",
    testName:
      "sync: a last line that lacks only its newline is given it, others are torn",
  },
  {
    breaks: "a failed append is not taken back",
    file: "_jsonl_append.ts",
    edits: [['    yield* blockingCall("truncate", file, size);\n', ""]],
    testFile: "append_test.ts",
    testName:
      "async: a failed fsync is taken back, and leaves no hole in the middle",
  },
  {
    breaks: "what others have appended is cut",
    file: "_jsonl_append.ts",
    edits: [[
      "    if (now.size > size + taken) throw reason;\n",
      "    if (now.size < 0) throw reason;\n",
    ]],
    testFile: "append_test.ts",
    testName: "sync: what somebody else has appended behind it is not cut",
  },
  {
    breaks: "nobody remembers that an append could not be taken back",
    file: "_jsonl_append.ts",
    edits: [[
      'if (knownOf(port, end)?.knowledge !== "broken") return;',
      "if (knownOf(port, end) !== undefined) return;",
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: after a failure that cannot be taken back nothing is appended until the file is written anew",
  },
  {
    breaks: "what was not synced before is forgotten",
    file: "_jsonl_append.ts",
    edits: [[
      '  if (isLost) note(port, end, "broken");\n',
      '  if (isLost && size < 0) note(port, end, "broken");\n',
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: a sync that may have lost what an earlier append left unsynced makes no room for more",
  },
  {
    breaks: "an append does not compare",
    file: "_jsonl_append.ts",
    edits: [[
      "  if (isSame(status, yield* lstatIfPresent(path))) return;\n",
      '  if (isSame(status, yield* lstatIfPresent(path)) || path !== "") return;\n',
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: records that went to a file that was replaced meanwhile are an error",
  },
  {
    breaks: "a short append is taken for a whole one",
    file: "_jsonl_append.ts",
    edits: [[
      "      taken += count;",
      "      taken += Math.max(count, rest.length);",
    ]],
    testFile: "append_test.ts",
    testName: "sync: short writes are continued until every byte is taken",
  },
  {
    breaks: "an append takes no place among the writes of its file",
    file: "_order.ts",
    edits: [[
      "  if (!linesOf(port).get(path)?.isBusy) return;\n",
      "  if (port !== undefined || path !== '') return;\n",
    ]],
    testFile: "append_test.ts",
    testName:
      "an append that a synchronous write overtakes is refused, and a synchronous one does not overtake",
  },
  {
    breaks: "records are appended to what a stranger has put there",
    file: "_jsonl_append.ts",
    edits: [[
      "    if (isStrangers) {\n",
      "    if (isStrangers && path === directory) {\n",
    ]],
    testFile: "append_test.ts",
    testName:
      "sync: what a stranger has put into a directory that everybody can write to is not appended to",
  },
  {
    breaks: "a move removes a name that is the only one",
    file: "_move.ts",
    edits: [["if (now.nlink < 2 || ", "if (now.nlink < 0 && "]],
    testFile: "move_test.ts",
    testName:
      "async: a name that is the only one is not removed, whoever has taken the other",
  },
  {
    breaks: "two spellings of one name are told by their text alone",
    file: "_move.ts",
    edits: [[
      "if (isSame(source, existing)) throw sameFile(path);",
      "if (source === existing) throw sameFile(path);",
    ]],
    testFile: "move_test.ts",
    testName:
      "async: two names of one file are not moved onto each other, however they are spelled",
  },
  {
    breaks: "of two that move one file both keep a name",
    file: "_move.ts",
    edits: [[
      "const isTakenBack = yield* takeBack(to, status);",
      "const isTakenBack = false;\n    void takeBack;",
    ]],
    testFile: "move_test.ts",
    testName: "async: of two that move one file to two names, one has it",
  },
  {
    breaks: "what was required is refused from memory",
    file: "_demand.ts",
    edits: [[
      "if (before === undefined || !(error instanceof Refusal)) throw error;",
      "if (error !== undefined) throw error;",
    ]],
    testFile: "safety_test.ts",
    testName: "what is refused is looked at again: another mount may be there",
  },
  {
    breaks: "an ext4 is taken to have a journal",
    file: "_levels.ts",
    edits: [[
      'if (around.mount?.type !== "ext4" || around.hasJournal) return;',
      'if (around.mount?.type !== "ext4" || around.status) return;',
    ]],
    testFile: "guarantees_test.ts",
    testName:
      "an ext4 without a journal, or whose journal cannot be looked at, is told",
  },
  {
    breaks: "an update that changes nothing is not synced",
    file: "_unchanged.ts",
    edits: [["      yield* syncFileAt(port, request, file);\n", ""]],
    testFile: "update_test.ts",
    testName:
      "async: what is unchanged is synced, with its checksum and its place, or not where none is asked for",
  },
  {
    breaks: "an update that changes nothing takes a failed sync for none",
    file: "_unchanged.ts",
    edits: [[
      "if (error instanceof ProtocolError) return false;",
      "if (error instanceof ProtocolError) return true;",
    ]],
    testFile: "update_test.ts",
    testName:
      "async: an update that is made again after its sync has failed is written",
  },
  {
    breaks: "a worker takes its own beginning for that of its process",
    file: "_sweep.ts",
    edits: [[
      "startedAt === undefined || mtimeMs",
      "startedAt !== undefined && mtimeMs",
    ]],
    testFile: "sweep_test.ts",
    testName:
      "a worker does not take its own beginning for that of its process",
  },
  {
    breaks: "what a worker of this process is writing is swept",
    file: "_sweep.ts",
    edits: [[
      "mtimeMs > startedAt - CLOCKS_DIFFER_MS",
      "mtimeMs > Infinity",
    ]],
    testFile: "sweep_test.ts",
    testName:
      "async: what was written since this process began stays, also where the runtime may not ask",
  },
  {
    breaks: "a checksum that a write would remove counts as one it keeps",
    file: "_demand.ts",
    edits: [["checksum === undefined ? isKept : undefined", "isKept"]],
    testFile: "guarantees_test.ts",
    testName:
      "what is said of the damage of a file and what is insisted on agree",
  },
  {
    breaks: "a lock that is waited for second fails unheard",
    file: "_file_lock.ts",
    edits: [["  mine.catch(() => {});\n", ""]],
    testFile: "move_test.ts",
    testName:
      "a move that is aborted while it waits for both locks is rejected once, and by nothing else",
  },
];

/** One for all controls, whose code is then compiled once. */
const copy = mkdtempSync(join(tmpdir(), "atomic-controls-"));
const caches = mkdtempSync(join(tmpdir(), "atomic-compiled-"));

/** Runs the tests of these names on the copy; the names of those that failed. */
async function failuresAmong(
  testFile: string,
  testNames: ReadonlySet<string>,
): Promise<string[]> {
  const patterns = [...testNames].map((name) =>
    name.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
  );
  const { stdout, stderr } = await run([
    // Set by the runner of this lab, it makes a runner below it report to it.
    ...["env", "--unset=NODE_TEST_CONTEXT", `--chdir=${copy}`],
    `NODE_COMPILE_CACHE=${caches}`,
    process.execPath,
    "--test-reporter=tap",
    "--test-timeout=20000",
    // What is broken may hang.
    "--test-force-exit",
    `--test-name-pattern=^(?:${patterns.join("|")})$`,
    join(copy, "tests", testFile),
  ]);
  assert.match(
    stdout,
    new RegExp(`^# tests ${testNames.size}$`, "m"),
    `not all there: ${[...testNames].join(", ")}\n${stderr}`,
  );
  return [...stdout.matchAll(/^ *not ok \d+ - (.*)$/gm)]
    .map(([, name = ""]) => name.replaceAll("\\#", "#"));
}

before(async () => {
  copyTo(copy);
  for (const testFile of new Set(CONTROLS.map(({ testFile }) => testFile))) {
    const own = CONTROLS.filter((control) => control.testFile === testFile);
    const testNames = new Set(own.map(({ testName }) => testName));
    assert.deepEqual(await failuresAmong(testFile, testNames), []);
  }
});

after(() => {
  for (const made of [copy, caches]) rmSync(made, { recursive: true });
});

for (const { breaks, file, edits, testFile, testName } of CONTROLS) {
  test(`where ${breaks}, "${testName}" fails`, async () => {
    const mend = breakCopy(
      copy,
      edits.map(([find, replace]) => ({ file, find, replace })),
    );
    try {
      const failed = await failuresAmong(testFile, new Set([testName]));
      assert.ok(failed.includes(testName), `failed: ${failed.join(", ")}`);
    } finally {
      mend();
    }
  });
}
