/**
 * A file that is written part by part, by calls or through a stream.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
import { explain } from "./_failure.ts";
import type { WriteReceipt } from "./_options.ts";
import { Refusal } from "./_protocol.ts";
import { ProgressCount, StreamWrite } from "./_stream_write.ts";
import { checkLock, underLock } from "./_under_lock.ts";
import type { BytesLike } from "./_source.ts";
import type { SourceWrite } from "./_write.ts";

/** A file that is written part by part. Made by `openAtomicWriter`. */
export interface AtomicWriter extends AsyncDisposable {
  /** The same writer as a stream: closing it commits, aborting it aborts. */
  readonly writable: WritableStream<BytesLike | string>;
  /**
   * Appends a chunk; a string as UTF-8. Once the promise has resolved, the chunk
   * may be changed and the next one is due.
   */
  write(chunk: BytesLike | string): Promise<void>;
  /**
   * Puts what was written into place; its place among other writes of the file
   * is that of this call. Called again, or after the closing of
   * {@linkcode AtomicWriter.writable}, it gives the same receipt.
   */
  commit(): Promise<WriteReceipt>;
  /**
   * Leaves the file as it was. After a commit it does nothing. Rejects where
   * the temporary file could not be removed.
   */
  abort(reason?: unknown): Promise<void>;
}

/** Opens the file and gives the writer. */
export async function openWriter(
  prepared: SourceWrite<unknown>,
): Promise<AtomicWriter> {
  const { port, attempt, request } = prepared;
  try {
    checkLock(port, attempt, request);
    const write = await StreamWrite.begin(port, request);
    return new Writer(prepared, write);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

class Writer implements AtomicWriter {
  readonly #prepared: SourceWrite<unknown>;
  readonly #write: StreamWrite;
  readonly #progress: ProgressCount;
  readonly writable: WritableStream<BytesLike | string>;
  /** The calls one after the other, however they are made. */
  #last: Promise<unknown> = Promise.resolve();
  #receipt: Promise<WriteReceipt> | undefined;
  /** Why nothing more can be written, once that is so. */
  #end: { readonly reason: unknown } | undefined;
  /** For the signal. */
  readonly #stopWaiting: () => void;

  constructor(prepared: SourceWrite<unknown>, write: StreamWrite) {
    this.#prepared = prepared;
    this.#write = write;
    this.#stopWaiting = whenAborted(prepared.request.signal, () => {
      // It may have nothing to do by then, and would keep its temporary file.
      if (this.#receipt !== undefined) return;
      this.abort(prepared.request.signal?.reason).catch(() => {});
    });
    this.#progress = new ProgressCount(prepared.onProgress);
    this.writable = new WritableStream({
      write: (chunk) => this.write(chunk),
      close: async () => void await this.commit(),
      abort: (reason) => this.abort(reason),
    });
  }

  write(chunk: BytesLike | string): Promise<void> {
    return this.#inTurn(async () => {
      this.#throwIfEnded();
      try {
        this.#prepared.request.signal?.throwIfAborted();
        const bytes = this.#prepared.encode(chunk, this.#progress.records);
        this.#progress.records++;
        if (await this.#write.append(bytes)) {
          this.#progress.tell(this.#write.bytes);
        }
      } catch (error) {
        throw await this.#fail(error);
      }
    });
  }

  commit(): Promise<WriteReceipt> {
    return this.#receipt ??= this.#commit();
  }

  async #commit(): Promise<WriteReceipt> {
    this.#throwIfEnded();
    const appended = this.#inTurn(() => {
      this.#throwIfEnded();
      this.#finish(this.#closed("is committed"));
      this.#progress.tell(this.#write.bytes);
      return Promise.resolve();
    });
    // At once: its place is that of this call.
    const receipt = this.#commitWhen(appended);
    this.#last = receipt.catch(() => {});
    try {
      return await receipt;
    } catch (error) {
      // Else a lock that was not to be had would hide that a chunk has failed.
      const first = await appended.then(() => error, (failure) => failure);
      await this.#write.discard(first);
      throw this.#explained(first);
    }
  }

  async #commitWhen(appended: Promise<void>): Promise<WriteReceipt> {
    const { port, attempt, request } = this.#prepared;
    return await underLock(
      port,
      attempt,
      this.#write.lockable(request),
      (request) => this.#write.commit(appended, request),
    );
  }

  abort(reason?: unknown): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#end !== undefined) return;
      this.#finish(reason ?? this.#closed("was aborted"));
      const failure = await this.#write.discard(reason);
      if (failure !== undefined) throw this.#explained(failure);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action);
    this.#last = result.catch(() => {});
    return result;
  }

  #finish(reason: unknown): void {
    this.#end = { reason };
    this.#stopWaiting();
  }

  #throwIfEnded(): void {
    if (this.#end !== undefined) throw this.#end.reason;
  }

  async #fail(error: unknown): Promise<unknown> {
    await this.#write.discard(error);
    const reason = this.#explained(error);
    this.#finish(reason);
    return reason;
  }

  #closed(how: string): unknown {
    return this.#explained(new Refusal("CLOSED", `the writer ${how}`));
  }

  #explained(error: unknown): unknown {
    return explain(this.#prepared.port, this.#prepared.attempt, error);
  }
}
