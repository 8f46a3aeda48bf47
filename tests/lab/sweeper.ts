/**
 * Sweeps a directory, and prints the names that it leaves: `DIRECTORY`.
 *
 * @module
 */

import { sweepTemporariesSync } from "../../mod.ts";

const args = "Deno" in globalThis
  ? Deno.args
  : globalThis.process.argv.slice(2);
const [directory = ""] = args;
const { kept } = sweepTemporariesSync(directory);
console.log(kept.map(({ path }) => path.slice(directory.length + 1)).join());
