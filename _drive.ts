/**
 * The two drivers of a protocol: {@linkcode runSync} blocks on every call,
 * {@linkcode runAsync} waits off the event loop's thread for the calls that may
 * block, and makes the cheap ones inline, where a thread-pool hop would cost
 * more than the call.
 *
 * @module
 */

import { type Call, type Protocol, SystemCallError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";

/** Runs a protocol to its end, blocking. */
export function runSync<T>(port: Port, protocol: Protocol<T>): T {
  let step = protocol.next();
  while (!step.done) {
    let result: unknown;
    try {
      result = performSync(port, step.value);
    } catch (error) {
      step = protocol.throw(failure(port, step.value, error));
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

/** Runs a protocol to its end. Runs up to the first call that may block before it returns. */
export async function runAsync<T>(
  port: Port,
  protocol: Protocol<T>,
): Promise<T> {
  let step = protocol.next();
  while (!step.done) {
    let result: unknown;
    try {
      result = step.value.mayBlock || !inline.allowed(port)
        ? await performAsync(port, step.value)
        : inline.perform(port, step.value);
    } catch (error) {
      step = protocol.throw(failure(port, step.value, error));
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

function performSync(port: Port, { name, args }: Call): unknown {
  return Reflect.apply(port.sync[name], port.sync, args);
}

async function performAsync(
  port: Port,
  { name, args }: Call,
): Promise<unknown> {
  try {
    return await Reflect.apply(port.async[name], port.async, args);
  } finally {
    inline.turned();
  }
}

function failure(port: Port, call: Call, error: unknown): SystemCallError {
  return new SystemCallError(call, port.errorCode(error), error);
}

/**
 * How much the inline calls of this realm may hold the event loop: in one turn
 * {@linkcode BUDGET_MS} together, and after a call that took longer than
 * {@linkcode SLOW_MS} (a busy journal, a network mount) none at all for
 * {@linkcode PAUSE_MS}.
 */
const BUDGET_MS = 2;
const SLOW_MS = 0.5;
const PAUSE_MS = 100;

const inline = {
  spent: 0,
  pausedUntil: -Infinity,

  allowed(port: Port): boolean {
    return this.spent < BUDGET_MS && port.now() >= this.pausedUntil;
  },

  perform(port: Port, call: Call): unknown {
    const start = port.now();
    try {
      return performSync(port, call);
    } finally {
      const end = port.now();
      this.spent += end - start;
      if (end - start > SLOW_MS) this.pausedUntil = end + PAUSE_MS;
    }
  },

  /** A call came back from another thread, so the event loop has turned. */
  turned(): void {
    this.spent = 0;
  },
};
