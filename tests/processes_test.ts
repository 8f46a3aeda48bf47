import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { currentPort, substitutePort } from "../_runtime/current.ts";
import {
  UnsupportedEnvironmentError,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { fixture, runHere } from "./child.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { inScratch, leftovers } from "./scratch.ts";

const isDeno = "Deno" in globalThis;

test(
  "a process that exits in the middle of writes removes their temporary files",
  { timeout: 600_000 },
  () =>
    inScratch(async (directory) => {
      const outcome = await runHere(fixture("exit"), directory, "exit");
      assert.equal(outcome.ended, 3, outcome.stderr);
      assert.equal(outcome.stdout, "3\n", "they were there");
      assert.deepEqual(leftovers(directory), []);
      assert.equal(readFileSync(join(directory, "done"), "utf8"), "done\n");
      for (const name of ["f0", "f1", "f2"]) {
        assert.equal(existsSync(join(directory, name)), false);
      }
    }),
);

test("after an uncaught error they are removed too, but not on Deno", {
  timeout: 600_000,
}, () =>
  inScratch(async (directory) => {
    const outcome = await runHere(fixture("exit"), directory, "throw");
    assert.equal(outcome.ended, 1);
    assert.match(outcome.stderr, /uncaught/);
    assert.equal(leftovers(directory).length, isDeno ? 3 : 0);
  }));

for (const way of ["kill", "interrupt"]) {
  test(
    `after a ${way} they stay: no signal is handled`,
    { timeout: 600_000 },
    () =>
      inScratch(async (directory) => {
        const outcome = await runHere(fixture("exit"), directory, way);
        assert.notEqual(outcome.ended, 0);
        assert.equal(leftovers(directory).length, 3);
        assert.equal(existsSync(join(directory, "f0")), false);
      }),
  );
}

test("importing hooks nothing, writing one exit listener, and no signal", {
  timeout: 600_000,
}, () =>
  inScratch(async (directory) => {
    const outcome = await runHere(fixture("hooks"), join(directory, "f"));
    assert.equal(outcome.ended, 0, outcome.stderr);
    const { imported, hookedByImport, written, hooked } = JSON.parse(
      outcome.stdout,
    );
    assert.deepEqual(imported, [0, 0, 0, 0, 0, 0]);
    assert.deepEqual(hookedByImport, []);
    assert.deepEqual(written, [isDeno ? 0 : 1, 0, 0, 0, 0, 0]);
    assert.deepEqual(hooked, isDeno ? ["unload"] : []);
  }));

test("at exit only what is in flight is removed: not a finished write's name, nor another port's file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    const other = new FaultPort();
    await onPort(port, () => writeTextAtomic(path, "new"));
    const finished = port.calls.find(({ name }) => name === "create")?.args[0];
    assert.equal(port.exitCallbacks.length, 1);
    await onPort(port, () => writeTextAtomicSync(path, "new"));
    assert.equal(port.exitCallbacks.length, 1, "one listener for all writes");

    let removed: unknown[] = [];
    port.intercept(({ name }) => {
      if (name === "rename") {
        const before = port.calls.length;
        port.exitCallbacks.forEach((callback) => callback());
        removed = port.calls.slice(before).map(({ name, args }) => [
          name,
          ...args,
        ]);
      }
      return undefined;
    });
    await onPort(other, () => writeTextAtomic(join(directory, "g"), "new"));
    await onPort(
      port,
      () => assert.rejects(writeTextAtomic(path, "lost"), { code: "ENOENT" }),
    );
    assert.equal(removed.length, 1);
    const [[call, temporary] = []] = removed as string[][];
    assert.equal(call, "unlink");
    assert.match(temporary ?? "", /\.f\.\d+\.[0-9a-f-]{36}\.tmp$/);
    assert.notEqual(temporary, finished);
    assert.equal(readFileSync(path, "utf8"), "new\n");
    // With nothing in flight there is nothing to remove.
    const before = port.calls.length;
    port.exitCallbacks.forEach((callback) => callback());
    assert.equal(port.calls.length, before);
  }));

test(
  "worker threads that write one file never tear it, and all their writes succeed",
  { timeout: 600_000 },
  () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const writes = 60;
      await writeTextAtomic(path, "0:0:");
      const workers = [1, 2, 3].map((id) =>
        new Promise<number>((resolve, reject) => {
          const worker = new Worker(pathToFileURL(fixture("worker")), {
            workerData: { path, id, writes },
          });
          worker.once("message", (rejected) => {
            resolve(rejected);
            worker.terminate();
          });
          worker.once("error", reject);
        })
      );
      let working = true;
      let reads = 0;
      const reading = (async () => {
        while (working) {
          const [id, write] = assertWhole(readFileSync(path, "utf8"));
          assert.ok(id <= 3 && write < writes);
          reads++;
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      })();
      assert.deepEqual(await Promise.all(workers), [0, 0, 0]);
      working = false;
      await reading;
      assert.ok(reads > 0);
      assert.deepEqual(leftovers(directory), []);
    }),
);

test("where no runtime is known, the first call says so", () => {
  const { Deno, process } = globalThis as Record<string, unknown>;
  const before = currentPort();
  try {
    for (const name of ["Deno", "process"]) {
      Object.defineProperty(globalThis, name, {
        value: undefined,
        configurable: true,
        writable: true,
      });
      if (name === "Deno") Reflect.deleteProperty(globalThis, name);
    }
    substitutePort(undefined);
    assert.throws(() => currentPort(), UnsupportedEnvironmentError);
    Object.assign(globalThis, { process });
    assert.equal(currentPort().pid, (process as { pid: number }).pid);
  } finally {
    Object.assign(globalThis, { process });
    if (Deno !== undefined) Object.assign(globalThis, { Deno });
    substitutePort(before);
  }
});

/** The text is one piece repeated, as its writer made it: returns its writer and its number. */
function assertWhole(text: string): [id: number, write: number] {
  const [id = NaN, write = NaN] = text.split(":").map(Number);
  const piece = `${id}:${write}:`;
  const pieces = id === 0 ? 1 : 1 + (write * 7919) % 5000;
  assert.equal(text, `${piece.repeat(pieces)}\n`);
  return [id, write];
}

test("who takes a lock is not told by Node that SQLite is experimental, but of everything else", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const { ended, stderr } = await runHere(fixture("locker"), path);
    assert.equal(ended, 0, stderr);
    assert.doesNotMatch(stderr, /SQLite/);
    assert.match(stderr, /another one/);
  }));
