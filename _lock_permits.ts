/**
 * How many locks a realm has at once. Each has a file descriptor, of which a
 * process may have only 1024: where thousands ask, the first must find more of
 * them for what they do under their locks, or all would wait for each other.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
import type { Port } from "./_runtime/port.ts";

const MOST_LOCKS = 256;

/** When no lock was given back for so long, those that are held may be waiting for one more. */
const STALL_MS = 100;

/** The right to have a lock, until it is called. */
export type Permit = () => void;

class Permits {
  #free = MOST_LOCKS;
  /** In order; a set, for its first one is taken in constant time. */
  readonly #waiting = new Set<() => void>();
  #stall: ReturnType<typeof setTimeout> | undefined;

  /** Whether somebody would have to wait. */
  get isFull(): boolean {
    return this.#free <= 0 || this.#waiting.size > 0;
  }

  take(): Permit {
    this.#free--;
    let isBack = false;
    return () => {
      if (isBack) return;
      isBack = true;
      this.#free++;
      if (this.#free > 0) this.#admit();
      this.#watch();
    };
  }

  /** Takes one when it is free; `undefined` if that is not within so many milliseconds. */
  wait(
    ms: number,
    signal: AbortSignal | undefined,
  ): Promise<Permit | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<
      Permit | undefined
    >();
    const enter = () => {
      leave();
      resolve(this.take());
    };
    const abort = () => {
      leave();
      reject(signal?.reason);
    };
    // Longer than a timer can be: never.
    const timer = ms < 2 ** 31
      ? setTimeout(() => {
        leave();
        resolve(undefined);
      }, ms)
      : undefined;
    const leave = () => {
      this.#waiting.delete(enter);
      clearTimeout(timer);
      stopWaiting();
      this.#watch();
    };
    const stopWaiting = whenAborted(signal, abort);
    this.#waiting.add(enter);
    this.#watch();
    return promise;
  }

  #admit(): void {
    const [next] = this.#waiting;
    next?.();
  }

  /** Lets the first in where nothing moves. */
  #watch(): void {
    clearTimeout(this.#stall);
    this.#stall = this.#waiting.size === 0
      ? undefined
      : setTimeout(() => this.#admit(), STALL_MS);
  }
}

const permitsByPort = new WeakMap<Port, Permits>();

function permitsOf(port: Port): Permits {
  let permits = permitsByPort.get(port);
  if (permits === undefined) permitsByPort.set(port, permits = new Permits());
  return permits;
}

/** At once, however many there are: for who does not wait. */
export function permitAtOnce(port: Port): Permit {
  return permitsOf(port).take();
}

/** Whether who does wait would have to. */
export function mustWaitForPermit(port: Port): boolean {
  return permitsOf(port).isFull;
}

/** Waits for a permit, at most so many milliseconds. */
export async function permit(
  port: Port,
  ms: number,
  signal: AbortSignal | undefined,
): Promise<Permit | undefined> {
  const permits = permitsOf(port);
  return permits.isFull ? await permits.wait(ms, signal) : permits.take();
}
