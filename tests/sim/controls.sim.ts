/**
 * Does the simulator see what it is there to see? Each control breaks the real
 * code, in a copy, and requires the named exploration to find a violation of the
 * named kind, with a trace. In the unbroken code it finds none: the short form,
 * which runs before the controls, has all of these explorations.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { breakCopy, copyTo, type Edit } from "../lab/broken_copy.ts";
import { run } from "../lab/run.ts";
import { inScratch } from "../scratch.ts";

interface Control {
  /** What the broken code does. */
  readonly breaks: string;
  readonly edits: readonly Edit[];
  /** What of the explorations sees it. */
  readonly exploration: string;
  readonly finds: RegExp;
}

const FSYNC =
  'if (request.durability !== "none") yield* blockingCall("fsync", file);';

const CRASHES = "crash points: writeTextAtomicSync";
const FAULTS = "each call fails: writeTextAtomicSync";

/** What happens first: two take it, or the one takes it from the other. */
const HELD_TWICE =
  /process\d (?:holds it, and process\d|fails: .*its lock .* is lost)/;
/** What is left first must not hide that two hold. */
const STAYING: Edit = {
  file: "tests/sim/lock_scenarios.ts",
  find: "staying: isPlanted ||",
  replace: "staying: times.length > 0 ||",
};
/**
 * From a history on in which a process without a claim has looked at one lock
 * file and opened the next, and the number of the first is free: too rare to be
 * among the first states.
 */
const NUMBER_FREE: Edit = {
  file: "tests/sim/interleave.ts",
  find: "const open: number[][] = [[]];",
  replace:
    "const open: number[][] = [[...Array(6).fill(2), ...Array(33).fill(0), 2, ...Array(11).fill(0), 4]];",
};
const WATCHED =
  "updates: two updates, and a watcher that frees the lock of one";
const LOST = /the update of [AB] is lost/;
const MOVES = "names: moveAtomicSync";
const APPENDS = "names: appendJsonlSync";
const MOVE_FSYNC = "    yield* syncFile(port, file, status);\n";
const SYNC_TO =
  "    yield* syncSince(port, directories.to, to.directory, syncFailures.to);\n";
const APPEND_FSYNC =
  'if (durability !== "none") yield* blockingCall("fsync", file);';
const TRUNCATE = '    yield* blockingCall("truncate", file, size);\n';

const CONTROLS: readonly Control[] = [
  {
    breaks: "the file is not synced",
    edits: [{ file: "_core.ts", find: FSYNC, replace: "" }],
    exploration: CRASHES,
    finds: /after a crash \/d\/f is a file with ""/,
  },
  {
    breaks: "the file is synced after the rename",
    edits: [
      { file: "_core.ts", find: FSYNC, replace: "" },
      {
        file: "_core.ts",
        find: '  yield* call("close", file);\n}\n\n/** Puts the new',
        replace: "  write.sealed = file;\n}\n\n/** Puts the new",
      },
      {
        file: "_core.ts",
        find: "  write.temporary = undefined;\n  untrackTemporary",
        replace:
          '  yield* blockingCall("fsync", write.sealed);\n  yield* call("close", write.sealed);\n  write.temporary = undefined;\n  untrackTemporary',
      },
    ],
    exploration: CRASHES,
    finds: /after a crash \/d\/f is a file with ""/,
  },
  {
    breaks: "the directory is not synced",
    edits: [{
      file: "_core.ts",
      find:
        "    yield* afterCommit(\n      syncSince(port, directory, target.directory, syncFailure),\n    );\n",
      replace: "",
    }],
    exploration: CRASHES,
    finds: /\/d\/f has resolved, but after a crash it is absent/,
  },
  {
    breaks: "the parents of new directories are not synced",
    edits: [{
      file: "_directories.ts",
      find:
        "return syncSince(host, parent, directoryOf(host, path), mark.syncFailure);",
      replace: "return (function* () {})();",
    }],
    exploration: CRASHES,
    finds: /\/d\/a\/b\/f has resolved, but after a crash it is absent/,
  },
  {
    breaks: "the temporary file is made in another directory",
    edits: [{
      file: "_temporary.ts",
      find: "joinPath(port, directory, temporaryName(port, name))",
      replace: 'joinPath(port, "/elsewhere", temporaryName(port, name))',
    }],
    exploration: CRASHES,
    finds: /\/elsewhere\/\.f\..*\.tmp is no business of a write/,
  },
  {
    breaks: "the file is written in place",
    edits: [
      {
        file: "_temporary.ts",
        find: "joinPath(port, directory, temporaryName(port, name))",
        replace: "joinPath(port, directory, name)",
      },
      {
        file: "tests/sim/machine_port.ts",
        find: "    create: (path, mode) => this.process.create(path, mode)",
        replace:
          "    create: (path, mode) => this.process.openToOverwrite(path, mode)",
      },
    ],
    exploration: CRASHES,
    finds: /a reader of \/d\/f finds a file with ""/,
  },
  {
    breaks: "the temporary name can be predicted",
    edits: [{
      file: "_temporary.ts",
      find: "${host.randomUUID()}",
      replace: "00000000-0000-4000-8000-000000000000",
    }],
    exploration: "processes: two writers of a new file, in containers",
    finds: /writer\d fails: .*create failed/,
  },
  {
    breaks: "a short write is taken for a whole one",
    edits: [{
      file: "_core.ts",
      find: "offset += taken;",
      replace: "offset += rest.length;",
    }],
    exploration: CRASHES,
    finds: /a reader of \/d\/f finds a file with "new"/,
  },
  {
    breaks: "a failed sync of the file is tried again",
    edits: [{
      file: "_core.ts",
      find: FSYNC,
      replace:
        `if (request.durability !== "none") try { yield* blockingCall("fsync", file); } catch { yield* blockingCall("fsync", file); }`,
    }],
    exploration: FAULTS,
    finds: /after a crash \/d\/f is a file with ""/,
  },
  {
    breaks: "a failed sync of the directory is tried again",
    edits: [{
      file: "_sync_failures.ts",
      find: "    note(host, directory, error);\n    throw error;\n",
      replace: "    yield* syncDirectory(handle, directory);\n",
    }],
    exploration: FAULTS,
    finds: /\/d\/f has resolved, but after a crash it is absent/,
  },
  {
    breaks: "a sync of the directory counts although another's has failed",
    edits: [{
      file: "_sync_failures.ts",
      find: "if (since !== undefined && since !== before) throw",
      replace: "if (since !== undefined && since === null) throw",
    }],
    exploration: "realm: two files in one directory, and a call fails",
    finds: /\/d\/[fg] has resolved, but after a crash it is/,
  },
  {
    breaks: "a sync of a parent counts although another's has failed",
    edits: [{
      file: "_sync_failures.ts",
      find: "if (since !== undefined && since !== before) throw",
      replace: "if (since !== undefined && since === null) throw",
    }],
    exploration: "realm: two files in a directory that is missing, and a call",
    finds: /has resolved, but after a crash it is absent/,
  },
  {
    breaks: "the temporary name is removed after the rename",
    edits: [{
      file: "_core.ts",
      find: "  write.temporary = undefined;\n  untrackTemporary(temporary);\n",
      replace: "",
    }],
    exploration: FAULTS,
    finds: /a name is used that is somebody else's/,
  },
  {
    breaks: "a writer relies on a sync of the directory that began too early",
    edits: [{
      file: "_shared_sync.ts",
      find: "  if (running === undefined) return begin();\n",
      replace:
        "  if (running === undefined) return begin();\n  if (running !== undefined) return running.done;\n",
    }],
    exploration: "realm: two files in one directory",
    finds: /\/d\/[fg] has resolved, but after a crash it is/,
  },
  {
    breaks: "createNew renames",
    edits: [{
      file: "_core.ts",
      find: "  if (request.createNew) {\n",
      replace:
        "  if (request.createNew && request.durability === undefined) {\n",
    }],
    exploration: "processes: two writers with createNew",
    finds: /createNew has replaced \/d\/f/,
  },
  {
    breaks: "a sync write does not stop the older one that is at its rename",
    edits: [{
      file: "_core.ts",
      find: "  if (older !== undefined) yield* removeOlder(older);\n",
      replace: "",
    }],
    exploration: "realm: a synchronous write among two, on a slow disk",
    finds: /comes after .*, which was called later/,
  },
  {
    breaks: "a sync write is no more durable than it was asked to be",
    edits: [{
      file: "_write.ts",
      find: "    if (durability === request.durability) return;\n",
      replace: "    if (durability !== undefined) return;\n",
    }],
    exploration: "realm: a synchronous write that promises less",
    finds: /has resolved, but after a crash it is/,
  },
  {
    breaks: "a secret can be read by others while it is written",
    edits: [{
      file: "_metadata.ts",
      find: "return mode === undefined ? 0o666 : mode & PERMISSIONS;",
      replace: "return mode === undefined ? 0o666 : 0o666;",
    }],
    exploration: CRASHES,
    finds: /others may read \/d\/\.f\..*\.tmp: mode 0o644/,
  },
  {
    breaks: "the owner is changed to another one",
    edits: [{
      file: "_metadata.ts",
      find: "  if (actual !== mode) notPreserved.push",
      replace:
        '  if (owner !== undefined) yield* call("fchown", file, owner.uid, owner.gid + 1);\n  if (actual !== mode) notPreserved.push',
    }],
    exploration: CRASHES,
    finds: /the owner should be/,
  },
  {
    breaks: "a failed write does not close its files",
    edits: [{
      file: "_core.ts",
      find: '  if (file !== undefined) yield* attempt(call("close", file));\n',
      replace: "",
    }],
    exploration: FAULTS,
    finds: /writer has not closed/,
  },
  {
    breaks: "a rename that fails is taken for one that was not done",
    edits: [{
      file: "_core.ts",
      find: `    if (isGone || !failedWith(error, ...CHANGED_NOTHING)) {
      error.committed = "unknown";
    }
`,
      replace: "    void isGone;\n",
    }],
    exploration: FAULTS,
    finds: /committed is false, and the new content is in place/,
  },
  {
    breaks: "an attempt that has left its temporary file is repeated",
    edits: [{
      file: "_retry.ts",
      find:
        "if (error instanceof ProtocolError && error.leftover !== undefined) {",
      replace: "if (error === undefined) {",
    }],
    exploration: FAULTS,
    finds: /\.tmp is left/,
  },
  {
    breaks: "the writer's abort does not tell that its temporary file stays",
    edits: [{
      file: "_atomic_writer.ts",
      find:
        "      if (failure !== undefined) throw this.#explained(failure);\n",
      replace: "",
    }],
    exploration: "each call fails: openAtomicWriter, abort",
    finds: /\.tmp is left/,
  },
  {
    breaks: "the temporary file of root is made in the root directory",
    edits: [{
      file: "_temporary.ts",
      find: "joinPath(port, directory, temporaryName(port, name))",
      replace:
        'joinPath(port, directory === "/tmp" ? directory : "/", temporaryName(port, name))',
    }],
    exploration: CRASHES,
    finds:
      /: \/\.f\..*\.tmp is no business of a write|^.*\n +\/\.f\..*\.tmp is no/m,
  },
  {
    breaks: "the receipt does not say that other names keep the old content",
    edits: [{
      file: "_core.ts",
      find: 'hasOtherNames ? [...lost, "links"] : lost',
      replace: "hasOtherNames ? lost : lost",
    }],
    exploration: CRASHES,
    finds: /lost is "links", and the receipt says ""/,
  },
  {
    breaks: "a receipt says that a file was made which was there",
    edits: [{
      file: "_core.ts",
      find: "created: target.absent,",
      replace: "created: true,",
    }],
    exploration: CRASHES,
    finds: /the receipt says that created is true/,
  },
  {
    breaks: "what is committed is said to be unknown",
    edits: [{
      file: "_core.ts",
      find: "if (isGone || !failedWith(error, ...CHANGED_NOTHING)) {",
      replace: "if (isGone || error !== undefined) {",
    }],
    exploration: FAULTS,
    finds: /committed is unknown for no reason/,
  },
  {
    breaks: "a full disk is an error like any other",
    edits: [{
      file: "_failure.ts",
      find: "  ENOSPC: [NoSpaceError, FULL],",
      replace: "  ENOSPC: [AtomicError, FULL],",
    }],
    exploration: FAULTS,
    finds: /ENOSPC should be a NoSpaceError, and is a AtomicError/,
  },
  {
    breaks: "createNew removes its temporary name once more",
    edits: [{
      file: "_core.ts",
      find: "  write.temporary = undefined;\n  untrackTemporary(temporary);\n",
      replace:
        "  if (!request.createNew) write.temporary = undefined;\n  untrackTemporary(temporary);\n",
    }],
    exploration: FAULTS,
    finds: /a name is used that is somebody else's/,
  },
  {
    breaks: "a sync write removes the older temporary file after its rename",
    edits: [
      {
        file: "_core.ts",
        find: "  if (older !== undefined) yield* removeOlder(older);\n",
        replace: "",
      },
      {
        file: "_core.ts",
        find:
          "  write.temporary = undefined;\n  untrackTemporary(temporary);\n",
        replace:
          "  if (older !== undefined) yield* removeOlder(older);\n  write.temporary = undefined;\n  untrackTemporary(temporary);\n",
      },
    ],
    exploration: "realm: a write, and a synchronous one, on a slow disk",
    finds: /comes after .*, which was called later/,
  },
  {
    breaks: "of several with createNew nobody makes the file",
    edits: [{
      file: "_core.ts",
      find: '    yield* call("link", temporary, write.target.path);\n',
      replace: '    throw new Refusal("EEXIST", "never");\n',
    }],
    exploration: "processes: two writers with createNew",
    finds: /nobody has written/,
  },
  {
    breaks: "a stream with createNew renames over what came meanwhile",
    edits: [{
      file: "_core.ts",
      find: "  write.target = yield* lookAt(request, target);\n",
      replace:
        "  write.target = yield* lookAt({ ...request, createNew: false }, target);\n  write.request = { ...request, createNew: false };\n",
    }],
    exploration: "processes: a stream with createNew and a writer",
    finds: /createNew has replaced \/d\/f/,
  },
  {
    breaks: "the superseded resolve before the newest is durable",
    edits: [{
      file: "_core.ts",
      find:
        "    yield* afterCommit(\n      syncSince(port, directory, target.directory, syncFailure),\n    );\n",
      replace:
        "    if (!target.absent) yield* afterCommit(syncSince(port, directory, target.directory, syncFailure));\n",
    }],
    exploration: "realm: createNew before another write",
    finds: /has resolved, but after a crash it is/,
  },
  {
    breaks: "who waits has no claim that keeps the lock where it is",
    edits: [STAYING, NUMBER_FREE, {
      file: "_claim.ts",
      find: "      refuseInexact(status);\n      return {",
      replace:
        "      refuseInexact(status);\n      yield* unlinkIfPresent(path);\n      return {",
    }, {
      file: "_lock.ts",
      find: 'yield* inlineCall("rename", claim.path, claim.heldPath);',
      replace: 'yield* call("link", place.lockFile, claim.heldPath);',
    }],
    exploration:
      "locks: one thrice, another once, and the file is open elsewhere",
    finds: HELD_TWICE,
  },
  {
    breaks: "a lock is opened by its claim, and not by its one name",
    edits: [STAYING, {
      file: "_lock.ts",
      find: "() => openDatabase(port, place.lockFile),",
      replace: "() => openDatabase(port, claim.path),",
    }],
    exploration: "locks: names that are inodes of their own",
    finds: HELD_TWICE,
  },
  {
    breaks: "a link in the place of a lock is followed",
    edits: [{
      file: "_claim.ts",
      find: 'if (status !== undefined && status.kind !== "directory") {',
      replace: "if (status !== undefined && status.size < 0) {",
    }],
    exploration: "locks: a link that somebody has planted",
    finds: /\/e\/.* is no business of a write/,
  },
  {
    breaks: "the lock makes a journal",
    edits: [{
      file: "_lock.ts",
      find: '  "PRAGMA journal_mode=MEMORY",\n',
      replace: "",
    }],
    exploration: "locks: two processes, one of which is killed",
    finds: /lock-journal/,
  },
  {
    breaks: "the transaction of a lock writes nothing",
    edits: [{
      file: "_lock.ts",
      find: '  "PRAGMA user_version=1",\n',
      replace: "",
    }],
    exploration:
      "locks: a lock file of root's, which two others may read and link",
    finds: HELD_TWICE,
  },
  {
    breaks: "a lock is not compared once it is there",
    edits: [STAYING, {
      file: "_lock.ts",
      find: "  if (!(yield* isOurs(place, claim))) return false;\n  noteHold",
      replace: "  noteHold",
    }],
    exploration: "locks: two processes, one of them twice",
    finds: HELD_TWICE,
  },
  {
    breaks: "who has only waited removes the lock file",
    edits: [STAYING, {
      file: "_lock.ts",
      find:
        "  if (!(yield* isAlone(port, place, claim, 1))) return;\n  yield* begin(database);\n  yield* unlinkIfLone(port, place, claim);\n",
      replace: "  yield* unlinkIfPresent(place.lockFile);\n",
    }],
    exploration: "locks: two processes, one of them twice",
    finds: HELD_TWICE,
  },
  {
    breaks: "who finds his lock file removed, on Bun, does not begin again",
    edits: [{
      file: "_lock.ts",
      find: "if (!mayOpen || tried === MOST_OPENS) throw error;",
      replace: "if (!mayOpen || tried > 0) throw error;",
    }],
    exploration: "locks: what a kill has left, on Bun",
    finds: /process\d fails: SystemCallError: openDatabase failed/,
  },
  {
    breaks: "a stranger's lock that is freed is taken for one that stays",
    edits: [{
      file: "_claim.ts",
      find: "  if (status === undefined) return undefined;\n  throw ofAnother(",
      replace:
        "  if (status === undefined) throw new Error(path);\n  throw ofAnother(",
    }],
    exploration: "locks: two users",
    finds: /process\d fails: Error/,
  },
  {
    breaks: "a file system without hard links is taken for a stranger's file",
    edits: [{
      file: "_claim.ts",
      find:
        'const isTheirs = from === place.lockFile && failedWith(error, "EPERM");',
      replace: 'const isTheirs = failedWith(error, "EPERM");',
    }],
    exploration: "locks: no hard links",
    finds: /process\d fails: /,
  },
  {
    breaks: "an update does not look whether it still has its lock",
    edits: [{
      file: "_core.ts",
      find: "    yield* checkHeld(held);\n  }\n  const older",
      replace: "  }\n  const older",
    }],
    exploration: "updates: an update, and somebody who removes the lock",
    finds: /writes, and does not have its lock/,
  },
  {
    breaks: "the next holder does not look for one who has lost the lock",
    edits: [{
      file: "_lock.ts",
      find: "  yield* succeed(port, place, claim, wait);\n",
      replace: "  void succeed;\n",
    }],
    exploration: WATCHED,
    finds: LOST,
  },
  {
    breaks:
      "the next holder leaves what is staged by one who has lost the lock",
    edits: [{
      file: "_lock.ts",
      find: "      yield* unlinkIfPresent(path);\n    }\n  }\n}\n",
      replace: "      void path;\n    }\n  }\n}\n",
    }],
    exploration: WATCHED,
    finds: LOST,
  },
  {
    breaks:
      "the next holder looks for what is staged before it takes the claim",
    edits: [{
      file: "_lock.ts",
      find:
        "    yield* unlinkIfPresent(other.path);\n    succeeded.push(other);\n",
      replace:
        "    for (const path of yield* stagedBy(port, place, other)) {\n      yield* unlinkIfPresent(path);\n    }\n    yield* unlinkIfPresent(other.path);\n",
    }],
    exploration: WATCHED,
    finds: /an update fails: .*rename failed/,
  },
  {
    breaks: "the next holder looks for others before it says that it holds",
    edits: [
      {
        file: "_lock.ts",
        find:
          '  try {\n    yield* inlineCall("rename", claim.path, claim.heldPath);',
        replace:
          '  yield* succeed(port, place, claim, wait);\n  try {\n    yield* inlineCall("rename", claim.path, claim.heldPath);',
      },
      {
        file: "_lock.ts",
        find:
          "  yield* succeed(port, place, claim, wait);\n  if (!(yield* isOurs",
        replace: "  if (!(yield* isOurs",
      },
      {
        file: "_lock.ts",
        find:
          "    // By who thinks the same of us.\n    if (!(yield* isOurs(place, claim))) return;\n",
        replace: "",
      },
    ],
    exploration: WATCHED,
    finds: LOST,
  },
  {
    breaks: "the next holder does not compare before it takes the claim",
    edits: [{
      file: "_lock.ts",
      find:
        "    if (!(yield* isOurs(place, claim))) return;\n    if (yield* endsInTime",
      replace: "    if (yield* endsInTime",
    }, {
      file: "_lock.ts",
      find:
        "    // By who thinks the same of us.\n    if (!(yield* isOurs(place, claim))) return;\n",
      replace:
        "    // By who thinks the same of us.\n    if (!(yield* isHeld(claim))) return;\n",
    }],
    exploration: "locks: two processes, one of them twice",
    finds: /process\d fails: .*its lock .* is lost/,
  },
  {
    breaks: "what is staged under a lock has any name",
    edits: [{
      file: "_core.ts",
      find: "    temporary = yield* stageUnder(write, temporary, held);\n",
      replace: "    void stageUnder;\n",
    }, {
      file: "_core.ts",
      find: "  const { port, request: { held }, target } = write;\n",
      replace:
        "  const { port, target } = write;\n  const held = undefined as HeldLock | undefined;\n",
    }],
    exploration: WATCHED,
    finds: LOST,
  },
  {
    breaks: "a written update is not synced in its directory",
    edits: [{
      file: "_core.ts",
      find:
        "    yield* afterCommit(\n      syncSince(port, directory, target.directory, syncFailure),\n    );\n",
      replace: "",
    }],
    exploration: "updates: two updates, one of which is killed",
    finds: /\/d\/f has resolved, but after a crash it is/,
  },
  {
    breaks: "an update reads before it has the lock",
    edits: [{
      file: "tests/sim/update_scenarios.ts",
      find: "const bytes = yield* readWhole(port, PATH, WHOLE);",
      replace: "const bytes = before;",
    }, {
      file: "tests/sim/update_scenarios.ts",
      find: "        const held = yield* acquiring(",
      replace:
        "        before = yield* readWhole(port, PATH, WHOLE);\n        const held = yield* acquiring(",
    }, {
      file: "tests/sim/update_scenarios.ts",
      find: "      const place = lockPlace(port, PATH);\n",
      replace:
        "      const place = lockPlace(port, PATH);\n      let before: Uint8Array | undefined;\n",
    }],
    exploration: "updates: two updates, one of which is killed",
    finds: /the update of [AB] is lost/,
  },
  {
    breaks: "an update that changes nothing is not synced",
    edits: [{
      file: "_unchanged.ts",
      find: "      () => syncSince(port, handle, directory, undefined),\n",
      replace: "      () => (function* () {})(),\n",
    }],
    exploration:
      "processes: a writer, and an update that finds what it has written",
    finds: /\/d\/f has resolved, but after a crash it is a file with "old"/,
  },
  {
    breaks: "a checksum names the new content alone",
    edits: [{
      file: "_core.ts",
      find: "      const digests = { digest, previous };\n",
      replace:
        "      const digests = { digest, previous: previous.slice(9) };\n",
    }],
    exploration: "checksums: writeTextAtomic, checksum: true",
    finds: /the file holds "\w+\\n", and its sha256 says/,
  },
  {
    breaks: "a checksum is not synced before the content",
    edits: [{
      file: "_core.ts",
      find:
        '    durability: request.durability === "none" ? "none" : "full",\n',
      replace: '    durability: "none",\n',
    }],
    exploration: "checksums: writeTextAtomic, checksum: true",
    finds: /the file holds "new\\n", and its sha256 says|a sidecar is torn/,
  },
  {
    breaks: "the removal of a checksum is not synced before the content",
    edits: [{
      file: "_sidecar.ts",
      find:
        '  const durability = request.durability === "none" ? "none" : "full";\n',
      replace: '  const durability = "none";\n',
    }],
    exploration: "checksums: writeTextAtomic, checksum: false",
    finds: /the file holds "new\\n", and its sha\d+ says/,
  },
  {
    breaks: "a write does not look for a checksum",
    edits: [{
      file: "_write.ts",
      find: "  if (runInline(port, isKept)) return undefined;\n",
      replace: "  runInline(port, isKept);\n",
    }],
    exploration: "checksums: writeTextAtomic, as it is",
    finds: /the file holds "new\\n", and its sha\d+ says/,
  },
  {
    breaks:
      "what was before is taken from the old checksum, and not from the file",
    edits: [{
      file: "_sidecar.ts",
      find: "      ? [current]\n",
      replace: "      ? [old.digest]\n",
    }],
    exploration: "checksums: writeTextAtomic, as it is",
    finds: /the file holds "(?:old|second)\\n", and its sha256 says/,
  },
  {
    breaks: "what is moved is not synced",
    edits: [{ file: "_sync_failures.ts", find: MOVE_FSYNC, replace: "" }],
    exploration: MOVES,
    finds: /after a crash there is "" at \/[de]\/.*g/,
  },
  {
    breaks: "the directory of the new name is not synced",
    edits: [{ file: "_move.ts", find: SYNC_TO, replace: "" }],
    exploration: MOVES,
    finds: /has resolved, but after a crash there is|neither at \/d\/f nor at/,
  },
  {
    breaks: "the old name is removed before the new one is on the disk",
    edits: [
      {
        file: "_move.ts",
        find:
          "  if (isLinked) yield* removeOldName(from.path, to.path, status);\n  // Else",
        replace: "  // Else",
      },
      {
        file: "_move.ts",
        find: "  if (directories.to !== undefined) {\n",
        replace:
          "  if (isLinked) yield* removeOldName(from.path, to.path, status);\n  if (directories.to !== undefined) {\n",
      },
    ],
    exploration: MOVES,
    finds: /neither at \/d\/f nor at/,
  },
  {
    breaks: "the directory of the old name is not synced",
    edits: [{
      file: "_move.ts",
      find:
        "    yield* syncSince(port, handle, from.directory, syncFailures.from);\n",
      replace: "",
    }],
    exploration: MOVES,
    finds: /has resolved, but after a crash there is "moved" and "moved"/,
  },
  {
    breaks: "an ordered move does not sync the directories that it makes",
    edits: [{
      file: "_move.ts",
      find: 'return request.durability === "ordered" && !request.overwrite',
      replace: 'return request.durability === "none" && !request.overwrite',
    }],
    exploration: MOVES,
    finds: /neither at \/d\/f nor at/,
  },
  {
    breaks: "a move that must not overwrite renames",
    edits: [{
      file: "_move.ts",
      find: 'inlineCall("link", from, to)',
      replace: 'inlineCall("rename", from, to)',
    }],
    exploration: "processes: two files moved to one name",
    finds: /neither at \/d\/[fh] nor at/,
  },
  {
    breaks: "a move that has failed after its link says that nothing was done",
    edits: [{
      file: "_move.ts",
      find: "    if (progress.isCommitted && error",
      replace: "    if (progress === undefined && error",
    }],
    exploration: MOVES,
    finds: /committed is false/,
  },
  {
    breaks: "an append is not synced",
    edits: [{ file: "_jsonl_append.ts", find: APPEND_FSYNC, replace: "" }],
    exploration: APPENDS,
    finds: /after a crash \/d\/f has lost a record/,
  },
  {
    breaks: "a failed sync of an append is tried again",
    edits: [{
      file: "_jsonl_append.ts",
      find: APPEND_FSYNC,
      replace:
        `try { ${APPEND_FSYNC} } catch { yield* blockingCall("fsync", file); }`,
    }],
    exploration: APPENDS,
    finds: /after a crash \/d\/f has lost a record/,
  },
  {
    breaks: "an append that has failed is not taken back",
    edits: [{ file: "_jsonl_append.ts", find: TRUNCATE, replace: "" }],
    exploration: APPENDS,
    finds: /committed is false/,
  },
  {
    breaks: "an append follows one that could not be taken back",
    edits: [{
      file: "_jsonl_append.ts",
      find: 'if (knownOf(port, end)?.knowledge !== "broken") return;',
      replace: "if (port !== undefined) return;",
    }],
    exploration: APPENDS,
    finds: /a receipt: |after a crash \/d\/f has/,
  },
  {
    breaks: "a missing file is made in place",
    edits: [{
      file: "_jsonl_append.ts",
      find: "      if (target.absent) {\n",
      replace:
        '      if (target.absent) {\n        yield* call("close", yield* call("create", target.path, 0o666));\n        continue;\n',
    }],
    exploration: APPENDS,
    finds: /a receipt: |committed is false/,
  },
  {
    breaks: "the directory of a file that somebody else has made is not synced",
    edits: [{
      file: "_jsonl_append.ts",
      find:
        "        yield* syncSince(port, directory, target.directory, syncFailure);\n",
      replace: "",
    }],
    exploration: APPENDS,
    finds: /after a crash \/d\/f has lost a record/,
  },
  {
    breaks: "a repair does not sync what it has cut",
    edits: [{
      file: "_jsonl_append.ts",
      find: '  yield* blockingCall("fsync", end.file);\n',
      replace: "",
    }],
    exploration: "names: repairJsonlSync",
    finds: /has more than was promised/,
  },
  {
    breaks: "a file is moved before its checksum",
    edits: [{
      file: "_move_checksum.ts",
      find: "    previous: [...previous].slice(0, MOST_PREVIOUS),\n",
      replace: "    previous: [],\n",
    }],
    exploration: "checksums: moveAtomic, with a checksum",
    finds: /the file holds "\w+\\n", and its sha\d+ says/,
  },
  {
    breaks: "of two that move one file both keep a name",
    edits: [{
      file: "_move.ts",
      find: "    const isTakenBack = yield* takeBack(to, status);\n",
      replace: "    const isTakenBack = false;\n    void takeBack;\n",
    }],
    exploration: "processes: a file moved by two to two names",
    finds: /it was moved to \/d\/[gh], and is \/d\/g,\/d\/h/,
  },
  {
    breaks: "two names of one file are moved onto each other",
    edits: [{
      file: "_move.ts",
      find: "  if (isSame(source, existing)) throw sameFile(path);\n",
      replace: "  if (isSame(source, existing)) return;\n",
    }, {
      file: "_move.ts",
      find: "      if (!(yield* isAt(to, status))) throw exists();\n",
      replace:
        "      if (yield* isAt(to, status)) return;\n      if (!(yield* isAt(to, status))) throw exists();\n",
    }, {
      file: "_move.ts",
      find: "    if (existing !== undefined && isSame(status, existing)) {\n",
      replace: "    if (existing !== undefined && existing.size < 0) {\n",
    }, {
      file: "_move.ts",
      find: "    if (now.nlink < 2 || ",
      replace: "    if (now.nlink < 0 && ",
    }],
    exploration: "processes: a file moved there, and back",
    finds: /it has no name any more/,
  },
];

/** Runs one exploration on the copy of the code there, in its short form. */
function explore(copy: string, exploration: string) {
  const program = join(copy, "tests/sim/run.ts");
  return run([process.execPath, program, "--short", exploration]);
}

for (const { breaks, edits, exploration, finds } of CONTROLS) {
  test(`where ${breaks}, "${exploration}" finds it, with a trace`, () =>
    inScratch(async (copy) => {
      copyTo(copy);
      breakCopy(copy, edits);
      const { code, stdout, stderr } = await explore(copy, exploration);
      assert.equal(code, 1, stderr);
      const [, ...found] = stdout.split("\nVIOLATION in ");
      assert.ok(found.some((text) => finds.test(text)), stdout);
      for (const text of found) assert.match(text, /^ +\w+: \w+\(.*\) = /m);
    }));
}
