/**
 * A port for tests: it passes every system call on to another port and lets a
 * test look at it, fail it, answer it, shorten it, or cut the power before it.
 *
 * @module
 */

import { currentPort, substitutePort } from "../_runtime/current.ts";
import type {
  AsyncSystemCalls,
  Hash,
  Port,
  SystemCalls,
} from "../_runtime/port.ts";

export interface RecordedCall {
  readonly name: keyof SystemCalls;
  readonly args: readonly unknown[];
  readonly form: "sync" | "async";
  /** Counted from 0, over both forms. */
  readonly index: number;
}

/** What becomes of a call; nothing lets it pass. */
export type Fault =
  | { readonly code: string }
  | { readonly result: unknown }
  | { readonly args: readonly unknown[] };

export type Interceptor = (call: RecordedCall) => Fault | undefined;

/** What a call throws once the power is cut. */
export class PowerCut extends Error {
  override name = "PowerCut";
}

export class FaultPort implements Port {
  readonly calls: RecordedCall[] = [];
  readonly sync: SystemCalls;
  readonly async: AsyncSystemCalls;
  windows: boolean;
  runtime: Port["runtime"];
  platform: string;
  /** Off, since most tests are of the calls of the protocol alone. */
  looksUnasked: Port["looksUnasked"] = [];
  /** What was told to the operator. */
  readonly warnings: string[] = [];
  pid: number;
  /** What the random source gives next; the real one once they are used up. */
  readonly uuids: string[] = [];
  readonly exitCallbacks: (() => void)[] = [];
  changesByPath: boolean;
  permission: Port["permission"];
  now: Port["now"];
  date: Port["date"];
  isAlive: Port["isAlive"];
  startedAt: Port["startedAt"];
  hasSqlite: Port["hasSqlite"];
  readonly #base: Port;
  readonly #interceptors: Interceptor[] = [];
  #powerCut = false;

  constructor(base: Port = currentPort()) {
    this.#base = base;
    this.windows = base.windows;
    this.runtime = base.runtime;
    this.platform = base.platform;
    this.pid = base.pid;
    this.changesByPath = base.changesByPath;
    this.permission = (access, path) => base.permission(access, path);
    this.now = () => base.now();
    this.date = () => base.date();
    this.isAlive = (pid) => base.isAlive(pid);
    this.startedAt = () => base.startedAt();
    this.hasSqlite = () => base.hasSqlite();
    this.sync = new Proxy(base.sync, {
      get: (calls, name: keyof SystemCalls) => (...args: unknown[]) => {
        const fault = this.#enter(name, args, "sync");
        if (fault !== undefined && "result" in fault) return fault.result;
        return Reflect.apply(calls[name], calls, fault?.args ?? args);
      },
    });
    this.async = new Proxy(base.async, {
      get: (calls, name: keyof SystemCalls) => async (...args: unknown[]) => {
        const fault = this.#enter(name, args, "async");
        if (fault !== undefined && "result" in fault) return fault.result;
        return await Reflect.apply(calls[name], calls, fault?.args ?? args);
      },
    });
  }

  /** Asks `interceptor` about every call from now on; the first fault wins. */
  intercept(interceptor: Interceptor): this {
    this.#interceptors.push(interceptor);
    return this;
  }

  /** Fails the Nth call of all. */
  failNth(index: number, code: string): this {
    return this.intercept((call) =>
      call.index === index ? { code } : undefined
    );
  }

  /** Fails calls of this name, the first `times` of them. */
  fail(
    name: keyof SystemCalls,
    code: string,
    times: number = Infinity,
  ): this {
    let left = times;
    return this.intercept((call) =>
      call.name === name && left-- > 0 ? { code } : undefined
    );
  }

  /** Makes every write take at most this many bytes. */
  shortenWrites(mostBytes: number): this {
    return this.intercept(({ name, args: [file, bytes] }) =>
      name === "write" && bytes instanceof Uint8Array
        ? { args: [file, bytes.subarray(0, mostBytes)] }
        : undefined
    );
  }

  /** From the Nth call on nothing is done any more. */
  cutPowerAt(index: number): this {
    return this.intercept((call) => {
      if (call.index === index) this.#powerCut = true;
      return undefined;
    });
  }

  /** Aborts before the Nth call. */
  abortAt(index: number, controller: AbortController, reason: unknown): this {
    return this.intercept((call) => {
      if (call.index === index) controller.abort(reason);
      return undefined;
    });
  }

  /** The names of the calls so far. */
  get names(): string[] {
    return this.calls.map(({ name }) => name);
  }

  warn(message: string): void {
    this.warnings.push(message);
  }

  cwd(): string {
    return this.#base.cwd();
  }

  createHash(algorithm: string): Hash {
    return this.#base.createHash(algorithm);
  }

  randomUUID(): string {
    return this.uuids.shift() ?? this.#base.randomUUID();
  }

  onExit(callback: () => void): void {
    this.exitCallbacks.push(callback);
    this.#base.onExit(callback);
  }

  errorCode(error: unknown): string | undefined {
    return this.#base.errorCode(error);
  }

  #enter(
    name: keyof SystemCalls,
    args: readonly unknown[],
    form: "sync" | "async",
  ): Exclude<Fault, { code: string }> | undefined {
    const call = { name, args, form, index: this.calls.length };
    if (!this.#powerCut) this.calls.push(call);
    for (const interceptor of this.#powerCut ? [] : this.#interceptors) {
      const fault = interceptor(call);
      if (fault === undefined) continue;
      if (!("code" in fault)) return fault;
      const error = new Error(`${fault.code}: injected into ${name}`);
      throw Object.assign(error, { code: fault.code });
    }
    if (this.#powerCut) throw new PowerCut(`at call ${call.index}, ${name}`);
    return undefined;
  }
}

/** Runs `body` with every function of the library on this port. */
export async function onPort<T>(
  port: Port,
  body: () => T | Promise<T>,
): Promise<T> {
  const before = currentPort();
  substitutePort(port);
  try {
    return await body();
  } finally {
    substitutePort(before);
  }
}
