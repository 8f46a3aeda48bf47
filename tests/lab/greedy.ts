/**
 * Takes a lock again and again, without a pause, and holds it for a while each
 * time: `PATH COUNT`. How often it has had it is in the file COUNT.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { withLock } from "../../lock.ts";

const [path = "", count = ""] = process.argv.slice(2);
const HOLD_MS = 50;

for (let taken = 1;; taken++) {
  await withLock(path, async () => {
    writeFileSync(count, `${taken}`);
    if (taken === 1) console.log("began");
    await setTimeout(HOLD_MS);
  }, { timeoutMs: 600_000 });
}
