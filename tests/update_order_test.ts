/**
 * Updates among the writes, moves and appends of one thread: no change that was
 * reported as made vanishes, but under one that was called later.
 *
 * @module
 */

import assert from "node:assert/strict";
import fc from "fast-check";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  appendJsonl,
  appendJsonlSync,
  AtomicError,
  compactJsonl,
  compactJsonlSync,
  isLocked,
  type JsonUpdateOptions,
  type Lock,
  LockTimeoutError,
  moveAtomic,
  moveAtomicSync,
  updateJsonAtomic,
  updateJsonAtomicSync,
  type UpdateResult,
  withLock,
  writeChecksum,
  writeJsonAtomic,
  writeJsonAtomicSync,
  type WriteReceipt,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";

type Document = Record<string, number>;

const read = (path: string): unknown => JSON.parse(readFileSync(path, "utf8"));

const LOCKS: readonly JsonUpdateOptions[] = [{}, { lock: false }];

for (const options of LOCKS) {
  const how = JSON.stringify(options);
  const add = (path: string, name: string) =>
    updateJsonAtomic<Document>(
      path,
      (document = {}) => ({ ...document, [name]: 1 }),
      options,
    );

  test(`an update sees the write that was called before it, ${how}`, () =>
    inScratch(async (directory) => {
      for (let time = 0; time < 20; time++) {
        const path = join(directory, `f${time}`);
        const written = writeJsonAtomic(path, { a: 1 });
        const updated = add(path, "b");
        await Promise.all([written, updated]);
        assert.deepEqual(read(path), { a: 1, b: 1 });
      }
    }));

  test(`a write that is called after an update comes after it, ${how}`, () =>
    inScratch(async (directory) => {
      for (let time = 0; time < 20; time++) {
        const path = join(directory, `f${time}`);
        const updated = add(path, "a");
        const written = writeJsonAtomic(path, { b: 1 });
        await Promise.all([written, updated]);
        assert.deepEqual(read(path), { b: 1 });
      }
    }));

  test(`while the function of an update runs, a write comes first, and the update is superseded, ${how}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const { receipt, value, changed } = await updateJsonAtomic<Document>(
        path,
        async () => {
          await writeJsonAtomic(path, { inner: 1 });
          assert.deepEqual(read(path), { inner: 1 });
          return { outer: 1 };
        },
        options,
      );
      assert.equal(receipt?.superseded, true);
      assert.equal(changed, true);
      assert.deepEqual(value, { outer: 1 });
      assert.deepEqual(read(path), { inner: 1 });
      const { receipt: again } = await updateJsonAtomic<Document>(
        path,
        () => {
          writeJsonAtomicSync(path, { sync: 1 });
          return { outer: 1 };
        },
        options,
      );
      assert.equal(again?.superseded, true);
      assert.deepEqual(read(path), { sync: 1 });
    }));

  test(`an update whose newer write has failed is made, ${how}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "{}");
      const { receipt } = await updateJsonAtomic<Document>(path, async () => {
        const failing = writeJsonAtomic(path, {}, { createNew: true });
        assert.ok(await rejection(failing) instanceof AtomicError);
        return { outer: 1 };
      }, options);
      assert.equal(receipt?.superseded, false);
      assert.deepEqual(read(path), { outer: 1 });
    }));

  test(`a move does not come between the reading and the writing of an update, ${how}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const to = join(directory, "g");
      writeFileSync(path, "{}");
      let moving: Promise<unknown> | undefined;
      await updateJsonAtomic<Document>(path, async () => {
        moving = moveAtomic(path, to);
        await new Promise((resolve) => setTimeout(resolve, 20));
        return { outer: 1 };
      }, options);
      await moving;
      assert.deepEqual(read(to), { outer: 1 });
    }));

  test(`a hundred updates at once all land, ${how}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const increments = Array.from(
        { length: 100 },
        () =>
          updateJsonAtomic(path, async (count: number) => {
            await Promise.resolve();
            return count + 1;
          }, { ...options, initial: 0, durability: "none" }),
      );
      await Promise.all(increments);
      assert.equal(read(path), 100);
    }));

  test(`a synchronous update is refused beside what is under way, ${how}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const sync = () =>
        updateJsonAtomicSync(path, () => ({ sync: 1 }), options);
      const written = writeJsonAtomic(path, { a: 1 });
      assert.throws(sync, { code: "PENDING" });
      await written;
      const updated = add(path, "b");
      assert.throws(sync, AtomicError);
      await updated;
      assert.deepEqual(read(path), { a: 1, b: 1 });
      sync();
      assert.deepEqual(read(path), { sync: 1 });
    }));
}

test("who holds a lock is not kept waiting by an update that waits for it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let updated: Promise<UpdateResult<Document>> | undefined;
    await withLock(path, async (lock) => {
      updated = updateJsonAtomic<Document>(
        path,
        (document) => ({ ...document, updated: 1 }),
      );
      await writeJsonAtomic(path, { plain: 1 });
      await writeJsonAtomic(path, { locked: 1 }, { lock });
      await updateJsonAtomic<Document>(
        path,
        (document) => ({ ...document, inside: 1 }),
        { lock },
      );
    });
    await updated;
    assert.deepEqual(read(path), { locked: 1, inside: 1, updated: 1 });
  }));

test("an update that is aborted while it waits leaves its place", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const controller = new AbortController();
    const { signal } = controller;
    const port = new FaultPort();
    await onPort(port, async () => {
      const written = writeJsonAtomic(path, { a: 1 });
      const updated = updateJsonAtomic<Document>(
        path,
        () => assert.fail("it was called"),
        { signal },
      );
      const later = writeJsonAtomic(path, { b: 1 });
      controller.abort("enough");
      assert.equal(await rejection(updated), "enough");
      await Promise.all([written, later]);
    });
    assert.deepEqual(read(path), { b: 1 });
  }));

test("an update from within another's function, without a lock, waits for itself", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await updateJsonAtomic<Document>(path, async () => {
      const controller = new AbortController();
      const options = { lock: false, signal: controller.signal } as const;
      const nested = updateJsonAtomic(path, () => ({}), options);
      setTimeout(() => controller.abort("enough"), 20);
      assert.equal(await rejection(nested), "enough");
      assert.throws(
        () => updateJsonAtomicSync(path, () => ({}), { lock: false }),
        (error) =>
          error instanceof LockTimeoutError &&
          /from within another's function/.test(error.message),
      );
      return { outer: 1 };
    }, { lock: false });
    assert.deepEqual(read(path), { outer: 1 });
  }));

test("what an update promised is kept by the write that takes its place", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const { receipt } = await updateJsonAtomic<Document>(path, async () => {
      await writeJsonAtomic(path, { inner: 1 }, { durability: "none" });
      return { outer: 1 };
    });
    assert.equal(receipt?.superseded, true);
    assert.equal(receipt?.fileSynced, true);
    assert.equal(receipt?.directorySynced, true);
  }));

/** Set it to look elsewhere; fixed, so that a failure is not a matter of luck. */
const seed = Number(process.env.FC_SEED ?? 20261121);
const numRuns = Number(process.env.FC_RUNS ?? 150);

const aCall = fc.record({
  isUpdate: fc.boolean(),
  isLocked: fc.boolean(),
  /** For how many turns of the event loop its function runs. */
  delay: fc.nat({ max: 3 }),
  /** How many turns pass before the next one is called. */
  pause: fc.nat({ max: 2 }),
});

type Of<A> = A extends fc.Arbitrary<infer T> ? T : never;

async function turns(times: number): Promise<void> {
  for (let time = 0; time < times; time++) {
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** A write sets the list to its number, an update adds its own. */
async function check(
  directory: string,
  calls: readonly Of<typeof aCall>[],
): Promise<void> {
  const path = join(directory, "f");
  const port = new FaultPort();
  const made: Promise<WriteReceipt | undefined>[] = [];
  await onPort(port, async () => {
    for (const [index, call] of calls.entries()) {
      const { isUpdate, isLocked, delay, pause } = call;
      made.push(
        isUpdate
          ? updateJsonAtomic<number[]>(path, async (list) => {
            await turns(delay);
            return [...list, index];
          }, { initial: [], lock: isLocked, durability: "none" })
            .then(({ receipt }) => receipt)
          : writeJsonAtomic(path, [index], { durability: "none" }),
      );
      await turns(pause);
    }
    await Promise.all(made);
  });
  const receipts = await Promise.all(made);
  const found = read(path) as number[];
  const [first = 0] = found;
  assert.equal(new Set(found).size, found.length);
  for (const [index, receipt] of receipts.entries()) {
    const isThere = found.includes(index);
    const isUnderLater = calls[first]?.isUpdate === false && first > index;
    // In place of what is not there is what was called later.
    assert.ok(isThere || isUnderLater, `${index} is not in ${found}`);
    if (receipt?.superseded) assert.ok(!isThere, `${index} in ${found}`);
  }
}

test(
  "of random writes and updates none vanishes, but under a write that was called later",
  {
    timeout: 600_000,
  },
  async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aCall, { minLength: 1, maxLength: 10 }),
        (calls) => inScratch((directory) => check(directory, calls)),
      ),
      { seed, numRuns },
    );
  },
);

test("under a lock that is passed on, an update and what is called beside it come to their ends", () =>
  inScratch(async (directory) => {
    const log = async (path: string, lock: Lock) => {
      await compactJsonl(path, (records) => records, { lock });
    };
    const others: Readonly<
      Record<string, (path: string, lock: Lock) => Promise<unknown>>
    > = {
      write: (path, lock) => writeJsonAtomic(path, 5, { lock }),
      move: (path, lock) => moveAtomic(path, `${path}.moved`, { lock: [lock] }),
      checksum: (path, lock) => writeChecksum(path, { lock }),
      append: (path, lock) => appendJsonl(path, [5], { lock }),
      compact: log,
      update: (path, lock) => updateJsonAtomic(path, () => 5, { lock }),
    };
    for (const [name, other] of Object.entries(others)) {
      for (const isFirst of [true, false]) {
        const path = join(directory, `${name}${isFirst}`);
        writeFileSync(path, "1\n");
        const signal = AbortSignal.timeout(60_000);
        await withLock(path, async (lock) => {
          const update = () =>
            updateJsonAtomic<number>(path, (n = 0) => n + 1, { lock, signal });
          const calls = isFirst
            ? [other(path, lock), update()]
            : [update(), other(path, lock)];
          // The file may be moved, or more than one line, by then.
          const outcomes = await Promise.allSettled(calls);
          for (const { status } of outcomes) {
            assert.ok(status === "fulfilled" || name !== "write", name);
          }
        });
        assert.equal(await isLocked(path), false);
      }
    }
  }));

test("a lock is not freed before the update that it was passed to has come to its end", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let updated: Promise<unknown> | undefined;
    await withLock(path, (lock) => {
      updated = updateJsonAtomic(path, () => 1, { lock });
    });
    assert.equal(read(path), 1);
    await updated;
  }));

for (const lock of [undefined, false] as const) {
  test(`a write within the function of a synchronous update comes first, what changes a part is refused, lock: ${lock}`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeJsonAtomicSync(path, 1);
      const { receipt } = updateJsonAtomicSync<number>(path, (n = 0) => {
        writeJsonAtomicSync(path, 50);
        return n + 1;
      }, { lock });
      assert.equal(receipt?.superseded, true);
      assert.equal(read(path), 50);
      const refused = (body: () => unknown) => {
        updateJsonAtomicSync<number>(path, (n = 0) => {
          assert.throws(body, { code: "PENDING" });
          return n + 1;
        }, { lock });
      };
      refused(() => appendJsonlSync(path, [7], { lock: false }));
      refused(() => moveAtomicSync(path, `${path}.moved`));
      assert.equal(read(path), 52);
      let written: Promise<WriteReceipt> | undefined;
      const made = join(directory, "made");
      updateJsonAtomicSync<number>(made, () => {
        written = writeJsonAtomic(made, 9);
        return 53;
      }, { lock });
      assert.equal(read(made), 53);
      const later = await written;
      assert.equal(later?.superseded, false);
      // Once its turn has come it looks what is there.
      assert.equal(later?.created, false);
      assert.equal(read(made), 9);
      // Nothing of it is left in the order of the file.
      assert.equal((await writeJsonAtomic(path, 10)).superseded, false);
      const log = join(directory, "log");
      writeJsonAtomicSync(log, 1);
      const compacted = compactJsonlSync(log, function* (records) {
        yield* records;
        writeJsonAtomicSync(log, 2);
      }, { lock });
      assert.equal(compacted.superseded, true);
      assert.equal(read(log), 2);
      assert.deepEqual(leftovers(directory), []);
    }));
}
