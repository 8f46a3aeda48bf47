/**
 * The directory beside a file that its lock is made of, and the making of a
 * claim: a second name of the lock file for each who waits for the lock or holds
 * it.
 *
 * @module
 */

import { directoryOf, joinPath, nameOf } from "./_path.ts";
import {
  attempt,
  blockingCall,
  call,
  closing,
  failedWith,
  inlineCall,
  type Protocol,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import type { FileStatus, Host, OpenFile, Port } from "./_runtime/port.ts";
import { directoryStatus } from "./_sticky.ts";
import { isSame, refuseInexact } from "./_target.ts";
import { cutName } from "./_temporary.ts";

/** A file that can be locked, and where its lock is. */
export interface LockPlace {
  /** The file, by its real path. */
  readonly file: string;
  /** The directory of the lock, beside the file. */
  readonly path: string;
  /** The file in it that is locked. */
  readonly lockFile: string;
}

/** Our second name of the lock file. */
export interface Claim {
  readonly name: string;
  /** While we wait. */
  readonly path: string;
  /** While we hold the lock. */
  readonly heldPath: string;
  /** The lock file, as it was when we claimed it. */
  readonly status: FileStatus;
}

/** As long as a claim, its number and a fingerprint can be, with what joins them. */
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
  const path = joinPath(host, directoryOf(host, file), `.${stem}.lock`);
  return lockAt(host, file, path);
}

/** The lock of a file that is known by its directory. */
export function lockAt(host: Host, file: string, path: string): LockPlace {
  return { file, path, lockFile: joinPath(host, path, "lock") };
}

/** Whether the directory of a lock may have this name. */
export function isLockName(name: string): boolean {
  return /^\..+\.lock$/s.test(name);
}

const HELD = ".held";

const CLAIM =
  /^((\d+)\.(\d{1,15})\.[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})(\.held)?$/;

/** Somebody who holds a lock or waits for it; or did, and was killed. */
export interface Claimant {
  readonly name: string;
  readonly pid: number;
  /** When it began to wait, in milliseconds since the epoch. */
  readonly since: number;
  /** Its second name of the lock file. */
  readonly path: string;
  /** Whether that says that it holds the lock. */
  readonly isHeld: boolean;
}

/** Who may hold the lock. */
export function* claimants(
  host: Host,
  place: LockPlace,
): Protocol<Claimant[]> {
  try {
    return claimantsAmong(host, place, yield* call("readdir", place.path));
  } catch (error) {
    if (failedWith(error, ...GONE)) return [];
    throw error;
  }
}

/** The same of what is in its directory. */
export function claimantsAmong(
  host: Host,
  { path }: LockPlace,
  names: readonly string[],
): Claimant[] {
  return names.flatMap((entry) => {
    // With more digits than a date has, somebody has made the name up.
    const [, name, pid, since, held] = CLAIM.exec(entry) ?? [];
    return name === undefined ? [] : [{
      name,
      pid: Number(pid),
      since: Number(since),
      path: joinPath(host, path, entry),
      isHeld: held !== undefined,
    }];
  });
}

/** What is written under a claim, beside the file: whoever takes its place removes it. */
export function stagedPath(
  place: LockPlace,
  claim: Claim,
  number: number,
): string {
  return `${stagedPrefix(place, claim)}${number}.tmp`;
}

/** What the paths of all that is staged under a claim begin with. */
export function stagedPrefix(
  { path }: LockPlace,
  { name }: Pick<Claim, "name">,
): string {
  return `${path}.${name}.`;
}

/** What a claimant has staged. */
export function* stagedBy(
  host: Host,
  place: LockPlace,
  claimant: Claimant,
): Protocol<string[]> {
  const directory = directoryOf(host, place.path);
  const names = yield* call("readdir", directory);
  const prefix = stagedPrefix(place, claimant);
  return names.map((name) => joinPath(host, directory, name))
    .filter((path) => path.startsWith(prefix));
}

/** A second name of the lock file, which is made if there is none, with its directory; `undefined` where somebody else was faster. */
export function* makeClaim(
  port: Port,
  place: LockPlace,
): Protocol<Claim | undefined> {
  const isMade = yield* makeLockDirectory(place);
  const name = `${port.pid}.${port.date()}.${port.randomUUID()}`;
  const path = joinPath(port, place.path, name);
  try {
    const isFound = !isMade && (yield* linkedTo(place, place.lockFile, path));
    const status = isFound
      ? yield* statusAt(path)
      : yield* createLockFile(port, place, path, isMade);
    if (status !== undefined) {
      refuseForeign(place, status);
      refuseInexact(status);
      return { name, path, heldPath: `${path}${HELD}`, status };
    }
  } catch (error) {
    yield* attempt(unlinkIfPresent(path));
    yield* attempt(removeLockDirectory(place));
    // Somebody has removed the directory by hand.
    if (failedWith(error, ...GONE)) return undefined;
    throw error;
  }
  yield* unlinkIfPresent(path);
  return undefined;
}

/** Whether it was not there before. */
function* makeLockDirectory({ path }: LockPlace): Protocol<boolean> {
  try {
    yield* inlineCall("mkdir", path);
    return true;
  } catch (error) {
    if (!failedWith(error, "EEXIST")) throw error;
  }
  const status = yield* statusAt(path);
  // A link would lead to a directory of somebody else's choice.
  if (status !== undefined && status.kind !== "directory") {
    throw notALock(path, status.kind);
  }
  return false;
}

/** Not while anybody has a claim: then it is not empty. */
export function* removeLockDirectory({ path }: LockPlace): Protocol<void> {
  for (let pause = 1; pause <= LONGEST_PAUSE_MS; pause *= 2) {
    try {
      yield* call("rmdir", path);
      return;
    } catch (error) {
      // In a sticky directory it may be another user's.
      if (failedWith(error, "EPERM", "EACCES", ...GONE)) return;
      if (!failedWith(error, "ENOTEMPTY", "EEXIST")) throw error;
    }
    if (!(yield* hasOnlyClosing(path))) return;
    yield* blockingCall("sleep", pause);
  }
}

const LONGEST_PAUSE_MS = 16;

/** Whether all that is in it are files without a name that a FUSE daemon has not closed yet. */
function* hasOnlyClosing(path: string): Protocol<boolean> {
  try {
    const names = yield* call("readdir", path);
    return names.every((name) => name.startsWith(".fuse_hidden"));
  } catch (error) {
    if (error instanceof SystemCallError) return false;
    throw error;
  }
}

/** A lock that another user has made, and this process cannot use. */
export function ofAnother(
  path: string,
  { uid }: FileStatus,
  what: string,
): Refusal {
  return new Refusal(
    "EACCES",
    `its lock "${path}" belongs to another user (uid ${uid}), ${what}`,
  );
}

const LET_US =
  "have it removed if nobody holds it; take the sticky bit from the directory if it has one, or give its users a common group";

/** Creates a lock file under the name of a claim, and gives it its own name. */
function* createLockFile(
  port: Port,
  place: LockPlace,
  path: string,
  isNew: boolean,
): Protocol<FileStatus | undefined> {
  const file = yield* createIn(place, path);
  if (file === undefined) return undefined;
  const status = yield* closing(file, function* () {
    const created = yield* call("fstat", file);
    refuseInexact(created);
    if (!port.windows) yield* share(port, place, file, created, isNew);
    return created;
  });
  return (yield* linkedTo(place, path, place.lockFile)) ? status : undefined;
}

function* createIn(
  place: LockPlace,
  path: string,
): Protocol<OpenFile | undefined> {
  try {
    return yield* inlineCall("createChangeable", path, 0o666);
  } catch (error) {
    // The last who had a claim has removed the directory.
    if (failedWith(error, ...GONE)) return undefined;
    if (!failedWith(error, "EACCES")) throw error;
    return yield* refuseAnother(place.path);
  }
}

/** Not where its holder has just removed it. */
function* refuseAnother(path: string): Protocol<undefined> {
  const status = yield* statusAt(path);
  if (status === undefined) return undefined;
  throw ofAnother(
    path,
    status,
    `who does not let this process use it: ${LET_US}`,
  );
}

const STICKY = 0o1000;
const READ_AND_WRITE = 0o6;
const ALL = 0o7;

/** Lets those use a new lock who may write in the directory of its file: it holds nothing, and would shut them out. */
function* share(
  port: Port,
  { path }: LockPlace,
  file: OpenFile,
  created: FileStatus,
  isNew: boolean,
): Protocol<void> {
  const like = yield* directoryStatus(isNew ? directoryOf(port, path) : path);
  // Where anybody may write, they get no more than usual.
  const isSticky = (like.mode & STICKY) !== 0;
  if (isSticky || isGranted(like, created)) return;
  if (isNew) yield* shareDirectory(path, like, created);
  yield* grant(file, like, created, READ_AND_WRITE);
}

function* shareDirectory(
  path: string,
  like: FileStatus,
  { uid }: FileStatus,
): Protocol<void> {
  const named = yield* statusAt(path);
  if (named?.kind !== "directory") return;
  const handle = yield* call("openChangeable", path);
  yield* closing(handle, function* () {
    const opened = yield* call("fstat", handle);
    // What somebody has put in its place since must not be changed.
    if (opened.uid !== uid || !isSame(named, opened)) return;
    yield* grant(handle, like, opened, ALL);
  });
}

/** These bits for each class of users that may write. */
function bitsFor(mode: number, bits: number): number {
  return [0, 3, 6].reduce(
    (all, shift) => (mode >> shift) & 0o2 ? all | (bits << shift) : all,
    0,
  );
}

/** Whether what was just created, and its directory likewise, is of use for those already. */
function isGranted(like: FileStatus, own: FileStatus): boolean {
  const wanted = bitsFor(like.mode, READ_AND_WRITE);
  const isGivable = own.uid === 0 && like.uid !== 0;
  return (own.mode & wanted) === wanted && own.gid === like.gid && !isGivable;
}

function* grant(
  handle: OpenFile,
  like: FileStatus,
  own: FileStatus,
  bits: number,
): Protocol<void> {
  // Root alone may give it away, others only to one of their groups.
  const uid = own.uid === 0 ? like.uid : own.uid;
  const isTheirs = own.uid === uid && own.gid === like.gid;
  const hasGroup = isTheirs || (yield* isGiven(handle, uid, like.gid)) ||
    own.gid === like.gid;
  const mode = own.mode |
    bitsFor(hasGroup ? like.mode : like.mode & ~0o070, bits);
  if (mode !== own.mode) yield* attempt(call("fchmod", handle, mode));
}

function* isGiven(
  handle: OpenFile,
  uid: number,
  gid: number,
): Protocol<boolean> {
  try {
    yield* call("fchown", handle, uid, gid);
    return true;
  } catch (error) {
    if (error instanceof SystemCallError) return false;
    throw error;
  }
}

function refuseForeign(
  { lockFile }: LockPlace,
  { kind, size }: FileStatus,
): void {
  if (kind === "file" && size === 0) return;
  throw notALock(lockFile, kind === "file" ? `it has ${size} bytes` : kind);
}

function notALock(path: string, what: string): Refusal {
  return new Refusal(
    "NOT_A_LOCK",
    `"${path}" is not a lock of this library (${what}): find out what it is, and remove it`,
  );
}

/** What a link fails with where there is none to be had. */
export const NO_HARD_LINKS: readonly string[] = [
  "EPERM",
  "ENOTSUP",
  "EOPNOTSUPP",
  "ENOSYS",
  "EMLINK",
];

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
    if (failedWith(error, "EEXIST", ...GONE)) return false;
    // Linux lets nobody link a file of another's that he may not write to.
    const isTheirs = from === place.lockFile && failedWith(error, "EPERM");
    if (isTheirs || failedWith(error, "EACCES")) {
      yield* refuseAnother(isTheirs ? from : place.path);
      return false;
    }
    if (!failedWith(error, ...NO_HARD_LINKS)) throw error;
    if (from === place.lockFile && failedWith(error, "EMLINK")) {
      throw new Refusal(
        "EMLINK",
        `its lock file "${from}" has as many names as a file can have, left by processes that were killed: remove "${place.path}" while nobody holds the lock or waits for it`,
      );
    }
    throw new Refusal(
      "UNSUPPORTED_ENVIRONMENT",
      "a lock needs hard links, which the file system does not make",
    );
  }
}

/** Whether names of one file are seen to be one, unless somebody comes in between. Refuses a file system that shows them as several: a lock could never be compared. */
export function* areComparable(
  port: Port,
  place: LockPlace,
  { path, status }: Claim,
): Protocol<boolean> {
  const name = `${port.pid}.${port.date()}.${port.randomUUID()}`;
  const other = joinPath(port, place.path, name);
  if (!(yield* linkedTo(place, path, other))) return false;
  const found = yield* statusAt(other);
  yield* unlinkIfPresent(other);
  const now = yield* statusAt(path);
  if (found === undefined || now === undefined) return false;
  if (isSame(found, now) && isSame(found, status)) return true;
  // Nobody can hold it.
  yield* attempt(unlinkIfPresent(place.lockFile));
  throw new Refusal(
    "UNSUPPORTED_ENVIRONMENT",
    "a lock must tell whether two names are one file, and the file system gives each name an inode number of its own, as unionfs-fuse does, and mergerfs unless it is mounted with use_ino: lock a file on another file system",
  );
}

export function* unlinkIfPresent(path: string): Protocol<void> {
  try {
    yield* call("unlink", path);
  } catch (error) {
    if (!failedWith(error, ...GONE)) throw error;
  }
}

/** What is there, if anything is. */
export function* statusAt(path: string): Protocol<FileStatus | undefined> {
  try {
    return yield* call("lstat", path);
  } catch (error) {
    if (failedWith(error, ...GONE)) return undefined;
    throw error;
  }
}

/** What a call fails with where somebody has just removed what it needs, or put a file in the place of the directory; the last, below a FUSE daemon. */
export const GONE: readonly string[] = ["ENOENT", "ENOTDIR", "ESTALE"];
