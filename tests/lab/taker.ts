/**
 * The program that the lock's lab runs on every runtime: `PATH TIMES` increments
 * the number in the file under its lock, so many times, and prints each number
 * once it is written. What another one does meanwhile is seen by a marker that
 * exists only while the lock is held.
 *
 * @module
 */

import { closeSync, openSync, unlinkSync } from "node:fs";
import { readJson, withLock, writeJsonAtomic } from "../../mod.ts";

const args = "Deno" in globalThis
  ? Deno.args
  : globalThis.process.argv.slice(2);
const [path = "", times = ""] = args;

for (let time = 0; time < Number(times); time++) {
  const count = await withLock(path, async (lock) => {
    // Whoever was killed while he held it has left his.
    try {
      unlinkSync(`${path}.marker`);
      console.log("left");
    } catch {
      // Nobody was.
    }
    closeSync(openSync(`${path}.marker`, "wx"));
    const next = 1 + await readJson<number>(path, { fallback: 0 });
    await writeJsonAtomic(path, next, { lock, durability: "none" });
    unlinkSync(`${path}.marker`);
    return next;
  }, { timeoutMs: 60_000 });
  console.log(count);
}
