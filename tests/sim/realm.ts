/**
 * Schedules of one realm: several writes that are called in one thread, each of
 * whose asynchronous calls is carried out, and later answered, whenever the
 * schedule says so: also between two calls that the thread makes itself, since
 * other threads do not wait for it. One call may fail. After each step the realm
 * goes on as far as it can, as the event loop does.
 *
 * @module
 */

import { currentPort, substitutePort } from "../../_runtime/current.ts";
import type { WriteReceipt } from "../../mod.ts";
import { AtomicError } from "../../errors.ts";
import { Violation } from "./claims.ts";
import type { CrashBounds } from "./crash.ts";
import type { Finding } from "./crash_run.ts";
import {
  describeCall,
  type Fault,
  MachinePort,
  shown,
  type SimulatedCall,
} from "./machine_port.ts";
import type { Process } from "./posix.ts";
import type { Tally } from "./report.ts";
import {
  lookAfterCrash,
  lookAlive,
  lookAtTheEnd,
  type Scene,
} from "./scene.ts";
import { diskKey, machineKey } from "./state.ts";

/** A call of a public function. */
export interface Action {
  readonly name: string;
  /** Called when the schedule says so; settles as the function does. */
  start(): Promise<WriteReceipt>;
  /** What must hold once it has resolved. */
  resolved(receipt: WriteReceipt): void;
  /** Likewise; without it, it may be rejected only where a call has failed. */
  rejected?(error: unknown): void;
}

/** What one realm does. */
export interface RealmScenario {
  readonly name: string;
  /** Whether every call is asynchronous, as where the disk is slow. */
  readonly isSlow: boolean;
  /** How many calls may fail. */
  readonly faults: number;
  /** Builds the same each time. Actions begin in this order. */
  build(): { scene: Scene; process: Process; actions: readonly Action[] };
}

interface PendingCall {
  /** Which of all asynchronous calls it is. */
  readonly number: number;
  readonly call: SimulatedCall;
  readonly perform: () => unknown;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
  outcome:
    | { readonly result: unknown }
    | { readonly error: unknown }
    | undefined;
}

/** A step of a schedule. */
interface Choice {
  readonly what: "begin" | "perform" | "fail" | "answer";
  /** Which of the pending calls. */
  readonly index: number;
  /** Before which of the calls that the thread makes in this step another thread carries out a pending one. */
  readonly meanwhile?: { readonly at: number; readonly index: number };
}

export interface RealmBounds extends CrashBounds {
  /** How many schedules are followed in order; where there are more, as many are drawn by lot, each to its end. */
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

/** What may fail: the others are failed by the exploration of single operations. */
const FAILING = ["fsync", "rename", "unlink"];
const FAULT: Fault = { code: "EIO", isDone: false };

/** One schedule under way. */
class RealmRun {
  readonly scene: Scene;
  readonly trace: string[] = [];
  violation: Violation | undefined;
  readonly #port: MachinePort;
  readonly #actions: readonly Action[];
  readonly #calls: PendingCall[] = [];
  /** What the realm has been told, in order. */
  #history = "";
  #started = 0;
  #unsettled = 0;
  #asynchronous = 0;
  #faultsLeft: number;
  readonly #mayFail: boolean;
  /** Temporary files that could not be removed. */
  readonly #left: string[] = [];
  /** Of the step under way. */
  #callsInStep = 0;
  #meanwhile: Choice["meanwhile"];
  #isFailing = false;
  #isPerforming = false;

  constructor({ build, isSlow, faults }: RealmScenario) {
    const { scene, process, actions } = build();
    this.scene = scene;
    this.#actions = actions;
    this.#faultsLeft = faults;
    this.#mayFail = faults > 0;
    this.#port = new MachinePort(
      process,
      {
        before: (call) => this.#before(call),
        after: (call, outcome) => this.#after(call, outcome),
      },
      (call, perform) =>
        new Promise((resolve, reject) => {
          const outcome = undefined;
          const number = this.#asynchronous++;
          this.#calls.push({ number, call, perform, resolve, reject, outcome });
        }),
    );
    if (isSlow) this.#port.tick = 1;
  }

  #before(call: SimulatedCall): Fault | undefined {
    if (!this.#isPerforming) {
      // The thread's own call: others go on meanwhile.
      const at = this.#callsInStep++;
      if (this.#meanwhile?.at === at) this.#perform(this.#meanwhile.index);
    }
    if (!this.#isFailing) return undefined;
    this.#isFailing = false;
    if (call.name === "unlink") this.#left.push(String(call.args[0]));
    return FAULT;
  }

  #after(call: SimulatedCall, outcome: string): void {
    this.trace.push(`${describeCall(call)} = ${outcome}`);
    if (!this.#isPerforming) this.#history += `${outcome};`;
    this.violation ??= caught(() => lookAlive(this.scene));
  }

  /** What may happen next, where nothing goes on meanwhile. */
  get choices(): Choice[] {
    const choices: Choice[] = [];
    if (this.#started < this.#actions.length) {
      choices.push({ what: "begin", index: 0 });
    }
    for (const [index, { call, outcome }] of this.#calls.entries()) {
      if (outcome !== undefined) {
        choices.push({ what: "answer", index });
        continue;
      }
      choices.push({ what: "perform", index });
      if (this.#faultsLeft > 0 && FAILING.includes(call.name)) {
        choices.push({ what: "fail", index });
      }
    }
    return choices;
  }

  /** The same step, with another thread's call before each of the calls that it made. */
  variants(choice: Choice, calls: number): Choice[] {
    if (choice.what === "perform" || choice.what === "fail") return [];
    return this.#calls.flatMap(({ outcome }, index) => {
      const isPending = outcome === undefined;
      if (!isPending || (choice.what === "answer" && index === choice.index)) {
        return [];
      }
      return Array.from(
        { length: calls },
        (_, at) => ({ ...choice, meanwhile: { at, index } }),
      );
    });
  }

  /** How many calls the thread has made in the last step. */
  get callsInStep(): number {
    return this.#callsInStep;
  }

  get isStuck(): boolean {
    return this.choices.length === 0 && this.#unsettled > 0;
  }

  async choose({ what, index, meanwhile }: Choice): Promise<void> {
    this.#callsInStep = 0;
    // An answered call is taken from the list, and those after it move up.
    const isShifted = what === "answer" && meanwhile !== undefined &&
      meanwhile.index > index;
    this.#meanwhile = isShifted
      ? { at: meanwhile.at, index: meanwhile.index - 1 }
      : meanwhile;
    if (what === "begin") this.#begin();
    else if (what === "answer") this.#answer(index);
    else {
      if (what === "fail") {
        this.#isFailing = true;
        this.#faultsLeft--;
      }
      this.#perform(index);
    }
    await settleDown(() => this.isStuck);
    this.#meanwhile = undefined;
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
        const superseded = receipt.superseded ? ", superseded" : "";
        this.trace.push(`${action.name} resolves${superseded}`);
        this.#history += `${action.name} resolves;`;
        this.violation ??= caught(() => {
          lookAlive(this.scene);
          action.resolved(receipt);
        });
      },
      (error: unknown) => {
        this.trace.push(`${action.name} rejects: ${error}`);
        this.#history += `${action.name} rejects;`;
        this.violation ??= caught(() => {
          if (this.#mayFail && error instanceof AtomicError) return;
          if (action.rejected === undefined) {
            throw new Violation(`${action.name} fails: ${error}`);
          }
          action.rejected(error);
        });
      },
    ).finally(() => this.#unsettled--);
  }

  #perform(index: number): void {
    const pending = this.#calls[index];
    if (pending === undefined || pending.outcome !== undefined) return;
    this.#isPerforming = true;
    try {
      pending.outcome = { result: pending.perform() };
    } catch (error) {
      pending.outcome = { error };
    } finally {
      this.#isPerforming = false;
    }
  }

  #answer(index: number): void {
    const [pending] = this.#calls.splice(index, 1);
    if (pending?.outcome === undefined) throw new Error(`No answer ${index}`);
    const { outcome, resolve, reject } = pending;
    this.#history += `${pending.number} answers ${told(outcome)};`;
    if ("error" in outcome) reject(outcome.error);
    else resolve(outcome.result);
  }

  /** Looks at what is left once all has come to its end. */
  end(): void {
    lookAtTheEnd(this.scene, this.#left);
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
      `${this.#faultsLeft}`,
      ...this.#calls.map(({ number, call, outcome }) =>
        `${number} ${describeCall(call)} ${told(outcome)}`
      ),
    ].join("\n");
  }
}

function told(outcome: PendingCall["outcome"]): string {
  if (outcome === undefined) return "";
  return "error" in outcome ? `${outcome.error}` : shown(outcome.result);
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
  const open: Choice[][] = [[]];
  let reached = open.pop();
  for (; reached; reached = open.pop()) {
    if (tally.runs >= bounds.schedules) break;
    const run = await followed(scenario, reached, tally, bounds, open);
    if (run.violation !== undefined) return found(scenario, run);
  }
  if (reached === undefined) return { isClosed: true, finding: undefined };
  for (let count = 0; count < bounds.schedules; count++) {
    const run = await drawn(scenario, tally, bounds);
    if (run.violation !== undefined) return found(scenario, run);
  }
  return { isClosed: false, finding: undefined };
}

function found(
  { name }: RealmScenario,
  { violation, trace }: RealmRun,
): RealmExploration {
  const message = violation?.message ?? "";
  return { isClosed: false, finding: { run: name, message, trace } };
}

/** Goes on from a state that was reached, along the first choices; the others are left open. */
async function followed(
  scenario: RealmScenario,
  reached: readonly Choice[],
  tally: Tally,
  bounds: RealmBounds,
  open: Choice[][],
): Promise<RealmRun> {
  tally.runs++;
  const run = new RealmRun(scenario);
  const schedule: Choice[] = [];
  for (const choice of reached) {
    // Variants of the last step were left open by the run that first took it.
    await run.choose(choice);
    schedule.push(choice);
  }
  while (run.violation === undefined && tally.state(run.key)) {
    look(run, tally, bounds);
    const [first, ...others] = run.choices;
    if (first === undefined) {
      run.violation ??= caught(() => run.end());
      break;
    }
    for (const other of others) open.push([...schedule, other]);
    await chooseWithVariants(run, first, schedule, open);
    schedule.push(first);
  }
  return run;
}

/** Takes a step, and leaves open those in which another thread goes on meanwhile. */
async function chooseWithVariants(
  run: RealmRun,
  choice: Choice,
  schedule: readonly Choice[],
  open: Choice[][],
): Promise<void> {
  // Before the step: afterwards other calls are pending.
  const variants = run.variants(choice, MOST_CALLS_IN_STEP);
  await run.choose(choice);
  const { callsInStep } = run;
  for (const variant of variants) {
    if ((variant.meanwhile?.at ?? 0) < callsInStep) {
      open.push([...schedule, variant]);
    }
  }
}

/** More than any step makes. */
const MOST_CALLS_IN_STEP = 40;

/** A whole schedule, drawn by lot. */
async function drawn(
  scenario: RealmScenario,
  tally: Tally,
  bounds: RealmBounds,
): Promise<RealmRun> {
  tally.runs++;
  const run = new RealmRun(scenario);
  const pick = (length: number) => Math.floor(bounds.random() * length);
  for (;;) {
    const { choices } = run;
    const choice = choices[pick(choices.length)];
    if (choice === undefined) {
      run.violation ??= caught(() => run.end());
      return run;
    }
    const variants = run.variants(choice, 12);
    const variant = bounds.random() < 0.3
      ? variants[pick(variants.length)]
      : undefined;
    await run.choose(variant ?? choice);
    tally.state(run.key);
    look(run, tally, bounds);
    if (run.violation !== undefined) return run;
  }
}

function look(run: RealmRun, tally: Tally, bounds: RealmBounds): void {
  if (!tally.disk(run.diskKey)) return;
  run.violation ??= caught(() => lookAfterCrash(run.scene, tally, bounds));
}
