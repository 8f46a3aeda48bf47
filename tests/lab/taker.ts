/**
 * The program that the lock's lab runs on every runtime: `LOCK PATH WITNESS ID
 * TIMES` increments the number in the file by an update, so many times, and
 * prints each number once it is written. It prints too whom the witness has seen.
 *
 * @module
 */

import process from "node:process";
import { setImmediate, setTimeout } from "node:timers/promises";
import { updateJsonAtomic } from "../../mod.ts";
import { withAgedLock } from "./aged_lock.ts";
import { Witness } from "./witness.ts";

const [lock, path = "", seenBy = "", id, times] = process.argv.slice(2);
const witness = new Witness(seenBy, Number(id));

async function increment(count: number): Promise<number> {
  const before = witness.enter();
  if (before !== 0) console.log(`after ${before}`);
  // Whoever else is here gets the time to be seen, and whoever stops us to do so.
  await (count % 10 === 0 ? setTimeout(2) : setImmediate());
  if (!witness.leave()) console.log("not alone");
  return count + 1;
}

const options = { initial: 0, durability: "none" } as const;

for (let time = 0; time < Number(times); time++) {
  const { value } = lock === "aged"
    ? await withAgedLock(
      path,
      () => updateJsonAtomic(path, increment, { ...options, lock: false }),
    )
    : await updateJsonAtomic(path, increment, {
      ...options,
      lock: { timeoutMs: 600_000 },
    });
  console.log(value);
}
