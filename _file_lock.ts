/**
 * A lock as a task of this realm takes it: first the realm's own turn, then the
 * kernel's lock.
 *
 * @module
 */

import { ensureDirectory } from "./_directories.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  type Claimant,
  claimants,
  type LockPlace,
  lockPlace,
} from "./_claim.ts";
import {
  acquire,
  type HeldLock,
  LockTimeout,
  type Patience,
  release,
} from "./_lock.ts";
import {
  mustWaitForPermit,
  type Permit,
  permit,
  permitAtOnce,
} from "./_lock_permits.ts";
import { holderHere, type Turn, turn, turnAtOnce } from "./_lock_queue.ts";
import type { Lock } from "./_options.ts";
import { directoryOf } from "./_path.ts";
import { type Protocol, SystemCallError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { locateTarget, type TargetRequest } from "./_target.ts";

/** A lock that somebody asks for. */
export interface WantedLock {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: TargetRequest;
  readonly place: LockPlace;
  readonly timeoutMs: number;
  /** Whether that counts anew when another task of this realm has had it: who names no time waits as long as there is progress. */
  readonly isPatient: boolean;
  /** Called when it turns out not to be free. */
  readonly onWait?: (() => void) | undefined;
}

/** What is waited for where the caller does not say. */
export const TIMEOUT_MS = 10_000;

/** Whose lock it is, found out at once: tasks have it in the order of their calls. */
export function wantLock(
  port: Port,
  attempt: Attempt,
  request: TargetRequest,
  timeoutMs?: number,
): WantedLock {
  request.signal?.throwIfAborted();
  const located = locateTarget(port, {
    ...request,
    createNew: false,
    retryMs: 0,
  });
  const { path } = runInline(port, located);
  return {
    port,
    attempt,
    request,
    place: lockPlace(port, path),
    timeoutMs: timeoutMs ?? TIMEOUT_MS,
    isPatient: timeoutMs === undefined,
  };
}

/** A lock that was asked for: its place among those of this realm is that of the call. */
export interface AskedLock {
  readonly wanted: WantedLock;
  readonly begun: number;
  readonly turn: Promise<Turn | undefined>;
}

/** Asks for a lock. */
export function askFor(wanted: WantedLock): AskedLock {
  const { port, request: { signal }, place, timeoutMs, isPatient } = wanted;
  const begun = port.now();
  if (holderHere(port, place.path) !== undefined) wanted.onWait?.();
  const mine = turn(port, place.path, { timeoutMs, isPatient, signal });
  // It may fail while its caller still waits for another lock.
  mine.catch(() => {});
  return { wanted, begun, turn: mine };
}

/** Gives up what was asked for, and has not been answered. */
export function giveUp({ turn }: AskedLock): void {
  turn.then((mine) => mine?.end(false), () => {});
}

/** Waits for the lock; `undefined` if it was not to be had in time, which counts from `notBefore` on at the earliest. */
async function answerTo(
  { wanted, begun, turn }: AskedLock,
  notBefore: number,
): Promise<FileLock | undefined> {
  const { port, request: { retryMs, signal }, timeoutMs, isPatient } = wanted;
  const mine = await turn;
  if (mine === undefined) return undefined;
  let allowed: Permit | undefined;
  try {
    const from = isPatient ? Math.max(mine.since, notBefore) : begun;
    const left = isPatient ? Infinity : from + timeoutMs - port.now();
    const isBrief = timeoutMs <= BRIEF_MS;
    if (!isBrief && mustWaitForPermit(port)) wanted.onWait?.();
    allowed = isBrief ? permitAtOnce(port) : await permit(port, left, signal);
    if (allowed !== undefined) {
      const asked = isPatient ? Math.max(from, port.now()) : from;
      const patience = {
        deadline: asked + timeoutMs,
        retryMs,
        signal,
        onWait: wanted.onWait,
      };
      const held = await runAsync(port, takeKernelLock(wanted, patience));
      if (held !== undefined) {
        return new FileLock(wanted, held, mine, allowed);
      }
    }
  } catch (error) {
    allowed?.();
    mine.end(false);
    throw error;
  }
  allowed?.();
  mine.end(false);
  return undefined;
}

/** Who waits no longer than that for a lock does not wait for others to give theirs back. */
const BRIEF_MS = 1000;

/** Waits for the lock; `undefined` if it was not to be had in time. */
export async function tryFor(
  wanted: WantedLock,
): Promise<FileLock | undefined> {
  const asked = askFor(wanted);
  return await answerTo(asked, asked.begun);
}

/** The same, blocking. It cannot wait for its own realm. */
export function tryForSync(wanted: WantedLock): FileLock | undefined {
  const { port, request, place, timeoutMs } = wanted;
  const { retryMs, signal } = request;
  const mine = turnAtOnce(port, place.path);
  if (mine === undefined) return undefined;
  const allowed = permitAtOnce(port);
  try {
    const patience = { deadline: port.now() + timeoutMs, retryMs, signal };
    const held = runSync(port, takeKernelLock(wanted, patience));
    if (held !== undefined) return new FileLock(wanted, held, mine, allowed);
  } catch (error) {
    allowed();
    mine.end(false);
    throw error;
  }
  allowed();
  mine.end(false);
  return undefined;
}

function* takeKernelLock(
  { port, request, place }: WantedLock,
  patience: Patience,
): Protocol<HeldLock | undefined> {
  yield* ensureDirectory(port, request, directoryOf(port, place.path));
  return yield* acquire(port, place, patience);
}

/** Waits for the lock, or tells who may hold it. */
export async function insistOn(wanted: WantedLock): Promise<FileLock> {
  const asked = askFor(wanted);
  return await insistOnAsked(asked, asked.begun);
}

/** The same of a lock that was asked for before. */
export async function insistOnAsked(
  asked: AskedLock,
  notBefore: number,
): Promise<FileLock> {
  const { wanted, begun } = asked;
  return await answerTo(asked, notBefore) ??
    await runAsync(wanted.port, tellWhoHolds(wanted, begun, WAITING));
}

/** The same, blocking. */
export function insistOnSync(wanted: WantedLock): FileLock {
  const { port } = wanted;
  const begun = port.now();
  return tryForSync(wanted) ??
    runSync(port, tellWhoHolds(wanted, begun, BLOCKING));
}

/** What a call can do about a write of its own realm that has the lock. */
const WAITING =
  "which has not ended: what is called from within it, as from the function of an update, waits for itself";
const BLOCKING = "which a synchronous call cannot wait for: await that first";

function* tellWhoHolds(
  wanted: WantedLock,
  begun: number,
  way: typeof WAITING | typeof BLOCKING,
): Protocol<never> {
  const { port, place, timeoutMs } = wanted;
  const found = yield* knownClaimants(port, place);
  const others = found.filter(({ pid }) => pid !== port.pid);
  const holder = holderHere(port, place.path);
  const who = typeof holder === "object"
    ? heldHere(holder, way)
    : holder !== undefined && way === BLOCKING
    ? [
      `another task of this very realm asked for it before, ${way}`,
      ...(others.length === 0 ? [] : [heldByOneOf(others)]),
    ].join("; ")
    : heldByOneOf(found);
  const isWaited = port.now() - begun >= timeoutMs;
  const how = isWaited ? `within ${timeoutMs} ms` : "at once";
  throw new LockTimeout(`its lock was not to be had ${how}; ${who}`, found);
}

/** A lock that its holder was given can be passed on, one that was taken for a write cannot. */
function heldHere(
  { operation, access }: Attempt,
  way: typeof WAITING | typeof BLOCKING,
): string {
  return access === "lock"
    ? "this very realm holds it: a lock is not re-entrant, pass the one that is held on"
    : `this very realm holds it for ${operation}, ${way}`;
}

function heldByOneOf(found: readonly Claimant[]): string {
  const name = ({ pid, since }: Claimant) =>
    `process ${pid} (asked at ${new Date(since).toISOString()})`;
  const [holder, ...others] = found.filter(({ isHeld }) => isHeld);
  if (holder !== undefined && others.length === 0) {
    return `it is held by ${name(holder)}`;
  }
  return found.length === 0
    ? "who holds it could not be found out"
    : `it is held by one of: ${found.map(name).join(", ")}`;
}

/** That nobody can be named must not hide that the time is over. */
function* knownClaimants(port: Port, place: LockPlace): Protocol<Claimant[]> {
  try {
    return yield* claimants(port, place);
  } catch (error) {
    if (error instanceof SystemCallError) return [];
    throw error;
  }
}

/** A lock that is held. */
export class FileLock implements Lock {
  readonly path: string;
  readonly held: HeldLock;
  readonly #wanted: WantedLock;
  readonly #turn: Turn;
  readonly #permit: Permit;
  /** What is done under it. */
  readonly #inFlight = new Set<Promise<unknown>>();
  #released: Promise<void> | undefined;

  constructor(
    wanted: WantedLock,
    held: HeldLock,
    turn: Turn,
    permit: Permit,
  ) {
    turn.hold(wanted.attempt);
    this.#permit = permit;
    this.path = held.place.file;
    this.held = held;
    this.#wanted = wanted;
    this.#turn = turn;
  }

  get isReleased(): boolean {
    return this.#released !== undefined;
  }

  /** Whether something is done under it. */
  get isBusy(): boolean {
    return this.#inFlight.size > 0;
  }

  /** Does something under it, which its release waits for. */
  async during<T>(body: () => Promise<T>): Promise<T> {
    const work = body();
    this.#inFlight.add(work);
    try {
      return await work;
    } finally {
      this.#inFlight.delete(work);
    }
  }

  /** Waits until what is done under it by now has come to its end. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#inFlight);
  }

  /** Not before the writes under it have ended: later they would undo that of the next holder. */
  release(): Promise<void> {
    return this.#released ??= this.#release();
  }

  releaseSync(): void {
    if (this.#released !== undefined) return;
    if (this.isBusy) {
      throw new TypeError(
        `Lock must not be in use to be released at once: a write under that of "${this.path}" has not ended, await it or release()`,
      );
    }
    this.#released = Promise.resolve();
    const { port, attempt } = this.#wanted;
    try {
      runSync(port, release(port, this.held));
    } catch (error) {
      throw explain(port, attempt, error);
    } finally {
      this.#permit();
      this.#turn.end(true);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  [Symbol.dispose](): void {
    this.releaseSync();
  }

  async #release(): Promise<void> {
    const { port, attempt } = this.#wanted;
    while (this.isBusy) await this.idle();
    try {
      await runAsync(port, release(port, this.held));
    } catch (error) {
      throw explain(port, attempt, error);
    } finally {
      this.#permit();
      this.#turn.end(true);
    }
  }
}
