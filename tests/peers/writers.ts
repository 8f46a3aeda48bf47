/**
 * What is compared, and where it runs.
 *
 * @module
 */

import { BUN, DENO, NODE_24, type Runtime, RUNTIMES } from "../lab/runtimes.ts";

export type WriterName =
  | "@aj/atomic"
  | "write-file-atomic"
  | "atomically"
  | "steno"
  | "Deno.writeTextFile"
  | "Bun.write"
  | "fs.promises.writeFile";

export interface Writer {
  readonly name: WriterName;
  /** What the table says must hold on each of them. */
  readonly runtimes: readonly Runtime[];
}

/** In the order of the table's columns. */
export const WRITERS: readonly Writer[] = [
  { name: "@aj/atomic", runtimes: RUNTIMES },
  { name: "write-file-atomic", runtimes: [NODE_24] },
  { name: "atomically", runtimes: [NODE_24] },
  { name: "steno", runtimes: [NODE_24] },
  { name: "Deno.writeTextFile", runtimes: [DENO] },
  { name: "Bun.write", runtimes: [BUN] },
  { name: "fs.promises.writeFile", runtimes: [NODE_24] },
];
