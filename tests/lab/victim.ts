/**
 * Takes the lock of a file, says so, and waits to be killed: `PATH WITNESS ID`.
 *
 * @module
 */

import process from "node:process";
import { acquireLock } from "../../lock.ts";
import { Witness } from "./witness.ts";

const [path = "", seenBy = "", id] = process.argv.slice(2);
await acquireLock(path, { timeoutMs: 600_000 });
console.log(`after ${new Witness(seenBy, Number(id)).enter()}`);
setInterval(() => {}, 1000);
