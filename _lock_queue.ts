/**
 * Tasks of one realm that want one lock: they wait for each other here, in call
 * order and without a system call. Only the first asks the kernel.
 *
 * @module
 */

import type { Port } from "./_runtime/port.ts";

/** Whose turn it is, until it is given up. */
export interface Turn {
  end(): void;
}

/** The tasks that want one lock; the first has the turn. */
type Line = (() => void)[];

const linesByPort = new WeakMap<Port, Map<string, Line>>();

function linesOf(port: Port): Map<string, Line> {
  let lines = linesByPort.get(port);
  if (lines === undefined) linesByPort.set(port, lines = new Map());
  return lines;
}

/** The turn, if nobody in this realm has it or waits for it. */
export function turnAtOnce(port: Port, path: string): Turn | undefined {
  return linesOf(port).has(path) ? undefined : enter(port, path, () => {});
}

/** Waits for the turn; `undefined` if it has not come in so many milliseconds. */
export async function turn(
  port: Port,
  path: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Turn | undefined> {
  signal?.throwIfAborted();
  const free = turnAtOnce(port, path);
  if (free !== undefined) return free;
  const { promise, resolve, reject } = Promise.withResolvers<
    Turn | undefined
  >();
  const onTurn = () => resolve(mine);
  const mine = enter(port, path, onTurn);
  const giveUp = () => {
    mine.end();
    resolve(undefined);
  };
  const onAbort = () => {
    mine.end();
    reject(signal?.reason);
  };
  signal?.addEventListener("abort", onAbort, { once: true });
  // Longer than a timer can be: never.
  const timer = timeoutMs < 2 ** 31 ? setTimeout(giveUp, timeoutMs) : undefined;
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Joins the line; `onTurn` is called when it has become the first. */
function enter(port: Port, path: string, onTurn: () => void): Turn {
  const lines = linesOf(port);
  let line = lines.get(path);
  if (line === undefined) lines.set(path, line = []);
  const tasks = line;
  tasks.push(onTurn);
  return {
    end() {
      const index = tasks.indexOf(onTurn);
      if (index === -1) return;
      tasks.splice(index, 1);
      const [next] = tasks;
      if (next === undefined) lines.delete(path);
      else if (index === 0) next();
    },
  };
}
