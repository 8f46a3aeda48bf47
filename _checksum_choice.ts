/**
 * Which checksum a write keeps: the one that its caller names, or the one that
 * the file has. Either is written under the file's lock, and chosen when the
 * write's turn has come.
 *
 * @module
 */

import { checkDemand, type Demand, remaining } from "./_demand.ts";
import type { ChecksumAlgorithm } from "./_options.ts";
import { directoryOf } from "./_path.ts";
import {
  failedWith,
  type Protocol,
  Refusal,
  SystemCallError,
} from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";
import { ownSidecars, type Sidecar } from "./_sidecar.ts";

/** What the option `checksum` of a write says. */
export type ChecksumWish =
  | boolean
  | Exclude<ChecksumAlgorithm, "sha1">
  | undefined;

interface ChoiceRequest {
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * How many calls of this realm are under way that keep a checksum of a file: a
 * later write must wait for the same lock, or it would come before them.
 */
const expectedByHost = new WeakMap<Host, Map<string, number>>();

/** Takes note of such a call; what is returned ends the note. */
export function expectChecksum(host: Host, file: string): () => void {
  let expected = expectedByHost.get(host);
  if (expected === undefined) expectedByHost.set(host, expected = new Map());
  const counts = expected;
  counts.set(file, (counts.get(file) ?? 0) + 1);
  return () => {
    const left = (counts.get(file) ?? 0) - 1;
    if (left > 0) counts.set(file, left);
    else counts.delete(file);
  };
}

/** Whether such a call is under way. */
export function isExpected(host: Host, file: string): boolean {
  return expectedByHost.get(host)?.has(file) ?? false;
}

/** Whether a write that names no checksum must take the lock all the same. */
export function* isChecksummed(
  host: Host,
  file: string,
  request: ChoiceRequest,
): Protocol<boolean> {
  return isExpected(host, file) || (yield* hasChecksum(host, file, request));
}

/** The same, without a retry, which would hold the event loop: where no descriptor is free to look, there may be one. */
export function* mayBeChecksummed(
  host: Host,
  file: string,
  request: ChoiceRequest,
): Protocol<boolean> {
  try {
    return yield* isChecksummed(host, file, { ...request, retryMs: 0 });
  } catch (error) {
    if (failedWith(error, "EMFILE", "ENFILE")) return true;
    throw error;
  }
}

/** Whether this library keeps a checksum of the file. */
export function* hasChecksum(
  host: Host,
  file: string,
  request: ChoiceRequest,
): Protocol<boolean> {
  return (yield* ownSidecars(host, file, request)).length > 0;
}

/** The checksum that a write keeps which names none, as far as that may be looked at. */
export function* keptChecksum(
  host: Host,
  file: string,
): Protocol<Sidecar | undefined> {
  if (host.permission("read", directoryOf(host, file)) !== "granted") {
    return undefined;
  }
  const request = { retryMs: 0, signal: undefined };
  try {
    const [strongest] = yield* ownSidecars(host, file, request);
    return strongest;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return undefined;
  }
}

/** The checksum to write; `false` to remove what is there, `undefined` where there is none. */
export function* chooseChecksum(
  host: Host,
  file: string,
  wish: ChecksumWish,
  request: ChoiceRequest & { readonly demand: Demand },
): Protocol<ChecksumAlgorithm | false | undefined> {
  if (wish === true) return "sha256";
  if (typeof wish === "string") return wish;
  const [strongest] = yield* ownSidecars(host, file, request);
  if (strongest === undefined) {
    const directory = directoryOf(host, file);
    yield* checkDemand(host, remaining(request.demand), directory, file);
    return undefined;
  }
  return wish === false ? false : strongest.algorithm;
}

/** Why a write cannot go on whose file got a checksum after it had begun without. */
export function checksumCameMeanwhile(): Refusal {
  return new Refusal(
    "CHECKSUM_CHANGED",
    "its checksum was made, or made another one, after the write had begun: write it again",
  );
}
