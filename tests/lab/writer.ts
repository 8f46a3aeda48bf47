/**
 * The program that the labs run on every runtime: `FORM PATH LABEL LENGTH...`
 * writes one document of each length to the path, in the form `sync`, `async`
 * or `alternating`, and prints an {@linkcode Outcome} for each as a line of JSON.
 *
 * @module
 */

import {
  AtomicError,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../../mod.ts";
import { document } from "./document.ts";

/** What became of one write. */
export interface Outcome {
  /** As the writer sees it. */
  readonly pid: number;
  /** The size of the new file, if the write did not fail. */
  readonly bytes?: number;
  readonly error?: {
    readonly name: string;
    readonly code?: string;
    readonly syscall?: string | undefined;
    readonly committed?: boolean | "unknown";
    readonly message: string;
  };
}

const { args, pid } = "Deno" in globalThis
  ? { args: Deno.args, pid: Deno.pid }
  : {
    args: globalThis.process.argv.slice(2),
    pid: globalThis.process.pid,
  };
const [form = "", path = "", label = "", ...lengths] = args;

for (const [index, length] of lengths.entries()) {
  const text = document(`${label}-${index}`, Number(length));
  const sync = form === "alternating" ? index % 2 === 0 : form === "sync";
  let outcome: Outcome;
  try {
    const { bytes } = sync
      ? writeTextAtomicSync(path, text)
      : await writeTextAtomic(path, text);
    outcome = { pid, bytes };
  } catch (error) {
    outcome = { pid, error: told(error) };
  }
  console.log(JSON.stringify(outcome));
}

function told(error: unknown): NonNullable<Outcome["error"]> {
  if (error instanceof AtomicError) {
    const { name, code, syscall, committed, message } = error;
    return { name, code, syscall, committed, message };
  }
  return { name: "not an AtomicError", message: String(error) };
}
