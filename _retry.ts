/**
 * Retrying what is transient: no free file descriptor, and on Windows a file
 * that another process has open. Only for calls that did nothing when they
 * failed: a write may have written, and a failed fsync must never be repeated,
 * since the kernel marks the lost pages clean and reports success.
 *
 * @module
 */

import {
  blockingCall,
  failedWith,
  type Protocol,
  ProtocolError,
} from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";

const LONGEST_PAUSE_MS = 100;

/** Runs `attempt` until it does not fail transiently, or `retryMs` are over. */
export function* retrying<T>(
  host: Host,
  { retryMs, signal }: { retryMs: number; signal: AbortSignal | undefined },
  attempt: () => Protocol<T>,
): Protocol<T> {
  const deadline = host.now() + retryMs;
  for (let pause = 1;; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      return yield* attempt();
    } catch (error) {
      const left = deadline - host.now();
      if (!isTransient(host, error) || left <= 0) throw error;
      // The error of a later attempt would not tell what this one has left.
      if (error instanceof ProtocolError && error.leftover !== undefined) {
        throw error;
      }
      // Jittered, or writers that failed together retry together.
      yield* blockingCall(
        "sleep",
        Math.min(left, pause * (0.5 + Math.random())),
      );
      signal?.throwIfAborted();
    }
  }
}

function isTransient(host: Host, error: unknown): boolean {
  return failedWith(error, "EMFILE", "ENFILE") ||
    (host.windows && failedWith(error, "EPERM", "EACCES", "EBUSY"));
}
