/**
 * The mode and the owner of the new file: what they shall be, how the file is
 * created so that nobody can open it who could not open the final one, and what
 * is done where the owner cannot be kept.
 *
 * @module
 */

import type { Owner } from "./_options.ts";
import { call, type Protocol, Refusal, SystemCallError } from "./_protocol.ts";
import type { FileStatus, Host, OpenFile } from "./_runtime/port.ts";
import { directoryStatus } from "./_sticky.ts";

/** What this needs to know of a write. */
export interface MetadataRequest {
  readonly mode: number | undefined;
  readonly owner: Owner | undefined;
  readonly preserve: boolean;
}

/** What the new file shall have; `undefined` leaves it to the kernel. */
export interface IntendedMetadata {
  readonly mode: number | undefined;
  readonly owner: Owner | undefined;
  /** Whether the caller named it: then a failure to set it is an error. */
  readonly modeRequired: boolean;
  readonly ownerRequired: boolean;
}

/** The mode to create a file with whose owner will change: for nobody else to open. */
export const PRIVATE_MODE = 0o600;

const PERMISSIONS = 0o777;
const SET_ID = 0o6000;
const WRITABLE_BY_OTHERS = 0o022;
const GROUP_AND_OTHER = 0o077;
const OTHER = 0o007;

/** What the caller asked for, else what the replaced file has, else the kernel's choice. */
export function intendedMetadata(
  host: Host,
  request: MetadataRequest,
  existing: FileStatus | undefined,
): IntendedMetadata {
  if (host.windows) {
    return {
      mode: undefined,
      owner: undefined,
      modeRequired: false,
      ownerRequired: false,
    };
  }
  const kept = request.preserve ? existing : undefined;
  return {
    mode: request.mode ?? kept?.mode,
    owner: request.owner ?? kept,
    modeRequired: request.mode !== undefined,
    ownerRequired: request.owner !== undefined,
  };
}

/**
 * The mode to create the file with: already the final one, so that it need not
 * be changed. Without setuid and setgid, since until the owner is set those
 * would lend somebody else's rights. A new file gets 0666, from which the
 * kernel takes the umask.
 */
export function creationMode({ mode }: IntendedMetadata): number {
  return mode === undefined ? 0o666 : mode & PERMISSIONS;
}

/** Whether the owner of the created file must change. */
export function mustChangeOwner(
  { owner }: IntendedMetadata,
  created: FileStatus,
): boolean {
  return owner !== undefined && !isOwnedBy(created, owner);
}

/**
 * Whether until its owner changes somebody could open the file whom the final
 * one shuts out: not where its mode says the same of the group as of everybody,
 * and of the owner no less.
 */
export function isExposed({ mode }: FileStatus): boolean {
  const user = (mode >> 6) & OTHER;
  const group = (mode >> 3) & OTHER;
  const other = mode & OTHER;
  return group !== other || (user & other) !== other;
}

/** The new file when its mode and its owner are to be set. */
export interface WrittenFile {
  readonly file: OpenFile;
  readonly status: FileStatus;
  readonly directory: string;
}

/**
 * Gives the written file its owner and then its mode, and reports what of the
 * replaced file could not be kept. The owner comes first, since chown takes
 * setuid and setgid away.
 */
export function* applyMetadata(
  host: Host,
  intended: IntendedMetadata,
  written: WrittenFile,
): Protocol<("mode" | "owner")[]> {
  const { mode, owner, modeRequired, ownerRequired } = intended;
  const { file, status } = written;
  const notPreserved: ("mode" | "owner")[] = [];
  let lost: LostOwner = { user: false, group: false };
  if (owner !== undefined && !isOwnedBy(status, owner)) {
    lost = (yield* isSafeToChange(host, "owner", ownerRequired, written))
      ? yield* changeOwner(file, owner, ownerRequired, status)
      : { user: owner.uid !== status.uid, group: owner.gid !== status.gid };
    if (lost.user || lost.group) notPreserved.push("owner");
  }
  if (mode === undefined) return notPreserved;

  const wanted = modeRequired ? mode : modeWithout(lost, mode);
  let actual = status.mode;
  if (wanted !== status.mode) {
    const isSafe = yield* isSafeToChange(host, "mode", modeRequired, written);
    if (isSafe) actual = yield* changeMode(file, wanted, modeRequired);
  }
  if (actual !== mode) notPreserved.push("mode");
  return notPreserved;
}

/**
 * Where mode and owner are set by path, somebody who may rename in the
 * directory could put a link in the file's place, and have the change made to a
 * file of his choice.
 */
function* isSafeToChange(
  host: Host,
  what: "owner" | "mode",
  required: boolean,
  { status, directory }: WrittenFile,
): Protocol<boolean> {
  if (!host.changesByPath) return true;
  const { uid, mode } = yield* directoryStatus(directory);
  const isOurs = uid === 0 || uid === status.uid;
  if (isOurs && (mode & WRITABLE_BY_OTHERS) === 0) return true;
  if (!required) return false;
  throw new Refusal(
    "EPERM",
    `on Deno the ${what} is set by path, which is not safe in a directory that others may write to: take that permission from them, or leave the ${what} out`,
  );
}

interface LostOwner {
  readonly user: boolean;
  readonly group: boolean;
}

function* changeOwner(
  file: OpenFile,
  { uid, gid }: Owner,
  required: boolean,
  current: FileStatus,
): Protocol<LostOwner> {
  try {
    yield* call("fchown", file, uid, gid);
    return { user: false, group: false };
  } catch (error) {
    if (required || !(error instanceof SystemCallError)) throw error;
  }
  const user = uid !== current.uid;
  if (gid === current.gid) return { user, group: false };
  try {
    // Any member of the group may do this much.
    yield* call("fchown", file, current.uid, gid);
    return { user, group: false };
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return { user, group: true };
  }
}

/**
 * The mode, less what would give rights to a user or a group that the replaced
 * file did not give them to. Where the group is lost, its members count as
 * everybody and those of the new one as the group: both get what both had.
 */
function modeWithout(lost: LostOwner, mode: number): number {
  let left = mode;
  if (lost.user || lost.group) left &= ~SET_ID;
  if (lost.group) {
    const both = (mode >> 3) & mode & OTHER;
    left = (left & ~GROUP_AND_OTHER) | (both << 3) | both;
  }
  return left;
}

/** Returns the mode the file has then: the kernel may drop bits without an error. */
function* changeMode(
  file: OpenFile,
  mode: number,
  required: boolean,
): Protocol<number> {
  try {
    yield* call("fchmod", file, mode);
  } catch (error) {
    if (required || !(error instanceof SystemCallError)) throw error;
  }
  const actual = (yield* call("fstat", file)).mode;
  if (required && actual !== mode) {
    throw new Refusal(
      "EPERM",
      `the mode could not be set: asked for 0o${mode.toString(8)}, got 0o${
        actual.toString(8)
      }`,
    );
  }
  return actual;
}

function isOwnedBy(status: FileStatus, { uid, gid }: Owner): boolean {
  return status.uid === uid && status.gid === gid;
}
