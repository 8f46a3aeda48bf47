/**
 * A write of a whole value: options checked, value encoded, then the protocol.
 *
 * @module
 */

import { replace, type WriteRequest } from "./_core.ts";
import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  checkOptions,
  type OptionKind,
  type WriteOptions,
  type WriteReceipt,
} from "./_options.ts";
import { absolutePath } from "./_path.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { inSlot } from "./_slots.ts";

/** A write that is ready for its first system call. */
export interface WholeWrite {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: WriteRequest;
  readonly bytes: Uint8Array;
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
    bytes: encode(options, attempt),
  };
}

/** Performs a prepared write. */
export async function write(
  { port, attempt, request, bytes }: WholeWrite,
): Promise<WriteReceipt> {
  try {
    return await inSlot(() => runAsync(port, replace(port, request, bytes)));
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** Performs a prepared write, blocking. */
export function writeSync(
  { port, attempt, request, bytes }: WholeWrite,
): WriteReceipt {
  try {
    return runSync(port, replace(port, request, bytes));
  } catch (error) {
    throw explain(port, attempt, error);
  }
}
