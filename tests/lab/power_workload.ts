/**
 * The program that the lab of power cuts runs on every runtime: `DIRECTORY`.
 * For each line `STEP VERSION` that it is sent it performs the step there, and
 * says so.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { STEPS } from "./power_steps.ts";

const [directory = ""] = process.argv.slice(2);
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [step = "", version] = line.split(" ");
  await STEPS[step]?.perform(directory, Number(version));
  console.log(`${line} done`);
}
