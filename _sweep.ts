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
import { candidates, lockFileOf, removeOthers } from "./_lock.ts";
import { joinPath } from "./_path.ts";
import {
  attempt as attemptTo,
  call,
  type Protocol,
  SystemCallError,
} from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { lstatIfPresent } from "./_target.ts";
import { isInFlight, writerOf } from "./_temporary.ts";

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
  const { port } = given;
  const swept: Swept = { removed: [], kept: [] };
  const task = { ...given, directory: await runAsync(port, realPath(given)) };
  const names = await runAsync(port, call("readdir", task.directory));
  await runAsync(port, sweepFiles(task, names, swept));
  for (const wanted of locksIn(task, names)) {
    task.signal?.throwIfAborted();
    const before = await runAsync(port, namesOf(wanted));
    if (isLeft(task, before, swept)) continue;
    try {
      const lock = await tryFor(wanted);
      if (lock !== undefined) await runAsync(port, clear(lock, wanted));
      await lock?.release();
      await runAsync(port, compare(before, wanted, swept));
    } catch (error) {
      task.signal?.throwIfAborted();
      keep(before, error, swept);
    }
  }
  return swept;
}

/** The same, blocking. */
export function sweepSync(given: Sweep): Swept {
  const { port } = given;
  const swept: Swept = { removed: [], kept: [] };
  const task = { ...given, directory: runSync(port, realPath(given)) };
  const names = runSync(port, call("readdir", task.directory));
  runSync(port, sweepFiles(task, names, swept));
  for (const wanted of locksIn(task, names)) {
    task.signal?.throwIfAborted();
    const before = runSync(port, namesOf(wanted));
    if (isLeft(task, before, swept)) continue;
    try {
      const lock = tryForSync(wanted);
      if (lock !== undefined) runSync(port, clear(lock, wanted));
      lock?.releaseSync();
      runSync(port, compare(before, wanted, swept));
    } catch (error) {
      task.signal?.throwIfAborted();
      keep(before, error, swept);
    }
  }
  return swept;
}

/** As the temporary files of this realm are noted. */
function realPath({ attempt }: Sweep): Protocol<string> {
  return call("realpath", attempt.path);
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
    if (reason === GONE) continue;
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

const GONE = Symbol("gone");

/** Why a temporary file stays; `undefined` where its writer is dead. */
function* reasonToKeep(
  { port, olderThanMs }: Sweep,
  path: string,
  pid: number,
): Protocol<string | typeof GONE | undefined> {
  const status = yield* lstatIfPresent(path);
  if (status === undefined) return GONE;
  if (status.kind !== "file") return `it is no file: ${status.kind}`;
  if (isInFlight(path)) return "this process is writing it";
  if (mayRun(port, pid, status.mtimeMs)) return `process ${pid} runs`;
  const age = port.date() - status.mtimeMs;
  if (age < olderThanMs) {
    return `it was changed ${
      Math.round(age / 1000)
    } s ago, and olderThanMs is ${olderThanMs}`;
  }
  return undefined;
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

/** The locks of which there are second names. */
function locksIn(
  { port, attempt, directory, signal }: LocatedSweep,
  names: readonly string[],
): WantedLock[] {
  const found = new Set(names.map(lockFileOf));
  found.delete(undefined);
  return Array.from(found, (name = "") => {
    const path = joinPath(port, directory, name);
    // Of the file only its lock is asked for.
    return {
      port,
      attempt,
      place: { file: path, path },
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
  });
}

/** The lock file, if it is there, and its second names. */
function* namesOf({ port, place }: WantedLock): Protocol<string[]> {
  const found = yield* candidates(port, place);
  const paths = found.map(({ path }) => path);
  const isThere = (yield* lstatIfPresent(place.path)) !== undefined;
  return isThere ? [place.path, ...paths] : paths;
}

/** Without asking for a lock, which removes what is left, nothing is known of it. */
function isLeft(
  { dryRun }: Sweep,
  paths: readonly string[],
  { kept }: Swept,
): boolean {
  if (!dryRun) return false;
  const reason = "a dry run does not ask for its lock";
  kept.push(...paths.map((path) => ({ path, reason })));
  return true;
}

function clear(
  { held }: FileLock,
  { port, place }: WantedLock,
): Protocol<void> {
  return attemptTo(removeOthers(port, place, held.own));
}

function* compare(
  before: readonly string[],
  wanted: WantedLock,
  { removed, kept }: Swept,
): Protocol<void> {
  const after = new Set(yield* namesOf(wanted));
  for (const path of before) {
    if (!after.has(path)) removed.push(path);
    else kept.push({ path, reason: "its lock is held, or may not be removed" });
  }
}

/** One lock that cannot be asked for is no reason to leave the others. */
function keep(
  paths: readonly string[],
  error: unknown,
  { kept }: Swept,
): void {
  const reason = told(error);
  kept.push(...paths.map((path) => ({ path, reason })));
}

function told(error: unknown): string {
  if (error instanceof SystemCallError) {
    return `${error.syscall} failed: ${error.code}`;
  }
  if (error instanceof Error) return error.message;
  throw error;
}
