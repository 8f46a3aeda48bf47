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
import { shareSync } from "./_shared_sync.ts";

/** Runs a protocol to its end, blocking. */
export function runSync<T>(port: Port, protocol: Protocol<T>): T {
  let step = protocol.next();
  while (!step.done) {
    const call = step.value;
    let result: unknown;
    try {
      result = performSync(port, call);
    } catch (error) {
      step = protocol.throw(failure(port, call, error));
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

/** Runs a short protocol to its end at once, within an async function: what is decided by it is decided in call order. */
export function runInline<T>(port: Port, protocol: Protocol<T>): T {
  return inlineBudgetOf(port).spend(() => runSync(port, protocol));
}

/** Runs a protocol to its end. Runs up to the first call that may block before it returns. */
export async function runAsync<T>(
  port: Port,
  protocol: Protocol<T>,
): Promise<T> {
  const inline = inlineBudgetOf(port);
  let step = protocol.next();
  while (!step.done) {
    const call = step.value;
    let result: unknown;
    try {
      result = call.cost === "inline" ||
          (call.cost === "cheap" && !inline.isUsedUp())
        ? inline.spend(() => performSync(port, call))
        : await inline.refill(performAsync(port, call));
    } catch (error) {
      step = protocol.throw(failure(port, call, error));
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

function performSync(port: Port, { name, args }: Call): unknown {
  return Reflect.apply(port.sync[name], port.sync, args);
}

function performAsync(
  port: Port,
  { name, args, syncs }: Call,
): Promise<unknown> {
  const perform = () => Reflect.apply(port.async[name], port.async, args);
  return syncs === undefined
    ? perform()
    : shareSync(port, syncs.path, syncs.handle, perform);
}

function failure(port: Port, call: Call, error: unknown): SystemCallError {
  return new SystemCallError(call, port.errorCode(error), error);
}

/** For how long inline calls may hold the event loop, together, before it turns. */
const TURN_MS = 2;
/** A call that takes longer shows a busy journal, or a network mount. */
const SLOW_MS = 0.5;
/** For how long after a slow call no call is made inline. */
const PAUSE_MS = 100;

/** How much the inline calls of a realm may hold its event loop. */
class InlineBudget {
  readonly #port: Port;
  #spentMs = 0;
  #pausedUntil = -Infinity;

  constructor(port: Port) {
    this.#port = port;
  }

  isUsedUp(): boolean {
    return this.#spentMs >= TURN_MS || this.#port.now() < this.#pausedUntil;
  }

  spend<T>(perform: () => T): T {
    const start = this.#port.now();
    try {
      return perform();
    } finally {
      const end = this.#port.now();
      this.#spentMs += end - start;
      if (end - start > SLOW_MS) this.#pausedUntil = end + PAUSE_MS;
    }
  }

  /** What another thread did has been waited for, so the event loop has turned. */
  async refill<T>(waiting: Promise<T>): Promise<T> {
    try {
      return await waiting;
    } finally {
      this.#spentMs = 0;
    }
  }
}

const budgets = new WeakMap<Port, InlineBudget>();

function inlineBudgetOf(port: Port): InlineBudget {
  let budget = budgets.get(port);
  if (budget === undefined) budgets.set(port, budget = new InlineBudget(port));
  return budget;
}
