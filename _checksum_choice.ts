/**
 * Which checksum a write keeps: the one that its caller names, or the one that
 * the file has. Either is written under the file's lock.
 *
 * @module
 */

import type { ChecksumAlgorithm } from "./_options.ts";
import { type Protocol, Refusal } from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";
import { sidecarsOf } from "./_sidecar.ts";

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
 * The files that this realm writes a checksum of, or is about to: a later write
 * must wait for the same lock, or it would come before that one.
 */
const expectedByHost = new WeakMap<Host, Set<string>>();

/** More are forgotten, the oldest first. */
const MOST_EXPECTED = 10_000;

/** Takes note that the file will have a checksum. */
export function expectChecksum(host: Host, file: string): void {
  let expected = expectedByHost.get(host);
  if (expected === undefined) {
    expectedByHost.set(host, expected = new Set());
  }
  expected.delete(file);
  expected.add(file);
  if (expected.size <= MOST_EXPECTED) return;
  const [oldest] = expected;
  if (oldest !== undefined) expected.delete(oldest);
}

/** Whether a write that names no checksum must take the lock all the same. */
export function* isChecksummed(
  host: Host,
  file: string,
  request: ChoiceRequest,
): Protocol<boolean> {
  if (expectedByHost.get(host)?.has(file)) return true;
  return (yield* sidecarsOf(host, file, request)).length > 0;
}

/** The checksum to write; `false` to remove what is there, `undefined` where there is none. */
export function* chooseChecksum(
  host: Host,
  file: string,
  wish: ChecksumWish,
  request: ChoiceRequest,
): Protocol<ChecksumAlgorithm | false | undefined> {
  if (wish === true) return "sha256";
  if (typeof wish === "string") return wish;
  const [strongest] = yield* sidecarsOf(host, file, request);
  if (strongest === undefined) {
    expectedByHost.get(host)?.delete(file);
    return undefined;
  }
  if (wish === false) return false;
  return strongest.algorithm === "sha1" ? "sha256" : strongest.algorithm;
}

/** Why a write cannot go on whose file got a checksum after it had begun without. */
export function checksumCameMeanwhile(): Refusal {
  return new Refusal(
    "CHECKSUM_CHANGED",
    "its checksum was made, or made another one, after the write had begun: write it again",
  );
}
