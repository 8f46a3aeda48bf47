/**
 * Locks between processes, threads and tasks, on Deno, Bun and Node alike. The
 * kernel frees a lock when its holder ends, however it ends: a lock is never
 * stale, and nobody has to guess who is alive.
 *
 * A lock excludes those who ask for it, and nobody else: a write that names no
 * lock does not wait. It does not exclude what is on another machine.
 *
 * @example Changing a file that others change too
 * ```ts
 * import { withLock } from "@aj/atomic/lock";
 * import { readJson, writeJsonAtomic } from "@aj/atomic/json";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/count.json`;
 * const increment = () =>
 *   withLock(path, async () => {
 *     const count = await readJson<number>(path, { fallback: 0 });
 *     await writeJsonAtomic(path, count + 1);
 *   });
 * await Promise.all([increment(), increment(), increment()]);
 * assert.equal(await readJson(path), 3);
 * ```
 *
 * @module
 */

import { ensureDirectory } from "./_directories.ts";
import { runAsync, runInline } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  acquire,
  candidates,
  type HeldLock,
  type LockPlace,
  lockPlace,
  type Patience,
  release,
} from "./_lock.ts";
import { type Turn, turn, turnAtOnce } from "./_lock_queue.ts";
import { checkOptions, type LockOptions } from "./_options.ts";
import { absolutePath, directoryOf } from "./_path.ts";
import type { Protocol } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { locateTarget, lstatIfPresent, type TargetRequest } from "./_target.ts";
import { type LockCandidate, LockTimeoutError } from "./errors.ts";

export type { LockOptions } from "./_options.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  type LockCandidate,
  LockTimeoutError,
  type LockTimeoutErrorOptions,
  UnsupportedEnvironmentError,
} from "./errors.ts";

/** A lock that is held, until it is released or its process ends. */
export interface Lock extends AsyncDisposable {
  /** The file it is for: absolute, links resolved. */
  readonly path: string;
  /** Frees it. Once is enough. */
  release(): Promise<void>;
}

/** Who holds a lock, as far as can be told. */
export interface LockInfo {
  /** The file it is for: absolute, links resolved. */
  readonly path: string;
  /** Whether somebody holds it. */
  readonly isLocked: boolean;
  /** The processes that hold it, wait for it, or did so and were killed. */
  readonly candidates: readonly LockCandidate[];
}

/**
 * Waits for the lock of a file, which need not exist. Tasks of one thread get it
 * in the order of their calls. A lock is not re-entrant: who asks for one that
 * he holds waits for himself.
 *
 * Its directory is made if it is missing. On Deno it requires `--allow-read` and
 * `--allow-write` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options How long to wait.
 * @returns The lock, to be released.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {LockTimeoutError} If it was not to be had in time, with who may hold it.
 * @throws {UnsupportedEnvironmentError} If the runtime has no SQLite, or the file system no hard links.
 * @throws {PermissionScopeError} If Deno's permissions do not cover the directory.
 * @throws {AtomicError} If anything else fails.
 *
 * @example Usage
 * ```ts
 * import { acquireLock } from "@aj/atomic/lock";
 *
 * const lock = await acquireLock(`${await Deno.makeTempDir()}/state.json`);
 * try {
 *   // Nobody else who asks for this lock is here.
 * } finally {
 *   await lock.release();
 * }
 * ```
 */
export async function acquireLock(
  path: string | URL,
  options: LockOptions = {},
): Promise<Lock> {
  const wanted = want("acquireLock", path, options);
  const lock = await attemptLock(wanted);
  return lock ?? await timedOut(wanted);
}

/**
 * Takes the lock of a file if it is free.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @returns The lock, or `undefined` if somebody holds it.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { tryAcquireLock } from "@aj/atomic/lock";
 *
 * const lock = await tryAcquireLock(`${await Deno.makeTempDir()}/job`);
 * if (lock === undefined) console.log("Another process does it already");
 * else await lock.release();
 * ```
 */
export async function tryAcquireLock(
  path: string | URL,
): Promise<Lock | undefined> {
  return await attemptLock(
    want("tryAcquireLock", path, { timeoutMs: PROBE_MS }),
  );
}

/**
 * Calls a function while it holds the lock of a file, and frees the lock however
 * the function ends.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @typeParam T What the function returns.
 * @param path The file: a path or a `file:` URL.
 * @param body Called with the lock once it is held.
 * @param options How long to wait.
 * @returns What the function returns.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {LockTimeoutError} If the lock was not to be had in time.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { withLock } from "@aj/atomic/lock";
 *
 * const path = `${await Deno.makeTempDir()}/state.json`;
 * const answer = await withLock(path, () => 42);
 * ```
 */
export async function withLock<T>(
  path: string | URL,
  body: (lock: Lock) => T | Promise<T>,
  options: LockOptions = {},
): Promise<T> {
  const wanted = want("withLock", path, options);
  const lock = await attemptLock(wanted) ?? await timedOut(wanted);
  try {
    return await body(lock);
  } finally {
    await lock.release();
  }
}

/**
 * Whether somebody holds the lock of a file just now. It is asked for, and given
 * back at once.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @returns Whether the lock is held.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { isLocked } from "@aj/atomic/lock";
 *
 * if (await isLocked(`${await Deno.makeTempDir()}/job`)) console.log("At work");
 * ```
 */
export async function isLocked(path: string | URL): Promise<boolean> {
  return await isHeld(want("isLocked", path, { timeoutMs: 0 }));
}

/**
 * Who holds the lock of a file, as far as can be told.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @returns What is known.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { inspectLock } from "@aj/atomic/lock";
 *
 * const { isLocked, candidates } = await inspectLock(
 *   `${await Deno.makeTempDir()}/job`,
 * );
 * console.log(isLocked, candidates.map(({ pid }) => pid));
 * ```
 */
export async function inspectLock(path: string | URL): Promise<LockInfo> {
  const wanted = want("inspectLock", path, { timeoutMs: 0 });
  const isLocked = await isHeld(wanted);
  return {
    path: wanted.place.file,
    isLocked,
    candidates: isLocked ? await candidatesFor(wanted) : [],
  };
}

/** A lock that somebody asks for. */
interface Wanted {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: TargetRequest;
  readonly place: LockPlace;
  readonly timeoutMs: number;
}

/** For so long a probe of {@linkcode isLocked} may hold it. */
const PROBE_MS = 20;
const TIMEOUT_MS = 10_000;

/** Whose lock it is, found out at once: tasks have it in the order of their calls. */
function want(
  operation: string,
  path: string | URL,
  given: LockOptions,
): Wanted {
  const options = checkOptions("lock", given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "lock",
    path: absolutePath(port, path),
  };
  const request: TargetRequest = {
    path: attempt.path,
    durability: "none",
    symlinks: "follow",
    parents: true,
    createNew: false,
    retryMs: 1000,
    signal: options.signal,
  };
  try {
    options.signal?.throwIfAborted();
    const located = locateTarget(port, { ...request, retryMs: 0 });
    const { path: file } = runInline(port, located);
    const place = lockPlace(port, file);
    const { timeoutMs = TIMEOUT_MS } = options;
    return { port, attempt, request, place, timeoutMs };
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Waits for the realm's turn, and then for the kernel's lock. */
async function attemptLock(wanted: Wanted): Promise<Lock | undefined> {
  const { port, attempt, request, place, timeoutMs } = wanted;
  const { retryMs, signal } = request;
  const deadline = port.now() + timeoutMs;
  const mine = await turn(port, place.path, timeoutMs, signal);
  if (mine === undefined) return undefined;
  try {
    const patience = { deadline, retryMs, signal };
    const held = await runAsync(port, inDirectory(wanted, patience));
    if (held !== undefined) return new FileLock(port, attempt, held, mine);
  } catch (error) {
    mine.end();
    throw explain(port, attempt, error);
  }
  mine.end();
  return undefined;
}

function* inDirectory(
  { port, request, place }: Wanted,
  patience: Patience,
): Protocol<HeldLock | undefined> {
  yield* ensureDirectory(port, request, directoryOf(port, place.path));
  return yield* acquire(port, place, patience);
}

class FileLock implements Lock {
  readonly path: string;
  readonly #port: Port;
  readonly #attempt: Attempt;
  readonly #held: HeldLock;
  readonly #turn: Turn;
  #released: Promise<void> | undefined;

  constructor(port: Port, attempt: Attempt, held: HeldLock, turn: Turn) {
    this.path = held.place.file;
    this.#port = port;
    this.#attempt = attempt;
    this.#held = held;
    this.#turn = turn;
  }

  release(): Promise<void> {
    return this.#released ??= this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  async #release(): Promise<void> {
    try {
      await runAsync(this.#port, release(this.#held));
    } catch (error) {
      throw explain(this.#port, this.#attempt, error);
    } finally {
      this.#turn.end();
    }
  }
}

async function isHeld(wanted: Wanted): Promise<boolean> {
  const { port, attempt, place } = wanted;
  try {
    // Nobody has left anything: do not make a directory to find that out.
    const status = await runAsync(port, lstatIfPresent(place.path));
    if (status === undefined) return false;
  } catch (error) {
    throw explain(port, attempt, error);
  }
  const lock = await attemptLock(wanted);
  await lock?.release();
  return lock === undefined;
}

async function candidatesFor(
  { port, attempt, place }: Wanted,
): Promise<LockCandidate[]> {
  try {
    const found = await runAsync(port, candidates(port, place));
    return found.map(({ pid, since }) => ({ pid, since: new Date(since) }));
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Tells who may hold it. */
async function timedOut(wanted: Wanted): Promise<never> {
  const { port, attempt: { operation, path }, place, timeoutMs } = wanted;
  const found = await candidatesFor(wanted);
  const isOurs = turnAtOnce(port, place.path);
  isOurs?.end();
  const who = isOurs === undefined
    ? "this very realm holds it, or waits for it: a lock is not re-entrant"
    : found.length === 0
    ? "who holds it could not be found out"
    : `it is held by one of ${
      found.map(({ pid, since }) =>
        `process ${pid} (since ${since.toISOString()})`
      ).join(", ")
    }`;
  throw new LockTimeoutError(
    `Cannot lock "${path}": it was not to be had within ${timeoutMs} ms; ${who}`,
    { code: "LOCK_TIMEOUT", path, operation, candidates: found },
  );
}
