/**
 * Locks on the real system, on three runtimes: their holders are killed and
 * stopped, many contend, and not all of them are of one user.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { withLock } from "../../lock.ts";
import { STALE_MS } from "./aged_lock.ts";
import { disturb, type Disturbance } from "./disturbance.ts";
import { Program } from "./program.ts";
import { inLab } from "./run.ts";
import { cachesIn, RUNTIMES } from "./runtimes.ts";

/** One that every holder knows of, or one that is broken at some age. */
type LockKind = "kernel" | "aged";

function runtimeOf(index: number): (typeof RUNTIMES)[number] {
  const runtime = RUNTIMES[index % RUNTIMES.length];
  assert.ok(runtime !== undefined);
  return runtime;
}

function matches({ stdout }: Program, pattern: RegExp): number[] {
  return Array.from(stdout.matchAll(pattern), ([, number]) => Number(number));
}

/** Of the programs that increment to their end, and of those that are killed. */
interface Increments {
  readonly times: number;
  readonly kills: number;
}

interface Counted extends Disturbance {
  readonly count: number;
  readonly acknowledged: number;
  /** Acknowledged, and then written by somebody else again. */
  readonly lost: number;
  /** How often somebody was there who was not killed. */
  readonly intruders: number;
}

/** Two processes on each runtime increment one number, while they are stopped and others are killed. */
function countUp(
  kind: LockKind,
  { times, kills }: Increments,
): Promise<Counted> {
  return inLab(async ({ directory, outside }) => {
    const path = join(directory, "count.json");
    const witness = join(directory, "witness");
    writeFileSync(witness, new Uint8Array(8));
    const env = cachesIn(join(outside, "deno"));
    let id = 0;
    const start = (times: number) => {
      const args = [kind, path, witness, String(++id), String(times)];
      const { command } = runtimeOf(id);
      return [
        id,
        new Program(command(directory, "./taker.ts", ...args), env),
      ] as const;
    };
    const takers = [...RUNTIMES, ...RUNTIMES].map(() => start(times));
    const disturbed = disturb({
      programs: takers,
      witness,
      stopMs: 2 * STALE_MS,
    });
    const killed: (readonly [number, Program])[] = [];
    for (let kill = 0; kill < kills; kill++) {
      const victim = start(100_000);
      const [, program] = victim;
      await program.printed(/\d+\n\d+\n/);
      await setTimeout(kill % 7);
      program.signal("SIGSTOP");
      await setTimeout(20);
      if (kill % 3 !== 0) program.signal("SIGCONT");
      if (kill % 3 === 1) await setTimeout(kill % 5);
      program.signal("SIGKILL");
      await program.ended;
      killed.push(victim);
    }
    const disturbance = await disturbed;
    for (const [, taker] of takers) {
      assert.equal(await taker.ended, 0, taker.stderr);
      assert.equal(matches(taker, /^(\d+)$/gm).length, times);
    }
    const all = [...takers, ...killed].map(([, program]) => program);
    const numbers = all.flatMap((program) => matches(program, /^(\d+)$/gm));
    const isKilled = new Set(killed.map(([id]) => id));
    const found = all.flatMap((program) => matches(program, /^after (\d+)$/gm));
    const met = all.flatMap((program) => matches(program, /^not (alone)$/gm));
    if (kind === "kernel") {
      // The last to be killed may have held it: that is found out by the next.
      await withLock(path, () => {});
      const pids = new Set(killed.map(([, { pid }]) => String(pid)));
      for (const name of readdirSync(directory)) {
        const isKnown = ["count.json", "witness"].includes(name);
        // A killed process may leave a link and a temporary file.
        const isOfKilled = name.split(".").some((part) => pids.has(part));
        assert.ok(isKnown || isOfKilled, name);
      }
    }
    return {
      ...disturbance,
      count: Number(readFileSync(path, "utf8")),
      acknowledged: numbers.length,
      lost: numbers.length - new Set(numbers).size,
      intruders: met.length + found.filter((id) => !isKilled.has(id)).length,
    };
  });
}

function told(counted: object): string {
  return Object.entries(counted).map(([name, value]) => `${value} ${name}`)
    .join(", ");
}

test("two processes on each runtime update a number while others are killed, and all are stopped: no increment is lost", async (t) => {
  const kills = 30;
  const counted = await countUp("kernel", { times: 300, kills });
  t.diagnostic(`${told(counted)}, ${kills} kills`);
  const { count, acknowledged, lost, intruders, holdersStopped } = counted;
  assert.equal(lost, 0);
  assert.equal(intruders, 0);
  assert.ok(count >= acknowledged && count <= acknowledged + kills);
  assert.ok(holdersStopped > 0);
});

test("control: under a lock file that is broken at some age, increments are lost, or two hold it", async (t) => {
  for (let run = 0; run < 5; run++) {
    const counted = await countUp("aged", { times: 100, kills: 6 });
    t.diagnostic(told(counted));
    if (counted.lost > 0 || counted.intruders > 0) return;
  }
  assert.fail("The lab does not see that this lock is none");
});
