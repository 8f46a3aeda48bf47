/**
 * A write under a lock: one that is taken for it, or one that its caller holds.
 *
 * @module
 */

import type { WriteRequest } from "./_core.ts";
import { describe } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import {
  FileLock,
  insistOn,
  insistOnSync,
  type WantedLock,
  wantLock,
} from "./_file_lock.ts";
import type { Lock, LockOptions } from "./_options.ts";
import type { Port } from "./_runtime/port.ts";

/** What the option `lock` says. */
export type LockWish = boolean | LockOptions | Lock | undefined;

/** A request with what its caller says of a lock. */
export interface LockableRequest extends WriteRequest {
  readonly lock: LockWish;
}

/** Whether a lock is to be held at all. */
export function wantsLock({ lock }: LockableRequest): boolean {
  return lock !== undefined && lock !== false;
}

/** Calls `body` with the request under its lock, and frees what was taken for it. */
export async function underLock<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => Promise<T>,
): Promise<T> {
  const { lock } = request;
  if (!wantsLock(request)) return await body(request);
  const wanted = wantedBy(port, attempt, request);
  if (isLock(lock)) return await body(passed(request, lock, wanted));
  const taken = await insistOn(wanted);
  try {
    return await body({ ...request, held: taken.held });
  } finally {
    // What it leaves is no lock, and the next holder removes it.
    await taken.release().catch(() => {});
  }
}

/** The same, blocking. */
export function underLockSync<T>(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => T,
): T {
  const { lock } = request;
  if (!wantsLock(request)) return body(request);
  const wanted = wantedBy(port, attempt, request);
  if (isLock(lock)) return body(passed(request, lock, wanted));
  const taken = insistOnSync(wanted);
  try {
    return body({ ...request, held: taken.held });
  } finally {
    try {
      taken.releaseSync();
    } catch {
      // As above.
    }
  }
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
    { ...request, signal: options.signal ?? signal },
    options.timeoutMs,
  );
}

/** Whether it is a lock, ours or not, and no options for one. */
export function isLock(value: unknown): value is Lock {
  return typeof value === "object" && value !== null && "release" in value;
}

/** Fenced by the lock that the caller holds, which must be that of the file. */
function passed(
  request: LockableRequest,
  lock: Lock,
  { place }: WantedLock,
): WriteRequest {
  if (!(lock instanceof FileLock)) {
    throw new TypeError(
      `Lock must come from acquireLock, tryAcquireLock or withLock of the same module: received ${
        describe(lock)
      }`,
    );
  }
  if (lock.path !== place.file) {
    throw new TypeError(
      `Lock must be that of "${place.file}": received that of "${lock.path}"`,
    );
  }
  return { ...request, held: lock.held };
}
