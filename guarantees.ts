/**
 * What holds where a file is: how far a write there is atomic, durable and
 * exclusive, and how that is known.
 *
 * Looking writes nothing and asks nobody for a permission. The levels are what is
 * known of the type of the file system, less what its mount options, the
 * platform and the runtime take away. `doctor` tries things out.
 *
 * @example What holds for a file
 * ```ts
 * import { inspectGuarantees } from "@aj/atomic/guarantees";
 *
 * const report = await inspectGuarantees("./data/state.json");
 * console.log(report.guarantees.crashDurability.level);
 * console.log(report.summary());
 * ```
 *
 * @module
 */

import { runAsync, runSync } from "./_drive.ts";
import { type GuaranteeReport, inspect } from "./_inspection.ts";
import { absolutePlace } from "./_path.ts";
import { currentPort } from "./_runtime/current.ts";

export type { FilesystemClass, GuaranteeLevel } from "./_filesystems.ts";
export type { Environment, GuaranteeReport } from "./_inspection.ts";
export type { GuaranteeFinding, GuaranteeFindings } from "./_levels.ts";
export type { Guarantee } from "./_options.ts";

/**
 * Looks at the file system that a file is on, or would be. Nothing is written,
 * and what may not be looked at is told as `"unknown"`, with what would permit
 * it.
 *
 * On Deno it requires `--allow-sys=statfs` and `--allow-read` for the path; mount
 * options are shown with `--allow-all` alone.
 *
 * @param path The file or the directory: a path or a `file:` URL. Where it does
 * not exist, the nearest directory above it is looked at.
 * @returns What holds there.
 * @throws {TypeError} If the path is malformed.
 *
 * @example Usage
 * ```ts
 * import { inspectGuarantees } from "@aj/atomic/guarantees";
 * import assert from "node:assert/strict";
 *
 * const { guarantees } = await inspectGuarantees("./data/state.json");
 * assert.equal(guarantees.crossDeviceSafety.level, "guaranteed");
 * ```
 */
export async function inspectGuarantees(
  path: string | URL,
): Promise<GuaranteeReport> {
  const port = currentPort();
  return await runAsync(port, inspect(port, absolutePlace(port, path)));
}

/**
 * The synchronous form of {@linkcode inspectGuarantees}.
 *
 * On Deno it requires `--allow-sys=statfs` and `--allow-read` for the path; mount
 * options are shown with `--allow-all` alone.
 *
 * @param path The file or the directory: a path or a `file:` URL.
 * @returns What holds there.
 * @throws {TypeError} If the path is malformed.
 *
 * @example Usage
 * ```ts
 * import { inspectGuaranteesSync } from "@aj/atomic/guarantees";
 *
 * console.log(inspectGuaranteesSync("./data").summary());
 * ```
 */
export function inspectGuaranteesSync(path: string | URL): GuaranteeReport {
  const port = currentPort();
  return runSync(port, inspect(port, absolutePlace(port, path)));
}
