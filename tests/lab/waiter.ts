/**
 * Takes a lock again and again, as long as a file is there: `PATH WITNESS ID
 * FILE`. Says whom it was taken after, where he did not free it, and then waits to
 * be killed.
 *
 * @module
 */

import { existsSync } from "node:fs";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { withLock } from "../../lock.ts";
import { Witness } from "./witness.ts";

const [path = "", seenBy = "", id, go = ""] = process.argv.slice(2);
const witness = new Witness(seenBy, Number(id));

async function take(): Promise<void> {
  await withLock(path, () => {
    const before = witness.enter();
    if (before !== 0) console.log(`after ${before}`);
    if (!witness.leave()) console.log("not alone");
  }, { timeoutMs: 600_000 });
}

// What a runtime opens once is open before the descriptors are counted.
for (let time = 0; time < 10; time++) await take();
console.log("ready");
while (!existsSync(go)) await setTimeout(10);
let taken = 0;
while (existsSync(go)) {
  await take();
  taken++;
  await setTimeout(10);
}
console.log(`taken ${taken}`);
setInterval(() => {}, 1000);
