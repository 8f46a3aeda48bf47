/**
 * Random writes, sync and async, with failures, aborts and delays, against a
 * model that knows only call order.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  AtomicError,
  type WriteOptions,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { inScratch, leftovers } from "./scratch.ts";

/** Set it to look elsewhere; fixed, so that a failure is not a matter of luck. */
const seed = Number(process.env.FC_SEED ?? 20261120);
const numRuns = Number(process.env.FC_RUNS ?? 150);

const PATHS = 3;

const aWrite = fc.record({
  file: fc.nat({ max: PATHS - 1 }),
  isSync: fc.boolean(),
  options: fc.constantFrom<WriteOptions>(
    {},
    {},
    {},
    { mode: 0o600 },
    { durability: "ordered" },
    { durability: "none" },
    { createNew: true },
  ),
  /** How many turns of the event loop later it is aborted. */
  abortAfter: fc.option(fc.nat({ max: 6 }), { freq: 5 }),
  /** How many turns pass before the next one is called. */
  pause: fc.nat({ max: 2 }),
});

const aFault = fc.record({
  call: fc.nat({ max: 80 }),
  effect: fc.constantFrom("EIO", "ENOSPC", "EACCES", "slow", "slow", "slow"),
});

interface Made {
  readonly file: number;
  readonly outcome: WriteReceipt | AtomicError | "aborted";
}

/** The model: on disk is the last write, in call order, that came into place. */
function expectedOnDisk(writes: readonly Made[], file: number): number {
  return writes.findLastIndex((write) =>
    write.file === file && write.outcome !== "aborted" &&
    (write.outcome instanceof AtomicError
      ? write.outcome.committed === true
      : !write.outcome.superseded)
  );
}

function turn(times: number): Promise<void> {
  return times === 0
    ? Promise.resolve()
    : new Promise<void>((resolve) => setTimeout(resolve, 0))
      .then(() => turn(times - 1));
}

// Each run has ports of its own, each with its exit listener.
process.setMaxListeners(0);

test("the disk, the receipts and the errors agree with call order", {
  timeout: 600_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(aWrite, { minLength: 1, maxLength: 12 }),
      fc.uniqueArray(aFault, { maxLength: 6, selector: ({ call }) => call }),
      fc.boolean(),
      (writes, faults, isOffThread) =>
        inScratch((directory) => check(directory, writes, faults, isOffThread)),
    ),
    { seed, numRuns },
  );
});

type Of<A> = A extends fc.Arbitrary<infer T> ? T : never;

async function check(
  directory: string,
  writes: readonly Of<typeof aWrite>[],
  faults: readonly Of<typeof aFault>[],
  isOffThread: boolean,
): Promise<void> {
  const port = new FaultPort();
  const real = new FaultPort();
  let now = 0;
  port.now = () => now += isOffThread ? 1 : 0;
  const paths = Array.from(
    { length: PATHS },
    (_, index) => join(directory, `f${index}`),
  );
  port.intercept(({ name, args, form, index }) => {
    const effect = faults.find(({ call }) => call === index)?.effect;
    // A rename that fails with EIO may or may not have been done.
    const code = effect === "EIO" && (name === "rename" || name === "link")
      ? "EACCES"
      : effect;
    if (code === "slow") {
      if (form === "sync") return undefined;
      const perform = () => Reflect.apply(real.async[name], real.async, args);
      return { result: turn(3).then(perform) };
    }
    // To tell a leftover from a bug, what cleans up works.
    if (code === undefined || name === "unlink" || name === "close") {
      return undefined;
    }
    return { code };
  });
  const made: Promise<Made>[] = [];
  await onPort(port, async () => {
    for (const [index, write] of writes.entries()) {
      const { file, isSync, options, abortAfter, pause } = write;
      const controller = new AbortController();
      const path = paths[file] ?? "";
      const given = { ...options, signal: controller.signal };
      const settled = new Promise<WriteReceipt>((resolve) => {
        resolve(
          isSync
            ? writeTextAtomicSync(path, `${index}`, given)
            : writeTextAtomic(path, `${index}`, given),
        );
      });
      made.push(
        settled.catch((error: unknown) => {
          if (error === "aborted") return "aborted" as const;
          assert.ok(error instanceof AtomicError, String(error));
          return error;
        }).then((outcome) => ({ file, outcome })),
      );
      if (abortAfter !== null) {
        void turn(abortAfter).then(() => controller.abort("aborted"));
      }
      await turn(pause);
    }
    await Promise.all(made);
  });
  const outcomes = await Promise.all(made);

  for (const [file, path] of paths.entries()) {
    const expected = expectedOnDisk(outcomes, file);
    let content: string | undefined;
    try {
      content = readFileSync(path, "utf8");
    } catch {
      content = undefined;
    }
    assert.equal(content, expected === -1 ? undefined : `${expected}\n`, path);
  }
  for (const [index, { file, outcome }] of outcomes.entries()) {
    if (outcome === "aborted" || outcome instanceof AtomicError) continue;
    if (outcome.superseded) {
      const newer = outcomes.slice(index + 1).some((other) =>
        other.file === file && other.outcome !== "aborted" &&
        !(other.outcome instanceof AtomicError) && !other.outcome.superseded &&
        other.outcome.bytes === outcome.bytes
      );
      assert.ok(newer, `write ${index} was superseded by nothing`);
    }
    // What was promised is kept, also by the write that took its place.
    const { durability = "full" } = writes[index]?.options ?? {};
    assert.ok(outcome.fileSynced || durability === "none");
    assert.ok(outcome.directorySynced || durability !== "full");
  }
  assert.deepEqual(leftovers(directory), []);
  assert.equal(
    port.names.filter((name) => name === "close").length,
    handlesOpened(port, faults),
    "handles",
  );
}

function handlesOpened(
  port: FaultPort,
  faults: readonly Of<typeof aFault>[],
): number {
  return port.calls.filter(({ name, index }) =>
    (name === "open" || name === "create") &&
    !faults.some(({ call, effect }) => call === index && effect !== "slow")
  ).length;
}
