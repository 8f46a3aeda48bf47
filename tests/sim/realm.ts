/**
 * Schedules of one realm: several writes that are called in one thread, each of
 * whose asynchronous calls is carried out, and later answered, whenever the
 * schedule says so. In between, the realm goes on as far as it can, as the event
 * loop does.
 *
 * @module
 */

import { currentPort, substitutePort } from "../../_runtime/current.ts";
import type { WriteReceipt } from "../../mod.ts";
import { Violation } from "./claims.ts";
import type { CrashBounds } from "./crash.ts";
import type { Finding } from "./crash_run.ts";
import {
  describeCall,
  MachinePort,
  shown,
  type SimulatedCall,
} from "./machine_port.ts";
import type { Tally } from "./report.ts";
import {
  lookAfterCrash,
  lookAlive,
  lookAtTheEnd,
  type Scene,
} from "./scene.ts";
import type { Process } from "./posix.ts";
import { diskKey, machineKey } from "./state.ts";

/** A call of a public function. */
export interface Action {
  readonly name: string;
  /** Called when the schedule says so; settles as the function does. */
  start(): Promise<WriteReceipt>;
  /** What must hold once it has resolved. */
  resolved(receipt: WriteReceipt, stage: Stage): void;
  /** Likewise; without it, it may not be rejected. */
  rejected?(error: unknown, stage: Stage): void;
}

/** What one realm does. */
export interface RealmScenario {
  readonly name: string;
  /** Whether every call is asynchronous, as where the disk is slow. */
  readonly isSlow: boolean;
  /** Builds the same each time. Actions begin in this order. */
  build(): { scene: Scene; process: Process; actions: readonly Action[] };
}

/** What the actions see. */
export interface Stage {
  readonly scene: Scene;
}

interface PendingCall {
  readonly call: SimulatedCall;
  readonly perform: () => unknown;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
  outcome:
    | { readonly result: unknown }
    | { readonly error: unknown }
    | undefined;
}

export interface RealmBounds extends CrashBounds {
  /** How many schedules are followed at the most; beyond, a sample of as many. */
  readonly schedules: number;
}

/** Longer than any chain of promises in the library between two system calls. */
const TURNS = 40;
const MOST_TURNS = 2000;

async function settleDown(isQuiet: () => boolean): Promise<void> {
  for (let turn = 0; turn < TURNS || (turn < MOST_TURNS && isQuiet()); turn++) {
    await Promise.resolve();
  }
}

/** One schedule under way. */
class RealmRun implements Stage {
  readonly scene: Scene;
  readonly trace: string[] = [];
  readonly #port: MachinePort;
  readonly #actions: readonly Action[];
  readonly #calls: PendingCall[] = [];
  /** What the realm has been told, in order. */
  #history = "";
  #started = 0;
  #unsettled = 0;
  violation: Violation | undefined;

  constructor({ build, isSlow }: RealmScenario) {
    const { scene, process, actions } = build();
    this.scene = scene;
    this.#actions = actions;
    this.#port = new MachinePort(
      process,
      {
        before: () => undefined,
        after: (call, outcome) => {
          this.trace.push(`${describeCall(call)} = ${outcome}`);
          this.#history += `${outcome};`;
          this.violation ??= caught(() => lookAlive(this.scene));
        },
      },
      (call, perform) =>
        new Promise((resolve, reject) => {
          const outcome = undefined;
          this.#calls.push({ call, perform, resolve, reject, outcome });
        }),
    );
    if (isSlow) this.#port.tick = 1;
  }

  /** What may happen next: an action begins, or a call is carried out or answered. */
  get choices(): string[] {
    const choices = this.#calls.map(({ outcome }, index) =>
      `${outcome === undefined ? "perform" : "answer"} ${index}`
    );
    if (this.#started < this.#actions.length) choices.unshift("begin");
    return choices;
  }

  get isStuck(): boolean {
    return this.choices.length === 0 && this.#unsettled > 0;
  }

  async choose(choice: string): Promise<void> {
    const [what, index] = choice.split(" ");
    if (what === "begin") this.#begin();
    else if (what === "perform") this.#perform(Number(index));
    else this.#answer(Number(index));
    await settleDown(() => this.isStuck);
    if (this.isStuck) {
      this.violation ??= new Violation("a write waits for nothing, for ever");
    }
  }

  #begin(): void {
    const action = this.#actions[this.#started++];
    if (action === undefined) throw new Error("All have begun");
    this.trace.push(`${action.name} is called`);
    this.#history += "begin;";
    this.#unsettled++;
    const before = currentPort();
    substitutePort(this.#port);
    const settled = action.start();
    substitutePort(before);
    settled.then(
      (receipt) => {
        this.trace.push(
          `${action.name} resolves${receipt.superseded ? ", superseded" : ""}`,
        );
        this.violation ??= caught(() => {
          lookAlive(this.scene);
          action.resolved(receipt, this);
        });
      },
      (error: unknown) => {
        this.trace.push(`${action.name} rejects: ${error}`);
        this.violation ??= caught(() => {
          if (action.rejected === undefined) {
            throw new Violation(`${action.name} fails: ${error}`);
          }
          action.rejected(error, this);
        });
      },
    ).finally(() => this.#unsettled--);
  }

  #perform(index: number): void {
    const pending = this.#calls[index];
    if (pending === undefined) throw new Error(`No call ${index}`);
    const history = this.#history;
    try {
      pending.outcome = { result: pending.perform() };
    } catch (error) {
      pending.outcome = { error };
    }
    // The realm is not told yet.
    this.#history = history;
  }

  #answer(index: number): void {
    const [pending] = this.#calls.splice(index, 1);
    if (pending?.outcome === undefined) throw new Error(`No answer ${index}`);
    const { call, outcome, resolve, reject } = pending;
    this.#history += `${describeCall(call)} answers `;
    if ("error" in outcome) {
      this.#history += `${outcome.error};`;
      reject(outcome.error);
    } else {
      this.#history += `${shown(outcome.result)};`;
      resolve(outcome.result);
    }
  }

  /** The same text where a crash leaves the same, and the same was promised. */
  get diskKey(): string {
    return [
      diskKey(this.scene.machine.disk),
      ...this.scene.claims.map(({ key }) => key),
    ].join("\n");
  }

  /** The same text for the same state. */
  get key(): string {
    return [
      machineKey(this.scene.machine),
      this.diskKey,
      this.#history,
      ...this.#calls.map(({ call, outcome }) =>
        `${describeCall(call)}${outcome === undefined ? "" : " done"}`
      ),
    ].join("\n");
  }
}

function caught(body: () => void): Violation | undefined {
  try {
    body();
    return undefined;
  } catch (error) {
    if (error instanceof Violation) return error;
    throw error;
  }
}

export interface RealmExploration {
  readonly isClosed: boolean;
  readonly finding: Finding | undefined;
}

/** Follows every schedule, or a sample where there are too many. */
export async function exploreRealm(
  scenario: RealmScenario,
  bounds: RealmBounds,
  tally: Tally,
): Promise<RealmExploration> {
  const open: string[][] = [[]];
  let isClosed = true;
  for (let reached = open.pop(); reached; reached = open.pop()) {
    tally.runs++;
    const run = new RealmRun(scenario);
    for (const choice of reached) await run.choose(choice);
    const schedule = [...reached];
    while (run.violation === undefined && tally.state(run.key)) {
      if (tally.disk(run.diskKey)) {
        run.violation ??= caught(() =>
          lookAfterCrash(run.scene, tally, bounds)
        );
      }
      const { choices } = run;
      // Beyond the bound one way is followed to its end, drawn by lot.
      const isSample = tally.runs > bounds.schedules;
      const first = isSample
        ? choices[Math.floor(bounds.random() * choices.length)]
        : choices[0];
      if (first === undefined) {
        run.violation ??= caught(() => lookAtTheEnd(run.scene, []));
        break;
      }
      if (isSample && choices.length > 1) isClosed = false;
      if (!isSample) {
        for (const other of choices.slice(1)) open.push([...schedule, other]);
      }
      schedule.push(first);
      await run.choose(first);
    }
    if (run.violation !== undefined) {
      const { message } = run.violation;
      const finding = { run: scenario.name, message, trace: run.trace };
      return { isClosed: false, finding };
    }
    if (tally.runs >= 2 * bounds.schedules) {
      return { isClosed: false, finding: undefined };
    }
  }
  return { isClosed, finding: undefined };
}
