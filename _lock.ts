/**
 * The lock of a file, as processes and threads see it. Its holder keeps an
 * exclusive transaction of SQLite open on an empty file in a directory beside the
 * locked file. The kernel frees it when the holder ends, however it ends: it is
 * never stale, and nobody needs to find out who is alive.
 *
 * ```text
 * directory   D/.f.lock/                       made by whoever comes first
 * lock file   D/.f.lock/lock                   empty, the one name that all open
 * claim       D/.f.lock/PID.TIME.UUID          a second name of it, for each who waits
 * held claim  D/.f.lock/PID.TIME.UUID.held     the claim's name while it holds the lock
 * staged      D/.f.lock.PID.TIME.UUID.N.tmp    what a holder writes, until it is renamed
 *
 * claim       mkdir .f.lock; link the lock file to the claim, or make both
 * look        is it an empty file?             else it is none of ours, and never opened
 * open        the lock file, with SQLite
 * begin       an exclusive transaction that writes
 * hold        rename the claim to the held claim
 * succeed     remove other held claims, and what their owners have staged
 * compare     is the lock file still that of the held claim?    else begin again
 * ...         held
 * check       is the held claim still there?   just before each commit
 * release     unlink the lock file, but not where others wait
 *             unlink the held claim, end the transaction, rmdir .f.lock
 * ```
 *
 * - Without the claim, comparing means nothing: a holder that is suspended
 *   between opening and locking finds another file of the same inode number, and
 *   two hold. The claim pins the inode, so that its number is not used again.
 * - Opened by its claim, the lock file excludes nobody where each name of a file
 *   is an inode of its own to the kernel, as below FUSE daemons that go by paths.
 * - Without the write, a process that may only read the file begins a transaction
 *   that excludes nobody.
 * - Without `journal_mode=MEMORY`, that write makes a journal that a kill leaves.
 * - Opened before it is looked at, a planted file has SQLite act on a planted
 *   journal.
 * - The kernel may free a lock whose holder goes on: it does so when the process
 *   closes any other descriptor of the lock file, as Deno's watchers do. The next
 *   holder finds the held claim. It gives that holder a moment to finish, and then
 *   removes first the claim, which is checked before each commit, and after it
 *   what is staged under it: a rename that was checked already fails.
 * - Who began its transaction on a lock file that was removed meanwhile has the
 *   lock of nothing. It compares before it takes anybody's place.
 * - Each says that it holds before it looks who else does: of two that do so at
 *   once, at least one sees the other.
 * - The directory can be removed only while there is no claim in it: so all who
 *   have one see each other, whatever becomes of the lock file.
 *
 * @module
 */

import {
  areComparable,
  type Claim,
  type Claimant,
  claimants,
  GONE,
  type LockPlace,
  makeClaim,
  ofAnother,
  removeLockDirectory,
  stagedBy,
  statusAt,
  unlinkIfPresent,
} from "./_claim.ts";
import { directoryOf } from "./_path.ts";
import {
  attempt,
  blockingCall,
  call,
  failedWith,
  inlineCall,
  type Protocol,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import { retrying } from "./_retry.ts";
import type { Database, Host, Port } from "./_runtime/port.ts";
import { isSame } from "./_target.ts";

/** A lock that was not to be had in time. */
export class LockTimeout extends Refusal {
  readonly candidates: readonly Claimant[];

  constructor(reason: string, candidates: readonly Claimant[]) {
    super("LOCK_TIMEOUT", reason);
    this.candidates = candidates;
  }
}

/** How long to wait for a lock. */
export interface Patience {
  /** In the milliseconds of {@linkcode Host.now}. */
  readonly deadline: number;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
  /** Called before each pause. */
  readonly onWait?: (() => void) | undefined;
}

/** A lock that is held, until {@linkcode release}. */
export interface HeldLock {
  readonly place: LockPlace;
  readonly claim: Claim;
  readonly database: Database;
  /** How many files were staged under it. */
  staged: number;
}

/** Waits for the lock; `undefined` if it was not to be had in time. */
export function* acquire(
  port: Port,
  place: LockPlace,
  patience: Patience,
): Protocol<HeldLock | undefined> {
  const wait = new Wait(port, patience);
  const comparison: Comparison = { isMade: false };
  for (let isFirst = true;; isFirst = false) {
    patience.signal?.throwIfAborted();
    if (!isFirst && wait.leftMs <= 0) return undefined;
    try {
      yield* giveWay(port, place, wait);
      const outcome = yield* attemptOnce(
        port,
        place,
        patience,
        wait,
        comparison,
      );
      if (outcome === "late") return undefined;
      if (outcome !== "again") return outcome;
    } catch (error) {
      // Another user has just made it, and lets us in with his next call.
      const mayBeNew = isForeign(error) && wait.isWithin(patience.retryMs);
      if (!mayBeNew) throw error;
    }
    yield* wait.pause();
  }
}

/** Whether the directory of the lock belongs to another user, who does not let us in. */
function isForeign(error: unknown): boolean {
  return error instanceof SystemCallError
    ? error.code === "EACCES" && error.syscall !== "mkdir"
    : error instanceof Refusal && error.code === "EACCES";
}

/** Whether names of one file were seen to be one. */
interface Comparison {
  isMade: boolean;
}

/** One claim, and what comes of it. */
function* attemptOnce(
  port: Port,
  place: LockPlace,
  patience: Patience,
  wait: Wait,
  comparison: Comparison,
): Protocol<HeldLock | "again" | "late"> {
  const claim = yield* retrying(port, patience, () => makeClaim(port, place));
  if (claim === undefined) return "again";
  let database: Database | undefined;
  let found: "ours" | "again" | "late" = "again";
  try {
    database = yield* openLockFile(port, place, claim, patience);
    if (database !== undefined) {
      found = yield* waitForTransaction(place, claim, database, wait);
      if (found === "ours" && (yield* hold(port, place, claim, wait))) {
        return { place, claim, database, staged: 0 };
      }
    }
    if (found !== "late" && !comparison.isMade) {
      comparison.isMade = yield* areComparable(port, place, claim);
    }
  } catch (error) {
    yield* attempt(abandon(port, place, claim, database));
    throw error;
  }
  yield* abandon(port, place, claim, database);
  return found === "late" ? "late" : "again";
}

/** Frees the lock. */
export function* release(
  port: Port,
  { place, claim, database }: HeldLock,
): Protocol<void> {
  let isWanted = false;
  try {
    isWanted = yield* leave(port, place, claim);
  } finally {
    yield* inlineCall("closeDatabase", database);
  }
  // Last: a FUSE daemon keeps a file that is open under another name in it.
  if (!isWanted) yield* removeLockDirectory(place);
}

/** Takes our claim away, and the lock file where nobody waits; whether somebody does. */
function* leave(
  port: Port,
  place: LockPlace,
  claim: Claim,
): Protocol<boolean> {
  // Another one's is not ours to remove.
  const isLocked = yield* isOurs(place, claim);
  const isWanted = isLocked && !(yield* isAlone(port, place, claim, OWN_NAMES));
  noteRelease(port, place, isWanted);
  // Those who wait have it open. Without it they would all begin again.
  if (isLocked && !isWanted) yield* unlinkIfPresent(place.lockFile);
  yield* unlinkIfPresent(claim.heldPath);
  return isWanted && !(yield* unlinkIfLone(port, place, claim));
}

/** Refuses to go on where the lock is lost. */
export function* checkHeld({ place, claim }: HeldLock): Protocol<void> {
  if (yield* isHeld(claim)) return;
  throw new Refusal(
    "LOCK_LOST",
    `its lock "${place.path}" is lost, so that somebody else may hold it by now: it was removed by hand, or the system freed it because this process opened and closed the file in it (on Deno a watcher of the directory does); read the file again before writing it`,
  );
}

/** Whoever takes the place of the holder removes this name, which nothing else ever has. */
function* isHeld({ heldPath }: Claim): Protocol<boolean> {
  return (yield* statusAt(heldPath)) !== undefined;
}

/** Whether our claim is there, and the lock file is the one that it names. */
function* isOurs(place: LockPlace, claim: Claim): Protocol<boolean> {
  return (yield* isHeld(claim)) && (yield* isClaimed(place, claim));
}

/** The lock file's own, and the claim. */
const OWN_NAMES = 2;

/** Whether the lock file is the one that we have a claim to. */
function* isClaimed(
  { lockFile }: LockPlace,
  { status }: Claim,
): Protocol<boolean> {
  return isSame(status, yield* statusAt(lockFile));
}

/** Whether the lock file is still ours, and has so many names and no more: nobody else has a claim. */
function* isAlone(
  port: Port,
  place: LockPlace,
  { status, heldPath }: Claim,
  names: number,
): Protocol<boolean> {
  const found = yield* statusAt(place.lockFile);
  if (!isSame(status, found)) return false;
  if (found?.nlink === names) return true;
  // A FUSE daemon's kernel keeps a number for a while that was right before.
  const claims = yield* claimants(port, place);
  return claims.every(({ path }) => path === heldPath);
}

/** `undefined` where the lock file is another one by now. */
function* openLockFile(
  port: Port,
  place: LockPlace,
  claim: Claim,
  patience: Patience,
): Protocol<Database | undefined> {
  for (let tried = 1;; tried++) {
    // Just before: SQLite makes what is missing.
    if (!(yield* isClaimed(place, claim))) return undefined;
    try {
      return yield* retrying(
        port,
        patience,
        () => openDatabase(port, place.lockFile),
      );
    } catch (error) {
      // Bun does not make what is missing; and a descriptor may be free by now.
      const mayOpen = failedWith(error, "SQLITE_CANTOPEN");
      if (!mayOpen || tried === MOST_OPENS) throw error;
    }
  }
}

const MOST_OPENS = 3;

function* openDatabase(host: Host, path: string): Protocol<Database> {
  try {
    return yield* inlineCall("openDatabase", path);
  } catch (error) {
    // It does not say that no descriptor was free. Another file does; closing
    // one of the lock file would free it for who holds it in this process.
    if (failedWith(error, "SQLITE_CANTOPEN")) {
      yield* throwIfNoDescriptor(directoryOf(host, path));
    }
    throw error;
  }
}

function* throwIfNoDescriptor(directory: string): Protocol<void> {
  try {
    yield* call("close", yield* call("open", directory));
  } catch (error) {
    if (failedWith(error, "EMFILE", "ENFILE")) throw error;
    if (!(error instanceof SystemCallError)) throw error;
  }
}

/** Between two attempts, at the most. Longer, and a lock that is free stays so for longer. */
const LONGEST_PAUSE_MS = 8;

/** The waiting for one lock, through all its attempts. */
class Wait {
  readonly #port: Port;
  readonly #patience: Patience;
  readonly #begun: number;
  #pauseMs = 1;

  constructor(port: Port, patience: Patience) {
    this.#port = port;
    this.#patience = patience;
    this.#begun = port.now();
  }

  /** Whether no more time has passed. */
  isWithin(ms: number): boolean {
    return this.leftMs > 0 && this.#port.now() - this.#begun < ms;
  }

  get leftMs(): number {
    return this.#patience.deadline - this.#port.now();
  }

  /** Until the next attempt: short at first, for most locks are. */
  *pause(): Protocol<void> {
    // Jittered, or those that wait together ask together.
    yield* this.sleep(this.#pauseMs * (0.5 + Math.random()));
    this.#pauseMs = Math.min(2 * this.#pauseMs, LONGEST_PAUSE_MS);
  }

  *sleep(ms: number): Protocol<void> {
    yield* this.doze(Math.max(0, Math.min(this.leftMs, ms)));
  }

  /** Whatever the deadline. */
  *doze(ms: number): Protocol<void> {
    const { signal, onWait } = this.#patience;
    signal?.throwIfAborted();
    onWait?.();
    yield* blockingCall("sleep", ms);
    signal?.throwIfAborted();
  }
}

const TRANSACTION = [
  "PRAGMA journal_mode=MEMORY",
  "BEGIN EXCLUSIVE",
  "PRAGMA user_version=1",
];

/** `"ours"` once it is begun, `"again"` if the lock file is another one by then, `"late"` at the deadline. */
function* waitForTransaction(
  place: LockPlace,
  claim: Claim,
  database: Database,
  wait: Wait,
): Protocol<"ours" | "again" | "late"> {
  for (;;) {
    try {
      yield* begin(database);
      return "ours";
    } catch (error) {
      if (failedWith(error, "SQLITE_READONLY")) {
        throw ofAnother(
          place.lockFile,
          claim.status,
          "who does not let this process write to it: have it removed, or give the directory's users a common group",
        );
      }
      const isLost = failedWith(error, "SQLITE_IOERR", "SQLITE_CANTOPEN") &&
        !(yield* isClaimed(place, claim));
      if (isLost) return "again";
      if (!failedWith(error, "SQLITE_BUSY")) throw error;
    }
    if (!(yield* isClaimed(place, claim))) return "again";
    if (wait.leftMs <= 0) return "late";
    yield* wait.pause();
  }
}

function* begin(database: Database): Protocol<void> {
  for (const sql of TRANSACTION) yield* inlineCall("execute", database, sql);
}

/** Says that we hold the lock, and sees to it that nobody else does; whether the lock file still is the one of the claim. */
function* hold(
  port: Port,
  place: LockPlace,
  claim: Claim,
  wait: Wait,
): Protocol<boolean> {
  try {
    yield* inlineCall("rename", claim.path, claim.heldPath);
  } catch (error) {
    // Somebody took it for that of one who was killed.
    if (failedWith(error, ...GONE)) return false;
    throw error;
  }
  yield* succeed(port, place, claim, wait);
  if (!(yield* isOurs(place, claim))) return false;
  noteHold(port, place);
  return true;
}

/** For so long a holder may go on whose lock was freed without its knowledge. */
const GRACE_MS = 100;

/** Sees to it that nobody else takes this lock for his own, and removes what was left long ago. */
function* succeed(
  port: Port,
  place: LockPlace,
  claim: Claim,
  wait: Wait,
): Protocol<void> {
  const succeeded: Claimant[] = [];
  for (const other of yield* claimants(port, place)) {
    if (other.path === claim.heldPath) continue;
    if (!other.isHeld) {
      // What may not be removed does no harm.
      if (isLeft(port, other)) yield* attempt(unlinkIfPresent(other.path));
      continue;
    }
    // The other is right where we have the lock of a file that is the lock no more.
    if (!(yield* isOurs(place, claim))) return;
    if (yield* endsInTime(port, other, wait)) continue;
    // By who thinks the same of us.
    if (!(yield* isOurs(place, claim))) return;
    yield* unlinkIfPresent(other.path);
    succeeded.push(other);
  }
  // Later than the claims: what is staged after this is checked against them.
  for (const other of succeeded) {
    for (const path of yield* stagedBy(port, place, other)) {
      yield* unlinkIfPresent(path);
    }
  }
}

/** Whether another holder gives up its claim, which it need not do if it was killed. */
function* endsInTime(
  port: Port,
  { pid, path }: Claimant,
  wait: Wait,
): Protocol<boolean> {
  if (port.isAlive(pid) === false) return false;
  const end = port.now() + GRACE_MS;
  while (port.now() < end) {
    yield* wait.doze(1 + Math.random());
    if ((yield* statusAt(path)) === undefined) return true;
  }
  return false;
}

/** After so long who waits begins again where its claim is gone. */
const LEFT_MS = 10_000;

/** Whether a claim may be removed: it was left by a kill, or its owner makes another one. */
function isLeft(port: Port, { since }: Claimant): boolean {
  return Math.abs(port.date() - since) > LEFT_MS;
}

/** Gives up what was not held, or no more. */
function* abandon(
  port: Port,
  place: LockPlace,
  claim: Claim,
  database: Database | undefined,
): Protocol<void> {
  yield* unlinkIfPresent(claim.path);
  yield* unlinkIfPresent(claim.heldPath);
  if (database !== undefined) {
    try {
      // Else somebody has it, and removes it.
      yield* attempt(removeLone(port, place, claim, database));
    } finally {
      yield* inlineCall("closeDatabase", database);
    }
  }
  yield* removeLockDirectory(place);
}

/** Whoever freed the lock left its file to those who waited, of whom we were the last. */
function* removeLone(
  port: Port,
  place: LockPlace,
  claim: Claim,
  database: Database,
): Protocol<void> {
  if (!(yield* isAlone(port, place, claim, 1))) return;
  yield* begin(database);
  yield* unlinkIfLone(port, place, claim);
}

function* unlinkIfLone(
  port: Port,
  place: LockPlace,
  claim: Claim,
): Protocol<boolean> {
  if (!(yield* isAlone(port, place, claim, 1))) return false;
  yield* unlinkIfPresent(place.lockFile);
  return true;
}

/** What this realm has had of a lock that others want. */
interface Run {
  /** When it got it first. */
  readonly since: number;
  /** When it gave it back, to ask no more until others have had it. */
  readonly endedAt: number | undefined;
}

const runsByPort = new WeakMap<Port, Map<string, Run>>();

/** Bounds the memory: of so many, the oldest are forgotten. */
const MOST_RUNS = 1000;

function runsOf(port: Port): Map<string, Run> {
  let runs = runsByPort.get(port);
  if (runs === undefined) runsByPort.set(port, runs = new Map());
  return runs;
}

/** For so long one that asks again and again is faster than those that wait. */
const LONGEST_RUN_MS = 20;

function noteHold(port: Port, { path }: LockPlace): void {
  const runs = runsOf(port);
  if (runs.has(path)) return;
  runs.set(path, { since: port.now(), endedAt: undefined });
  const [oldest] = runs.keys();
  if (runs.size > MOST_RUNS && oldest !== undefined) runs.delete(oldest);
}

function noteRelease(
  port: Port,
  { path }: LockPlace,
  isWanted: boolean,
): void {
  const runs = runsOf(port);
  const run = runs.get(path);
  if (run === undefined) return;
  if (!isWanted) {
    runs.delete(path);
  } else if (port.now() - run.since >= LONGEST_RUN_MS) {
    runs.set(path, { ...run, endedAt: port.now() });
  }
}

/** In which each of those that wait asks at least once, unless it is delayed. */
const YIELD_MS = 1.5 * LONGEST_PAUSE_MS;

/** After so long who waits does not want it, or cannot be told to run. */
const LONGEST_YIELD_MS = 100;

/** Lets others go first, or a busy process that asks at once would starve those that wait. */
function* giveWay(port: Port, place: LockPlace, wait: Wait): Protocol<void> {
  const runs = runsOf(port);
  const { endedAt } = runs.get(place.path) ?? {};
  if (endedAt === undefined) return;
  runs.delete(place.path);
  const asked = port.date();
  const end = endedAt + LONGEST_YIELD_MS;
  let left = endedAt + YIELD_MS - port.now();
  while (left > 0 && wait.leftMs > 0) {
    yield* wait.sleep(left);
    const others = yield* claimants(port, place);
    const isWaiting = ({ since, isHeld, pid }: Claimant) =>
      !isHeld && since <= asked && port.isAlive(pid) !== false;
    if (others.some(({ isHeld }) => isHeld) || !others.some(isWaiting)) return;
    left = Math.min(YIELD_MS, end - port.now());
  }
}
