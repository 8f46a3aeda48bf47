/**
 * A write whose bytes arrive in parts. It is staged when it begins, and takes
 * its place in the order of writes when it is committed.
 *
 * @module
 */

import {
  checksumCameMeanwhile,
  chooseChecksum,
  isExpected,
  mayBeChecksummed,
} from "./_checksum_choice.ts";
import {
  append,
  type Company,
  complete,
  discard,
  lookAgain,
  stage,
  type StagedWrite,
  type WriteRequest,
} from "./_core.ts";
import { MET } from "./_demand.ts";
import { runAsync, runInline } from "./_drive.ts";
import type { WriteProgress, WriteReceipt } from "./_options.ts";
import { enterLine, type OrderedWrite } from "./_order.ts";
import type { Protocol, SystemCallError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { resolveTarget } from "./_target.ts";
import { type LockableRequest, locking } from "./_under_lock.ts";

/** Small chunks are gathered, since each call costs more than copying this much. */
const BUFFER_BYTES = 256 * 1024;

/** Chunks gathered to pieces of some size. A piece must be written before the next chunk is taken. */
export class Gatherer {
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #length = 0;
  /** The bytes taken so far. */
  bytes = 0;

  /** Takes a chunk; yields what is to be written now. */
  *take(chunk: Uint8Array): Generator<Uint8Array, void, undefined> {
    this.bytes += chunk.length;
    if (this.#length + chunk.length > BUFFER_BYTES) yield* this.rest();
    if (chunk.length > BUFFER_BYTES) {
      yield chunk;
    } else {
      this.#buffer.set(chunk, this.#length);
      this.#length += chunk.length;
    }
  }

  /** What is still to be written. */
  *rest(): Generator<Uint8Array, void, undefined> {
    if (this.#length > 0) yield this.#buffer.subarray(0, this.#length);
    this.#length = 0;
  }
}

/** Counts what is taken, and tells about it. */
export class ProgressCount {
  readonly #tell: ((progress: WriteProgress) => void) | undefined;
  records = 0;

  constructor(tell: ((progress: WriteProgress) => void) | undefined) {
    this.#tell = tell;
  }

  tell(bytes: number): void {
    this.#tell?.({ bytes, records: this.records });
  }
}

/** A write whose bytes arrive in parts, asynchronously. One call at a time. */
export class StreamWrite {
  readonly #port: Port;
  readonly #request: WriteRequest;
  readonly #write: StagedWrite;
  readonly #gatherer = new Gatherer();

  private constructor(port: Port, request: WriteRequest, write: StagedWrite) {
    this.#port = port;
    this.#request = request;
    this.#write = write;
  }

  /** Creates the temporary file. */
  static async begin(
    port: Port,
    request: LockableRequest,
  ): Promise<StreamWrite> {
    const write = await runAsync(port, beginStream(port, request));
    return new StreamWrite(port, request, write);
  }

  /** The request of a lock for its file, which was found when it began. */
  lockable(request: LockableRequest): LockableRequest {
    const { path } = this.#write.target;
    const found = {
      ...request,
      path,
      symlinks: "replace",
      demand: MET,
    } as const;
    const isKept = mayBeChecksummed(this.#port, path, request);
    return runInline(this.#port, isKept) ? locking(found) : found;
  }

  get bytes(): number {
    return this.#gatherer.bytes;
  }

  /** Appends a chunk, which may be changed once the promise has resolved. Returns whether anything went to the disk. */
  async append(chunk: Uint8Array): Promise<boolean> {
    let isWritten = false;
    for (const piece of this.#gatherer.take(chunk)) {
      await runAsync(this.#port, append(this.#write, piece));
      isWritten = true;
    }
    return isWritten;
  }

  /** Puts it into place when its turn has come and all is `appended`, or discards it. */
  commit(
    appended: Promise<unknown>,
    request: WriteRequest,
  ): Promise<WriteReceipt> {
    const { path } = this.#write.target;
    return this.commitAs(
      appended,
      request,
      (write) => enterLine(this.#port, path, write),
    );
  }

  /** The same, where `enter` gives it its turn. */
  async commitAs(
    appended: Promise<unknown>,
    { held }: WriteRequest,
    enter: (write: OrderedWrite) => Promise<WriteReceipt>,
  ): Promise<WriteReceipt> {
    this.#write.request = { ...this.#write.request, held };
    const { durability, createNew, signal } = this.#request;
    let isPerformed = false;
    try {
      return await enter({
        durability,
        createNew,
        signal,
        kind: undefined,
        payload: undefined,
        perform: async (company) => {
          await appended;
          isPerformed = true;
          return await runAsync(this.#port, this.#finish(company));
        },
      });
    } finally {
      // Aborted or overtaken while it waited. Not before the last chunk is
      // written: its descriptor may be another file's by then.
      if (!isPerformed) {
        await appended.catch(() => {});
        await this.discard(undefined);
      }
    }
  }

  #finish(company: Company): Protocol<WriteReceipt> {
    const gatherer = this.#gatherer;
    return complete(this.#write, function* (write) {
      for (const piece of gatherer.rest()) yield* append(write, piece);
      yield* lookAgain(write);
      yield* chooseAgain(write);
    }, company);
  }

  /** Takes it back, because of `reason`; returns why its temporary file stays, if it does. */
  discard(reason: unknown): Promise<SystemCallError | undefined> {
    return runAsync(this.#port, discard(this.#write, reason));
  }
}

/** Its checksum, now that its turn has come: a digest of what is written already cannot be begun any more. */
export function* chooseAgain(write: StagedWrite): Protocol<void> {
  const { port, request, target: { path } } = write;
  const { held, wanted } = request;
  const checksum = yield* chooseChecksum(port, path, wanted, request);
  const isUnlocked = checksum !== undefined && held === undefined;
  const isNew = checksum && checksum !== request.checksum;
  if (isUnlocked || isNew) throw checksumCameMeanwhile();
  write.request = { ...request, checksum };
}

/** The first calls of a write whose bytes arrive in parts. */
export function* beginStream(
  port: Port,
  request: LockableRequest,
): Protocol<StagedWrite> {
  request.signal?.throwIfAborted();
  const target = yield* resolveTarget(port, request);
  const { wanted } = request;
  const { path } = target;
  const chosen = yield* chooseChecksum(port, path, wanted, request);
  // One is being made: the digest is taken all the same, and chosen at the end.
  const checksum = chosen ?? (isExpected(port, path) ? "sha256" : undefined);
  return yield* stage(port, { ...request, checksum }, target);
}
