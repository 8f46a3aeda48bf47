/**
 * Takes a lock in a tight loop, alone or in worker threads: `LOCK PATH WITNESS ID
 * TIMES THREADS`. Where it is refused it asks again later. Each thread prints at
 * the end how often it had the lock, was refused it, and was not alone with it.
 *
 * @module
 */

import process from "node:process";
import { setImmediate, setTimeout } from "node:timers/promises";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { AtomicError, withLock } from "../../lock.ts";
import { withAgedLock } from "./aged_lock.ts";
import { Witness } from "./witness.ts";

/** A thread has the number of its process, and its own. */
interface Share {
  readonly args: readonly string[];
  readonly thread: number;
}

async function contend({ args, thread }: Share): Promise<void> {
  const [lock, path = "", seenBy = "", id, times] = args;
  const witness = new Witness(seenBy, Number(id) + thread);
  let taken = 0;
  let refused = 0;
  let disturbed = 0;
  const body = async () => {
    if (witness.enter() !== 0) disturbed++;
    // Whoever else is here gets the time to be seen, and whoever stops us to do so.
    await (taken % 50 === 0 ? setTimeout(1) : setImmediate());
    if (!witness.leave()) disturbed++;
    taken++;
    // A sign of life, however slow the machine is.
    if (taken % 100 === 0) console.error(taken);
  };
  while (taken < Number(times)) {
    try {
      await (lock === "aged"
        ? withAgedLock(path, body)
        : withLock(path, body, { timeoutMs: 600_000 }));
    } catch (error) {
      if (!(error instanceof AtomicError) || error.code !== "EACCES") {
        throw error;
      }
      if (refused++ === 0) console.log(error.message);
      await setTimeout(1);
    }
  }
  console.log(`${taken} taken, ${refused} refused, ${disturbed} disturbed`);
}

if (isMainThread) {
  const args = process.argv.slice(2);
  const threads = Number(args[5]);
  if (threads === 0) await contend({ args, thread: 0 });
  for (let thread = 0; thread < threads; thread++) {
    const worker = new Worker(new URL(import.meta.url), {
      workerData: { args, thread } satisfies Share,
    });
    worker.on("error", (error) => {
      console.error(error);
      process.exitCode = 1;
    });
  }
} else {
  const share: Share = workerData;
  await contend(share);
}
