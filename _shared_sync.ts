/**
 * One sync of a directory for all writers that wait for one. A sync serves
 * whoever asked before it began: it covers every rename that was done by then,
 * and none that came later.
 *
 * @module
 */

import { isExact, type OpenFile, type Port } from "./_runtime/port.ts";

interface Round {
  readonly handle: OpenFile;
  readonly done: Promise<void>;
  /** Begins when this one ends. */
  next: { readonly handle: OpenFile; readonly done: Promise<void> } | undefined;
}

const roundsByPort = new WeakMap<Port, Map<string, Round>>();

/** Waits for a sync of the directory at `path` that begins now or later; `sync` performs it if nobody else's does. */
export function shareSync(
  port: Port,
  path: string,
  handle: OpenFile,
  sync: () => Promise<void>,
): Promise<void> {
  let rounds = roundsByPort.get(port);
  if (rounds === undefined) roundsByPort.set(port, rounds = new Map());
  const open = rounds;

  const begin = (): Promise<void> => {
    const round: Round = { handle, done: sync(), next: undefined };
    open.set(path, round);
    const end = () => {
      if (round.next === undefined) open.delete(path);
    };
    round.done.then(end, end);
    return round.done;
  };

  const running = open.get(path);
  if (running === undefined) return begin();
  const { next } = running;
  // Another directory may have that path by now.
  if (!isSame(port, handle, (next ?? running).handle)) return sync();
  if (next !== undefined) return next.done;
  // The running one may have begun before our rename.
  const done = running.done.then(begin, begin);
  running.next = { handle, done };
  return done;
}

/** Both are open: whoever waits for a sync holds its handle. */
function isSame(port: Port, one: OpenFile, other: OpenFile): boolean {
  const status = port.sync.fstat(one);
  const { dev, ino } = port.sync.fstat(other);
  return status.dev === dev && status.ino === ino && isExact(status);
}
