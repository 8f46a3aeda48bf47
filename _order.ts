/**
 * The order of the writes of one file, within one loaded instance of this
 * module: call order. (Between workers and processes the last rename wins.)
 *
 * A write takes its place when its bytes are complete: a whole value when the
 * function is called, a stream when it is committed. Writes of different files
 * do not wait for each other. Of those of one file one runs at a time, and a
 * waiting whole value is skipped where a newer one that differs in nothing but
 * its content waits behind it: it is settled as the newer one is, or performed
 * after all where the newer one fails before its commit.
 *
 * A synchronous write cannot wait. It overtakes the older ones that are under
 * way: just before its rename it removes their temporary files, so that none of
 * them can come after it.
 *
 * @module
 */

import type { Company, StagedWrite } from "./_core.ts";
import type { Durability, WriteReceipt } from "./_options.ts";
import { failedWith, Refusal, SystemCallError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";

/** A write on its way, as its order sees it. */
export interface OrderedWrite {
  readonly durability: Durability;
  readonly createNew: boolean;
  readonly signal: AbortSignal | undefined;
  /** Waiting writes of the same kind supersede each other; one without a kind is never skipped. */
  readonly kind: string | undefined;
  /** Let go of where newer writes make it unlikely to be needed; a stream has none, and is performed all the same. */
  payload: Uint8Array | undefined;
  /** Performs it, in touch with its order through `progress`. */
  perform(progress: Progress): Promise<WriteReceipt>;
}

/** How a write that runs keeps in touch with its order. */
export interface Progress extends Company {
  /** Whether it had to wait, so that what was looked up before may be out of date. */
  readonly hasWaited: boolean;
}

/** What became of a write that others are settled by. */
export type Outcome =
  | { readonly receipt: WriteReceipt }
  | { readonly error: unknown };

/** So many of the newest waiting payloads are kept, should the newest fail. */
const PAYLOADS_KEPT = 2;

/** The files that writes are under way to. */
const linesByPort = new WeakMap<Port, Map<string, Line>>();

function linesOf(port: Port): Map<string, Line> {
  let lines = linesByPort.get(port);
  if (lines === undefined) linesByPort.set(port, lines = new Map());
  return lines;
}

/** Performs a write of `path` when its turn has come, and settles as it does. */
export function enterLine(
  port: Port,
  path: string,
  write: OrderedWrite,
): Promise<WriteReceipt> {
  return new Promise((resolve, reject) => {
    const lines = linesOf(port);
    let line = lines.get(path);
    if (line === undefined) {
      line = new Line(() => lines.delete(path));
      lines.set(path, line);
    }
    line.add(new Entry(line, write, resolve, reject));
  });
}

/**
 * Does something else with files than to replace one: when its turn has come
 * among the writes of each. The places are taken at the call, in all lines at
 * once, so that two that want the same files cannot wait for each other.
 *
 * It cannot be superseded. Where a synchronous write came first meanwhile, it
 * is refused: `checkTurn` throws, to be called just before the first change.
 */
export async function enterLines<T>(
  port: Port,
  paths: readonly string[],
  { durability, signal }: Pick<OrderedWrite, "durability" | "signal">,
  perform: (checkTurn: () => void) => Promise<T>,
): Promise<T> {
  const { promise: ended, reject: end } = Promise.withResolvers<never>();
  ended.catch(() => {});
  const turns = paths.map((path) => {
    const { promise: turn, resolve } = Promise.withResolvers<Progress>();
    const place = enterLine(port, path, {
      durability,
      signal,
      createNew: false,
      kind: undefined,
      payload: undefined,
      perform(progress) {
        resolve(progress);
        return ended;
      },
    });
    // A place that is settled before its turn was left, or overtaken.
    const lost = place.then(
      () => {
        throw new Overtaken();
      },
      (error: unknown) => {
        throw signal?.aborted ? error : new Overtaken();
      },
    );
    lost.catch(() => {});
    return Promise.race([turn, lost]);
  });
  try {
    const progresses = await Promise.all(turns);
    return await perform(() => {
      for (const progress of progresses) progress.checkTurn();
    });
  } catch (error) {
    if (!(error instanceof Overtaken)) throw error;
    throw new Refusal(
      "SUPERSEDED",
      "a synchronous write, called later, came first; nothing was changed: do it again if it is still wanted",
    );
  } finally {
    end(new Overtaken());
  }
}

/** Refuses what is synchronous, and so cannot wait, beside what is under way to the same file. */
export function refusePending(port: Port, path: string): void {
  const line = linesOf(port).get(path);
  if (line === undefined || line.entries.length === 0) return;
  throw new Refusal(
    "PENDING",
    `an asynchronous call that changes "${path}" has not come to its end, and a synchronous one cannot wait for it: await it first, or use the asynchronous form`,
  );
}

/** The strongest durability of a synchronous write to `path` and of those it would overtake, whose promises it takes over. */
export function durabilityToOvertake(
  port: Port,
  path: string,
  durability: Durability,
): Durability {
  const promised = [durability];
  for (const { write } of linesOf(port).get(path)?.entries ?? []) {
    promised.push(write.durability);
  }
  return promised.find((level) => level === "full") ??
    promised.find((level) => level === "ordered") ?? "none";
}

/** How a synchronous write of `path` overtakes. */
export function overtaking(port: Port, path: string): Company {
  return {
    staged: () => {},
    checkTurn: () => {},
    olderTemporary() {
      const running = linesOf(port).get(path)?.running;
      const temporary = running?.staged?.temporary;
      if (running !== undefined && temporary !== undefined) {
        running.isRobbed = true;
      }
      return temporary;
    },
  };
}

/** Settles the writes that a synchronous one to `path` has overtaken. */
export function settleOvertaken(
  port: Port,
  path: string,
  outcome: Outcome,
): void {
  linesOf(port).get(path)?.overtake(outcome);
}

/** Thrown in place of a commit that would come after that of a newer write. */
class Overtaken extends Error {
  override name = "Overtaken";
}

/** A write in the line of its file. */
class Entry {
  readonly write: OrderedWrite;
  readonly #resolve: (receipt: WriteReceipt) => void;
  readonly #reject: (error: unknown) => void;
  readonly #onAbort = (): void => {
    this.reject(this.write.signal?.reason);
    this.#line.forget(this);
  };
  readonly #line: Line;
  readonly #isStream: boolean;
  isSettled = false;
  staged: StagedWrite | undefined;
  /** Its temporary file was removed by a newer write. */
  isRobbed = false;
  /** What became of the newer write that came first. */
  overtakenBy: Outcome | undefined;

  constructor(
    line: Line,
    write: OrderedWrite,
    resolve: (receipt: WriteReceipt) => void,
    reject: (error: unknown) => void,
  ) {
    this.#line = line;
    this.write = write;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#isStream = write.payload === undefined;
    // While it waits, its signal ends it.
    if (write.signal?.aborted) this.#onAbort();
    else write.signal?.addEventListener("abort", this.#onAbort);
  }

  get canBePerformed(): boolean {
    return this.#isStream || this.write.payload !== undefined;
  }

  /** From now on the protocol looks at the signal itself. */
  start(): void {
    this.write.signal?.removeEventListener("abort", this.#onAbort);
  }

  resolve(receipt: WriteReceipt): void {
    this.#settle();
    this.#resolve(receipt);
  }

  reject(error: unknown): void {
    this.#settle();
    this.#reject(error);
  }

  /** Settles it as the newer write that took its place was. */
  settleAs(outcome: Outcome): void {
    if (this.isSettled) return;
    if (this.write.createNew) {
      const reason = "a newer write of this process has made it";
      this.reject(new Refusal("EEXIST", reason));
    } else if ("error" in outcome) {
      this.reject(outcome.error);
    } else {
      this.resolve({ ...outcome.receipt, superseded: true });
    }
  }

  #settle(): void {
    this.start();
    this.isSettled = true;
    this.write.payload = undefined;
  }
}

/** The writes of one file, oldest first: one runs, it supersedes its followers, the others wait. */
class Line {
  readonly #onEmpty: () => void;
  #waiting: Entry[] = [];
  #followers: Entry[] = [];
  /** Why the newest of its followers were not enough. */
  #lastError: unknown;
  running: Entry | undefined;

  constructor(onEmpty: () => void) {
    this.#onEmpty = onEmpty;
  }

  get entries(): Entry[] {
    const running = this.running === undefined ? [] : [this.running];
    return [...this.#followers, ...running, ...this.#waiting]
      .filter(({ isSettled }) => !isSettled);
  }

  add(entry: Entry): void {
    this.#waiting.push(entry);
    this.#dropPayload();
    if (this.running === undefined) void this.#run();
  }

  /** It does not wait any more. */
  forget(entry: Entry): void {
    const isOther = (other: Entry) => other !== entry;
    this.#waiting = this.#waiting.filter(isOther);
    this.#followers = this.#followers.filter(isOther);
  }

  overtake(outcome: Outcome): void {
    for (const entry of this.entries) {
      if (entry === this.running) entry.overtakenBy = outcome;
      else entry.settleAs(outcome);
    }
  }

  /** Of waiting writes of one kind only the newest are likely to be performed. */
  #dropPayload(): void {
    const [old, ...newer] = this.#waiting.slice(-1 - PAYLOADS_KEPT);
    if (old?.write.kind === undefined || newer.length < PAYLOADS_KEPT) return;
    const isSuperseded = newer.every(({ write }) =>
      write.kind === old.write.kind
    );
    if (isSuperseded) old.write.payload = undefined;
  }

  async #run(): Promise<void> {
    let hasWaited = false;
    for (let entry = this.#takeNext(); entry; entry = this.#takeNext()) {
      entry.start();
      this.running = entry;
      const outcome = await this.#perform(entry, hasWaited);
      this.running = undefined;
      hasWaited = true;
      this.#settle(entry, outcome);
    }
    this.#onEmpty();
  }

  /** The newest of those that may be performed in place of the oldest, which it supersedes. */
  #takeNext(): Entry | undefined {
    this.#waiting = this.#waiting.filter(({ isSettled }) => !isSettled);
    const [oldest] = this.#waiting;
    if (oldest === undefined) return undefined;
    const { kind } = oldest.write;
    const end = this.#waiting.findIndex(({ write }, index) =>
      index > 0 && (kind === undefined || write.kind !== kind)
    );
    const group = this.#waiting.splice(0, end === -1 ? Infinity : end);
    const newest = group.pop() ?? oldest;
    if (newest.canBePerformed) {
      this.#followers = group;
      return newest;
    }
    this.#giveUp([...group, newest]);
    return this.#takeNext();
  }

  async #perform(entry: Entry, hasWaited: boolean): Promise<Outcome> {
    try {
      const receipt = await entry.write.perform({
        hasWaited,
        staged: (write) => {
          entry.staged = write;
        },
        checkTurn: () => {
          if (entry.overtakenBy !== undefined) throw new Overtaken();
        },
        // Of this file one runs at a time, and this is it.
        olderTemporary: () => undefined,
      });
      return { receipt };
    } catch (error) {
      return { error };
    } finally {
      entry.staged = undefined;
    }
  }

  #settle(entry: Entry, outcome: Outcome): void {
    const followers = this.#followers;
    this.#followers = [];
    if ("receipt" in outcome) {
      entry.resolve(outcome.receipt);
      this.#lastError = undefined;
      for (const follower of followers) follower.settleAs(outcome);
      return;
    }
    const { error } = outcome;
    const isAborted = error === entry.write.signal?.reason;
    if (entry.overtakenBy !== undefined && !isAborted) {
      entry.settleAs(entry.overtakenBy);
    } else if (
      entry.isRobbed && failedWith(error, "ENOENT") &&
      entry.write.payload !== undefined
    ) {
      // What robbed it failed after all, so its turn has not passed.
      entry.isRobbed = false;
      this.#waiting.unshift(...followers, entry);
    } else if (entry.isRobbed && failedWith(error, "ENOENT")) {
      const reason =
        "a newer synchronous write removed its temporary file, and failed: write it again";
      entry.reject(new Refusal("SUPERSEDED", reason));
      this.#waiting.unshift(...followers);
    } else if (error instanceof SystemCallError && error.committed !== false) {
      entry.reject(error);
      for (const follower of followers) follower.settleAs(outcome);
    } else {
      entry.reject(error);
      this.#lastError = error;
      this.#waiting.unshift(...followers);
    }
  }

  /** Their payloads are gone, and what should have taken their place failed. */
  #giveUp(entries: readonly Entry[]): void {
    const reason = new Refusal(
      "SUPERSEDED",
      "newer writes were to take its place, and failed: write it again",
    );
    reason.cause = this.#lastError;
    for (const entry of entries) entry.settleAs({ error: reason });
  }
}
