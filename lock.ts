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

import { demandOf } from "./_demand.ts";
import { describe } from "./_describe.ts";
import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  insistOn,
  tryFor,
  tryForSync,
  type WantedLock,
  wantLock,
} from "./_file_lock.ts";
import { claimants } from "./_claim.ts";
import {
  type AcquireOptions,
  checkOptions,
  type Lock,
  type OptionKind,
  type SafetyOption,
} from "./_options.ts";
import { absolutePath } from "./_path.ts";
import type { Protocol } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { lstatIfPresent, type TargetRequest } from "./_target.ts";
import type { LockCandidate } from "./errors.ts";

export type {
  AcquireOptions,
  Lock,
  LockOptions,
  Safety,
  SafetyOption,
} from "./_options.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  type LockCandidate,
  LockLostError,
  LockTimeoutError,
  type LockTimeoutErrorOptions,
  PermissionScopeError,
  UnsupportedEnvironmentError,
} from "./errors.ts";

/** Who holds a lock, as far as can be told. */
export interface LockInfo {
  /** The file it is for: absolute, links resolved. */
  readonly path: string;
  /** Whether somebody holds it. */
  readonly isLocked: boolean;
  /**
   * The processes that hold it, wait for it, or did so and were killed: all that
   * have asked for it. Which of them holds it, the kernel does not tell.
   */
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
 * @throws {UnsupportedEnvironmentError} If the runtime has no SQLite, the file system no hard links, or it is a network mount.
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
  options: AcquireOptions = {},
): Promise<Lock> {
  const wanted = want("acquireLock", "lock", path, options);
  return await explained(wanted, insistOn(wanted));
}

/**
 * Takes the lock of a file if it is free.
 *
 * Its directory is made if it is missing. On Deno it requires `--allow-read` and
 * `--allow-write` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options What to do on a network mount.
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
  options: SafetyOption = {},
): Promise<Lock | undefined> {
  const wanted = want("tryAcquireLock", "tryLock", path, options, PROBE_MS);
  return await explained(wanted, tryFor(wanted));
}

/**
 * The synchronous form of {@linkcode tryAcquireLock}.
 *
 * Its directory is made if it is missing. On Deno it requires `--allow-read` and
 * `--allow-write` for the directory of the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options What to do on a network mount.
 * @returns The lock, or `undefined` if somebody holds it.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { tryAcquireLockSync } from "@aj/atomic/lock";
 *
 * const lock = tryAcquireLockSync(`${Deno.makeTempDirSync()}/job`);
 * if (lock === undefined) console.log("Another process does it already");
 * else lock.releaseSync();
 * ```
 */
export function tryAcquireLockSync(
  path: string | URL,
  options: SafetyOption = {},
): Lock | undefined {
  const wanted = want("tryAcquireLockSync", "tryLock", path, options, PROBE_MS);
  return explainedSync(wanted, () => tryForSync(wanted));
}

/**
 * Calls a function while it holds the lock of a file, and frees the lock however
 * the function ends.
 *
 * Its directory is made if it is missing. On Deno it requires `--allow-read` and
 * `--allow-write` for the directory of the file.
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
  options: AcquireOptions = {},
): Promise<T> {
  if (typeof body !== "function") {
    throw new TypeError(`Body must be a function: received ${describe(body)}`);
  }
  const wanted = want("withLock", "lock", path, options);
  const lock = await explained(wanted, insistOn(wanted));
  try {
    return await body(lock);
  } finally {
    // What it leaves is no lock; what the function did must not be hidden by it.
    await lock.release().catch(() => {});
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
 * @param options What to do on a network mount.
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
export async function isLocked(
  path: string | URL,
  options: SafetyOption = {},
): Promise<boolean> {
  const wanted = want("isLocked", "tryLock", path, options, PROBE_MS);
  return await explained(wanted, isHeld(wanted));
}

/**
 * The synchronous form of {@linkcode isLocked}.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options What to do on a network mount.
 * @returns Whether the lock is held.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { isLockedSync } from "@aj/atomic/lock";
 *
 * if (isLockedSync(`${Deno.makeTempDirSync()}/job`)) console.log("At work");
 * ```
 */
export function isLockedSync(
  path: string | URL,
  options: SafetyOption = {},
): boolean {
  const wanted = want("isLockedSync", "tryLock", path, options, 0);
  return explainedSync(wanted, () => isHeldSync(wanted));
}

/**
 * Who holds the lock of a file, as far as can be told.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options What to do on a network mount.
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
export async function inspectLock(
  path: string | URL,
  options: SafetyOption = {},
): Promise<LockInfo> {
  const wanted = want("inspectLock", "tryLock", path, options, PROBE_MS);
  const isLocked = await explained(wanted, isHeld(wanted));
  return await explained(
    wanted,
    runAsync(wanted.port, whoHolds(wanted, isLocked)),
  );
}

/**
 * The synchronous form of {@linkcode inspectLock}.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory of
 * the file.
 *
 * @param path The file: a path or a `file:` URL.
 * @param options What to do on a network mount.
 * @returns What is known.
 * @throws {TypeError} If the path is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode acquireLock} does.
 *
 * @example Usage
 * ```ts
 * import { inspectLockSync } from "@aj/atomic/lock";
 *
 * console.log(inspectLockSync(`${Deno.makeTempDirSync()}/job`).isLocked);
 * ```
 */
export function inspectLockSync(
  path: string | URL,
  options: SafetyOption = {},
): LockInfo {
  const wanted = want("inspectLockSync", "tryLock", path, options, 0);
  return explainedSync(wanted, () => {
    const isLocked = isHeldSync(wanted);
    return runSync(wanted.port, whoHolds(wanted, isLocked));
  });
}

/** For so long a probe of {@linkcode isLocked} may hold it. */
const PROBE_MS = 20;

function want(
  operation: string,
  kind: OptionKind,
  path: string | URL,
  given: AcquireOptions,
  atMostMs?: number,
): WantedLock {
  const options = checkOptions(kind, given);
  const { timeoutMs = atMostMs, signal } = options;
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
    signal,
    demand: demandOf(["lock"], options),
  };
  try {
    return wantLock(port, attempt, request, timeoutMs);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Tells a failure in the caller's terms. */
async function explained<T>(
  { port, attempt }: WantedLock,
  result: Promise<T>,
): Promise<T> {
  try {
    return await result;
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function explainedSync<T>({ port, attempt }: WantedLock, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Nobody has left anything: do not make a directory to find that out. */
function* isAbsent({ place }: WantedLock): Protocol<boolean> {
  return (yield* lstatIfPresent(place.path)) === undefined;
}

async function isHeld(wanted: WantedLock): Promise<boolean> {
  if (await runAsync(wanted.port, isAbsent(wanted))) return false;
  const lock = await probe(wanted);
  await lock?.release();
  return lock === undefined;
}

const probesByPort = new WeakMap<
  Port,
  Map<string, ReturnType<typeof tryFor>>
>();

/** Those who ask at the same time ask together, or they would find each other. */
async function probe(wanted: WantedLock): ReturnType<typeof tryFor> {
  const { port, place: { path } } = wanted;
  let probes = probesByPort.get(port);
  if (probes === undefined) probesByPort.set(port, probes = new Map());
  const underWay = probes.get(path);
  if (underWay !== undefined) return await underWay;
  const tried = tryFor(wanted);
  probes.set(path, tried);
  try {
    return await tried;
  } finally {
    probes.delete(path);
  }
}

function isHeldSync(wanted: WantedLock): boolean {
  if (runSync(wanted.port, isAbsent(wanted))) return false;
  const lock = tryForSync(wanted);
  lock?.releaseSync();
  return lock === undefined;
}

function* whoHolds(
  { port, place }: WantedLock,
  isLocked: boolean,
): Protocol<LockInfo> {
  const found = isLocked ? yield* claimants(port, place) : [];
  return {
    path: place.file,
    isLocked,
    candidates: found.map(({ pid, since }) => ({
      pid,
      since: new Date(since),
    })),
  };
}
