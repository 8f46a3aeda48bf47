/**
 * One sync of a directory for all writers that wait for one. A sync serves
 * whoever asked before it began: it covers every rename that was done by then,
 * and none that came later.
 *
 * @module
 */

import type { Port } from "./_runtime/port.ts";

interface Round {
  readonly done: Promise<void>;
  /** Begins when this one ends. */
  next: Promise<void> | undefined;
}

const roundsByPort = new WeakMap<Port, Map<string, Round>>();

/** Waits for a sync of `directory` that begins now or later; `sync` performs it if nobody else's does. */
export function shareSync(
  port: Port,
  directory: string,
  sync: () => Promise<void>,
): Promise<void> {
  let rounds = roundsByPort.get(port);
  if (rounds === undefined) roundsByPort.set(port, rounds = new Map());
  const open = rounds;

  const begin = (): Promise<void> => {
    const round: Round = { done: sync(), next: undefined };
    open.set(directory, round);
    const end = () => {
      if (round.next === undefined) open.delete(directory);
    };
    round.done.then(end, end);
    return round.done;
  };

  const running = open.get(directory);
  if (running === undefined) return begin();
  // It may have begun before our rename.
  return running.next ??= running.done.then(begin, begin);
}
