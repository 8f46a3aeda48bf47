/**
 * Increments the number in a file by updates: `PATH TIMES WATCHING`. Where it is
 * told that it has lost its lock it tries again. It prints how many increments
 * were acknowledged, and how many were refused. With `watching` it watches the
 * directory all the while, by all means that its runtime has.
 *
 * @module
 */

import { watch } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { LockLostError, updateJsonAtomic } from "../../mod.ts";

const [path = "", times, watching] = process.argv.slice(2);

function watchDirectory(): void {
  const directory = dirname(path);
  watch(directory, () => {});
  const deno: typeof Deno | undefined = Reflect.get(globalThis, "Deno");
  if (deno === undefined) return;
  const watcher = deno.watchFs(directory);
  void (async () => {
    for await (const _event of watcher);
  })();
}

if (watching === "watching") watchDirectory();

let acknowledged = 0;
let refused = 0;
while (acknowledged < Number(times)) {
  try {
    await updateJsonAtomic(path, (count) => count + 1, {
      initial: 0,
      durability: "none",
      lock: { timeoutMs: 600_000 },
    });
    acknowledged++;
  } catch (error) {
    if (!(error instanceof LockLostError)) throw error;
    refused++;
  }
}
console.log(`${acknowledged} acknowledged, ${refused} refused`);
process.exit();
