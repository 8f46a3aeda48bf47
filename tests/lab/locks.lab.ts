/**
 * Processes of three runtimes that increment one number under its lock, while
 * others are killed and stopped.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { withLock } from "../../lock.ts";
import { Program } from "./program.ts";
import { inLab } from "./run.ts";
import { cachesIn, RUNTIMES } from "./runtimes.ts";

const TIMES = 300;
const KILLS = 30;

function numbersIn({ stdout }: Program): number[] {
  return stdout.split("\n").filter((line) => /^\d+$/.test(line)).map(Number);
}

test("two processes on each runtime increment a number while others are killed and stopped: no increment is lost", (t) =>
  inLab(async ({ directory, outside }) => {
    const path = join(directory, "count.json");
    const env = cachesIn(join(outside, "deno"));
    const start = (index: number, times: number) => {
      const runtime = RUNTIMES[index % RUNTIMES.length];
      assert.ok(runtime !== undefined);
      const command = runtime.command(
        directory,
        "./taker.ts",
        path,
        String(times),
      );
      return new Program(command, env);
    };
    const takers = [...RUNTIMES, ...RUNTIMES].map((_, index) =>
      start(index, TIMES)
    );
    const killed: Program[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const victim = start(kill, 100_000);
      await victim.printed(/\d+\n\d+\n/);
      await setTimeout(kill % 7);
      victim.signal("SIGSTOP");
      await setTimeout(20);
      if (kill % 2 === 0) victim.signal("SIGCONT");
      victim.signal("SIGKILL");
      await victim.ended;
      killed.push(victim);
    }
    for (const taker of takers) {
      assert.equal(await taker.ended, 0, taker.stderr);
      assert.equal(numbersIn(taker).length, TIMES);
    }
    const all = [...takers, ...killed].flatMap(numbersIn);
    const count = Number(readFileSync(path, "utf8"));
    const lost = all.length - new Set(all).size;
    t.diagnostic(
      `${count} counted, ${all.length} acknowledged, ${lost} lost, ${KILLS} killed`,
    );
    assert.equal(lost, 0);
    assert.ok(count >= all.length && count <= all.length + KILLS);
    // Of two holders at once the second removes the first one's marker, who then fails.
    const left = takers.concat(killed)
      .map(({ stdout }) => stdout.split("left\n").length - 1)
      .reduce((sum, one) => sum + one, 0);
    assert.ok(left <= KILLS, `${left} markers left`);
    // The last to be killed may have held it: that is found out by the next.
    await withLock(path, () => {});
    // Of a killed process a link may be left, a temporary file, and its marker.
    const pids = new Set(killed.map(({ pid }) => String(pid)));
    for (const name of readdirSync(directory)) {
      const isOfKilled = name.split(".").some((part) => pids.has(part));
      const isKnown = ["count.json", "count.json.marker"].includes(name);
      assert.ok(isKnown || isOfKilled, name);
    }
  }));
