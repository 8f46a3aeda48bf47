/**
 * Processes that want one lock.
 *
 * @module
 */

import { acquire, lockPlace, release } from "../../_lock.ts";
import type { Protocol } from "../../_protocol.ts";
import { Violation } from "./claims.ts";
import type { Actor, Scenario } from "./interleave.ts";
import { Machine, type Process } from "./posix.ts";

const PATH = "/d/f";
const PATIENCE = { deadline: Infinity, retryMs: 0, signal: undefined };

/** Takes the lock and gives it back, so many times. */
function taker(
  process: Process,
  times: number,
  holders: Set<string>,
): Actor {
  const { name } = process;
  return {
    process,
    start(port) {
      const place = lockPlace(port, PATH);
      return (function* (): Protocol<unknown> {
        for (let time = 0; time < times; time++) {
          const held = yield* acquire(port, place, PATIENCE);
          if (held === undefined) throw new Violation(`${name} gives up`);
          if (holders.size > 0) {
            throw new Violation(`${[...holders].join()} holds it, and ${name}`);
          }
          holders.add(name);
          // Something to be stopped at while it holds.
          yield { name: "lstat", args: ["/d"], cost: "cheap" };
          holders.delete(name);
          yield* release(held);
        }
        return undefined;
      })();
    },
    resolved() {},
    killed() {
      holders.delete(name);
    },
  };
}

interface Plan {
  /** How often each takes it. */
  readonly times: readonly number[];
  readonly kills?: number;
  /** Whether a lock file was left by a kill. */
  readonly isLeft?: true;
}

function lock(name: string, { times, kills = 0, isLeft }: Plan): Scenario {
  return {
    name,
    kills,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      if (isLeft) {
        root.close(root.create("/d/.f.lock", 0o644));
        root.link("/d/.f.lock", `/d/.f.lock.7.0.${"0".repeat(36)}`);
      }
      machine.syncAll();
      machine.processes.shift();
      const holders = new Set<string>();
      const scene = {
        operation: name,
        machine,
        claims: [],
        innocents: new Map<string, string>(),
        paths: new Set(["/d"]),
        passing: /^\/d\/\.f\.lock/,
        isSecret: false,
      };
      const actors = times.map((count, index) =>
        taker(machine.start(`process${index}`, 100 + index), count, holders)
      );
      return { scene, actors };
    },
  };
}

export const LOCK_SCENARIOS: readonly Scenario[] = [
  lock("a lock, two processes", { times: [1, 1] }),
];

/** For which the short form has no time. */
export const LARGE_LOCK_SCENARIOS: readonly Scenario[] = [
  lock("a lock, two processes, one of which is killed", {
    times: [1, 1],
    kills: 1,
  }),
  lock("a lock that a kill has left", { times: [1, 1], isLeft: true }),
  lock("a lock, two processes, one of them twice", { times: [2, 1] }),
];
