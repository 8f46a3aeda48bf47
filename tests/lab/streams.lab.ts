/**
 * What streams hold on to: memory while they run, and nothing once they ended.
 *
 * @module
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { inLab, run } from "./run.ts";
import { BUN, cachesIn, DENO, NODE_24, RUNTIMES } from "./runtimes.ts";

for (const runtime of RUNTIMES) {
  test(
    `${runtime.name}: a million records are written and read back in bounded memory`,
    { timeout: 300_000 },
    (t) =>
      inLab(async ({ directory, outside }) => {
        const env = cachesIn(join(outside, "deno"));
        const measure = async (mode: string) => {
          const command = runtime.command(
            directory,
            "./million.ts",
            join(directory, "f"),
            mode,
          );
          const { code, stdout, stderr } = await run(command, { env });
          assert.equal(code, 0, stderr);
          const measured: { count: number; sum: number; grownMiB: number } =
            JSON
              .parse(stdout);
          assert.equal(measured.count, 1_000_000);
          assert.equal(measured.sum, 499_999_500_000);
          return measured.grownMiB;
        };
        const plain = await measure("json only");
        const grown = await measure("write and read");
        t.diagnostic(`grew by ${grown} MiB, JSON alone by ${plain} MiB`);
        // What the runtime takes for the JSON alone is not ours.
        assert.ok(grown < Math.max(96, plain + 40), `${grown} MiB`);
      }),
  );
}

// With all permissions on Deno, to look at its descriptors.
const PROGRAMS = [
  { runtime: NODE_24, flags: [] },
  { runtime: BUN, flags: [] },
  { runtime: DENO, flags: ["--allow-all"] },
];

for (const { runtime, flags } of PROGRAMS) {
  test(
    `${runtime.name}: twenty thousand failed, aborted and half-read streams leave nothing open and nothing behind`,
    { timeout: 300_000 },
    (t) =>
      inLab(async ({ directory, outside }) => {
        const [program = "", ...args] = runtime.command(
          directory,
          "./streams.ts",
          directory,
        );
        const command = flags.length === 0
          ? [program, ...args]
          : [program, "run", "--quiet", ...flags, ...args.slice(-2)];
        const { code, stdout, stderr } = await run(command, {
          env: cachesIn(join(outside, "deno")),
        });
        assert.equal(code, 0, stderr);
        const { before, after, grownMiB, left } = JSON.parse(stdout);
        t.diagnostic(`${after} descriptors open, grew by ${grownMiB} MiB`);
        // A runtime may start a thread or two of its own meanwhile.
        assert.ok(after <= before + 8, `${before} before, ${after} after`);
        assert.ok(grownMiB < 64, `${grownMiB} MiB`);
        assert.deepEqual(left, ["f"]);
      }),
  );
}
