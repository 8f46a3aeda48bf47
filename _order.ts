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
 * An update takes its place at its call too. It waits for what was called before
 * it, and reads. While its function runs, newer writes may come first: then there
 * is nothing left for it to write. Where its lock is not free, they need not wait
 * for it either: who holds the lock may be the one who waits for them.
 *
 * A synchronous write cannot wait. It overtakes the older ones that are under
 * way: just before its rename it removes their temporary files, so that none of
 * them can come after it.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
import type { Company, StagedWrite } from "./_core.ts";
import type { Durability, WriteReceipt } from "./_options.ts";
import { unlessAborted } from "./_abort.ts";
import { failedWith, Refusal, SystemCallError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";

/** A write on its way, as its order sees it. */
export interface OrderedWrite {
  readonly durability: Durability;
  readonly createNew: boolean;
  readonly signal: AbortSignal | undefined;
  /** Waiting writes of the same kind supersede each other; one without a kind is never skipped. */
  readonly kind: string | undefined;
  /** The update that it is the write of. */
  readonly update?: Update | undefined;
  /** Whether it is none, and must not come between the reading and the writing of an update. */
  readonly isOther?: true;
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
    const line = lineOf(port, path);
    line.add(new Entry(line, write, resolve, reject));
  });
}

function lineOf(port: Port, path: string): Line {
  const lines = linesOf(port);
  let line = lines.get(path);
  if (line === undefined) {
    const own = line = new Line(() => {
      // One that was left may be asked once more: another has its place.
      if (lines.get(path) === own) lines.delete(path);
    });
    lines.set(path, line);
  }
  return line;
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
      isOther: true,
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
        throw signal?.aborted || isStuck(error) ? error : new Overtaken();
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

/** The place of an update among the writes of its file. */
export interface UpdatePlace {
  /** Its lock is not free: others need not wait for it. */
  letPass(): void;
  /** Calls `read` when all that came before is done. */
  read<T>(read: () => Promise<T>): Promise<T>;
  /** Performs its write, unless a newer one has come first: then it is settled as that one. */
  write(write: OrderedWrite): Promise<WriteReceipt>;
  /** Gives the place up. */
  leave(): void;
}

/** Takes the place of an update, at its call. */
export function enterUpdate(
  port: Port,
  path: string,
  { durability, signal }: Pick<OrderedWrite, "durability" | "signal">,
): UpdatePlace {
  const line = lineOf(port, path);
  const update = new Update(durability);
  line.addUpdate(update);
  return {
    letPass() {
      line.letPass(update);
    },
    async read(read) {
      line.ask(update);
      await unlessAborted(update.turn, signal);
      try {
        return await read();
      } finally {
        update.endReading();
      }
    },
    write(write) {
      return new Promise((resolve, reject) => {
        const perform = async (progress: Progress) =>
          update.newer === undefined
            ? await write.perform(progress)
            : settledAs(update.newer);
        const own = { ...write, kind: undefined, update, perform };
        line.addFirst(new Entry(line, own, resolve, reject));
      });
    },
    leave() {
      update.endReading();
      line.removeUpdate(update);
    },
  };
}

function settledAs(outcome: Outcome): WriteReceipt {
  if ("error" in outcome) throw outcome.error;
  return { ...outcome.receipt, superseded: true };
}

/** An update on its way. */
class Update {
  readonly durability: Durability;
  /** Resolves when it may read. */
  readonly turn: Promise<void>;
  /** Resolves when it has read, or will not. */
  readonly hasRead: Promise<void>;
  readonly begin: () => void;
  readonly endReading: () => void;
  /** Whether it waits for its lock; whether others wait for it meanwhile; or for its turn. */
  state: "locking" | "passed" | "asking" = "locking";
  /** What became of a newer write that came first. */
  newer: Outcome | undefined;

  constructor(durability: Durability) {
    this.durability = durability;
    const turn = Promise.withResolvers<void>();
    const read = Promise.withResolvers<void>();
    this.turn = turn.promise;
    this.hasRead = read.promise;
    this.begin = turn.resolve;
    this.endReading = read.resolve;
  }
}

/** Refuses what is synchronous, and so cannot wait, beside what is under way to the same file. */
export function refusePending(port: Port, path: string): void {
  if (!linesOf(port).get(path)?.isBusy) return;
  throw new Refusal(
    "PENDING",
    `an asynchronous call that changes "${path}" has not come to its end, and a synchronous one cannot wait for it: await it first, or use the asynchronous form`,
  );
}

/** The strongest durability of a synchronous write to `path` and of those it would overtake, whose promises it takes over. */
function durabilityToOvertake(
  port: Port,
  path: string,
  durability: Durability,
): Durability {
  const promised = [durability];
  const line = linesOf(port).get(path);
  promised.push(...line?.durabilities ?? []);
  return promised.find((level) => level === "full") ??
    promised.find((level) => level === "ordered") ?? "none";
}

/** A synchronous write among the others of its file. */
export interface SyncTurn extends Company {
  /** Refuses to go on beside what is under way. */
  refusePending(): void;
  /** With which durability it keeps what was promised by those it overtakes. */
  strengthened(durability: Durability): Durability;
  /** Tells what became of it. */
  settle(outcome: Outcome): void;
}

/** How a synchronous write of `path` overtakes those that are under way. */
export function overtaking(port: Port, path: string): SyncTurn {
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
    refusePending: () => refusePending(port, path),
    strengthened: (durability) => durabilityToOvertake(port, path, durability),
    settle(outcome) {
      linesOf(port).get(path)?.overtake(outcome);
    },
  };
}

/** The turn of a synchronous update: what is called from within its function is newer. */
export interface SyncUpdateTurn extends SyncTurn {
  /** Performs its write, unless a synchronous one has come first: then it is settled as that one. */
  write(write: () => WriteReceipt): WriteReceipt;
  /** Ends the turn. */
  leave(): void;
}

/** Takes the turn of a synchronous update, which nothing that is under way can share. */
export function enterUpdateSync(
  port: Port,
  path: string,
  durability: Durability,
): SyncUpdateTurn {
  refusePending(port, path);
  const line = lineOf(port, path);
  const update = new Update(durability);
  line.open(update);
  const checkTurn = () => {
    if (update.newer !== undefined) throw new Overtaken();
  };
  return {
    staged: () => {},
    checkTurn,
    olderTemporary: () => undefined,
    refusePending: () => {},
    strengthened: (durability) => durability,
    settle: () => {},
    write(write) {
      try {
        checkTurn();
        return write();
      } catch (error) {
        if (!(error instanceof Overtaken) || update.newer === undefined) {
          throw error;
        }
        return settledAs(update.newer);
      }
    },
    leave() {
      line.close(update);
    },
  };
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
    this.#line.forget();
  };
  /** For the signal. */
  #stopWaiting = (): void => {};
  readonly #line: Line;
  readonly #isStream: boolean;
  isSettled = false;
  /** Whether its turn did not come at once. */
  hasWaited = false;
  /** The update that must come to its end first. */
  waitsFor:
    | {
      readonly update: Update;
      readonly timer: ReturnType<typeof setTimeout>;
    }
    | undefined;
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
    else this.#stopWaiting = whenAborted(write.signal, this.#onAbort);
  }

  get canBePerformed(): boolean {
    return this.#isStream || this.write.payload !== undefined;
  }

  /** From now on the protocol looks at the signal itself. */
  start(): void {
    clearTimeout(this.waitsFor?.timer);
    this.#stopWaiting();
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

const STUCK = "PENDING";

/** As long as who names no time waits for a lock. */
const STUCK_MS = 10_000;

function isStuck(error: unknown): boolean {
  return error instanceof Refusal && error.code === STUCK;
}

/** The writes of one file, oldest first: one runs, it supersedes its followers, the others wait. */
class Line {
  readonly #onEmpty: () => void;
  #waiting: (Entry | Update)[] = [];
  #followers: Entry[] = [];
  /** Of those that wait, how many do not any more. */
  #forgotten = 0;
  /** Why the newest of its followers were not enough. */
  #lastError: unknown;
  #isRunning = false;
  running: Entry | undefined;
  /** The update that has read, and may still write. */
  #open: Update | undefined;
  /** Whether that is a synchronous one, so that nothing runs before it has ended. */
  #isHeld = false;

  constructor(onEmpty: () => void) {
    this.#onEmpty = onEmpty;
  }

  get entries(): Entry[] {
    const running = this.running === undefined ? [] : [this.running];
    const waiting = this.#waiting.filter((place) => place instanceof Entry);
    return [...this.#followers, ...running, ...waiting]
      .filter(({ isSettled }) => !isSettled);
  }

  /** Whether anything is under way. */
  get isBusy(): boolean {
    return this.entries.length > 0 || this.#open !== undefined ||
      this.#waiting.some((place) => place instanceof Update);
  }

  /** Of all whose content a newer one may take the place of. */
  get durabilities(): Durability[] {
    const open = this.#open === undefined ? [] : [this.#open.durability];
    return [...open, ...this.entries.map(({ write }) => write.durability)];
  }

  add(entry: Entry): void {
    this.#waiting.push(entry);
    this.#dropPayload();
    this.#go();
    entry.hasWaited = true;
  }

  addUpdate(update: Update): void {
    this.#waiting.push(update);
  }

  /** Adds the write of the update that is open: it is older than all that wait. */
  addFirst(entry: Entry): void {
    this.#waiting.unshift(entry);
    this.#go();
    entry.hasWaited = true;
  }

  /** Begins a synchronous update. */
  open(update: Update): void {
    this.#open = update;
    this.#isHeld = true;
  }

  /** Ends it. */
  close(update: Update): void {
    this.#isHeld = false;
    this.removeUpdate(update);
  }

  letPass(update: Update): void {
    if (update.state === "locking") update.state = "passed";
    this.#go();
  }

  ask(update: Update): void {
    update.state = "asking";
    this.#go();
  }

  removeUpdate(update: Update): void {
    this.#waiting = this.#waiting.filter((place) => place !== update);
    if (this.#open === update) this.#open = undefined;
    this.#go();
  }

  /** One that is settled does not wait any more. */
  forget(): void {
    // Each time would be quadratic where many are aborted.
    if (++this.#forgotten < this.#waiting.length / 2) return;
    this.#forgotten = 0;
    const waits = (place: Entry | Update) =>
      place instanceof Update || !place.isSettled;
    this.#waiting = this.#waiting.filter(waits);
    this.#followers = this.#followers.filter(waits);
  }

  overtake(outcome: Outcome): void {
    this.#supersede(outcome, undefined);
    for (const entry of this.entries) {
      if (entry === this.running) entry.overtakenBy = outcome;
      else entry.settleAs(outcome);
    }
  }

  /** Of waiting writes of one kind only the newest are likely to be performed. */
  #dropPayload(): void {
    const last = this.#waiting.slice(-1 - PAYLOADS_KEPT);
    const [old, ...newer] = last.filter((place) => place instanceof Entry);
    if (old?.write.kind === undefined || newer.length < PAYLOADS_KEPT) return;
    // One that may be aborted may leave the old one to be performed.
    const isSuperseded = newer.every(({ write }) =>
      write.kind === old.write.kind && write.signal === undefined
    );
    if (isSuperseded) old.write.payload = undefined;
  }

  #go(): void {
    if (!this.#isRunning && !this.#isHeld) void this.#run();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (let next = this.#takeNext(); next; next = this.#takeNext()) {
      if (next instanceof Update) {
        this.#open = next;
        next.begin();
        await next.hasRead;
      } else {
        next.start();
        this.running = next;
        const outcome = await this.#perform(next);
        this.running = undefined;
        this.#settle(next, outcome);
      }
    }
    this.#isRunning = false;
    if (!this.isBusy) this.#onEmpty();
  }

  /** The next that may go on; an update, or a write. */
  #takeNext(): Entry | Update | undefined {
    this.#waiting = this.#waiting.filter((place) =>
      place instanceof Update || !place.isSettled
    );
    for (const [index, place] of this.#waiting.entries()) {
      if (place instanceof Entry) {
        if (!place.write.isOther || this.#open === undefined) {
          return this.#takeGroup(index, place);
        }
        this.#refuseIfStuck(place, this.#open);
        return undefined;
      }
      if (place.state === "locking") return undefined;
      if (place.state === "passed") continue;
      this.#waiting.splice(index, 1);
      return place;
    }
    return undefined;
  }

  /** What is called from within the function of an update, and waited for there, would wait for ever. */
  #refuseIfStuck(entry: Entry, update: Update): void {
    if (entry.waitsFor?.update === update) return;
    clearTimeout(entry.waitsFor?.timer);
    const timer = setTimeout(() => {
      if (this.#open !== update) return;
      entry.reject(
        new Refusal(
          STUCK,
          "an update of it has not come to its end: what is called from within its function waits for itself",
        ),
      );
    }, STUCK_MS);
    entry.waitsFor = { update, timer };
  }

  /** The newest of those that may be performed in place of the oldest, which it supersedes. */
  #takeGroup(start: number, oldest: Entry): Entry | Update | undefined {
    const { kind } = oldest.write;
    const group: Entry[] = [];
    for (const place of this.#waiting.slice(start)) {
      const isLike = place instanceof Entry && place.write.kind === kind;
      const isNext = place === oldest || (kind !== undefined && isLike);
      if (!isNext || !(place instanceof Entry)) break;
      group.push(place);
    }
    this.#waiting.splice(start, group.length);
    const newest = group.pop() ?? oldest;
    if (newest.canBePerformed) {
      this.#followers = group;
      return newest;
    }
    this.#giveUp([...group, newest]);
    return this.#takeNext();
  }

  /** What an update would write is older than what is in place. */
  #supersede(outcome: Outcome, by: Entry | undefined): void {
    const isOwn = by !== undefined && by.write.update === this.#open;
    if (this.#open !== undefined && !isOwn) this.#open.newer = outcome;
  }

  async #perform(entry: Entry): Promise<Outcome> {
    const { hasWaited } = entry;
    // Should it be performed once more.
    entry.hasWaited = true;
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
      if (!entry.write.isOther) this.#supersede(outcome, entry);
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
      this.#supersede(outcome, entry);
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
