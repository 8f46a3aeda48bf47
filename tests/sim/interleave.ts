/**
 * All interleavings of several processes, at the granularity of system calls,
 * with kills. Histories that lead to the same state are followed once: a state
 * is all that is on the machine and on its disk, what each process has been
 * told by its calls, and what was promised.
 *
 * @module
 */

import { substitutePort } from "../../_runtime/current.ts";
import { type Call, type Protocol, SystemCallError } from "../../_protocol.ts";
import { type Claim, FileClaim, Violation } from "./claims.ts";
import type { CrashBounds } from "./crash.ts";
import { hash } from "./hash.ts";
import type { OpenFile } from "../../_runtime/port.ts";
import type { Finding } from "./crash_run.ts";
import {
  describeCall,
  MachinePort,
  type Observer,
  type PortOptions,
  type SimulatedCall,
} from "./machine_port.ts";
import type { Machine, Process } from "./posix.ts";
import type { Tally } from "./report.ts";
import {
  lookAfterCrash,
  lookAlive,
  lookAtTheEnd,
  type Scene,
} from "./scene.ts";
import { diskKey, machineKey } from "./state.ts";
import { liveView } from "./view.ts";

/** One process, and what it does. */
export interface Actor {
  readonly process: Process;
  readonly makesDatabases?: boolean;
  readonly numbersNames?: boolean;
  /**
   * Begins; the port is that of its process. Where what it was told before no
   * longer matters, it says what it still knows.
   */
  start(
    port: MachinePort,
    knowsOnly: (what: string) => void,
  ): Protocol<unknown>;
  /** Called when it has come to its end; throws a {@linkcode Violation}. */
  resolved(result: unknown, world: World): void;
  /** Likewise; without it, it may not fail. */
  rejected?(error: unknown, world: World): void;
  /** Called when it is killed. */
  killed?(): void;
}

/** What several processes do on one machine. */
export interface Scenario {
  readonly name: string;
  /** How many may be killed, where that is not for the bounds to say. */
  readonly kills?: number;
  /** How many states are looked at, where there is no time for all. */
  readonly states?: number;
  /** The same, in the short form. */
  readonly shortStates?: number;
  /** Builds the same machine each time. */
  build(): {
    scene: Scene<Claim>;
    actors: readonly Actor[];
    /** What it keeps itself of the past, as a text. */
    key?(): string;
    /** Called when all have come to their ends. */
    ended?(world: World): void;
  };
}

/** How far a scenario is explored. */
export interface Bounds extends CrashBounds {
  /** How many processes may be killed. */
  readonly kills: number;
  /** How many states at the most. */
  readonly states: number;
}

type Status = "running" | "ended" | "killed";

/** An actor in the middle of what it does. */
class Running {
  readonly actor: Actor;
  status: Status = "running";
  /** What it has been told, hashed. */
  history = 0;
  /** Names that it was told of, and may yet use. */
  heard: readonly string[] = [];
  /** What it had been told when it began to wait for a lock. */
  #before = 0;
  readonly #protocol: Protocol<unknown>;
  readonly #port: MachinePort;
  #next: Call | undefined;

  constructor(actor: Actor, port: MachinePort, world: World) {
    this.actor = actor;
    this.#port = port;
    substitutePort(port);
    try {
      this.#protocol = actor.start(port, (what) => {
        this.history = hash(what);
        this.heard = [];
      });
      this.#take(() => this.#protocol.next(), world);
    } finally {
      substitutePort(undefined);
    }
  }

  /** Makes its next call. */
  step(world: World): void {
    const call = this.#next;
    if (call === undefined) throw new Error("It has ended");
    let result: unknown;
    try {
      result = this.#port.perform({ process: this.actor.process, ...call });
    } catch (error) {
      const code = this.#port.errorCode(error);
      if (code === undefined) throw error;
      const failure = new SystemCallError(call, code, error);
      this.#take(() => this.#protocol.throw(failure), world);
      return;
    }
    // Who waits comes back to where he was: else there would be no end of states.
    if (call.name === "openDatabase") this.#before = this.history;
    if (call.name === "sleep") this.history = this.#before;
    this.#take(() => this.#protocol.next(result), world);
  }

  /** What of it decides about the future. */
  get key(): string {
    if (this.status === "killed") return this.status;
    return `${this.status} ${this.history} ${this.#port.key}`;
  }

  /** Whether nobody else can tell when the next call is made: it need not be interleaved with what others do. */
  isBeforePrivateCall({ passing, unchanging }: Scene<Claim>): boolean {
    const { name, args: [subject] } = this.#next ?? { args: [] };
    if (name === "sleep") return true;
    if (name === "lstat") return unchanging?.has(String(subject)) ?? false;
    // A new claim: nobody else has it open, or locked.
    return (name === "fstat" || name === "close") && isOpenFile(subject) &&
      passing?.test(subject.path) === true;
  }

  kill(): void {
    this.actor.process.kill();
    this.actor.killed?.();
    this.status = "killed";
    this.heard = [];
    this.#next = undefined;
  }

  #take(
    resume: () => IteratorResult<Call, unknown>,
    world: World,
  ): void {
    let step: IteratorResult<Call, unknown>;
    try {
      step = resume();
    } catch (error) {
      if (error instanceof Violation) throw error;
      this.status = "ended";
      this.#next = undefined;
      if (this.actor.rejected === undefined) {
        throw new Violation(`${this.actor.process.name} fails: ${error}`);
      }
      this.actor.rejected(error, world);
      return;
    }
    if (!step.done) {
      this.#next = step.value;
      return;
    }
    this.status = "ended";
    this.#next = undefined;
    this.actor.resolved(step.value, world);
  }
}

/** A scenario under way. */
export class World {
  readonly scene: Scene<Claim>;
  readonly #trace: (readonly [SimulatedCall | string, outcome: string])[] = [];
  readonly running: Running[];
  kills = 0;
  /** The revision of the machine that was looked at last. */
  #observed = -1;
  /** Names that were renamed away or removed, by whom, who is not to use them again. */
  readonly #gone = new Map<unknown, Process>();
  readonly #ended: ((world: World) => void) | undefined;
  readonly #ownKey: (() => string) | undefined;

  constructor(scenario: Scenario) {
    const { scene, actors, ended, key } = scenario.build();
    this.#ownKey = key;
    this.scene = scene;
    this.#ended = ended;
    this.running = [];
    const observer: Observer = {
      before: (call) => {
        const isGone = (argument: unknown) =>
          this.#gone.get(argument) === call.process;
        if (call.args.some(isGone)) {
          throw new Violation("a name is used that is somebody else's");
        }
        return undefined;
      },
      after: (call, outcome) => {
        const [path] = call.args;
        const isGone = ["rename", "unlink"].includes(call.name) &&
          outcome === "ok";
        // Other names, as that of a lock file, are everybody's.
        if (isGone && String(path).endsWith(".tmp")) {
          this.#gone.set(path, call.process);
        }
        this.#trace.push([call, outcome]);
        const caller = this.running.find(({ actor }) =>
          actor.process === call.process
        );
        if (caller === undefined) return;
        // What a handle stands for, the machine knows.
        const told = HANDLES.has(call.name) && outcome.startsWith("<")
          ? "ok"
          : call.name === "readdir"
          ? outcome.split(",").filter((name) => !scene.ignored?.test(name))
            .join()
          : outcome;
        caller.history = hash(`${caller.history} ${told}`);
        if (call.name === "readdir") caller.heard = told.split(",");
      },
    };
    const { fleeting } = scene.machine;
    for (const actor of actors) {
      const own = actor;
      const { process, makesDatabases = true, numbersNames = false } = actor;
      const options: PortOptions = fleeting === undefined ? {} : {
        makesDatabases,
        freshNumber: () => this.#freshNumber(process),
        plain: scene.passing,
        numbersNames,
        asked: (what) => {
          const asking = this.running.find(({ actor }) => actor === own);
          if (asking !== undefined) {
            asking.history = hash(`${asking.history} ${what}`);
          }
        },
      };
      const port = new MachinePort(process, observer, undefined, options);
      this.running.push(new Running(actor, port, this));
    }
  }

  get machine(): Machine {
    return this.scene.machine;
  }

  /** The claim about a file. */
  claim(path: string): FileClaim {
    const claim = this.scene.claims.find((claim) => claim.path === path);
    if (claim instanceof FileClaim) return claim;
    throw new Error(`No claim about ${path}`);
  }

  /** What has happened, as a person reads it. */
  get trace(): string[] {
    return this.#trace.map(([what, outcome]) =>
      `${typeof what === "string" ? what : describeCall(what)} = ${outcome}`
    );
  }

  /**
   * The lowest number of which no name is there, or known to somebody else. So
   * names that are only compared do not make states differ.
   */
  #freshNumber(process: Process): number {
    const names = [...this.machine.inodes.values()].flatMap(({ entries }) => [
      ...entries.keys(),
    ]);
    const others = this.running.filter(({ actor }) =>
      actor.process !== process
    );
    const known = [
      ...names,
      ...others.flatMap(({ heard }) => heard),
      ...[...this.#gone.keys()].map(String),
    ].filter((name) => `.${name}`.includes(`.${process.pid}.`));
    for (let number = 1;; number++) {
      const digits = `${number}`.padStart(12, "0");
      if (!known.some((name) => name.includes(digits))) return number;
    }
  }

  /** Whether a process has made such a call. */
  hasCalled(process: Process, name: SimulatedCall["name"]): boolean {
    return this.#trace.some(([call]) =>
      typeof call === "object" && call.process === process &&
      call.name === name
    );
  }

  /** What may happen next: even numbers are steps, odd ones kills. */
  choices(bounds: Bounds): number[] {
    return this.running.flatMap(({ status }, index) => {
      if (status !== "running") return [];
      return this.kills < bounds.kills
        ? [2 * index, 2 * index + 1]
        : [2 * index];
    });
  }

  choose(choice: number): void {
    const chosen = this.running[Math.floor(choice / 2)];
    if (chosen === undefined) throw new Error(`No choice ${choice}`);
    if (choice % 2 === 0) {
      chosen.step(this);
      while (chosen.isBeforePrivateCall(this.scene)) chosen.step(this);
    } else {
      chosen.kill();
      this.kills++;
      this.#trace.push([chosen.actor.process.name, "killed"]);
    }
    const { revision } = this.machine;
    if (revision === this.#observed) return;
    this.#observed = revision;
    const view = liveView(this.machine);
    for (const claim of this.scene.claims) claim.observe(view);
  }

  end(): void {
    this.#ended?.(this);
  }

  /** The same text where a crash leaves the same, and the same was promised. */
  get diskKey(): string {
    return [
      diskKey(this.machine.disk),
      ...this.scene.claims.map(({ key }) => key),
    ].join("\n");
  }

  /** The same text for the same state. */
  get key(): string {
    return [
      machineKey(this.machine),
      this.diskKey,
      ...this.running.map(({ key }) => key),
      this.#ownKey?.() ?? "",
    ].join("\n");
  }
}

function isOpenFile(value: unknown): value is OpenFile {
  return typeof value === "object" && value !== null && "path" in value;
}

const HANDLES: ReadonlySet<string> = new Set([
  "create",
  "createChangeable",
  "open",
  "openChangeable",
  "openDatabase",
]);

export interface Exploration {
  readonly isClosed: boolean;
  readonly finding: Finding | undefined;
}

/** Follows every interleaving, until a violation is found or the bound is reached. */
export function explore(
  scenario: Scenario,
  bounds: Bounds,
  tally: Tally,
): Exploration {
  const open: number[][] = [[]];
  for (let schedule = open.pop(); schedule; schedule = open.pop()) {
    let world: World | undefined;
    try {
      world = new World(scenario);
      for (const choice of schedule) world.choose(choice);
      tally.runs++;
      follow(world, schedule, open, bounds, tally);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      const finding = {
        run: scenario.name,
        message: error.message,
        trace: world?.trace ?? [],
      };
      return { isClosed: false, finding };
    }
    if (tally.states >= bounds.states) {
      return { isClosed: open.length === 0, finding: undefined };
    }
  }
  return { isClosed: true, finding: undefined };
}

/** Goes on from a state that was reached, along the first choice; the others are left open. */
function follow(
  world: World,
  reached: readonly number[],
  open: number[][],
  bounds: Bounds,
  tally: Tally,
): void {
  const schedule = [...reached];
  for (;;) {
    if (!tally.state(world.key)) return;
    lookAlive(world.scene);
    if (tally.disk(world.diskKey)) {
      lookAfterCrash(world.scene, tally, bounds);
    }
    const [first, ...others] = world.choices(bounds);
    if (first === undefined) {
      const killed = world.running
        .filter(({ status }) => status === "killed")
        .flatMap(({ actor }) => temporariesOf(world.machine, actor.process));
      lookAtTheEnd(world.scene, killed, world.kills > 0);
      world.end();
      return;
    }
    for (const other of others) open.push([...schedule, other]);
    world.choose(first);
    schedule.push(first);
  }
}

/** What a killed process has left: its temporary files, which nobody else may remove. */
function temporariesOf(machine: Machine, process: Process): string[] {
  const paths: string[] = [];
  const visit = (inode: Machine["root"], path: string) => {
    for (const [name, child] of inode.entries) {
      if (child.kind === "directory") visit(child, `${path}/${name}`);
      else if (
        child.id.startsWith(`${process.name}.`) ||
        `.${name}`.includes(`.${process.pid}.`)
      ) {
        paths.push(`${path}/${name}`);
      }
    }
  };
  visit(machine.root, "");
  return paths;
}
