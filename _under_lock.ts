/**
 * A write under a lock: one that is taken for it, or one that its caller holds.
 *
 * @module
 */

import { type ChecksumWish, expectChecksum } from "./_checksum_choice.ts";
import type { WriteRequest } from "./_core.ts";
import { remaining } from "./_demand.ts";
import { describe } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import type { Need } from "./_filesystems.ts";
import {
  askFor,
  FileLock,
  giveUp,
  insistOn,
  insistOnAsked,
  insistOnSync,
  TIMEOUT_MS,
  type WantedLock,
  wantLock,
} from "./_file_lock.ts";
import { type HeldLock, LockTimeout } from "./_lock.ts";
import { holderHere, turn, turnAtOnce } from "./_lock_queue.ts";
import { isLock, type Lock, type LockOptions } from "./_options.ts";
import { unlessAborted } from "./_abort.ts";
import type { Port } from "./_runtime/port.ts";

/** What the option `lock` says. */
export type LockWish = boolean | LockOptions | Lock | undefined;

/** A request with what its caller says of a lock and a checksum. */
export interface LockableRequest extends WriteRequest {
  readonly lock: LockWish;
  /** Whether it is under a lock for the sake of a checksum that is kept. */
  readonly isKept: boolean;
}

/** Whether a lock is asked for. That a checksum needs one may be found out later. */
export function wantsLock({ lock, wanted }: LockableRequest): boolean {
  return (lock !== undefined && lock !== false) ||
    (wanted !== undefined && wanted !== false);
}

/** The same request, which takes the lock whatever its caller says of that. */
export function locking(request: LockableRequest): LockableRequest {
  return { ...request, lock: request.lock || true, isKept: true };
}

/** What a write asks of its file system: not a lock that is held already. */
export function needsOf(
  lock: LockWish,
  checksum?: ChecksumWish,
): readonly Need[] {
  const isTaken = lock ? !isLock(lock) : Boolean(checksum);
  return isTaken ? ["rename", "lock"] : ["rename"];
}

/** Calls `body` with the request under its lock, and frees what was taken for it. */
export async function underLock<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => Promise<T>,
  onWait?: () => void,
): Promise<T> {
  const { lock } = request;
  if (!wantsLock(request)) return await body(request);
  const wanted = { ...wantedBy(port, attempt, request), onWait };
  const end = expectation(wanted, request);
  try {
    if (isLock(lock)) {
      const held = passed(lock, wanted);
      return await held.during(() => body(under(request, wanted, held)));
    }
    const taken = await insistOn(wanted);
    try {
      return await body(under(request, wanted, taken));
    } finally {
      // What it leaves is no lock, and the next holder removes it.
      await taken.release().catch(() => {});
    }
  } finally {
    end();
  }
}

/** Later writes wait for the same lock, until what is returned is called. */
function expectation(
  { port, place }: WantedLock,
  { wanted, isKept }: LockableRequest,
): () => void {
  return wanted || isKept ? expectChecksum(port, place.file) : () => {};
}

/**
 * The same for what reads before it writes: under a lock that is passed on, one
 * after the other, and after what is being written. Updates, which say what to do
 * when they must wait, are one after the other in a thread without a lock too.
 */
export async function underLockAlone<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => Promise<T>,
  onWait?: () => void,
): Promise<T> {
  const { lock, signal } = request;
  const isUpdate = onWait !== undefined;
  if (!isLock(lock) && !isUpdate) {
    return await underLock(port, attempt, request, body);
  }
  const wanted = wantedBy(port, attempt, request);
  const key = turnOf(wanted);
  const inTurn = async (body: () => Promise<T>) => {
    if (holderHere(port, key) !== undefined) onWait?.();
    const mine = await turn(port, key, {
      timeoutMs: TIMEOUT_MS,
      isPatient: true,
      signal,
    });
    if (mine === undefined) throw notInTime();
    try {
      return await body();
    } finally {
      mine.end(true);
    }
  };
  if (!isLock(lock)) {
    return await underLock(
      port,
      attempt,
      request,
      (request) => inTurn(() => body(request)),
      onWait,
    );
  }
  const held = passed(lock, wanted);
  // What is called later may wait for this: to wait for it would be for ever.
  const earlier = held.isBusy ? held.idle() : undefined;
  return await held.during(() =>
    inTurn(async () => {
      if (earlier !== undefined) {
        onWait?.();
        await unlessAborted(earlier, signal);
      }
      return await underLock(port, attempt, request, body);
    })
  );
}

/** In the queue of those who read before they write, whatever excludes other processes. */
function turnOf({ place }: WantedLock): string {
  return `${place.path}/updates`;
}

function notInTime(): LockTimeout {
  return new LockTimeout(
    "what is done under the same lock, or another update of it in this thread, has not come to its end: an update cannot be made from within another's function, nor a synchronous one beside others",
    [],
  );
}

/** The same as {@linkcode underLock}, blocking. */
export function underLockSync<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => T,
): T {
  const { lock } = request;
  if (!wantsLock(request)) return body(request);
  const wanted = wantedBy(port, attempt, request);
  const end = expectation(wanted, request);
  try {
    if (isLock(lock)) {
      return body(under(request, wanted, passed(lock, wanted)));
    }
    const taken = insistOnSync(wanted);
    try {
      return body(under(request, wanted, taken));
    } finally {
      try {
        taken.releaseSync();
      } catch {
        // As above.
      }
    }
  } finally {
    end();
  }
}

/** The same as {@linkcode underLockAlone}, blocking: it cannot wait for what is done under the same lock. */
export function underLockAloneSync<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => T,
  isUpdate = false,
): T {
  const { lock } = request;
  if (!isLock(lock) && !isUpdate) {
    return underLockSync(port, attempt, request, body);
  }
  const wanted = wantedBy(port, attempt, request);
  if (isLock(lock) && passed(lock, wanted).isBusy) throw notInTime();
  return underLockSync(port, attempt, request, (request) => {
    const mine = turnAtOnce(port, turnOf(wanted));
    if (mine === undefined) throw notInTime();
    try {
      return body(request);
    } finally {
      mine.end(true);
    }
  });
}

/** The file whose lock it is, and no other that its path may lead to by now. */
function under(
  request: LockableRequest,
  { place: { file } }: WantedLock,
  { held }: FileLock,
): WriteRequest {
  const symlinks = request.symlinks === "reject" ? "reject" : "replace";
  const demand = remaining(request.demand);
  return { ...request, path: file, symlinks, demand, held };
}

function wantedBy(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
): WantedLock {
  const { lock, signal } = request;
  const isOptions = typeof lock === "object" && !isLock(lock);
  const options: LockOptions = isOptions ? lock : {};
  return wantLock(
    port,
    attempt,
    {
      ...request,
      signal: eitherOf(options.signal, signal),
      demand: { ...request.demand, needs: needsOf(lock, request.wanted) },
    },
    options.timeoutMs,
  );
}

/** Throws where a lock is passed that is not the one of the file. */
export function checkLock(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
): void {
  if (!isLock(request.lock)) return;
  passed(request.lock, wantedBy(port, attempt, request));
}

/** Calls `body` under the locks of several files, of which the caller may hold some. All take the others in one order, or two would wait for each other. */
export async function underLocks<T>(
  wanted: readonly WantedLock[],
  given: readonly Lock[],
  body: (held: readonly HeldLock[]) => Promise<T>,
): Promise<T> {
  const handed = given.map((lock) => passed(lock, ...wanted));
  const work = async () => {
    // All places at once: two calls that want the same are in the same order
    // everywhere, and what is called later comes after both.
    const asked = stillToTake(wanted, handed).map(askFor);
    const taken: FileLock[] = [];
    try {
      for (const lock of asked) {
        const { port } = lock.wanted;
        taken.push(await insistOnAsked(lock, port.now()));
      }
      return await body([...handed, ...taken].map(({ held }) => held));
    } finally {
      for (const lock of asked.slice(taken.length)) giveUp(lock);
      for (const lock of taken.toReversed()) {
        await lock.release().catch(() => {});
      }
    }
  };
  return await handed.reduce((work, lock) => () => lock.during(work), work)();
}

/** The same, blocking. */
export function underLocksSync<T>(
  wanted: readonly WantedLock[],
  given: readonly Lock[],
  body: (held: readonly HeldLock[]) => T,
): T {
  const handed = given.map((lock) => passed(lock, ...wanted));
  const taken: FileLock[] = [];
  try {
    for (const lock of stillToTake(wanted, handed)) {
      taken.push(insistOnSync(lock));
    }
    return body([...handed, ...taken].map(({ held }) => held));
  } finally {
    for (const lock of taken.toReversed()) {
      try {
        lock.releaseSync();
      } catch {
        // As above.
      }
    }
  }
}

/** By their real paths, whose order is the same for everybody. */
function stillToTake(
  wanted: readonly WantedLock[],
  handed: readonly FileLock[],
): WantedLock[] {
  const held = new Set(handed.map(({ path }) => path));
  return wanted.filter(({ place }) => !held.has(place.file))
    .toSorted((one, other) => one.place.path < other.place.path ? -1 : 1);
}

/** The signal of both. */
export function eitherOf(
  one: AbortSignal | undefined,
  other: AbortSignal | undefined,
): AbortSignal | undefined {
  return one !== undefined && other !== undefined
    ? AbortSignal.any([one, other])
    : one ?? other;
}

/** The lock that the caller holds, which must be that of the file, or of one of them. */
function passed(lock: Lock, ...wanted: readonly WantedLock[]): FileLock {
  if (!(lock instanceof FileLock)) {
    throw new TypeError(
      `Lock must come from acquireLock, tryAcquireLock or withLock of the same module: received ${
        describe(lock)
      }`,
    );
  }
  const files = wanted.map(({ place }) => place.file);
  if (!files.includes(lock.path)) {
    throw new TypeError(
      `Lock must be that of ${
        files.map((file) => `"${file}"`).join(" or ")
      }: received that of "${lock.path}"`,
    );
  }
  if (lock.isReleased) {
    throw new TypeError(
      `Lock must be held: received that of "${lock.path}", which is released`,
    );
  }
  return lock;
}
