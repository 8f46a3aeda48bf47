/**
 * The vocabulary a protocol is written in: a generator that yields one system
 * call at a time and is resumed with its result, or with a
 * {@linkcode SystemCallError} thrown into it.
 *
 * Written so, a protocol is the same code in its sync and its async form, and a
 * test can stop it, fail it or cut the power at any call.
 *
 * @module
 */

import type { SystemCalls } from "./_runtime/port.ts";

/** One system call that a protocol asks for. */
export interface Call {
  readonly name: keyof SystemCalls;
  readonly args: readonly unknown[];
  /** Whether it may hold the thread for longer than a thread-pool hop costs. */
  readonly mayBlock: boolean;
}

/** A sequence of system calls that ends in a `T`. */
export type Protocol<T> = Generator<Call, T, unknown>;

/** Asks for a call that is cheap as a rule. */
export function* call<Name extends keyof SystemCalls>(
  name: Name,
  ...args: Parameters<SystemCalls[Name]>
): Protocol<ReturnType<SystemCalls[Name]>> {
  const result = yield { name, args, mayBlock: false };
  return result as ReturnType<SystemCalls[Name]>;
}

/** Asks for a call that waits for a disk, or moves or frees much data. */
export function* blockingCall<Name extends keyof SystemCalls>(
  name: Name,
  ...args: Parameters<SystemCalls[Name]>
): Protocol<ReturnType<SystemCalls[Name]>> {
  const result = yield { name, args, mayBlock: true };
  return result as ReturnType<SystemCalls[Name]>;
}

/** A call of at most this many bytes is cheaper inline than as a thread-pool hop. */
const CHEAP_BYTES = 128 * 1024;

/** {@linkcode blockingCall} if the call moves or frees much, else {@linkcode call}. */
export function callMoving(bytes: number): typeof call {
  return bytes > CHEAP_BYTES ? blockingCall : call;
}

/** A system call that failed, before it is told in the caller's terms. */
export class SystemCallError extends Error {
  override name = "SystemCallError";
  readonly syscall: keyof SystemCalls;
  readonly args: readonly unknown[];
  readonly code: string | undefined;
  /** Set by the protocol where the failure came at or after the commit. */
  committed: boolean | "unknown" = false;
  /** A temporary file that could not be removed after the failure. */
  leftover: string | undefined;

  constructor(failed: Call, code: string | undefined, cause: unknown) {
    super(`${failed.name} failed`, { cause });
    this.syscall = failed.name;
    this.args = failed.args;
    this.code = code;
  }
}

/** Whether `error` is a system call that failed with one of these codes. */
export function failedWith(
  error: unknown,
  ...codes: readonly string[]
): error is SystemCallError {
  return error instanceof SystemCallError && error.code !== undefined &&
    codes.includes(error.code);
}

/** A protocol that does not go on although no system call failed: what it found forbids it. */
export class Refusal extends Error {
  override name = "Refusal";
  readonly code: string;

  /** `reason` continues the sentence "Cannot write PATH: ". */
  constructor(code: string, reason: string) {
    super(reason);
    this.code = code;
  }
}
