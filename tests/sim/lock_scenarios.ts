/**
 * Processes that want one lock.
 *
 * @module
 */

import { type LockPlace, lockPlace } from "../../_claim.ts";
import { acquire, checkHeld, release } from "../../_lock.ts";
import { type Protocol, Refusal } from "../../_protocol.ts";
import { Violation } from "./claims.ts";
import type { Actor, Scenario } from "./interleave.ts";
import { Machine, type Process } from "./posix.ts";

const PATH = "/d/f";
const LOCK = "/d/.f.lock";
const LOCK_FILE = `${LOCK}/lock`;
const PATIENCE = { deadline: Infinity, retryMs: 0, signal: undefined };

/** What a lock is made of, by its names alone: a power cut frees every lock. */
export const LOCK_ENTRIES: RegExp =
  /^(?:\.[fg]\.lock|lock|\d+\.\d+\.[\da-f-]{36}(?:\.held)?)$/;

/** The directory of the lock, the lock file, and the claims of those who wait or hold. */
export const LOCK_NAMES: RegExp =
  /^(?:\/d\/\.f\.lock\/)?(?:lock|\d+\.\d+\.[\da-f-]{36}(?:\.held)?)$|^(?:\/d\/)?\.f\.lock$/;

/**
 * Where `acquire` begins a round it knows nothing of the rounds before it, but
 * that they were: which decides only whether it asks for the deadline, and that
 * never comes here. Its first call then is the link to a new name.
 */
export function* acquiring<T>(
  protocol: Protocol<T>,
  place: LockPlace,
  knowsOnly: (what: string) => void,
): Protocol<T> {
  let step = protocol.next();
  let isCompared = false;
  while (!step.done) {
    const { name, args: [from, to] } = step.value;
    if (name === "mkdir" && from === place.path) {
      knowsOnly(`begins, ${isCompared}`);
    }
    // To see whether two names of a file look like one.
    if (name === "link" && ![from, to].includes(place.lockFile)) {
      isCompared = true;
    }
    let result: unknown;
    try {
      result = yield step.value;
    } catch (error) {
      step = protocol.throw(error);
      continue;
    }
    step = protocol.next(result);
  }
  return step.value;
}

/** Of a claim that waits, and is not old, nobody takes notice. */
export const IGNORED: RegExp = /^\d+\.0\.[\da-f-]{36}$/;

/** The directory, of which a lock asks who may write in it. */
export const UNCHANGING: ReadonlySet<string> = new Set(["/d"]);

interface Taking {
  /** How often it takes the lock. */
  readonly times: number;
  /** With what code it may be refused. */
  readonly refusal: string | undefined;
  readonly makesDatabases: boolean;
  readonly numbersNames: boolean;
}

/** Takes the lock and gives it back, so many times. */
function taker(
  process: Process,
  { times, refusal, makesDatabases, numbersNames }: Taking,
  holders: Set<string>,
): Actor {
  const { name } = process;
  return {
    process,
    makesDatabases,
    numbersNames,
    start(port, knowsOnly) {
      const place = lockPlace(port, PATH);
      return (function* (): Protocol<unknown> {
        for (let left = times; left > 0; left--) {
          const held = yield* acquiring(
            acquire(port, place, PATIENCE),
            place,
            (what) => knowsOnly(`${left} ${what}`),
          );
          if (held === undefined) throw new Violation(`${name} gives up`);
          if (holders.size > 0) {
            throw new Violation(`${[...holders].join()} holds it, and ${name}`);
          }
          holders.add(name);
          const { claim: { path, status: { dev, ino } } } = held;
          knowsOnly(`${left} holds ${path} ${dev}:${ino}`);
          // Nobody removes it by hand here, and nothing frees it.
          yield* checkHeld(held);
          holders.delete(name);
          yield* release(port, held);
        }
        knowsOnly("all it wanted");
        return undefined;
      })();
    },
    resolved() {},
    rejected(error) {
      const isRefused = error instanceof Refusal && error.code === refusal;
      if (!isRefused) throw new Violation(`${name} fails: ${error}`);
    },
    killed() {
      holders.delete(name);
    },
  };
}

/** Somebody who keeps the number of the lock file in use for as long as he likes. */
function closer(process: Process): Actor {
  const file = process.open(LOCK_FILE);
  return {
    process,
    *start(): Protocol<undefined> {
      yield { name: "close", args: [file], cost: "cheap" };
      return undefined;
    },
    resolved() {},
  };
}

interface Plan {
  /** How often each takes it. */
  readonly times: readonly number[];
  readonly kills?: number;
  /** How many states are looked at, where there is no time for all. */
  readonly states?: number;
  /** The same, in the short form. */
  readonly shortStates?: number;
  /** Whether a lock file was left by a kill. */
  readonly isLeft?: true;
  /** Whose each process is; root's, if nothing is said. */
  readonly users?: readonly number[];
  /** Whether a file may be linked by those who may only read it. */
  readonly linksForAll?: true;
  /** Whose SQLite does not make a missing file, as Bun's. */
  readonly bun?: readonly number[];
  /** Whether somebody has the lock file open that was left, and closes it some time. */
  readonly isOpen?: true;
  /** Whether only its owner, and root, may remove a file from the directory. */
  readonly isSticky?: true;
  /** Whether somebody has planted a link in the place of the lock file. */
  readonly isPlanted?: true;
  /** Whether the file system has no hard links, so that nobody can have the lock. */
  readonly isWithoutLinks?: true;
  /** Whether each name of a file is an inode of its own to the kernel. */
  readonly locksNames?: true;
  /** Whether each name of a file shows a number of its own too, so that nobody can have the lock. */
  readonly numbersNames?: true;
}

/** How many states of a scenario are looked at, where that is said. */
export function boundsOf(
  { states, shortStates }: Pick<Scenario, "states" | "shortStates">,
): Pick<Scenario, "states" | "shortStates"> {
  return {
    ...(states === undefined ? {} : { states }),
    ...(shortStates === undefined ? {} : { shortStates }),
  };
}

/** So long before or after now that whoever waits since then was killed. */
const LONG_AGO = 60_000;

/** A machine with a directory for everybody, and perhaps a lock file that was left. */
export function lockMachine(isLeft = false, mode = 0o755): Machine {
  const machine = new Machine();
  machine.fleeting = LOCK_NAMES;
  const root = machine.start("setup", 1);
  root.mkdir("/d");
  root.mkdir("/e");
  machine.change(root.lstat("/d"), { mode, uid: 0, gid: 0 });
  if (isLeft) {
    root.mkdir(LOCK);
    machine.change(root.lstat(LOCK), { mode, uid: 0, gid: 0 });
    root.close(root.create(LOCK_FILE, 0o644));
    root.link(
      LOCK_FILE,
      `${LOCK}/7.${LONG_AGO}.00000000-0000-4000-8000-000000000000`,
    );
  }
  machine.syncAll();
  machine.processes.shift();
  return machine;
}

function lock(name: string, plan: Plan): Scenario {
  const { times, kills = 0, isLeft, users = [], linksForAll, bun = [] } = plan;
  const { isOpen, isPlanted, isWithoutLinks, isSticky } = plan;
  const { locksNames = false, numbersNames = false } = plan;
  return {
    name,
    kills,
    ...boundsOf(plan),
    build() {
      const machine = lockMachine(
        isLeft,
        isSticky ? 0o1777 : users.length > 0 || isPlanted ? 0o777 : 0o755,
      );
      machine.protectsHardLinks = !linksForAll;
      machine.hasHardLinks = !isWithoutLinks;
      machine.locksNames = locksNames;
      if (isPlanted) {
        const stranger = machine.start("stranger", 1, 1000);
        stranger.symlink("/e", LOCK);
        machine.processes.pop();
      }
      const holders = new Set<string>();
      const scene = {
        operation: name,
        machine,
        claims: [],
        innocents: new Map<string, string>(),
        paths: new Set(["/d", "/e"]),
        passing: LOCK_NAMES,
        ignored: IGNORED,
        unchanging: UNCHANGING,
        // Only its holder removes it, and nobody can hold it here.
        staying: isPlanted || (isLeft && users.length > 0)
          ? LOCK_NAMES
          : undefined,
        isSecret: false,
      };
      const actors = times.map((times, index) => {
        const uid = users[index] ?? 0;
        const process = machine.start(`process${index}`, 100 + index, uid);
        const refusal = isWithoutLinks || numbersNames
          ? "UNSUPPORTED_ENVIRONMENT"
          : isPlanted
          ? "NOT_A_LOCK"
          : uid === 0
          ? undefined
          : "EACCES";
        const makesDatabases = !bun.includes(index);
        return taker(
          process,
          { times, refusal, makesDatabases, numbersNames },
          holders,
        );
      });
      if (isOpen) actors.push(closer(machine.start("reader", 99)));
      return { scene, actors };
    },
  };
}

export const LOCK_SCENARIOS: readonly Scenario[] = [
  lock("two processes", { times: [1, 1] }),
  lock("two processes, one of them twice", {
    times: [2, 1],
    shortStates: 40_000,
  }),
  lock("two processes, one of which is killed", { times: [1, 1], kills: 1 }),
  lock("what a kill has left", { times: [1, 1], isLeft: true }),
  lock("what a kill has left, on Bun", {
    times: [1, 1],
    isLeft: true,
    bun: [0, 1],
  }),
  lock("one thrice, another once, and the file is open elsewhere", {
    times: [3, 1],
    isLeft: true,
    isOpen: true,
    shortStates: 15_000,
  }),
  lock("a lock file of root's, which two others may read", {
    times: [1, 1],
    isLeft: true,
    users: [1000, 1001],
  }),
  lock("a lock file of root's, which two others may read and link", {
    times: [1, 1],
    isLeft: true,
    users: [1000, 1001],
    linksForAll: true,
  }),
  lock("two users", { times: [1, 1], users: [1000, 1001] }),
  lock("two users in a sticky directory, who may link each other's files", {
    times: [1, 1],
    users: [1000, 1001],
    linksForAll: true,
    isSticky: true,
  }),
  lock("a link that somebody has planted", { times: [1], isPlanted: true }),
  lock("no hard links", { times: [1, 1], isWithoutLinks: true }),
  lock("names that are inodes of their own", {
    times: [2, 1],
    locksNames: true,
    shortStates: 15_000,
  }),
  lock("names that are inodes of their own, on Bun, one is killed", {
    times: [1, 1],
    locksNames: true,
    bun: [0, 1],
    kills: 1,
  }),
  lock("names that have numbers of their own", {
    times: [1, 1],
    locksNames: true,
    numbersNames: true,
  }),
];

/** For which the short form has no time. */
export const LARGE_LOCK_SCENARIOS: readonly Scenario[] = [
  lock("two processes, twice each", { times: [2, 2], states: 400_000 }),
  lock("two processes, twice each, both may be killed", {
    times: [2, 2],
    states: 150_000,
    kills: 2,
  }),
  lock("what a kill has left, twice each, another kill", {
    times: [2, 2],
    states: 150_000,
    isLeft: true,
    kills: 1,
  }),
  lock("what a kill has left, twice each, another kill, on Bun", {
    times: [2, 2],
    states: 150_000,
    isLeft: true,
    kills: 1,
    bun: [0, 1],
  }),
  lock("what a kill has left, twice each, another kill, Node and Bun", {
    times: [2, 2],
    states: 150_000,
    isLeft: true,
    kills: 1,
    bun: [1],
  }),
  lock("root and two others", {
    times: [1, 1, 1],
    states: 150_000,
    users: [0, 1000, 1001],
  }),
  lock("root and two others, who may link its files", {
    times: [1, 1, 1],
    states: 150_000,
    users: [0, 1000, 1001],
    linksForAll: true,
  }),
  lock("three processes", { times: [1, 1, 1], states: 150_000 }),
];
