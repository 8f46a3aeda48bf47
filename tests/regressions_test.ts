/**
 * What the simulator once found, kept: the calls that fail, and what was left.
 *
 * @module
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { crashRun, type Run } from "./sim/crash_run.ts";
import type { Fault } from "./sim/machine_port.ts";
import { FORMS, SITUATIONS } from "./sim/operations.ts";
import { Tally } from "./sim/report.ts";

interface Regression {
  /** What was found. */
  readonly found: string;
  readonly form: string;
  readonly situation: string;
  /** The calls that fail, by their names; the first is where it begins. */
  readonly fails: readonly string[];
  readonly code: string;
}

const REGRESSIONS: readonly Regression[] = [
  {
    found:
      "a temporary file that could not be removed before another attempt was not told",
    form: "writeTextAtomicSync",
    situation: "a new file",
    fails: ["open", "unlink", "create"],
    code: "EMFILE",
  },
  {
    found: "the file that tells who we are was left, and not told",
    form: "writeTextAtomic",
    situation: "a link that a stranger planted",
    fails: ["fstat", "unlink"],
    code: "EIO",
  },
  {
    found: "abort resolved although its temporary file was left",
    form: "openAtomicWriter, abort",
    situation: "a file",
    fails: ["unlink"],
    code: "EIO",
  },
];

for (const { found, form, situation, fails, code } of REGRESSIONS) {
  test(`no more: ${found}`, async () => {
    const [first] = fails;
    let hasBegun = false;
    const run: Run = {
      form: named(FORMS, form),
      situation: named(SITUATIONS, situation),
      options: { retryMs: 1 },
      writeBytes: Infinity,
      fault({ name }): Fault | undefined {
        hasBegun ||= name === first;
        const isFailing = hasBegun && fails.includes(name);
        return isFailing ? { code, isDone: false } : undefined;
      },
    };
    const bounds = { changes: 10, images: 4096, random: Math.random };
    const { calls, finding } = await crashRun(run, new Tally(found), bounds);
    assert.equal(
      finding,
      undefined,
      `${finding?.message}\n${finding?.trace.join("\n")}`,
    );
    for (const name of fails.slice(0, 2)) {
      assert.ok(calls.some((call) => call.name === name), `no ${name}`);
    }
  });
}

function named<T extends { readonly name: string }>(
  all: readonly T[],
  name: string,
): T {
  const found = all.find((one) => one.name === name);
  assert.ok(found !== undefined, name);
  return found;
}
