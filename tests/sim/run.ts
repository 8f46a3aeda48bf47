/**
 * Runs the explorations, and prints what was looked at and what was found.
 *
 * ```sh
 * npm run test:sim          # everything
 * npm run test:sim:short    # what CI has time for
 * ```
 *
 * With a word, only what has it in its name.
 *
 * @module
 */

import process from "node:process";
import { CHECKSUM_FORMS, checksumRuns } from "./checksum_run.ts";
import type { CrashBounds } from "./crash.ts";
import { crashRun, type Finding } from "./crash_run.ts";
import { abortAtEach, failEach, failEachOf } from "./faults.ts";
import { type Bounds, explore, type Scenario } from "./interleave.ts";
import { LARGE_LOCK_SCENARIOS, LOCK_SCENARIOS } from "./lock_scenarios.ts";
import { OPERATIONS, runOperation } from "./name_operations.ts";
import { MOVE_SCENARIOS } from "./name_scenarios.ts";
import { FORMS, OPTIONS, READS, SITUATIONS } from "./operations.ts";
import { exploreRealm, type RealmBounds } from "./realm.ts";
import { REALM_SCENARIOS, SLOW_REALM_SCENARIOS } from "./realm_scenarios.ts";
import { Tally } from "./report.ts";
import { LARGE_SCENARIOS, SCENARIOS } from "./scenarios.ts";
import {
  LARGE_UPDATE_SCENARIOS,
  UPDATE_SCENARIOS,
} from "./update_scenarios.ts";

// Most calls that are explored fail: their stacks would take a quarter of the time.
Error.stackTraceLimit = 0;

const words = process.argv.slice(2);
const isShort = words.includes("--short");
const [filter = ""] = words.filter((word) => word !== "--short");

/** The same numbers in every run. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const CRASHES: CrashBounds = {
  changes: 10,
  images: 4096,
  random: randomNumbers(20261120),
};
const PROCESSES: Bounds = { ...CRASHES, kills: 1, states: 5_000_000 };
const REALM: RealmBounds = { ...CRASHES, schedules: isShort ? 300 : 20_000 };

const findings: Finding[] = [];
let total = 0;
let violations = 0;

const columns = [52, 9, 9, 9, 9, 9];

function row(...cells: readonly (string | number)[]): void {
  console.log(
    cells.map((cell, index) =>
      index === 0
        ? `${cell}`.padEnd(columns[index] ?? 0)
        : `${cell}`.padStart(columns[index] ?? 0)
    ).join(" "),
  );
}

function report(
  tally: Tally,
  finding: Finding | undefined,
  isClosed = true,
): void {
  const bounds = tally.isSampled || !isClosed ? "sampled" : "closed";
  row(
    tally.name,
    tally.runs,
    tally.states,
    tally.images("any"),
    tally.images("ordered"),
    bounds,
  );
  total += tally.distinct;
  if (finding === undefined) return;
  violations++;
  findings.push(finding);
}

function heading(title: string): void {
  console.log(`\n${title}`);
  row("", "runs", "states", "any", "ordered", "bounds");
}

async function exploreCrashes(): Promise<void> {
  heading("Crash points of each operation");
  const durabilities = isShort
    ? ["full"] as const
    : ["full", "ordered", "none"] as const;
  const sizes = isShort ? [0, 3] : [0, 1, 3, Infinity];
  for (const form of [...FORMS, ...READS]) {
    const tally = new Tally(form.name);
    if (!isChosen(`crash points: ${form.name}`)) continue;
    let found: Finding | undefined;
    for (const situation of SITUATIONS) {
      for (const given of form.reads ? [{}] : OPTIONS) {
        for (
          const durability of form.reads ? ["full"] as const : durabilities
        ) {
          for (const writeBytes of form.reads ? [3] : sizes) {
            const options = { ...given, durability };
            const run = { form, situation, options, writeBytes };
            const { finding } = await crashRun(run, tally, CRASHES);
            found ??= finding;
          }
        }
      }
    }
    report(tally, found);
  }
}

async function exploreFaults(): Promise<void> {
  heading("Each call fails: once, from then on, with all that follow");
  const chosen = isShort ? [{}, { createNew: true }] : [
    {},
    { createNew: true },
    { mode: 0o600 },
    { durability: "ordered" },
    { durability: "none" },
  ] as const;
  for (const form of [...FORMS, ...READS]) {
    if (!isChosen(`each call fails: ${form.name}`)) continue;
    const tally = new Tally(form.name);
    let found: Finding | undefined;
    for (const situation of SITUATIONS) {
      for (const given of form.reads ? [{}] : chosen) {
        const options = { ...given, retryMs: 1 };
        const run = { form, situation, options, writeBytes: 3 };
        found ??= await failEach(run, tally, CRASHES);
      }
    }
    report(tally, found);
  }
}

async function exploreAborts(): Promise<void> {
  heading("The signal is aborted before each call");
  for (const form of FORMS) {
    if (form.changes === "nothing" || !isChosen(`aborts: ${form.name}`)) {
      continue;
    }
    const tally = new Tally(form.name);
    let found: Finding | undefined;
    for (const situation of SITUATIONS) {
      if (situation.link === "planted") continue;
      const run = { form, situation, options: {}, writeBytes: 3 };
      found ??= await abortAtEach(run, tally, CRASHES);
    }
    report(tally, found);
  }
}

async function exploreChecksums(): Promise<void> {
  heading("Files with a checksum: two crashes in a row, and each call fails");
  for (const form of CHECKSUM_FORMS) {
    if (!isChosen(`checksums: ${form.name}`)) continue;
    const tally = new Tally(form.name);
    report(tally, await checksumRuns(form, tally, CRASHES, isShort));
  }
}

/** By the function that is called, each in all its situations. */
async function exploreNames(): Promise<void> {
  heading("Moves, appends, repairs: crash points, and each call fails");
  const forms = Map.groupBy(
    OPERATIONS,
    ({ name }) => /^\w+/.exec(name)?.[0] ?? name,
  );
  for (const [form, operations] of forms) {
    if (!isChosen(`names: ${form}`)) continue;
    const tally = new Tally(form);
    let found: Finding | undefined;
    for (const operation of operations) {
      const run = (fault?: Parameters<typeof runOperation>[3]) =>
        runOperation(operation, tally, CRASHES, fault);
      found ??= operation.fails ? await failEachOf(run) : (await run()).finding;
    }
    report(tally, found);
  }
}

function exploreProcesses(): void {
  heading("Interleavings of processes, of which one may be killed");
  exploreEach("processes", [
    ...SCENARIOS,
    ...MOVE_SCENARIOS,
    ...(isShort ? [] : LARGE_SCENARIOS),
  ]);
}

function exploreLocks(): void {
  heading("Processes that want one lock");
  const scenarios = isShort
    ? LOCK_SCENARIOS
    : [...LOCK_SCENARIOS, ...LARGE_LOCK_SCENARIOS];
  exploreEach("locks", scenarios);
}

function exploreUpdates(): void {
  heading("Processes that update one file under its lock");
  const scenarios = isShort
    ? UPDATE_SCENARIOS
    : [...UPDATE_SCENARIOS, ...LARGE_UPDATE_SCENARIOS];
  exploreEach("updates", scenarios);
}

function exploreEach(group: string, scenarios: readonly Scenario[]): void {
  for (const scenario of scenarios) {
    if (!isChosen(`${group}: ${scenario.name}`)) continue;
    const tally = new Tally(scenario.name);
    const { kills = PROCESSES.kills, shortStates } = scenario;
    const { states = PROCESSES.states } = isShort && shortStates !== undefined
      ? { states: shortStates }
      : scenario;
    const bounds = { ...PROCESSES, kills, states };
    const { finding, isClosed } = explore(scenario, bounds, tally);
    report(tally, finding, isClosed);
  }
}

async function exploreRealms(): Promise<void> {
  heading("Schedules of the asynchronous calls of one realm");
  for (const scenario of [...REALM_SCENARIOS, ...SLOW_REALM_SCENARIOS]) {
    if (!isChosen(`realm: ${scenario.name}`)) continue;
    const tally = new Tally(scenario.name);
    const { finding, isClosed } = await exploreRealm(scenario, REALM, tally);
    report(tally, finding, isClosed);
  }
}

function isChosen(name: string): boolean {
  return name.includes(filter);
}

const start = performance.now();
await exploreCrashes();
await exploreFaults();
await exploreAborts();
await exploreChecksums();
await exploreNames();
exploreProcesses();
exploreLocks();
exploreUpdates();
await exploreRealms();
for (const { run, message, trace } of findings) {
  console.log(`\nVIOLATION in ${run}\n  ${message}\n`);
  for (const line of trace) console.log(`    ${line}`);
}
console.log(
  `\n${total} distinct states, ${violations} violations, ${
    Math.round((performance.now() - start) / 1000)
  } s`,
);
console.log(`${violations === 0 ? 1 : 0} passed, ${violations} failed`);
process.exitCode = violations === 0 ? 0 : 1;
