/**
 * The lock of a file, as processes and threads see it. Its holder keeps an
 * exclusive transaction of SQLite open on an empty file beside the locked one.
 * The kernel frees it when the holder ends, however it ends: it is never stale,
 * and nobody needs to find out who is alive.
 *
 * ```text
 * lock file   D/.f.lock                   empty, made by whoever comes first
 * own link    D/.f.lock.PID.TIME.UUID     a second name of it, for each who waits or holds
 *
 * link        .f.lock to the own link     or make the own link, and .f.lock from it
 * look        is it an empty file?        else it is none of ours, and never opened
 * begin       an exclusive transaction that writes
 * compare     is .f.lock still the file of the own link?      else begin again
 * ...         held
 * release     unlink .f.lock, unlink the own link, end the transaction
 * ```
 *
 * - Without the own link, comparing means nothing: a holder that is suspended
 *   between opening and locking finds another file of the same inode number, and
 *   two hold. The own link pins the inode, so that its number is not used again.
 * - Without the write, a process that may only read the file begins a transaction
 *   that excludes nobody.
 * - Without `journal_mode=MEMORY`, that write makes a journal that a kill leaves.
 * - Opened before it is looked at, a planted file has SQLite act on a planted
 *   journal; a planted link makes a file where it leads.
 * - Only the holder removes `.f.lock`. By another it would be removed from under
 *   a third that has just made it.
 * - In a sticky directory, a link to another user's lock file could never be
 *   removed by who made it: such a file is not linked.
 *
 * @module
 */

import { directoryOf, joinPath, nameOf } from "./_path.ts";
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
import type { Database, FileStatus, Host, Port } from "./_runtime/port.ts";
import { directoryStatus } from "./_sticky.ts";
import { lstatIfPresent, ownUserIn } from "./_target.ts";
import { cutName } from "./_temporary.ts";

/** A lock that was not to be had in time. */
export class LockTimeout extends Refusal {
  readonly candidates: readonly Candidate[];

  constructor(reason: string, candidates: readonly Candidate[]) {
    super("LOCK_TIMEOUT", reason);
    this.candidates = candidates;
  }
}

/** A file that can be locked, and where its lock is. */
export interface LockPlace {
  /** The file, by its real path. */
  readonly file: string;
  /** The lock file beside it. */
  readonly path: string;
}

/** How long to wait for a lock. */
export interface Patience {
  /** In the milliseconds of {@linkcode Host.now}. */
  readonly deadline: number;
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Our link to the lock file. */
interface OwnLink {
  readonly path: string;
  readonly status: FileStatus;
  /** Whether the lock file was there before. */
  readonly wasFound: boolean;
}

/** A lock that is held, until {@linkcode release}. */
export interface HeldLock {
  readonly place: LockPlace;
  readonly own: OwnLink;
  readonly database: Database;
}

/** As long as a pid, a time, a uuid and a fingerprint can be, with what joins them. */
const SUFFIX_BYTES = 100;

/** Sixteen digits that depend on every character of a name. */
function fingerprint(name: string): string {
  let one = 0x811c9dc5;
  let other = 0x9e3779b9;
  for (const unit of new TextEncoder().encode(name)) {
    one = Math.imul(one ^ unit, 0x01000193);
    other = Math.imul(other ^ unit, 0x85ebca6b) ^ (other >>> 13);
  }
  return [one, other].map((part) => (part >>> 0).toString(16).padStart(8, "0"))
    .join("");
}

/** Where the lock of a file is. */
export function lockPlace(host: Host, file: string): LockPlace {
  const whole = nameOf(host, file);
  const cut = cutName(whole, SUFFIX_BYTES);
  // Files whose names begin alike must not share a lock.
  const stem = cut === whole ? whole : `${cut}~${fingerprint(whole)}`;
  const name = `.${stem}.lock`;
  return { file, path: joinPath(host, directoryOf(host, file), name) };
}

/** Waits for the lock; `undefined` if it was not to be had in time. */
export function* acquire(
  port: Port,
  place: LockPlace,
  patience: Patience,
): Protocol<HeldLock | undefined> {
  const sticky = yield* stickyDirectory(port, place);
  for (let isFirst = true;; isFirst = false) {
    patience.signal?.throwIfAborted();
    if (!isFirst && port.now() > patience.deadline) return undefined;
    const own = yield* retrying(
      port,
      patience,
      () => linkLockFile(port, place, sticky, patience),
    );
    let database: Database | undefined;
    try {
      database = yield* openOwn(port, place, own, patience);
      const found = database === undefined
        ? "again"
        : yield* waitForTransaction(port, place, own, database, patience);
      if (
        database !== undefined && found === "ours" &&
        (yield* isCurrent(place, own))
      ) {
        if (own.wasFound) yield* attempt(removeOthers(port, place, own));
        return { place, own, database };
      }
      yield* leave(own, database);
      if (found === "late") return undefined;
    } catch (error) {
      yield* attempt(leave(own, database));
      throw error;
    }
  }
}

/** Frees the lock. */
export function* release({ place, own, database }: HeldLock): Protocol<void> {
  try {
    // Somebody may have removed it by hand: another one's is not ours to remove.
    if (yield* isCurrent(place, own)) yield* unlinkIfPresent(place.path);
    yield* unlinkIfPresent(own.path);
  } finally {
    yield* inlineCall("closeDatabase", database);
  }
}

/** Refuses to go on where somebody has removed the lock by hand. */
export function* checkHeld({ place, own }: HeldLock): Protocol<void> {
  if (yield* isCurrent(place, own)) return;
  throw new Refusal(
    "LOCK_LOST",
    `its lock "${place.path}" was removed, so that somebody else may hold it by now: read the file again before writing it`,
  );
}

/** A name of our own for the lock file, which is made if there is none. */
function* linkLockFile(
  port: Port,
  place: LockPlace,
  sticky: FileStatus | undefined,
  patience: Patience,
): Protocol<OwnLink> {
  for (;;) {
    const { pid } = port;
    const path = `${place.path}.${pid}.${port.date()}.${port.randomUUID()}`;
    const mayLink = sticky === undefined ||
      (yield* isThereToRemove(port, place, sticky, patience));
    try {
      const own = yield* linkAs(place, path, mayLink);
      if (own !== undefined) return own;
    } catch (error) {
      yield* attempt(unlinkIfPresent(path));
      throw error;
    }
    yield* unlinkIfPresent(path);
  }
}

const STICKY = 0o1000;

/** The directory of the lock file, if it is one in which only the owner of a file may remove it. */
function* stickyDirectory(
  host: Host,
  { path }: LockPlace,
): Protocol<FileStatus | undefined> {
  if (host.windows) return undefined;
  const status = yield* directoryStatus(directoryOf(host, path));
  return (status.mode & STICKY) === 0 ? undefined : status;
}

/** Whether there is a lock file, whose links we may remove again from this sticky directory. */
function* isThereToRemove(
  port: Port,
  { path }: LockPlace,
  sticky: FileStatus,
  patience: Patience,
): Protocol<boolean> {
  const found = yield* lstatIfPresent(path);
  if (found === undefined) return false;
  const self = yield* ownUserIn(port, patience, directoryOf(port, path));
  if ([0, sticky.uid, found.uid].includes(self)) return true;
  throw ofAnother(
    path,
    found,
    "and nobody else may remove it from a sticky directory: have it removed if nobody holds it, or the sticky bit taken away",
  );
}

function ofAnother(path: string, { uid }: FileStatus, what: string): Refusal {
  return new Refusal(
    "EACCES",
    `its lock file "${path}" belongs to another user (uid ${uid}), ${what}`,
  );
}

/** `undefined` where somebody else was faster, or took the name for that of one who was killed. */
function* linkAs(
  place: LockPlace,
  path: string,
  mayLink: boolean,
): Protocol<OwnLink | undefined> {
  const wasFound = mayLink && (yield* linkedTo(place, place.path, path));
  if (!wasFound) {
    const file = yield* inlineCall("create", path, 0o666);
    yield* call("close", file);
    if (!(yield* linkedTo(place, path, place.path))) return undefined;
  }
  const status = yield* lstatIfPresent(path);
  if (status === undefined) return undefined;
  if (status.kind === "file" && status.size === 0) {
    return { path, status, wasFound };
  }
  throw new Refusal(
    "NOT_A_LOCK",
    `"${place.path}" is not a lock file of this library (${
      status.kind === "file" ? `it has ${status.size} bytes` : status.kind
    }): find out what it is, and remove it`,
  );
}

/** Whether the second name was made; not where the first is gone, or somebody else was faster. */
function* linkedTo(
  place: LockPlace,
  from: string,
  to: string,
): Protocol<boolean> {
  try {
    yield* call("link", from, to);
    return true;
  } catch (error) {
    if (failedWith(error, "ENOENT", "EEXIST")) return false;
    if (!failedWith(error, ...NO_HARD_LINKS)) throw error;
    // Linux lets nobody link a file of another's that he may not write to.
    if (from === place.path && failedWith(error, "EPERM")) {
      const status = yield* lstatIfPresent(from);
      // Its holder has just removed it.
      if (status === undefined) return false;
      throw ofAnother(
        from,
        status,
        "and may not be linked: have it removed, or give the directory's users a common group",
      );
    }
    if (from === place.path && failedWith(error, "EMLINK")) {
      throw new Refusal(
        "EMLINK",
        `its lock file "${place.path}" has as many names as a file can have, left by processes that were killed: remove those that begin with "${place.path}." while nobody holds it or waits for it`,
      );
    }
    throw new Refusal(
      "UNSUPPORTED_ENVIRONMENT",
      "a lock needs hard links, which the file system does not make",
    );
  }
}

/** What a link fails with where there is none to be had. */
export const NO_HARD_LINKS: readonly string[] = [
  "EPERM",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
  "EMLINK",
];

/** `undefined` where our link was taken for that of one who was killed. */
function* openOwn(
  host: Host,
  place: LockPlace,
  own: OwnLink,
  patience: Patience,
): Protocol<Database | undefined> {
  try {
    return yield* retrying(
      host,
      patience,
      () => openDatabase(host, own.path),
    );
  } catch (error) {
    // Bun does not make what is missing.
    const isGone = failedWith(error, "SQLITE_CANTOPEN") &&
      !(yield* isCurrent(place, own));
    if (isGone) return undefined;
    throw error;
  }
}

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

const TRANSACTION = [
  "PRAGMA journal_mode=MEMORY",
  "BEGIN EXCLUSIVE",
  "PRAGMA user_version=1",
];

/** While others hold it: short at first, for most locks are. */
const LONGEST_PAUSE_MS = 25;

/** `"ours"` once it is begun, `"again"` if the lock file is another one by then, `"late"` at the deadline. */
function* waitForTransaction(
  port: Port,
  place: LockPlace,
  own: OwnLink,
  database: Database,
  { deadline, signal }: Patience,
): Protocol<"ours" | "again" | "late"> {
  for (let pause = 1;; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      for (const sql of TRANSACTION) {
        yield* inlineCall("execute", database, sql);
      }
      return "ours";
    } catch (error) {
      if (failedWith(error, "SQLITE_READONLY")) {
        throw ofAnother(
          place.path,
          own.status,
          "who does not let this process write to it: have it removed, or give the directory's users a common group",
        );
      }
      const isLost = failedWith(error, "SQLITE_IOERR", "SQLITE_CANTOPEN") &&
        !(yield* isCurrent(place, own));
      if (isLost) return "again";
      if (!failedWith(error, "SQLITE_BUSY")) throw error;
    }
    if (!(yield* isCurrent(place, own))) return "again";
    const left = deadline - port.now();
    if (left <= 0) return "late";
    signal?.throwIfAborted();
    // Jittered, or those that wait together ask together.
    yield* blockingCall(
      "sleep",
      Math.min(left, pause * (0.5 + Math.random())),
    );
    signal?.throwIfAborted();
  }
}

/** Whether the lock file is the one that we have a link to. */
function* isCurrent(place: LockPlace, own: OwnLink): Protocol<boolean> {
  for (const path of [place.path, own.path]) {
    const status = yield* lstatIfPresent(path);
    const { dev, ino } = own.status;
    if (status?.dev !== dev || status.ino !== ino) return false;
  }
  return true;
}

/** Gives up what was not held, or no more. */
function* leave(
  own: OwnLink,
  database: Database | undefined,
): Protocol<void> {
  if (database !== undefined) yield* inlineCall("closeDatabase", database);
  yield* unlinkIfPresent(own.path);
}

/**
 * A holder removes the lock file before it frees the lock, so one that is there
 * and free was left by a kill, and so may others' links be. Somebody who lives
 * and waits finds his own gone, and begins again.
 */
export function* removeOthers(
  host: Host,
  place: LockPlace,
  own: OwnLink,
): Protocol<void> {
  for (const { path } of yield* candidates(host, place)) {
    if (path === own.path) continue;
    const status = yield* lstatIfPresent(path);
    // Whatever else has such a name is none of ours.
    if (status?.kind === "file" && status.size === 0) {
      // In a sticky directory some are of users whose files stay.
      yield* attempt(unlinkIfPresent(path));
    }
  }
}

function* unlinkIfPresent(path: string): Protocol<void> {
  try {
    yield* call("unlink", path);
  } catch (error) {
    if (!failedWith(error, "ENOENT")) throw error;
  }
}

/** Somebody who holds a lock or waits for it; or did, and was killed. */
export interface Candidate {
  readonly pid: number;
  /** When it began to wait, in milliseconds since the epoch. */
  readonly since: number;
  /** Its link to the lock file. */
  readonly path: string;
}

const OWN_LINK =
  /^\.(\d+)\.(\d{1,15})\.[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;

/** The name of the lock file to which this is a second name; `undefined` where it is none. */
export function lockFileOf(name: string): string | undefined {
  const end = name.lastIndexOf(".lock.") + ".lock".length;
  return name.startsWith(".") && OWN_LINK.test(name.slice(end))
    ? name.slice(0, end)
    : undefined;
}

/** Who may hold the lock. */
export function* candidates(
  host: Host,
  place: LockPlace,
): Protocol<Candidate[]> {
  const directory = directoryOf(host, place.path);
  const prefix = nameOf(host, place.path);
  const names = yield* call("readdir", directory);
  return names.flatMap((name) => {
    if (!name.startsWith(prefix)) return [];
    // With more digits than a date has, somebody has made the name up.
    const [, pid, since] = OWN_LINK.exec(name.slice(prefix.length)) ?? [];
    return pid === undefined ? [] : [{
      pid: Number(pid),
      since: Number(since),
      path: joinPath(host, directory, name),
    }];
  });
}
