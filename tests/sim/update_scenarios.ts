/**
 * Processes that update one file: the protocols that an update is made of, in
 * its order. Each adds its letter to what it reads.
 *
 * @module
 */

import { lockPlace } from "../../_claim.ts";
import { acquire, type HeldLock, release } from "../../_lock.ts";
import {
  attempt,
  call,
  failedWith,
  type Protocol,
  Refusal,
} from "../../_protocol.ts";
import { readWhole } from "../../_read_file.ts";
import { prepare, writeWhole } from "../../_write.ts";
import { FileClaim, Violation } from "./claims.ts";
import type { Actor, Scenario, World } from "./interleave.ts";
import {
  acquiring,
  boundsOf,
  IGNORED,
  LOCK_NAMES,
  lockMachine,
  UNCHANGING,
} from "./lock_scenarios.ts";
import { PosixError, type Process } from "./posix.ts";
import { liveView } from "./view.ts";

const PATH = "/d/f";
const PATIENCE = { deadline: Infinity, retryMs: 0, signal: undefined };
const OLD = "0";

/** What has been done to the file, by all together. */
interface Past {
  readonly claim: FileClaim;
  /** Those whose updates have resolved. */
  readonly acknowledged: Set<string>;
  /** Whether each really held the lock when it last looked. */
  readonly looks: Map<string, boolean>;
  /** Whether somebody removes the lock by hand. */
  readonly isRemoved: boolean;
  /** Whether watchers free the locks. */
  readonly isFreed: boolean;
}

function updater(process: Process, letter: string, past: Past): Actor {
  return {
    process,
    start(port, knowsOnly) {
      const { request } = prepare("an update", "bytesWrite", PATH, {});
      const place = lockPlace(port, PATH);
      function* change(held: HeldLock): Protocol<void> {
        const bytes = yield* readWhole(port, PATH, WHOLE);
        const text = new TextDecoder().decode(bytes) + letter;
        const payload = new TextEncoder().encode(text);
        const writing = writeWhole({
          port,
          request: { ...request, path: PATH, symlinks: "replace", held },
          payload,
        });
        if (past.isFreed) yield* writing;
        else yield* looking(writing, held, letter, past);
        past.acknowledged.add(letter);
        past.claim.promise([text], true);
        // Of who has lost his lock after his rename, another one's follows.
        if (!past.isRemoved && !past.isFreed) {
          checkAcknowledged(text, past);
        }
      }
      return (function* () {
        const held = yield* acquiring(
          acquire(port, place, PATIENCE),
          place,
          knowsOnly,
        );
        if (held === undefined) throw new Violation(`${letter} gives up`);
        const { claim: { path, status: { dev, ino } } } = held;
        knowsOnly(`holds ${path} ${dev}:${ino}`);
        try {
          yield* change(held);
        } finally {
          yield* attempt(release(port, held));
        }
        return undefined;
      })();
    },
    resolved() {},
    ...(past.isRemoved || past.isFreed
      ? {
        rejected(error) {
          if (error instanceof Refusal && error.code === "LOCK_LOST") return;
          throw new Violation(`an update fails: ${error}`);
        },
      }
      : {}),
  };
}

const WHOLE = {
  maxBytes: 2 ** 20,
  capacity: 2 ** 20,
  retryMs: 0,
  signal: undefined,
};

/**
 * Nobody may write who, when he last looked, did not hold the lock any more.
 * Between that look and the rename it may be removed by hand unnoticed.
 */
function* looking<T>(
  protocol: Protocol<T>,
  { claim: { heldPath } }: HeldLock,
  letter: string,
  { looks }: Past,
): Protocol<T> {
  let step = protocol.next();
  while (!step.done) {
    const { name, args: [path] } = step.value;
    let result: unknown;
    try {
      result = yield step.value;
    } catch (error) {
      if (path === heldPath) looks.set(letter, false);
      step = protocol.throw(error);
      continue;
    }
    if (path === heldPath) looks.set(letter, true);
    if (name === "rename" && !looks.get(letter)) {
      throw new Violation(`${letter} writes, and does not have its lock`);
    }
    step = protocol.next(result);
  }
  return step.value;
}

function checkAcknowledged(text: string, { acknowledged }: Past): void {
  for (const letter of acknowledged) {
    if (!text.includes(letter)) {
      throw new Violation(`the update of ${letter} is lost: it is "${text}"`);
    }
  }
}

/** Somebody who removes what he takes for stale. */
function remover(process: Process, path: string): Actor {
  return {
    process,
    *start(): Protocol<undefined> {
      const names = yield* ifThere(call("readdir", path));
      for (const name of names ?? []) {
        yield* ifThere(call("unlink", `${path}/${name}`));
      }
      yield* ifThere(call("rmdir", path));
      return undefined;
    },
    resolved() {},
  };
}

function* ifThere<T>(protocol: Protocol<T>): Protocol<T | undefined> {
  try {
    return yield* protocol;
  } catch (error) {
    if (failedWith(error, "ENOENT", "ENOTEMPTY")) return undefined;
    throw error;
  }
}

/** A thread of a process that opens and closes the lock file, which frees every lock that the process has of it. */
function watcher(process: Process, watching: Process, times: number): Actor {
  return {
    process: watching,
    *start(): Protocol<undefined> {
      for (let time = 0; time < times; time++) {
        yield { name: "lstat", args: ["/e"], cost: "cheap" };
        try {
          process.close(process.open("/d/.f.lock/lock"));
        } catch (error) {
          if (!(error instanceof PosixError)) throw error;
        }
      }
      return undefined;
    },
    resolved() {},
  };
}

interface Plan {
  readonly letters: string;
  readonly kills?: number;
  readonly isLeft?: true;
  /** Whether somebody removes the lock by hand. */
  readonly isRemoved?: true;
  /** How often each process closes the lock file, as a watcher of the directory does. */
  readonly closes?: readonly number[];
  /** How many states are looked at, where there is no time for all. */
  readonly states?: number;
  /** The same, in the short form. */
  readonly shortStates?: number;
}

function updates(name: string, plan: Plan): Scenario {
  const { letters, kills = 0, isLeft, isRemoved = false, closes = [] } = plan;
  return {
    name,
    kills,
    ...boundsOf(plan),
    build() {
      const machine = lockMachine(isLeft);
      const setup = machine.start("former", 1);
      const file = setup.create(PATH, 0o644);
      setup.write(file, new TextEncoder().encode(OLD));
      setup.close(file);
      machine.syncAll();
      machine.processes.shift();
      const legal = arrangements(letters).map((order) => ({
        text: OLD + order,
        mode: 0o644,
      }));
      const view = liveView(machine);
      const claim = new FileClaim(PATH, legal, true, view);
      const past: Past = {
        claim,
        acknowledged: new Set(),
        looks: new Map(),
        isRemoved,
        isFreed: closes.length > 0,
      };
      const scene = {
        operation: name,
        machine,
        claims: [claim],
        innocents: new Map<string, string>(),
        paths: new Set(["/d", "/e", PATH]),
        passing: LOCK_NAMES,
        ignored: IGNORED,
        unchanging: UNCHANGING,
        staying: isRemoved || closes.length > 0 ? LOCK_NAMES : undefined,
        isSecret: false,
      };
      const actors = [...letters].map((letter, index) =>
        updater(machine.start(`process${index}`, 100 + index), letter, past)
      );
      for (const [index, times] of closes.entries()) {
        const process = actors[index]?.process;
        if (process === undefined) continue;
        const watching = machine.start(`watcher of ${process.name}`, 98);
        actors.push(watcher(process, watching, times));
      }
      if (isRemoved) {
        actors.push(remover(machine.start("hand", 99), "/d/.f.lock"));
      }
      return {
        scene,
        actors,
        key: () => [...past.acknowledged, ...past.looks].join(),
        ended: (world: World) => {
          const text = world.claim(PATH).current ?? "";
          if (!isRemoved) checkAcknowledged(text, past);
        },
      };
    },
  };
}

/** Some of the letters, in every order. */
function arrangements(letters: string): string[] {
  return [
    "",
    ...[...letters].flatMap((letter) =>
      arrangements(letters.replace(letter, "")).map((rest) => letter + rest)
    ),
  ];
}

export const UPDATE_SCENARIOS: readonly Scenario[] = [
  updates("two updates, one of which is killed", { letters: "AB", kills: 1 }),
  updates("two updates, and a watcher that frees the lock of one", {
    letters: "AB",
    closes: [1],
    states: 150_000,
    shortStates: 25_000,
  }),
  updates("an update, and somebody who removes the lock", {
    letters: "A",
    isRemoved: true,
  }),
];

/** For which the short form has no time. */
export const LARGE_UPDATE_SCENARIOS: readonly Scenario[] = [
  updates("two updates, and watchers that free their locks", {
    letters: "AB",
    closes: [1, 1],
    states: 150_000,
  }),
  updates("two updates, both may be killed, and a lock that is left", {
    letters: "AB",
    kills: 2,
    isLeft: true,
  }),
  updates("two updates, and somebody who removes the lock", {
    letters: "AB",
    isRemoved: true,
  }),
];
