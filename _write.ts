/**
 * A write, of a whole value or from a source: arguments checked, content
 * encoded, then the protocol.
 *
 * @module
 */

import {
  checksumCameMeanwhile,
  chooseChecksum,
  hasChecksum,
  isChecksummed,
  isExpected,
  keptChecksum,
  mayBeChecksummed,
} from "./_checksum_choice.ts";
import {
  append,
  type Company,
  lookAgain,
  replace,
  type StagedWrite,
  type WriteRequest,
} from "./_core.ts";
import { demandOf } from "./_demand.ts";
import { openToSync } from "./_directories.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  checkOptions,
  type OptionKind,
  type WriteOptions,
  type WriteProgress,
  type WriteReceipt,
} from "./_options.ts";
import {
  enterLine,
  type OrderedWrite,
  overtaking,
  type SyncTurn,
} from "./_order.ts";
import { absolutePath } from "./_path.ts";
import { type Protocol, SystemCallError } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Host, Port } from "./_runtime/port.ts";
import { inSlot } from "./_slots.ts";
import { type Chunks, chunksOf, type Source } from "./_source.ts";
import {
  chooseAgain,
  Gatherer,
  ProgressCount,
  StreamWrite,
} from "./_stream_write.ts";
import {
  checkLock,
  type LockableRequest,
  locking,
  needsOf,
  underLock,
  underLockSync,
  wantsLock,
} from "./_under_lock.ts";
import {
  locateAgain,
  locateTarget,
  refuseExisting,
  resolveTarget,
  type Target,
} from "./_target.ts";

/** A write from a source that is ready for its first system call. */
export interface SourceWrite<S> {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: LockableRequest;
  readonly onProgress: ((progress: WriteProgress) => void) | undefined;
  /** The chunks of the source as bytes; the last call, without a chunk, gives what ends the file. */
  readonly encode: (chunk: S | typeof END, index: number) => Uint8Array;
}

/** Stands for the end of a source. */
export const END: unique symbol = Symbol("end");

/** A write that is ready for its first system call. */
export interface WholeWrite {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: LockableRequest;
  /** Handed over to the order of writes, which may let go of it. */
  payload: Uint8Array | undefined;
  /** Of the payload, when the function was called: its buffer may be transferred or resized while it waits. */
  readonly bytes: number;
}

/** A call whose arguments have been checked. */
export interface Prepared<Options> {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: LockableRequest;
  readonly options: Options;
}

/** Checks the arguments but for the content. Whatever is wrong with them is thrown here, before the disk is touched. */
export function prepare<Options extends WriteOptions>(
  operation: string,
  kind: OptionKind,
  path: string | URL,
  given: Options,
): Prepared<Options> {
  const options = checkOptions(kind, given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "write",
    path: absolutePath(port, path),
  };
  const needs = needsOf(options.lock, options.checksum);
  const request: LockableRequest = {
    path: attempt.path,
    durability: options.durability ?? "full",
    mode: options.mode,
    owner: options.owner,
    preserve: options.preserve ?? true,
    symlinks: options.symlinks ?? "follow",
    parents: options.parents ?? true,
    createNew: options.createNew ?? false,
    retryMs: options.retryMs ?? 1000,
    signal: options.signal,
    demand: demandOf(needs, options, hasKeptChecksum),
    lock: options.lock,
    isKept: false,
    wanted: options.checksum,
    held: undefined,
    checksum: undefined,
  };
  return { port, attempt, request, options };
}

function* hasKeptChecksum(host: Host, file: string): Protocol<boolean> {
  return (yield* keptChecksum(host, file)) !== undefined;
}

/** Checks the arguments and encodes a whole value. */
export function prepareWrite<Options extends WriteOptions>(
  operation: string,
  kind: OptionKind,
  path: string | URL,
  given: Options,
  encode: (options: Options, attempt: Attempt) => Uint8Array,
): WholeWrite {
  const { port, attempt, request, options } = prepare(
    operation,
    kind,
    path,
    given,
  );
  const payload = encode(options, attempt);
  return { port, attempt, request, payload, bytes: payload.length };
}

/** Writes what comes from a source. */
export async function writeFrom<S>(
  source: Source<S>,
  prepared: SourceWrite<S>,
): Promise<WriteReceipt> {
  const { port, attempt, request } = prepared;
  const chunks = chunksOf(source, request.signal);
  try {
    const write = await beginFor(chunks, port, attempt, request);
    await appendEach(write, chunks, prepared);
    try {
      return await underLock(
        port,
        attempt,
        write.lockable(request),
        (request) => write.commit(Promise.resolve(), request),
      );
    } catch (error) {
      // Of a lock that was not to be had.
      await write.discard(error);
      throw error;
    }
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Appends what comes from a source, or takes the write back. */
export async function appendEach<S>(
  write: StreamWrite,
  chunks: AsyncIterable<S>,
  { encode, onProgress }: Pick<SourceWrite<S>, "encode" | "onProgress">,
): Promise<void> {
  const progress = new ProgressCount(onProgress);
  try {
    for await (const chunk of chunks) {
      const bytes = encode(chunk, progress.records);
      progress.records++;
      if (bytes.length > 0 && await write.append(bytes)) {
        progress.tell(write.bytes);
      }
    }
    await write.append(encode(END, progress.records));
    progress.tell(write.bytes);
  } catch (error) {
    await write.discard(error);
    throw error;
  }
}

/** A source that is not begun at all is left all the same. */
async function beginFor(
  chunks: Chunks<unknown>,
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
): Promise<StreamWrite> {
  try {
    checkLock(port, attempt, request);
    return await StreamWrite.begin(port, request);
  } catch (error) {
    chunks.leave();
    throw error;
  }
}

/** Writes what comes from an iterable, blocking. */
export function writeFromSync<S>(
  source: Iterable<S>,
  prepared: SourceWrite<S>,
): WriteReceipt {
  const { port, attempt, request } = prepared;
  try {
    return underLockIfChecksummed(
      port,
      attempt,
      request,
      (request) => writeEachSync(port, request, source, prepared),
    );
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Writes what comes from an iterable, for whom the lock is held. */
export function writeEachSync<S>(
  port: Port,
  request: WriteRequest,
  source: Iterable<S>,
  { encode, onProgress }: Pick<SourceWrite<S>, "encode" | "onProgress">,
  turn?: SyncTurn,
): WriteReceipt {
  const progress = new ProgressCount(onProgress);
  function* appendAll(write: StagedWrite): Protocol<void> {
    const gatherer = new Gatherer();
    for (const chunk of source) {
      const bytes = encode(chunk, progress.records);
      progress.records++;
      let isWritten = false;
      for (const piece of gatherer.take(bytes)) {
        yield* append(write, piece);
        isWritten = true;
      }
      if (isWritten) progress.tell(gatherer.bytes);
    }
    for (const piece of gatherer.take(encode(END, progress.records))) {
      yield* append(write, piece);
    }
    progress.tell(gatherer.bytes);
    for (const piece of gatherer.rest()) yield* append(write, piece);
    yield* lookAgain(write);
    yield* chooseAgain(write);
  }
  return runSync(port, writeOvertaking(port, request, appendAll, turn));
}

/** Takes the lock where it turns out that a checksum is kept, before anything is done. */
function underLockIfChecksummed(
  port: Port,
  attempt: Attempt,
  request: LockableRequest,
  body: (request: WriteRequest) => WriteReceipt,
): WriteReceipt {
  try {
    return underLockSync(port, attempt, request, body);
  } catch (error) {
    if (!(error instanceof Checksummed)) throw error;
    return underLockSync(port, attempt, locking(request), body);
  }
}

/** Thrown before anything is done. */
class Checksummed extends Error {
  override name = "Checksummed";
}

/** Performs a prepared write, in call order. */
export async function write(prepared: WholeWrite): Promise<WriteReceipt> {
  const { port, attempt, request } = prepared;
  try {
    const ordered = wantsLock(request)
      ? undefined
      : unlessChecksummed(prepared, request);
    if (ordered !== undefined) return await enterLine(port, ...ordered);
    return await underLock(
      port,
      attempt,
      wantsLock(request) ? request : locking(request),
      (request) => enterLine(port, ...inCallOrder(prepared, request)),
    );
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** A write of bytes for whom the lock is held, and the turn is come. */
export function heldWrite(
  port: Port,
  request: WriteRequest,
  payload: Uint8Array,
): OrderedWrite {
  const { length } = payload;
  const [, write] = inCallOrder({ port, payload, bytes: length }, request);
  return write;
}

/** Writes bytes for whom the lock is held already, blocking. */
export function writeHeldSync(
  port: Port,
  request: WriteRequest,
  payload: Uint8Array,
  turn: SyncTurn,
): WriteReceipt {
  return runSync(port, writeWhole({ port, request, payload }, turn));
}

type InCallOrder = [path: string, write: OrderedWrite];

/** The file it is for, which is found out at once, and the write as its order sees it. */
function inCallOrder(
  prepared: Pick<WholeWrite, "port" | "payload" | "bytes">,
  request: WriteRequest,
): InCallOrder {
  return ordered(prepared, request, locateNow(prepared.port, request));
}

/** The same; `undefined` where a checksum is kept, which takes a lock. */
function unlessChecksummed(
  prepared: WholeWrite,
  request: WriteRequest,
): InCallOrder | undefined {
  const { port } = prepared;
  const located = locateNow(port, request);
  const isKept = mayBeChecksummed(port, located.path, request);
  if (runInline(port, isKept)) return undefined;
  return ordered(prepared, request, located);
}

/** Without a retry, which would hold the event loop. Whether something is there counts when its turn has come. */
export function locateNow(port: Port, request: WriteRequest): Target {
  request.signal?.throwIfAborted();
  const located = { ...request, createNew: false, retryMs: 0 };
  return runInline(port, locateTarget(port, located));
}

function ordered(
  prepared: Pick<WholeWrite, "port" | "payload" | "bytes">,
  request: WriteRequest,
  located: Target,
): InCallOrder {
  const { port, payload, bytes } = prepared;
  const { durability, createNew, signal } = request;
  prepared.payload = undefined;
  const write: OrderedWrite = {
    durability,
    createNew,
    signal,
    kind: createNew || request.held ? undefined : kindOf(request),
    payload,
    perform: (progress) =>
      inSlot(port, (hasWaited) => {
        const isStale = hasWaited || progress.hasWaited || located.isPlanned;
        const left = write.payload ?? new Uint8Array();
        const appendAll = (write: StagedWrite) => append(write, left, bytes);
        return runAsync(
          port,
          performWhole(port, request, located, isStale, appendAll, progress),
        );
      }, signal),
  };
  return [located.path, write];
}

/** What must be the same for one write to take another's place. */
function kindOf(request: WriteRequest): string {
  const { durability, mode, owner, preserve, symlinks, parents } = request;
  return JSON.stringify([
    durability,
    mode,
    owner?.uid,
    owner?.gid,
    preserve,
    symlinks,
    parents,
  ]);
}

function* performWhole(
  port: Port,
  request: WriteRequest,
  located: Target,
  isStale: boolean,
  appendAll: (write: StagedWrite) => Protocol<void>,
  company: Company,
): Protocol<WriteReceipt> {
  request.signal?.throwIfAborted();
  const target = isStale ? yield* locateAgain(port, request, located) : located;
  refuseExisting(request, target);
  const { path } = target;
  // By another process, while it waited.
  const isMade = isStale && request.held === undefined &&
    (yield* hasChecksum(port, path, request));
  if (isMade) throw checksumCameMeanwhile();
  const chosen = yield* withChecksum(port, request, path);
  return yield* replace(port, chosen, target, appendAll, company);
}

/** Performs a prepared write, blocking. */
export function writeSync(prepared: WholeWrite): WriteReceipt {
  const { port, attempt, request } = prepared;
  try {
    return underLockIfChecksummed(
      port,
      attempt,
      request,
      (request) => runSync(port, writeWhole({ ...prepared, request })),
    );
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** All of a synchronous write. Older ones that are under way are overtaken. */
export function writeWhole(
  { port, request, payload = new Uint8Array() }:
    & Pick<WholeWrite, "port" | "payload">
    & { readonly request: WriteRequest },
  turn?: SyncTurn,
): Protocol<WriteReceipt> {
  return writeOvertaking(
    port,
    request,
    (write) => append(write, payload),
    turn,
  );
}

/** The request when its turn has come. Without a lock there is no checksum. */
function* withChecksum(
  port: Port,
  request: WriteRequest,
  path: string,
): Protocol<WriteRequest> {
  if (request.held === undefined) return request;
  const { wanted } = request;
  const checksum = yield* chooseChecksum(port, path, wanted, request);
  return { ...request, checksum };
}

function* writeOvertaking(
  port: Port,
  given: WriteRequest,
  appendAll: (write: StagedWrite) => Protocol<void>,
  own?: SyncTurn,
): Protocol<WriteReceipt> {
  given.signal?.throwIfAborted();
  const target = yield* resolveTarget(port, given);
  const { path } = target;
  const hasLock = given.held !== undefined;
  if (!hasLock && (yield* isChecksummed(port, path, given))) {
    throw new Checksummed();
  }
  const request = yield* withChecksum(port, given, path);
  const turn = own ?? overtaking(port, path);
  // What is overtaken would leave its checksum.
  if (request.checksum !== undefined || isExpected(port, path)) {
    turn.refusePending();
  }
  // Last, since the source may have called other writes of the same file.
  function* appendAndStrengthen(write: StagedWrite): Protocol<void> {
    yield* appendAll(write);
    const durability = turn.strengthened(request.durability);
    if (durability === request.durability) return;
    write.request = { ...request, durability };
    write.directory ??= yield* openToSync(
      port,
      write.request,
      target.directory,
    );
  }
  try {
    const receipt = yield* replace(
      port,
      request,
      target,
      appendAndStrengthen,
      turn,
    );
    turn.settle({ receipt });
    return receipt;
  } catch (error) {
    const isInPlace = error instanceof SystemCallError &&
      error.committed !== false;
    if (isInPlace) turn.settle({ error });
    throw error;
  }
}
