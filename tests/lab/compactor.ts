/**
 * Compacts a log in a loop, until a file is there: `PATH STOP`. All records become
 * one, which has the sum of their counts.
 *
 * @module
 */

import { existsSync } from "node:fs";
import process from "node:process";
import { compactJsonl } from "../../mod.ts";

interface Counted {
  readonly name: string;
  readonly count?: number;
}

const [path = "", stop = ""] = process.argv.slice(2);

let compacted = 0;
while (!existsSync(stop)) {
  await compactJsonl<Counted>(path, async function* (records) {
    const sums = new Map<string, number>();
    for await (const { name, count = 1 } of records) {
      sums.set(name, (sums.get(name) ?? 0) + count);
    }
    for (const [name, count] of sums) yield { name, count };
  }, { lock: { timeoutMs: 600_000 }, durability: "none" });
  compacted++;
  if (compacted % 5 === 0) console.log(`${compacted} compacted`);
}
