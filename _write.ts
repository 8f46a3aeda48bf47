/**
 * A write of a whole value: options checked, value encoded, then the protocol.
 *
 * @module
 */

import { type Company, replace, type WriteRequest } from "./_core.ts";
import { runAsync, runInline, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  checkOptions,
  type OptionKind,
  type WriteOptions,
  type WriteReceipt,
} from "./_options.ts";
import {
  durabilityToOvertake,
  enterLine,
  type OrderedWrite,
  overtaking,
  settleOvertaken,
} from "./_order.ts";
import { absolutePath } from "./_path.ts";
import { type Protocol, SystemCallError } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { inSlot } from "./_slots.ts";
import { locateTarget, resolveTarget, type Target } from "./_target.ts";

/** A write that is ready for its first system call. */
export interface WholeWrite {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: WriteRequest;
  /** Handed over to the order of writes, which may let go of it. */
  payload: Uint8Array | undefined;
}

/** Checks and encodes. Whatever is wrong with the arguments is thrown here, before the disk is touched. */
export function prepareWrite<Options extends WriteOptions>(
  operation: string,
  kind: OptionKind,
  path: string | URL,
  given: Options,
  encode: (options: Options, attempt: Attempt) => Uint8Array,
): WholeWrite {
  const options = checkOptions(kind, given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "write",
    path: absolutePath(port, path),
  };
  return {
    port,
    attempt,
    request: {
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
    },
    payload: encode(options, attempt),
  };
}

/** Performs a prepared write, in call order. */
export async function write(prepared: WholeWrite): Promise<WriteReceipt> {
  const { port, attempt } = prepared;
  try {
    return await enterLine(...inCallOrder(prepared));
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** The file it is for, which is found out at once, and the write as its order sees it. */
function inCallOrder(
  prepared: WholeWrite,
): [path: string, write: OrderedWrite] {
  const { port, request, payload } = prepared;
  const { durability, createNew, signal } = request;
  prepared.payload = undefined;
  signal?.throwIfAborted();
  const located = runInline(port, locateTarget(port, request));
  const ordered: OrderedWrite = {
    durability,
    createNew,
    signal,
    kind: createNew ? undefined : kindOf(request),
    payload,
    perform: (progress) =>
      inSlot((hasWaited) => {
        const isStale = hasWaited || progress.hasWaited || located.isPlanned;
        const target = isStale ? undefined : located;
        const bytes = ordered.payload ?? new Uint8Array();
        return runAsync(
          port,
          performWhole(port, request, target, bytes, progress),
        );
      }),
  };
  return [located.path, ordered];
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
  located: Target | undefined,
  bytes: Uint8Array,
  company: Company,
): Protocol<WriteReceipt> {
  request.signal?.throwIfAborted();
  const target = located ?? (yield* resolveTarget(port, request));
  return yield* replace(port, request, target, bytes, company);
}

/** Performs a prepared write, blocking. Older ones that are under way are overtaken. */
export function writeSync(prepared: WholeWrite): WriteReceipt {
  try {
    return runSync(prepared.port, writeOvertaking(prepared));
  } catch (error) {
    throw explain(prepared.port, prepared.attempt, error);
  }
}

function* writeOvertaking(
  { port, request, payload }: WholeWrite,
): Protocol<WriteReceipt> {
  request.signal?.throwIfAborted();
  const target = yield* resolveTarget(port, request);
  const durability = durabilityToOvertake(target.path, request.durability);
  const bytes = payload ?? new Uint8Array();
  try {
    const receipt = yield* replace(
      port,
      { ...request, durability },
      target,
      bytes,
      overtaking(target.path),
    );
    settleOvertaken(target.path, { receipt });
    return receipt;
  } catch (error) {
    const isInPlace = error instanceof SystemCallError &&
      error.committed !== false;
    if (isInPlace) settleOvertaken(target.path, { error });
    throw error;
  }
}
