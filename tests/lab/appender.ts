/**
 * The program that the append's lab runs on every runtime: `PATH NAME TIMES`
 * appends so many pairs of records, and prints the number of each pair once it
 * is appended. A torn line that somebody has left is cut.
 *
 * @module
 */

import { appendJsonl, repairJsonl, TornLineError } from "../../mod.ts";

const args = "Deno" in globalThis
  ? Deno.args
  : globalThis.process.argv.slice(2);
const [path = "", name = "", times = ""] = args;
const lock = { timeoutMs: 600_000 };
const filling = "x".repeat(20_000);

for (let time = 0; time < Number(times); time++) {
  const records = [{ name, time, filling }, { name, time }];
  const durability = time % 10 === 0 ? "full" : "none";
  for (;;) {
    try {
      await appendJsonl(path, records, { lock, durability });
      break;
    } catch (error) {
      if (!(error instanceof TornLineError)) throw error;
      await repairJsonl(path, { lock });
    }
  }
  console.log(time);
}
