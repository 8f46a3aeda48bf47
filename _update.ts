/**
 * A file changed by a function: read, changed and written under its lock, so
 * that no other change comes in between.
 *
 * @module
 */

import { hasChecksum, mayBeChecksummed } from "./_checksum_choice.ts";
import type { WriteRequest } from "./_core.ts";
import { describe } from "./_describe.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import type {
  OptionKind,
  OwnBytes,
  UpdateResult,
  WriteOptions,
  WriteReceipt,
} from "./_options.ts";
import { isThenable } from "./_plain_object.ts";
import { unlessAborted } from "./_abort.ts";
import { enterUpdate, enterUpdateSync, type UpdatePlace } from "./_order.ts";
import { failedWith, type Protocol, Refusal } from "./_protocol.ts";
import { MOST_TEXT_BYTES } from "./_read_file.ts";
import type { Port } from "./_runtime/port.ts";
import { locateTarget } from "./_target.ts";
import {
  type LockableRequest,
  locking,
  underLockAlone,
  underLockAloneSync,
} from "./_under_lock.ts";
import { makeDurable, needsNoWrite } from "./_unchanged.ts";
import { readVerified } from "./_verified_read.ts";
import {
  heldWrite,
  locateNow,
  prepare,
  type Prepared,
  writeHeldSync,
} from "./_write.ts";

/** What an update needs to know of a format. */
export interface Format<T, Options> {
  readonly operation: string;
  readonly kind: OptionKind;
  decode(bytes: OwnBytes, options: Options, attempt: Attempt): T;
  encode(value: T, options: Options, attempt: Attempt): Uint8Array;
}

/** What is given where there is no file. */
interface InitialOption<T> {
  initial?: T | undefined;
}

/** Changes the file; `change` may take its time. */
export async function update<T, Options extends WriteOptions>(
  format: Format<T, Options>,
  path: string | URL,
  change: (current: T) => T | Promise<T>,
  given: Options & InitialOption<T>,
): Promise<UpdateResult<T>> {
  const { port, attempt, request, options } = prepareUpdate(
    format,
    path,
    change,
    given,
  );
  let place: UpdatePlace | undefined;
  try {
    const { path } = locateNow(port, request);
    const own = place = enterUpdate(port, path, request);
    const locked = lockedUnlessForbidden(port, request);
    return await underLockAlone(port, attempt, locked, async (request) => {
      const bytes = await own.read(() =>
        runAsync(port, readIfPresent(port, request))
      );
      const current = bytes === undefined
        ? options.initial
        : format.decode(bytes, options, attempt);
      request.signal?.throwIfAborted();
      // Without an initial value the overloads have undefined in T.
      const value = await unlessAborted(
        change(current as T),
        request.signal,
      );
      refuseNothing(format.operation, value);
      const encoded = format.encode(value, options, attempt);
      const isDone = bytes !== undefined && isSame(bytes, encoded) &&
        await runAsync(port, needsNoWrite(port, request));
      if (isDone) return unchanged(value);
      const receipt = await own.write(heldWrite(port, request, encoded));
      return changed(value, await strengthened(port, request, receipt));
    }, own.letPass);
  } catch (error) {
    throw explain(port, attempt, error);
  } finally {
    place?.leave();
  }
}

/** A newer write that came first may have promised less. */
async function strengthened(
  port: Port,
  request: WriteRequest,
  receipt: WriteReceipt,
): Promise<WriteReceipt> {
  const { durability } = request;
  const isFull = durability === "full" && !port.windows;
  const isKept = (receipt.fileSynced || durability === "none") &&
    (receipt.directorySynced || !isFull);
  if (!receipt.superseded || isKept) return receipt;
  if (await runAsync(port, makeDurable(port, request))) {
    return { ...receipt, fileSynced: true, directorySynced: isFull };
  }
  const refusal = new Refusal(
    "BROKEN",
    "a newer write of this process has taken its place, and what that has written could not be synced: write it anew",
  );
  refusal.committed = "unknown";
  throw refusal;
}

/** The same, blocking. */
export function updateSync<T, Options extends WriteOptions>(
  format: Format<T, Options>,
  path: string | URL,
  change: (current: T) => T,
  given: Options & InitialOption<T>,
): UpdateResult<T> {
  const { port, attempt, request, options } = prepareUpdate(
    format,
    path,
    change,
    given,
  );
  try {
    const locked = lockedUnlessForbidden(port, request);
    return underLockAloneSync(port, attempt, locked, (request) => {
      const { path } = runSync(port, locateTarget(port, request));
      const turn = enterUpdateSync(port, path, request.durability);
      try {
        const bytes = runSync(port, readIfPresent(port, request));
        const current = bytes === undefined
          ? options.initial
          : format.decode(bytes, options, attempt);
        const value = change(current as T);
        refusePromise(format.operation, value);
        refuseNothing(format.operation, value);
        const encoded = format.encode(value, options, attempt);
        const isDone = bytes !== undefined && isSame(bytes, encoded) &&
          runSync(port, needsNoWrite(port, request));
        if (isDone) return unchanged(value);
        const receipt = turn.write(() =>
          writeHeldSync(port, request, encoded, turn)
        );
        return changed(value, receipt);
      } finally {
        turn.leave();
      }
    }, true);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function prepareUpdate<T, Options extends WriteOptions>(
  { operation, kind }: Format<T, Options>,
  path: string | URL,
  change: unknown,
  given: Options & InitialOption<T>,
): Prepared<Options & InitialOption<T>> {
  const prepared = prepare(operation, kind, path, given);
  checkUpdate(change, prepared.request);
  return prepared;
}

/** `lock: false` counts for nothing where a checksum is kept. */
export function lockedUnlessForbidden(
  port: Port,
  request: LockableRequest,
): LockableRequest {
  if (request.lock !== false) return { ...request, lock: request.lock ?? true };
  const { path } = locateNow(port, request);
  const isKept = runInline(port, mayBeChecksummed(port, path, request));
  return isKept ? locking(request) : request;
}

function unchanged<T>(value: T): UpdateResult<T> {
  return { value, changed: false, receipt: undefined };
}

function changed<T>(value: T, receipt: WriteReceipt): UpdateResult<T> {
  return { value, changed: true, receipt };
}

function* readIfPresent(
  port: Port,
  request: WriteRequest,
): Protocol<OwnBytes | undefined> {
  const { path, retryMs, signal } = request;
  // What is damaged would be written anew, and called good.
  const isKept = request.wanted !== false &&
    (yield* hasChecksum(port, path, request));
  try {
    return yield* readVerified(port, path, {
      checksum: isKept,
      maxBytes: Infinity,
      capacity: MOST_TEXT_BYTES,
      retryMs,
      signal,
    });
  } catch (error) {
    if (failedWith(error, "ENOENT")) return undefined;
    refuseUnreadable(error);
    throw error;
  }
}

/** Of a write else the directory would be taken for what may not be read. */
export function refuseUnreadable(error: unknown): void {
  if (!failedWith(error, "EACCES")) return;
  throw new Refusal(
    "EACCES",
    "this process may not read it, and can only change what it has read: grant read permission on it (EACCES)",
  );
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length &&
    one.every((byte, index) => byte === other[index]);
}

function checkUpdate(change: unknown, { symlinks }: WriteRequest): void {
  if (typeof change !== "function") {
    throw new TypeError(
      `The update must be a function of the current content: received ${
        describe(change)
      }`,
    );
  }
  // It would read one file, and write another.
  if (symlinks === "replace") {
    throw new TypeError(
      'An update follows links, or rejects them: received symlinks: "replace"',
    );
  }
}

/** A function that changes what it is given, and forgets to return it. */
function refuseNothing(operation: string, value: unknown): void {
  if (value !== undefined) return;
  throw new TypeError(
    `The function of ${operation} must return the new content: received undefined`,
  );
}

/** It would be written as `{}`. */
function refusePromise(operation: string, value: unknown): void {
  if (!isThenable(value)) return;
  throw new TypeError(
    `The function of ${operation} must return the new content, not a promise of it: use ${
      operation.replace(/Sync$/, "")
    }`,
  );
}
