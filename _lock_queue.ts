/**
 * Tasks of one realm that want one lock: they wait for each other here, in call
 * order and without a system call. Only the first asks the kernel.
 *
 * @module
 */

import { whenAborted } from "./_abort.ts";
import type { Attempt } from "./_failure.ts";
import type { Port } from "./_runtime/port.ts";

/** Whose turn it is, until it is given up. */
export interface Turn {
  /** Since when nobody has got on before it, in the milliseconds of the port. */
  readonly since: number;
  /** Notes that who has the turn has the kernel's lock too, and for what. */
  hold(holder: Attempt): void;
  /** Gives it up; `hasHeld` says whether that was progress for those who wait. */
  end(hasHeld: boolean): void;
}

/** The tasks that want one lock; the first has the turn. */
interface Line {
  readonly tasks: (() => void)[];
  /** When the first became another one, in the milliseconds of the port. */
  changedAt: number;
  /** For what the first has the kernel's lock, if it does. */
  holder: Attempt | undefined;
}

const linesByPort = new WeakMap<Port, Map<string, Line>>();

function linesOf(port: Port): Map<string, Line> {
  let lines = linesByPort.get(port);
  if (lines === undefined) linesByPort.set(port, lines = new Map());
  return lines;
}

/** What holds the lock in this realm: `"nobody"` where it is only waited for, `undefined` where it is not even asked for. */
export function holderHere(
  port: Port,
  path: string,
): Attempt | "nobody" | undefined {
  const line = linesOf(port).get(path);
  return line && (line.holder ?? "nobody");
}

/** The turn, if nobody in this realm has it or waits for it. */
export function turnAtOnce(port: Port, path: string): Turn | undefined {
  return linesOf(port).has(path) ? undefined : enter(port, path, () => {});
}

/** How long to wait for the turn. */
interface Waiting {
  readonly timeoutMs: number;
  /** Whether the time begins anew when the turn has gone from one to the next. */
  readonly isPatient: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Waits for the turn; `undefined` if it has not come in time. */
export async function turn(
  port: Port,
  path: string,
  { timeoutMs, isPatient, signal }: Waiting,
): Promise<Turn | undefined> {
  signal?.throwIfAborted();
  const free = turnAtOnce(port, path);
  if (free !== undefined) return free;
  const { promise, resolve, reject } = Promise.withResolvers<
    Turn | undefined
  >();
  const onTurn = () => resolve(mine);
  const mine = enter(port, path, onTurn);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = (ms: number) => {
    // Longer than a timer can be: never.
    if (ms < 2 ** 31) timer = setTimeout(giveUp, ms);
  };
  const giveUp = () => {
    const line = linesOf(port).get(path);
    const left = isPatient && line !== undefined
      ? line.changedAt + timeoutMs - port.now()
      : 0;
    if (left > 0) return wait(left);
    mine.end(false);
    resolve(undefined);
  };
  const onAbort = () => {
    mine.end(false);
    reject(signal?.reason);
  };
  const stopWaiting = whenAborted(signal, onAbort);
  wait(timeoutMs);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    stopWaiting();
  }
}

/** Joins the line; `onTurn` is called when it has become the first. */
function enter(port: Port, path: string, onTurn: () => void): Turn {
  const lines = linesOf(port);
  const line: Line = lines.get(path) ??
    { tasks: [], changedAt: port.now(), holder: undefined };
  lines.set(path, line);
  const { tasks } = line;
  tasks.push(onTurn);
  return {
    get since() {
      return line.changedAt;
    },
    hold(holder) {
      line.holder = holder;
    },
    end(hasHeld) {
      const index = tasks.indexOf(onTurn);
      if (index === -1) return;
      tasks.splice(index, 1);
      if (index === 0) line.holder = undefined;
      const [next] = tasks;
      if (next === undefined) {
        lines.delete(path);
      } else if (index === 0) {
        if (hasHeld) line.changedAt = port.now();
        next();
      }
    },
  };
}
