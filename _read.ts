/**
 * A read of a whole file: arguments checked, the file read, its content decoded.
 *
 * @module
 */

import { runAsync, runSync } from "./_drive.ts";
import { type Attempt, explain } from "./_failure.ts";
import {
  checkOptions,
  type FallbackOption,
  type OptionKind,
  type OwnBytes,
  type ReadOptions,
} from "./_options.ts";
import { absolutePath } from "./_path.ts";
import { unlessAborted } from "./_abort.ts";
import { failedWith } from "./_protocol.ts";
import { currentPort } from "./_runtime/current.ts";
import type { Port } from "./_runtime/port.ts";
import { readVerified, type VerifiedRequest } from "./_verified_read.ts";

/** A read that is ready for its first system call. */
export interface WholeRead<T> {
  readonly port: Port;
  readonly attempt: Attempt;
  readonly request: VerifiedRequest;
  /** The value for a missing file, where the caller gave one. */
  readonly fallback: { readonly value: T } | undefined;
  readonly decode: (bytes: OwnBytes) => T;
}

/** Checks the arguments, before the disk is touched. */
export function prepareRead<T, Options extends ReadOptions & FallbackOption<T>>(
  operation: string,
  kind: OptionKind,
  path: string | URL,
  given: Options,
  capacity: number,
  decode: (
    bytes: OwnBytes,
    options: Options,
    attempt: Attempt,
  ) => T,
): WholeRead<T> {
  const options = checkOptions(kind, given);
  const port = currentPort();
  const attempt: Attempt = {
    operation,
    access: "read",
    path: absolutePath(port, path),
  };
  return {
    port,
    attempt,
    request: {
      maxBytes: options.maxBytes ?? Infinity,
      checksum: options.checksum,
      capacity,
      retryMs: options.retryMs ?? 1000,
      signal: options.signal,
    },
    fallback: hasFallback(options) ? { value: options.fallback } : undefined,
    decode: (bytes) => decode(bytes, options, attempt),
  };
}

/** Also of `undefined`, where it is named. */
function hasFallback<T>(
  options: FallbackOption<T>,
): options is Required<FallbackOption<T>> {
  return Object.hasOwn(options, "fallback");
}

/** Performs a prepared read. */
export async function read<T>(prepared: WholeRead<T>): Promise<T> {
  const { port, attempt, request, decode } = prepared;
  let bytes: OwnBytes;
  try {
    const reading = runAsync(port, readVerified(port, attempt.path, request));
    // A pipe may never be written to. What is left closes itself, should it be.
    bytes = await unlessAborted(reading, request.signal);
  } catch (error) {
    return fallBack(prepared, error);
  }
  return decode(bytes);
}

/** Performs a prepared read, blocking. */
export function readSync<T>(prepared: WholeRead<T>): T {
  const { port, attempt, request, decode } = prepared;
  let bytes: OwnBytes;
  try {
    bytes = runSync(port, readVerified(port, attempt.path, request));
  } catch (error) {
    return fallBack(prepared, error);
  }
  return decode(bytes);
}

function fallBack<T>(
  { port, attempt, fallback }: WholeRead<T>,
  error: unknown,
): T {
  if (failedWith(error, "ENOENT") && fallback !== undefined) {
    return fallback.value;
  }
  throw explain(port, attempt, error);
}
