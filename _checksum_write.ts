/**
 * The checksum of what a file holds, written without the file.
 *
 * @module
 */

import { chooseChecksum } from "./_checksum_choice.ts";
import { afterCommit, replaceSidecar, type WriteRequest } from "./_core.ts";
import { demandOf } from "./_demand.ts";
import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import type {
  ChecksumAlgorithm,
  ChecksumWriteOptions,
  WriteReceipt,
} from "./_options.ts";
import { enterLine, refusePending } from "./_order.ts";
import { type Protocol, Refusal } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import {
  currentDigest,
  readSidecar,
  removeSidecars,
  type Sidecar,
} from "./_sidecar.ts";
import { resolveTarget } from "./_target.ts";
import {
  type LockableRequest,
  needsOf,
  underLock,
  underLockSync,
} from "./_under_lock.ts";
import { prepare } from "./_write.ts";

/** Writes the checksum, when what is being written to the file is there. */
export async function writeSidecar(
  path: string | URL,
  given: ChecksumWriteOptions,
): Promise<Sidecar> {
  const { port, attempt, request } = prepareSidecar(
    "writeChecksum",
    path,
    given,
  );
  try {
    return await underLock(port, attempt, request, async (request) => {
      const { durability, signal } = request;
      await enterLine(port, request.path, {
        durability,
        signal,
        createNew: false,
        kind: undefined,
        payload: undefined,
        perform: () => runAsync(port, replaceOwn(port, request)),
      });
      return await runAsync(port, afterCommit(readOwn(port, request)));
    });
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** The same, blocking. It cannot wait for what is being written. */
export function writeSidecarSync(
  path: string | URL,
  given: ChecksumWriteOptions,
): Sidecar {
  const { port, attempt, request } = prepareSidecar(
    "writeChecksumSync",
    path,
    given,
  );
  try {
    return underLockSync(port, attempt, request, (request) => {
      refusePending(port, request.path);
      runSync(port, replaceOwn(port, request));
      return runSync(port, afterCommit(readOwn(port, request)));
    });
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function prepareSidecar(
  operation: string,
  path: string | URL,
  given: ChecksumWriteOptions,
): { port: Port; attempt: Attempt; request: LockableRequest } {
  const { port, attempt, request, options } = prepare(
    operation,
    "checksumWrite",
    path,
    given,
  );
  const wanted = options.algorithm ?? true;
  const demand = demandOf(needsOf(options.lock, wanted), {
    ...options,
    checksum: wanted,
  });
  return {
    port,
    attempt,
    request: { ...request, wanted, demand, parents: false },
  };
}

function* replaceOwn(
  port: Port,
  request: WriteRequest,
): Protocol<WriteReceipt> {
  const target = yield* resolveTarget(port, request);
  const { path, existing } = target;
  const algorithm = yield* chosenBy(port, request, path);
  const digest = yield* currentDigest(port, path, algorithm, request);
  if (digest === undefined) throw new Refusal("ENOENT", "it does not exist");
  // No previous one: what is there now is right, and nothing else.
  const digests = { digest, previous: [] };
  const receipt = yield* replaceSidecar(
    port,
    request,
    target,
    algorithm,
    digests,
    { mode: existing?.mode, owner: existing },
  );
  yield* afterCommit(removeSidecars(port, request, target, algorithm));
  return receipt;
}

/** What was written; an abort comes too late. */
function* readOwn(port: Port, given: WriteRequest): Protocol<Sidecar> {
  const request = { ...given, signal: undefined };
  const { path } = request;
  const algorithm = yield* chosenBy(port, request, path);
  const sidecar = yield* readSidecar(port, path, algorithm, request);
  if (sidecar !== undefined) return sidecar;
  throw new Refusal("CHECKSUM_MISSING", "its checksum was removed meanwhile");
}

/** The one that is named, or that of the checksum that is kept. */
function* chosenBy(
  port: Port,
  request: WriteRequest,
  path: string,
): Protocol<ChecksumAlgorithm> {
  const { wanted } = request;
  if (typeof wanted === "string") return wanted;
  return (yield* chooseChecksum(port, path, undefined, request)) || "sha256";
}
