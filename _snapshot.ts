/**
 * One version of a file, held open.
 *
 * @module
 */

import { runAsync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import { checkOptions, type OwnBytes, type ReadOptions } from "./_options.ts";
import { type Line, LineSplitter } from "./_lines.ts";
import { absolutePath } from "./_path.ts";
import { blockingCall, call, Refusal } from "./_protocol.ts";
import {
  MOST_BYTES,
  MOST_TEXT_BYTES,
  readFrom,
  type ReadRequest,
} from "./_read_file.ts";
import { currentPort } from "./_runtime/current.ts";
import type { OpenFile, Port } from "./_runtime/port.ts";
import { decodeText } from "./_utf8.ts";
import type { Sidecar } from "./_sidecar.ts";
import {
  type OpenedToRead,
  openUnlessAborted,
  type VerifiedRequest,
  Verifier,
} from "./_verified_read.ts";

/** One version of a file. Made by `openSnapshot`. */
export interface Snapshot extends AsyncDisposable {
  /**
   * Whether it was read to its end, and fits its checksum. Where it does not, the
   * reading that comes to its end is a `ChecksumMismatchError`. Always `false`
   * without the option `checksum`.
   */
  readonly verified: boolean;
  /** Its bytes, from the beginning each time it is read. */
  readonly readable: ReadableStream<OwnBytes>;
  /** All of its bytes. */
  bytes(): Promise<OwnBytes>;
  /** All of it as text; what is no UTF-8 is a `ParseError`. */
  text(): Promise<string>;
  /** Its lines, without what ends them. */
  lines(): AsyncIterable<string>;
}

const CHUNK_BYTES = 64 * 1024;

/** Opens the file. */
export async function snapshotOf(
  path: string | URL,
  given: ReadOptions,
): Promise<Snapshot> {
  const options = checkOptions("open", given);
  const port = currentPort();
  const attempt: Attempt = {
    operation: "openSnapshot",
    access: "read",
    path: absolutePath(port, path),
  };
  const request: VerifiedRequest = {
    maxBytes: options.maxBytes ?? Infinity,
    checksum: options.checksum,
    capacity: MOST_BYTES,
    retryMs: options.retryMs ?? 1000,
    signal: options.signal,
  };
  try {
    const opened = await openUnlessAborted(port, attempt.path, request);
    return new OpenSnapshot(port, attempt, request, opened);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

class OpenSnapshot implements Snapshot {
  readonly #port: Port;
  readonly #attempt: Attempt;
  readonly #request: ReadRequest;
  readonly #sidecar: Sidecar | undefined;
  #file: OpenFile | undefined;
  /** One call at a time: on Deno a read at a position is two. */
  #last: Promise<unknown> = Promise.resolve();
  #isVerified = false;

  constructor(
    port: Port,
    attempt: Attempt,
    request: ReadRequest,
    { file, sidecar }: OpenedToRead,
  ) {
    this.#port = port;
    this.#attempt = attempt;
    this.#request = request;
    this.#file = file;
    this.#sidecar = sidecar;
  }

  get verified(): boolean {
    return this.#isVerified;
  }

  get readable(): ReadableStream<OwnBytes> {
    const pass = this.#pass();
    return new ReadableStream({
      pull: async (controller) => {
        const { value, done } = await pass.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
    }, { highWaterMark: 0 });
  }

  bytes(): Promise<OwnBytes> {
    return this.#whole(this.#request);
  }

  async text(): Promise<string> {
    const request = { ...this.#request, capacity: MOST_TEXT_BYTES };
    return decodeText(await this.#whole(request), this.#attempt);
  }

  async *lines(): AsyncGenerator<string, void, undefined> {
    const splitter = new LineSplitter();
    const textOf = ({ bytes, origin }: Line) =>
      decodeText(bytes, this.#attempt, origin);
    for await (const chunk of this.#pass()) {
      for (const line of splitter.take(chunk)) yield textOf(line);
    }
    for (const line of splitter.end()) yield textOf(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    await this.#inTurn(() => runAsync(this.#port, call("close", file)));
  }

  /** All of it from the beginning, which must fit its checksum at the end. */
  async *#pass(): AsyncGenerator<OwnBytes, void, undefined> {
    const verifier = this.#begin();
    for (let position = 0;;) {
      const chunk = await this.#readAt(position);
      if (chunk.length === 0) break;
      position += chunk.length;
      verifier.take(chunk);
      yield chunk;
    }
    await this.#inTurn(() => Promise.resolve(this.#end(verifier)));
  }

  #begin(): Verifier {
    return new Verifier(this.#port, this.#sidecar);
  }

  /** Of several passes the last that came to its end counts: the file may be changed in place meanwhile. */
  #end(verifier: Verifier): void {
    this.#isVerified = false;
    verifier.end();
    this.#isVerified = this.#sidecar !== undefined;
  }

  #whole(request: ReadRequest): Promise<OwnBytes> {
    const file = this.#file;
    return this.#inTurn(async () => {
      const verifier = this.#begin();
      const bytes = await runAsync(
        this.#port,
        readFrom(opened(file), request, (piece) => verifier.take(piece)),
      );
      this.#end(verifier);
      return bytes;
    });
  }

  #readAt(position: number): Promise<OwnBytes> {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const file = this.#file;
    return this.#inTurn(async () => {
      this.#request.signal?.throwIfAborted();
      const read = blockingCall("read", opened(file), chunk, position);
      return chunk.subarray(0, await runAsync(this.#port, read));
    });
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#last.then(action).catch((error: unknown) => {
      throw explain(this.#port, this.#attempt, error);
    });
    this.#last = result.catch(() => {});
    return result;
  }
}

/** The file as it was when the call was made: what was asked for before the disposal is still read. */
function opened(file: OpenFile | undefined): OpenFile {
  if (file !== undefined) return file;
  throw new Refusal("CLOSED", "the snapshot is disposed of");
}
