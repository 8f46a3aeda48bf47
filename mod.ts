/**
 * Crash-safe, concurrency-safe, atomic writes of files on Deno, Bun and Node:
 * whoever opens the file finds the old content or the new, never a part of
 * either; and once the promise has resolved, the new content survives a power
 * cut.
 *
 * @example Writing a value, and reading it back
 * ```ts
 * import { readJson, writeJsonAtomic } from "@aj/atomic";
 * import assert from "node:assert/strict";
 *
 * const path = `${await Deno.makeTempDir()}/config.json`;
 * const receipt = await writeJsonAtomic(path, { port: 8080 });
 * assert.equal(receipt.directorySynced, true);
 * assert.deepEqual(await readJson(path), { port: 8080 });
 * ```
 *
 * @module
 */

export * from "./bytes.ts";
export * from "./checksum.ts";
export * from "./defaults.ts";
export * from "./doctor.ts";
export * from "./errors.ts";
export * from "./guarantees.ts";
export * from "./json.ts";
export * from "./jsonl.ts";
export * from "./lock.ts";
export * from "./move.ts";
export * from "./sweep.ts";
export * from "./text.ts";
