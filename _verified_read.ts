/**
 * Opening a file together with the checksum that belongs to it.
 *
 * The sidecar is read before the file is opened and after. The same both times,
 * it names what the handle reads: a writer puts a new one into place before the
 * file. Later replacements do not reach the handle.
 *
 * @module
 */

import { unlessAborted } from "./_abort.ts";
import { MET } from "./_demand.ts";
import { MOST_LINKS, plannedDirectory } from "./_directories.ts";
import { runAsync } from "./_drive.ts";
import { digestOfFile } from "./_hashing.ts";
import type { ChecksumAlgorithm, OwnBytes } from "./_options.ts";
import { directoryOf, joinPath, nameOf, refuseMangled } from "./_path.ts";
import {
  attempt,
  blockingCall,
  call,
  closing,
  type Protocol,
  Refusal,
} from "./_protocol.ts";
import {
  openFile,
  readFrom,
  type ReadRequest,
  readWhole,
} from "./_read_file.ts";
import type { Hash, OpenFile, Port } from "./_runtime/port.ts";
import {
  isNamed,
  readAnySidecar,
  readSidecar,
  type Sidecar,
} from "./_sidecar.ts";

/** What the option `checksum` of a read says. */
export type ReadChecksum = boolean | ChecksumAlgorithm | undefined;

/** A read that may have to fit a checksum. */
export interface VerifiedRequest extends ReadRequest {
  readonly checksum: ReadChecksum;
}

/** The content of a file does not fit its checksum. */
export class Mismatch extends Refusal {
  readonly sidecar: Sidecar;
  readonly actual: string;

  constructor(sidecar: Sidecar, actual: string) {
    super(
      "CHECKSUM_MISMATCH",
      `its ${sidecar.algorithm} is ${actual}, and "${sidecar.path}" says ${
        [sidecar.digest, ...sidecar.previous].join(" or ")
      }: it was damaged, or changed by something else than this library; restore it from a copy, or if it is right as it is, call writeChecksum`,
    );
    this.sidecar = sidecar;
    this.actual = actual;
  }
}

/** Reads a file to its end, and refuses what does not fit its checksum. */
export function* readVerified(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Protocol<OwnBytes> {
  if (!request.checksum) return yield* readWhole(port, path, request);
  const { file, sidecar } = yield* openWithSidecar(port, path, request);
  // Piece by piece, or a large file would hold the event loop at its end.
  const verifier = new Verifier(port, sidecar);
  const bytes = yield* closing(
    file,
    () => readFrom(file, request, (piece) => verifier.take(piece)),
  );
  verifier.end();
  return bytes;
}

/** What is handed out of a file, compared with its checksum. */
export class Verifier {
  readonly #sidecar: Sidecar | undefined;
  readonly #hash: Hash | undefined;

  /** Without a checksum everything fits. */
  constructor(port: Port, sidecar: Sidecar | undefined) {
    this.#sidecar = sidecar;
    this.#hash = sidecar && port.createHash(sidecar.algorithm);
  }

  /** Each piece, in order. */
  take(piece: Uint8Array): void {
    this.#hash?.update(piece);
  }

  /** Throws where all that was taken does not fit; called once. */
  end(): void {
    if (this.#sidecar === undefined || this.#hash === undefined) return;
    compare(this.#sidecar, this.#hash.digest());
  }
}

/** A file that is open, and the checksum that what is read from it must fit. */
export interface OpenedToRead {
  readonly file: OpenFile;
  readonly size: number;
  readonly sidecar: Sidecar | undefined;
}

/** Opens a file to be read, with the checksum that belongs to it, where one is asked for. */
export function* openVerified(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Protocol<OpenedToRead> {
  if (request.checksum) return yield* openWithSidecar(port, path, request);
  const opened = yield* openFile(port, path, request);
  return { ...opened, sidecar: undefined };
}

/** The same, but who has asked does not wait any longer than the signal lets him: a pipe may never be written to. */
export async function openUnlessAborted(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Promise<OpenedToRead> {
  const opening = runAsync(port, openVerified(port, path, request));
  try {
    return await unlessAborted(opening, request.signal);
  } catch (error) {
    // Else nobody would close it.
    const close = ({ file }: OpenedToRead) =>
      runAsync(port, call("close", file));
    opening.then(close).catch(() => {});
    throw error;
  }
}

/** Compares what a file holds with its checksum. */
export function* verify(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Protocol<{ sidecar: Sidecar; actual: string }> {
  const opened = yield* openWithSidecar(port, path, request);
  const actual = yield* closing(
    opened.file,
    () => compareOpened(port, opened, request),
  );
  return { sidecar: opened.sidecar, actual };
}

/** Compares all of an open file with its checksum; the digest is returned. */
export function* compareOpened(
  port: Port,
  { file, sidecar }: Pick<Opened, "file" | "sidecar">,
  { signal }: Pick<VerifiedRequest, "signal">,
): Protocol<string> {
  const actual = yield* digestOfFile(port, sidecar.algorithm, file, signal);
  compare(sidecar, actual);
  return actual;
}

/** The checksum that belongs to the file at `path`. */
export function* findSidecarOf(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Protocol<Sidecar> {
  const real = yield* realPath(port, path, request);
  // Twice: one that is replaced by that of another algorithm may be missed.
  const sidecar = (yield* findSidecar(port, real, request)) ??
    (yield* findSidecar(port, real, request));
  if (sidecar === undefined) throw isMissing(real);
  return sidecar;
}

/** A file that is open, and the sidecar that names what it held by then. */
interface Opened extends OpenedToRead {
  readonly sidecar: Sidecar;
}

/** Each time a writer has come in between, of whom none stays long. */
const MOST_TRIES = 100;

function* openWithSidecar(
  port: Port,
  path: string,
  request: VerifiedRequest,
): Protocol<Opened> {
  const real = yield* realPath(port, path, request);
  for (let tried = 1; tried <= MOST_TRIES; tried++) {
    request.signal?.throwIfAborted();
    const before = yield* findSidecar(port, real, request);
    const { file, size } = yield* openFile(port, real, request);
    try {
      const after = yield* findSidecar(port, real, request);
      if (before === undefined && after === undefined) throw isMissing(real);
      if (before !== undefined && isSame(before, after)) {
        return { file, size, sidecar: before };
      }
    } catch (error) {
      yield* attempt(call("close", file));
      throw error;
    }
    yield* call("close", file);
    yield* blockingCall("sleep", tried * Math.random());
  }
  throw new Refusal(
    "BUSY",
    `its checksum was another one each of the ${MOST_TRIES} times that it was opened: read it under its lock`,
  );
}

/**
 * The file behind links. Not `realpath`, which on Bun opens the file and asks for
 * the name of what it has opened: that of a file that is replaced meanwhile is
 * none.
 */
function* realPath(
  port: Port,
  path: string,
  { retryMs, signal }: ReadRequest,
): Protocol<string> {
  const request = {
    durability: "none",
    parents: false,
    demand: MET,
    retryMs,
    signal,
  } as const;
  let real = path;
  for (let links = 0; links <= MOST_LINKS; links++) {
    const directory = yield* plannedDirectory(
      port,
      request,
      directoryOf(port, real),
    );
    real = joinPath(port, directory.path, nameOf(port, real));
    if ((yield* call("lstat", real)).kind !== "symlink") return real;
    const text = yield* call("readlink", real);
    refuseMangled(real, text);
    real = joinPath(port, directory.path, text);
  }
  throw new Refusal("ELOOP", "too many symbolic links lead to it");
}

/** The sidecar to be used; `undefined` where there is none. */
function findSidecar(
  port: Port,
  path: string,
  { checksum, ...request }: VerifiedRequest,
): Protocol<Sidecar | undefined> {
  return typeof checksum === "string"
    ? readSidecar(port, path, checksum, request)
    : readAnySidecar(port, path, request);
}

function isMissing(path: string): Refusal {
  return new Refusal(
    "CHECKSUM_MISSING",
    `it has no checksum beside it: write "${path}" with checksum: true, or call writeChecksum, if its content is known to be right`,
  );
}

function isSame(one: Sidecar, other: Sidecar | undefined): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function compare(sidecar: Sidecar, actual: string): void {
  if (!isNamed(sidecar, actual)) throw new Mismatch(sidecar, actual);
}
