/**
 * Files get another name, crash-safely: the content is synced before the name
 * changes, and both directories after it.
 *
 * @example Putting a finished download into place
 * ```ts
 * import { moveAtomic } from "@aj/atomic/move";
 * import { readText, writeTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const directory = await Deno.makeTempDir();
 * await writeTextAtomic(`${directory}/incoming/report.part`, "all of it");
 * await moveAtomic(`${directory}/incoming/report.part`, `${directory}/report`);
 * assert.equal(await readText(`${directory}/report`), "all of it\n");
 * ```
 *
 * @module
 */

import { forgetPlace } from "./_appended.ts";
import { expectChecksum, mayBeChecksummed } from "./_checksum_choice.ts";
import { demandOf } from "./_demand.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import { TIMEOUT_MS, type WantedLock } from "./_file_lock.ts";
import { lockPlace } from "./_claim.ts";
import type { HeldLock } from "./_lock.ts";
import { locateRoute, move, type MoveRequest, type Route } from "./_move.ts";
import {
  checkOptions,
  isLock,
  type Lock,
  type LockOptions,
  type MoveOptions,
  type MoveReceipt,
} from "./_options.ts";
import { enterLines, refusePending } from "./_order.ts";
import { absolutePath } from "./_path.ts";
import { promised } from "./_promised.ts";
import type { Protocol } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { inSlot } from "./_slots.ts";
import {
  eitherOf,
  needsOf,
  underLocks,
  underLocksSync,
} from "./_under_lock.ts";

export type {
  Durability,
  Guarantee,
  Lock,
  LockOptions,
  MoveOptions,
  MoveReceipt,
  Safety,
  SymlinkPolicy,
} from "./_options.ts";
export {
  AlreadyExistsError,
  AtomicError,
  type AtomicErrorOptions,
  CrossDeviceError,
  DurabilityError,
  type LockCandidate,
  LockLostError,
  LockTimeoutError,
  type LockTimeoutErrorOptions,
  NotFoundError,
  PermissionScopeError,
  UnsupportedEnvironmentError,
} from "./errors.ts";

/**
 * Gives a file another name, in the same directory or in another one of the
 * same file system. Whoever opens the new name finds the whole file or what was
 * there before, and when the promise has resolved, a power cut leaves the file
 * at its new name. A crash before that leaves the whole file at the old name,
 * at the new one, or at both. It is never copied.
 *
 * Nothing is overwritten unless `overwrite` says so. The new name is then made
 * as a hard link, and the old one removed after that: in between the file has
 * both, and a crash may leave both. Which is to stay only you can tell: the same
 * move, made again, is refused (code `"SAME_FILE"`), as is every move of a file
 * onto another name of itself.
 *
 * A move without a lock takes its place among the writes of both files at its
 * call: what was written before to `from`, awaited or not, is moved. A synchronous write of
 * either file that is called while the move waits comes first, and the move is
 * rejected (code `"SUPERSEDED"`), nothing changed.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directories of
 * both names.
 *
 * @param from The file: a path or a `file:` URL. No directory, and no symbolic link.
 * @param to Its new name.
 * @param options How to move it.
 * @returns What was moved, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If there is no such file.
 * @throws {AlreadyExistsError} If something has the new name, without `overwrite`.
 * @throws {CrossDeviceError} If the names are on different file systems.
 * @throws {UnsupportedEnvironmentError} If the file system has no hard links, without `overwrite`.
 * @throws {DurabilityError} If the file has its new name, and a directory could not be synced.
 * @throws {LockTimeoutError} If a lock was not to be had in time: where one is asked for, or either file has a checksum.
 * @throws {LockLostError} If somebody has removed a lock by hand that it is made under.
 * @throws {PermissionScopeError} If Deno's permissions do not cover it.
 * @throws {AtomicError} If anything else fails; `committed` says whether the
 * file has its new name.
 *
 * @example Usage
 * ```ts
 * import { moveAtomic } from "@aj/atomic/move";
 * import { writeTextAtomic } from "@aj/atomic/text";
 * import assert from "node:assert/strict";
 *
 * const directory = await Deno.makeTempDir();
 * await writeTextAtomic(`${directory}/next`, "2");
 * await writeTextAtomic(`${directory}/current`, "1");
 * const receipt = await moveAtomic(
 *   `${directory}/next`,
 *   `${directory}/current`,
 *   { overwrite: true },
 * );
 * assert.equal(receipt.replaced, true);
 * ```
 */
export function moveAtomic(
  from: string | URL,
  to: string | URL,
  options: MoveOptions = {},
): Promise<MoveReceipt> {
  return promised(() => run(prepareMove("moveAtomic", from, to, options)));
}

/**
 * The synchronous form of {@linkcode moveAtomic}. It cannot wait: where an
 * asynchronous write, move or append of either file is under way in this
 * thread, it throws (code `"PENDING"`), and nothing is changed.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directories of
 * both names.
 *
 * @param from The file: a path or a `file:` URL. No directory, and no symbolic link.
 * @param to Its new name.
 * @param options How to move it.
 * @returns What was moved, and how durably.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode moveAtomic} does.
 *
 * @example Usage
 * ```ts
 * import { moveAtomicSync } from "@aj/atomic/move";
 *
 * const directory = Deno.makeTempDirSync();
 * Deno.writeTextFileSync(`${directory}/log`, "old entries");
 * moveAtomicSync(`${directory}/log`, `${directory}/log.1`);
 * ```
 */
export function moveAtomicSync(
  from: string | URL,
  to: string | URL,
  options: MoveOptions = {},
): MoveReceipt {
  return runBlocking(prepareMove("moveAtomicSync", from, to, options));
}

/** A move that is ready for its first system call. */
interface PreparedMove {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: MoveRequest;
  readonly lock: boolean | LockOptions;
  /** The locks that the caller holds. */
  readonly passed: readonly Lock[];
}

function prepareMove(
  operation: string,
  from: string | URL,
  to: string | URL,
  given: MoveOptions,
): PreparedMove {
  const options = checkOptions("move", given);
  const { lock = false } = options;
  const passed = [lock].flat().filter(isLock);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "move",
    path: absolutePath(port, from),
    to: absolutePath(port, to),
  };
  const request: MoveRequest = {
    from: attempt.path,
    to: absolutePath(port, to),
    durability: options.durability ?? "full",
    symlinks: options.symlinks ?? "follow",
    parents: options.parents ?? true,
    overwrite: options.overwrite ?? false,
    retryMs: options.retryMs ?? 1000,
    signal: options.signal,
    demand: demandOf(needsOf(lock !== false && passed.length < 2), options),
    held: [],
  };
  const isOptions = typeof lock === "object" && !isLock(lock) &&
    !("length" in lock);
  return {
    port,
    attempt,
    request,
    lock: isOptions ? lock : lock !== false,
    passed,
  };
}

async function run(prepared: PreparedMove): Promise<MoveReceipt> {
  const { port, attempt, request, lock, passed } = prepared;
  try {
    request.signal?.throwIfAborted();
    // Without a retry, which would hold the event loop.
    const route = runInline(
      port,
      locateRoute(port, { ...request, retryMs: 0 }),
    );
    const isKept = runInline(port, keepsChecksum(port, request, route));
    if (lock === false && !isKept) {
      return await moveInOrder(port, request, route);
    }
    const ends = [route.from, route.to].map(({ path }) =>
      isKept ? expectChecksum(port, path) : () => {}
    );
    try {
      return await underLocks(
        wantLocks(prepared, route),
        passed,
        (held) => moveInOrder(port, { ...request, held }, route),
      );
    } finally {
      for (const end of ends) end();
    }
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Whether either has a checksum, which only moves along under the locks. */
function* keepsChecksum(
  port: Port,
  request: MoveRequest,
  { from, to }: Route,
): Protocol<boolean> {
  return (yield* mayBeChecksummed(port, from.path, request)) ||
    (yield* mayBeChecksummed(port, to.path, request));
}

/** Of both files, in call order. */
function moveInOrder(
  port: Port,
  request: MoveRequest,
  route: Route,
): Promise<MoveReceipt> {
  const { from, to } = route;
  const { signal } = request;
  return enterLines(
    port,
    [from.path, to.path],
    request,
    (checkTurn) =>
      inSlot(
        port,
        () => runAsync(port, moveAway(port, request, route, checkTurn)),
        signal,
      ),
  );
}

function moveAway(
  port: Port,
  request: MoveRequest,
  route: Route,
  checkTurn: () => void,
): Protocol<MoveReceipt> {
  forgetPlace(port, route.from.path);
  return move(port, request, route, checkTurn);
}

function runBlocking(prepared: PreparedMove): MoveReceipt {
  const { port, attempt, request, lock, passed } = prepared;
  const moveNow = (route: Route, held: readonly HeldLock[]) =>
    runSync(port, moveAway(port, { ...request, held }, route, () => {}));
  try {
    request.signal?.throwIfAborted();
    const route = runSync(port, locateRoute(port, request));
    for (const { path } of [route.from, route.to]) refusePending(port, path);
    const isKept = runSync(port, keepsChecksum(port, request, route));
    if (lock === false && !isKept) return moveNow(route, []);
    return underLocksSync(
      wantLocks(prepared, route),
      passed,
      (held) => moveNow(route, held),
    );
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** The locks of both names. */
function wantLocks(
  { port, attempt, request, lock }: PreparedMove,
  { from, to }: Route,
): WantedLock[] {
  const options = typeof lock === "object" ? lock : {};
  const { timeoutMs } = options;
  const signal = eitherOf(options.signal, request.signal);
  return [from, to].map(({ path }) => ({
    port,
    attempt,
    request: {
      ...request,
      path,
      createNew: false,
      // For the directory of a file that is missing.
      parents: request.parents && path === to.path,
      signal,
    },
    place: lockPlace(port, path),
    timeoutMs: timeoutMs ?? TIMEOUT_MS,
    isPatient: timeoutMs === undefined,
  }));
}
