/**
 * What killed writers have left in a directory, found and removed.
 *
 * Of the names of a lock the lock itself tells: whoever gets it knows that nobody
 * holds it, and who lives and waits finds his name gone and begins again. Of a
 * temporary file there is only the number of its writer's process, which another
 * container may use as well, and its age.
 *
 * @module
 */

import { MET } from "./_demand.ts";
import { runAsync, runSync } from "./_drive.ts";
import type { Attempt } from "./_failure.ts";
import {
  type FileLock,
  tryFor,
  tryForSync,
  type WantedLock,
} from "./_file_lock.ts";
import {
  claimants,
  claimantsAmong,
  GONE,
  isLockName,
  lockAt,
  unlinkIfPresent,
} from "./_claim.ts";
import { realDirectory } from "./_directories.ts";
import { joinPath, nameOf } from "./_path.ts";
import {
  attempt as attemptTo,
  call,
  failedWith,
  type Protocol,
  SystemCallError,
} from "./_protocol.ts";
import type { FileStatus, Port } from "./_runtime/port.ts";
import { lstatIfPresent } from "./_target.ts";
import { isInFlight, writerOf } from "./_temporary.ts";
import { isError } from "./_runtime/errno.ts";

/** A sweep, with every option decided. */
export interface Sweep {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly olderThanMs: number;
  readonly dryRun: boolean;
  readonly signal: AbortSignal | undefined;
}

/** What stays, and why. */
export interface Kept {
  readonly path: string;
  readonly reason: string;
}

/** What a sweep has come to. */
export interface Swept {
  readonly removed: string[];
  readonly kept: Kept[];
}

/** Sweeps. */
export async function sweep(given: Sweep): Promise<Swept> {
  const { port, signal } = given;
  const swept: Swept = { removed: [], kept: [] };
  const task = { ...given, directory: await runAsync(port, placeOf(given)) };
  const names = await runAsync(port, call("readdir", task.directory));
  await runAsync(port, sweepFiles(task, names, swept));
  for (const left of await runAsync(port, locksIn(task, names))) {
    signal?.throwIfAborted();
    if (isSpared(task, left, swept)) continue;
    try {
      const lock = await tryFor(left.wanted);
      if (lock !== undefined) await runAsync(port, removeClaims(left, lock));
      await lock?.release();
      await runAsync(port, compare(left, swept));
    } catch (error) {
      signal?.throwIfAborted();
      keep(left, told(error), swept);
    }
  }
  return swept;
}

/** The same, blocking. */
export function sweepSync(given: Sweep): Swept {
  const { port, signal } = given;
  const swept: Swept = { removed: [], kept: [] };
  const task = { ...given, directory: runSync(port, placeOf(given)) };
  const names = runSync(port, call("readdir", task.directory));
  runSync(port, sweepFiles(task, names, swept));
  for (const left of runSync(port, locksIn(task, names))) {
    signal?.throwIfAborted();
    if (isSpared(task, left, swept)) continue;
    try {
      const lock = tryForSync(left.wanted);
      if (lock !== undefined) runSync(port, removeClaims(left, lock));
      lock?.releaseSync();
      runSync(port, compare(left, swept));
    } catch (error) {
      signal?.throwIfAborted();
      keep(left, told(error), swept);
    }
  }
  return swept;
}

/** As the temporary files of this realm are noted. */
function placeOf({ port, attempt }: Sweep): Protocol<string> {
  return realDirectory(port, attempt.path);
}

interface LocatedSweep extends Sweep {
  readonly directory: string;
}

function* sweepFiles(
  task: LocatedSweep,
  names: readonly string[],
  { removed, kept }: Swept,
): Protocol<void> {
  const { port, directory, dryRun, signal } = task;
  for (const name of names) {
    signal?.throwIfAborted();
    const pid = writerOf(name);
    if (pid === undefined) continue;
    const path = joinPath(port, directory, name);
    const reason = yield* reasonToKeep(task, path, pid);
    if (reason === VANISHED) continue;
    if (reason !== undefined) {
      kept.push({ path, reason });
      continue;
    }
    try {
      if (!dryRun) yield* call("unlink", path);
      removed.push(path);
    } catch (error) {
      kept.push({ path, reason: told(error) });
    }
  }
}

const VANISHED = Symbol("vanished");

/** Why a temporary file stays; `undefined` where its writer is dead. */
function* reasonToKeep(
  { port, olderThanMs }: Sweep,
  path: string,
  pid: number,
): Protocol<string | typeof VANISHED | undefined> {
  const status = yield* lstatIfPresent(path);
  if (status === undefined) return VANISHED;
  if (status.kind !== "file") return `it is no file: ${status.kind}`;
  if (isInFlight(path)) return "this process is writing it";
  if (mayRun(port, pid, status.mtimeMs)) return `process ${pid} runs`;
  const age = ageOf(port, status);
  if (age < olderThanMs) {
    return `it was changed ${
      Math.round(age / 1000)
    } s ago, and olderThanMs is ${olderThanMs}`;
  }
  return undefined;
}

/** In milliseconds. The time of a file has fractions of them, and may be ahead of the clock. */
function ageOf(port: Port, { mtimeMs }: FileStatus): number {
  return Math.max(0, port.date() - mtimeMs);
}

/** As coarse as a file system's times are: two seconds on FAT. */
const CLOCKS_DIFFER_MS = 2000;

/** Whether the writer of that number may run, who has last written at that time. */
function mayRun(port: Port, pid: number, mtimeMs: number): boolean {
  if (pid !== port.pid) return port.isAlive(pid) === true;
  // In a container every start has the number that the one before it had.
  const startedAt = port.startedAt();
  return startedAt === undefined || mtimeMs > startedAt - CLOCKS_DIFFER_MS;
}

/** A lock that nobody may have any more. */
interface LeftLock {
  readonly wanted: WantedLock;
  /** Its directory and all that is in it. */
  readonly paths: readonly string[];
}

/** The locks in the directory. */
function* locksIn(
  task: LocatedSweep,
  names: readonly string[],
): Protocol<LeftLock[]> {
  const { port, directory } = task;
  const locks: LeftLock[] = [];
  for (const name of names.filter(isLockName)) {
    const path = joinPath(port, directory, name);
    const wanted = wantedLock(task, path);
    const found = yield* namesIn(task, wanted);
    if (found !== undefined) locks.push({ wanted, paths: [path, ...found] });
  }
  return locks;
}

/** `undefined` of what is no lock of this library, whatever its name. */
function* namesIn(
  { port, olderThanMs }: Sweep,
  { place }: WantedLock,
): Protocol<string[] | undefined> {
  const status = yield* lstatIfPresent(place.path);
  if (status?.kind !== "directory") return undefined;
  let names: readonly string[];
  try {
    names = yield* call("readdir", place.path);
  } catch (error) {
    // Its holder has just freed it.
    if (failedWith(error, ...GONE)) return undefined;
    throw error;
  }
  const claims = claimantsAmong(port, place, names).length;
  const isThere = names.includes(nameOf(port, place.lockFile));
  if (claims + Number(isThere) !== names.length) return undefined;
  // An empty one may be another program's.
  const isOld = ageOf(port, status) >= olderThanMs;
  if (names.length === 0 && !isOld) return undefined;
  return names.map((name) => joinPath(port, place.path, name));
}

/** Of the file only its lock is asked for. */
function wantedLock(
  { port, attempt, signal }: LocatedSweep,
  path: string,
): WantedLock {
  return {
    port,
    attempt,
    place: lockAt(port, path, path),
    timeoutMs: 0,
    isPatient: false,
    request: {
      path,
      signal,
      durability: "none",
      symlinks: "reject",
      parents: false,
      createNew: false,
      retryMs: 0,
      demand: MET,
    },
  };
}

/** Without asking for a lock, which removes what is left, nothing is known of it. */
function isSpared(
  { dryRun }: Sweep,
  left: LeftLock,
  swept: Swept,
): boolean {
  if (dryRun) keep(left, "a dry run does not ask for its lock", swept);
  return dryRun;
}

/** Whoever lives and waits finds his claim gone, and begins again. */
function* removeClaims(
  { wanted: { port, place } }: LeftLock,
  { held: { claim } }: FileLock,
): Protocol<void> {
  for (const { path } of yield* claimants(port, place)) {
    // In a sticky directory some are of users whose files stay.
    if (path !== claim.heldPath) yield* attemptTo(unlinkIfPresent(path));
  }
}

function* compare(
  left: LeftLock,
  { removed, kept }: Swept,
): Protocol<void> {
  const reason = "its lock is held, or may not be removed";
  for (const path of left.paths) {
    if ((yield* lstatIfPresent(path)) === undefined) removed.push(path);
    else kept.push({ path, reason });
  }
}

/** One lock that cannot be asked for is no reason to leave the others. */
function keep(
  { paths }: LeftLock,
  reason: string,
  { kept }: Swept,
): void {
  kept.push(...paths.map((path) => ({ path, reason })));
}

function told(error: unknown): string {
  if (error instanceof SystemCallError) {
    return `${error.syscall} failed: ${error.code}`;
  }
  if (isError(error)) return error.message;
  throw error;
}
