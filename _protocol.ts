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

import type { OpenFile, SystemCalls } from "./_runtime/port.ts";

/** One system call that a protocol asks for. */
export interface Call {
  readonly name: keyof SystemCalls;
  readonly args: readonly unknown[];
  /**
   * Whether it may hold the thread: `"cheap"` calls are made inline as long as
   * they stay cheap, `"blocking"` ones on another thread, `"inline"` ones here
   * at any price. A sync driver makes all of them here.
   */
  readonly cost: "inline" | "cheap" | "blocking";
  /** The directory a sync is for: one that begins later will do as well, whoever makes it. */
  readonly syncs?: { readonly path: string; readonly handle: OpenFile };
}

/** A sequence of system calls that ends in a `T`. */
export type Protocol<T> = Generator<Call, T, unknown>;

/** Asks for a call that is cheap as a rule. */
export function* call<Name extends keyof SystemCalls>(
  name: Name,
  ...args: Parameters<SystemCalls[Name]>
): Protocol<ReturnType<SystemCalls[Name]>> {
  const result = yield { name, args, cost: "cheap" };
  return result as ReturnType<SystemCalls[Name]>;
}

/** Asks for a call that must be over when the protocol is next stopped. */
export function* inlineCall<Name extends keyof SystemCalls>(
  name: Name,
  ...args: Parameters<SystemCalls[Name]>
): Protocol<ReturnType<SystemCalls[Name]>> {
  const result = yield { name, args, cost: "inline" };
  return result as ReturnType<SystemCalls[Name]>;
}

/** Asks for a call that waits for a disk, or moves or frees much data. */
export function* blockingCall<Name extends keyof SystemCalls>(
  name: Name,
  ...args: Parameters<SystemCalls[Name]>
): Protocol<ReturnType<SystemCalls[Name]>> {
  const result = yield { name, args, cost: "blocking" };
  return result as ReturnType<SystemCalls[Name]>;
}

/** Asks for a sync of a directory that begins now or later. */
export function* syncDirectory(
  handle: OpenFile,
  path: string,
): Protocol<void> {
  yield {
    name: "fsync",
    args: [handle],
    cost: "blocking",
    syncs: { path, handle },
  };
}

/** The same protocol with all its calls inline: nothing of this thread comes in between. */
export function* inline<T>(protocol: Protocol<T>): Protocol<T> {
  let step = protocol.next();
  while (!step.done) {
    let result: unknown;
    try {
      result = yield { ...step.value, cost: "inline" };
    } catch (error) {
      step = protocol.throw(error);
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

/** A call of at most this many bytes is cheaper inline than as a thread-pool hop. */
const CHEAP_BYTES = 128 * 1024;

/** {@linkcode blockingCall} if the call moves or frees much, else {@linkcode call}. */
export function callMoving(bytes: number): typeof call {
  return bytes > CHEAP_BYTES ? blockingCall : call;
}

/** Why a protocol ended, before it is told in the caller's terms. */
export abstract class ProtocolError extends Error {
  /** A temporary file that could not be removed afterwards. */
  leftover: string | undefined;
  /** Set by the protocol where the end came at or after the commit. */
  committed: boolean | "unknown" = false;
}

/** A system call that failed. */
export class SystemCallError extends ProtocolError {
  override name = "SystemCallError";
  readonly syscall: keyof SystemCalls;
  readonly args: readonly unknown[];
  readonly code: string | undefined;

  constructor(failed: Call, code: string | undefined, cause: unknown) {
    super(`${failed.name} failed`, { cause });
    this.syscall = failed.name;
    this.args = failed.args;
    this.code = code;
  }
}

/** The same failure, as it tells on another write. */
export function sameFailure(
  { syscall, args, code, cause }: SystemCallError,
): SystemCallError {
  return new SystemCallError(
    { name: syscall, args, cost: "blocking" },
    code,
    cause,
  );
}

/** Whether `error` is a system call that failed with one of these codes. */
export function failedWith(
  error: unknown,
  ...codes: readonly string[]
): boolean {
  return error instanceof SystemCallError && error.code !== undefined &&
    codes.includes(error.code);
}

/** A protocol that does not go on although no system call failed: what it found forbids it. */
export class Refusal extends ProtocolError {
  override name = "Refusal";
  readonly code: string;

  /** `reason` continues the sentence "Cannot write PATH: ". */
  constructor(code: string, reason: string) {
    super(reason);
    this.code = code;
  }
}

/**
 * Uses an open file and closes it. That the close fails is an error of its own
 * only where nothing else has failed.
 */
export function* closing<T>(
  file: OpenFile | undefined,
  body: () => Protocol<T>,
): Protocol<T> {
  let result: T;
  try {
    result = yield* body();
  } catch (error) {
    if (file !== undefined) yield* attempt(call("close", file));
    throw error;
  }
  if (file !== undefined) yield* call("close", file);
  return result;
}

/** Goes on where a call fails: something worse is to be told. */
export function* attempt(protocol: Protocol<void>): Protocol<void> {
  try {
    yield* protocol;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
  }
}
