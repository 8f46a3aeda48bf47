/**
 * Many writers of one file, each in a container that has it mounted: every one
 * has the same pid, so that a temporary name made of the pid alone would be the
 * same for all. Whoever reads meanwhile must never find a part of a document.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { document, wholeLabel } from "./document.ts";
import { inLab, run } from "./run.ts";
import { cachesIn, NODE_24, RUNTIMES } from "./runtimes.ts";

/** Each the first process of a PID namespace of its own. */
const CONTAINER = [
  "unshare",
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
];

const WRITES = 150;

/** From 20 bytes to 200 KB, small and large ones mixed. */
const LENGTHS = Array.from({ length: WRITES }, (_, index) => {
  // 37 and 150 have no common divisor, so that no length comes twice.
  const step = (index * 37 % WRITES) / (WRITES - 1);
  return Math.round(20 * 10_000 ** step);
});

interface Readings {
  reads: number;
  torn: number;
  /** What was found, one after the other, without what was found again. */
  readonly labels: string[];
}

/** Reads the file as fast as it can until `ended`. */
async function readings(
  path: string,
  ended: (soFar: Readings) => boolean,
): Promise<Readings> {
  const found: Readings = { reads: 0, torn: 0, labels: [] };
  while (!ended(found)) {
    for (let i = 0; i < 20; i++) {
      const label = wholeLabel(readFileSync(path, "utf8"));
      found.reads++;
      if (label === undefined) found.torn++;
      else if (label !== found.labels.at(-1)) found.labels.push(label);
    }
    // Lets the event loop see that a writer has ended.
    await setImmediate();
  }
  return found;
}

function writerOf(label: string | undefined): string | undefined {
  return label?.split("-")[0];
}

test("six writers in six containers, two on each runtime: every read is whole, every write succeeds, nothing is left", (t) =>
  inLab(async ({ directory, write }) => {
    const path = join(directory, "f");
    writeFileSync(path, document("first", 1000));
    const writers = [...RUNTIMES, ...RUNTIMES].map((runtime, index) =>
      write(runtime, {
        form: "alternating",
        path,
        label: `${runtime.name} no. ${index}`,
        lengths: LENGTHS,
        under: CONTAINER,
      })
    );
    let running = true;
    const ended = Promise.allSettled(writers).finally(() => running = false);
    const { reads, torn, labels } = await readings(path, () => !running)
      .finally(() => ended);
    const writes = (await Promise.all(writers)).flat();
    const failed = writes.filter(({ error }) => error !== undefined);
    const turns = labels.filter((label, index) =>
      writerOf(label) !== writerOf(labels[index - 1])
    ).length;
    t.diagnostic(
      `${writes.length} writes, ${reads} reads, ${torn} torn; ${labels.length} documents seen, in ${turns} turns of the writers`,
    );
    assert.equal(writes.length, 6 * WRITES);
    assert.deepEqual(failed, []);
    assert.deepEqual(
      new Set(writes.map(({ pid }) =>
        pid
      )),
      new Set([1]),
    );
    assert.equal(torn, 0);
    assert.ok(reads > 100, `${reads} reads`);
    // Else they would have written one after the other.
    assert.ok(turns > 6, `${turns} turns`);
    assert.deepEqual(readdirSync(directory), ["f"]);
    assert.notEqual(wholeLabel(readFileSync(path, "utf8")), undefined);
  }));

test("what the first process of a container has left is swept by that of the next, and what came since is not", () =>
  inLab(async ({ directory, outside }) => {
    const env = cachesIn(join(outside, "deno"));
    const recent = `.f.1.${crypto.randomUUID()}.tmp`;
    const old = `.f.1.${crypto.randomUUID()}.tmp`;
    for (const runtime of RUNTIMES) {
      writeFileSync(join(directory, recent), "");
      writeFileSync(join(directory, old), "");
      const before = Date.now() / 1000 - 2 * 86_400;
      utimesSync(join(directory, old), before, before);
      const command = runtime.command(directory, "./sweeper.ts", directory);
      const { stdout, stderr } = await run([...CONTAINER, ...command], { env });
      assert.equal(stdout, `${recent}\n`, `${runtime.name}: ${stderr}`);
      assert.deepEqual(readdirSync(directory), [recent], runtime.name);
    }
  }));

test("control: the same reader finds torn documents where a writer writes in place", (t) =>
  inLab(async ({ directory }) => {
    const path = join(directory, "f");
    writeFileSync(path, document("first", 1000));
    const enough = new AbortController();
    const command = NODE_24.command(directory, "./in_place_writer.ts", path);
    const writer = run(command, { signal: enough.signal });
    try {
      let hasEnded = false;
      void writer.finally(() => hasEnded = true);
      const { reads, torn } = await readings(
        path,
        (soFar) => soFar.torn > 0 || hasEnded,
      );
      t.diagnostic(`${reads} reads, ${torn} torn`);
      assert.ok(torn > 0);
    } finally {
      enough.abort();
      await writer;
    }
  }));
