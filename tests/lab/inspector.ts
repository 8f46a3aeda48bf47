/**
 * The program that the guarantees' lab runs on every runtime:
 * `inspect PATH`, `doctor PATH GUARANTEE...` or `write PATH GUARANTEE...`, where
 * the guarantees are required. Prints the report, or what became of the write.
 *
 * @module
 */

import {
  AtomicError,
  doctor,
  type Guarantee,
  inspectGuarantees,
  inspectGuaranteesSync,
  writeTextAtomic,
} from "../../mod.ts";

const args = "Deno" in globalThis
  ? Deno.args
  : globalThis.process.argv.slice(2);
const [command = "", path = "", ...names] = args;
const require = names as Guarantee[];

async function result(): Promise<unknown> {
  switch (command) {
    case "inspect": {
      const report = await inspectGuarantees(path);
      const same = JSON.stringify(inspectGuaranteesSync(path));
      if (same !== JSON.stringify(report)) throw new Error(same);
      return report;
    }
    case "doctor":
      return await doctor(path, { require });
    case "write":
      try {
        return await writeTextAtomic(path, "new", { require });
      } catch (error) {
        if (!(error instanceof AtomicError)) throw error;
        const { name, code, message } = error;
        return { name, code, message };
      }
    default:
      throw new Error(`Unknown command "${command}"`);
  }
}

console.log(JSON.stringify(await result()));
