/**
 * Processes of three runtimes that append to one file, while others that do so
 * are killed.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { compactJsonl, readJsonl, repairJsonl } from "../../jsonl.ts";
import { Program } from "./program.ts";
import { inLab } from "./run.ts";
import { cachesIn, RUNTIMES } from "./runtimes.ts";

const TIMES = 100;
const KILLS = 15;

interface Appended {
  readonly name: string;
  readonly time: number;
  readonly filling?: string;
}

function numbersIn({ stdout }: Program): number[] {
  return stdout.split("\n").filter((line) => /^\d+$/.test(line)).map(Number);
}

test("two processes on each runtime append to one file while others are killed: every acknowledged record is there once, in order", (t) =>
  inLab(async ({ directory, outside }) => {
    const path = join(directory, "events.jsonl");
    const env = cachesIn(join(outside, "deno"));
    const programs = new Map<string, Program>();
    const start = (index: number, name: string, times: number) => {
      const runtime = RUNTIMES[index % RUNTIMES.length];
      assert.ok(runtime !== undefined);
      const given = [path, name, String(times)];
      const command = runtime.command(directory, "./appender.ts", ...given);
      const program = new Program(command, env);
      programs.set(name, program);
      return program;
    };
    const appenders = [...RUNTIMES, ...RUNTIMES].map((_, index) =>
      start(index, `appender${index}`, TIMES)
    );
    for (let kill = 0; kill < KILLS; kill++) {
      const victim = start(kill, `victim${kill}`, 100_000);
      await victim.printed(/\d+\n\d+\n/);
      await setTimeout(kill % 7);
      victim.signal("SIGKILL");
      await victim.ended;
    }
    for (const appender of appenders) {
      assert.equal(await appender.ended, 0, appender.stderr);
      assert.equal(numbersIn(appender).length, TIMES);
    }
    const { cutBytes } = await repairJsonl(path);
    const found = new Map<string, Appended[]>();
    let records = 0;
    for await (const record of readJsonl<Appended>(path)) {
      found.set(record.name, [...found.get(record.name) ?? [], record]);
      records++;
    }
    for (const [name, program] of programs) {
      const acknowledged = numbersIn(program).length;
      const own = found.get(name) ?? [];
      const isAppender = name.startsWith("appender");
      assert.ok(own.length >= 2 * acknowledged, name);
      // Of the pair that was under way when it was killed there may be more.
      assert.ok(own.length <= 2 * acknowledged + (isAppender ? 0 : 2), name);
      for (const [index, { time, filling }] of own.entries()) {
        assert.equal(time, Math.floor(index / 2));
        assert.equal(filling?.length, index % 2 === 0 ? 20_000 : undefined);
      }
    }
    t.diagnostic(`${records} records, ${KILLS} killed, ${cutBytes} bytes cut`);
  }));

test("processes append to a log that others compact, and some of both are killed: every acknowledged record is counted once", (t) =>
  inLab(async ({ directory, outside }) => {
    const path = join(directory, "events.jsonl");
    const stop = join(outside, "stop");
    const env = cachesIn(join(outside, "deno"));
    const start = (index: number, program: string, ...given: string[]) => {
      const runtime = RUNTIMES[index % RUNTIMES.length];
      assert.ok(runtime !== undefined);
      const place = `${directory},${outside}`;
      return new Program(runtime.command(place, program, path, ...given), env);
    };
    const appenders = RUNTIMES.map((_, index) =>
      start(index, "./appender.ts", `appender${index}`, String(TIMES))
    );
    const compactors = RUNTIMES.map((_, index) =>
      start(index, "./compactor.ts", stop)
    );
    const victims: Program[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      const name = `victim${kill}`;
      const victim = kill % 2 === 0
        ? start(kill, "./appender.ts", name, "100000")
        : start(kill, "./compactor.ts", stop);
      await victim.printed(/\d+.*\n\d+.*\n/);
      await setTimeout(kill % 7);
      victim.signal("SIGKILL");
      await victim.ended;
      victims.push(victim);
    }
    for (const appender of appenders) {
      assert.equal(await appender.ended, 0, appender.stderr);
    }
    writeFileSync(stop, "");
    for (const compactor of compactors) {
      assert.equal(await compactor.ended, 0, compactor.stderr);
    }
    const { recordsRead } = await compactJsonl(path, (records) => records);
    const counts = new Map<string, number>();
    const records = readJsonl<{ name: string; count?: number }>(path);
    for await (const { name, count = 1 } of records) {
      counts.set(name, (counts.get(name) ?? 0) + count);
    }
    for (const [index, appender] of appenders.entries()) {
      assert.equal(numbersIn(appender).length, TIMES);
      assert.equal(counts.get(`appender${index}`), 2 * TIMES);
    }
    for (const [kill, victim] of victims.entries()) {
      if (kill % 2 !== 0) continue;
      const acknowledged = 2 * numbersIn(victim).length;
      const counted = counts.get(`victim${kill}`) ?? 0;
      // Of the pair that was under way when it was killed there may be more.
      assert.ok(counted >= acknowledged && counted <= acknowledged + 2);
    }
    const times = compactors.map(({ stdout }) =>
      Number(/(\d+) compacted\n$/.exec(stdout)?.[1] ?? 0)
    );
    t.diagnostic(
      `${times} compactions, ${KILLS} killed, ${recordsRead} records in the end`,
    );
  }));
