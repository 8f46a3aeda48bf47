/**
 * Whether a directory is fit for atomic writes, tried out.
 *
 * @example Before a service starts
 * ```ts
 * import { doctor } from "@aj/atomic/doctor";
 *
 * const report = await doctor(await Deno.makeTempDir());
 * if (!report.ok) throw new Error(report.summary());
 * ```
 *
 * @module
 */

import { examine } from "./_examination.ts";
import type { DoctorReport } from "./_examination.ts";
import { runAsync } from "./_drive.ts";
import { checkOptions, type DoctorOptions } from "./_options.ts";
import { absolutePlace } from "./_path.ts";
import { currentPort } from "./_runtime/current.ts";

export type { DoctorCheck, DoctorReport } from "./_examination.ts";
export type { DoctorOptions, Guarantee } from "./_options.ts";
export type {
  Environment,
  FilesystemClass,
  GuaranteeFinding,
  GuaranteeFindings,
  GuaranteeLevel,
  GuaranteeReport,
} from "./guarantees.ts";

/**
 * Tries out in a directory what writes and locks need: exclusive creation,
 * syncs, a rename over a file that somebody has open, links, locks, long names,
 * free space. Everything that is made for it is removed. What fails is in the
 * report, with what to do about it.
 *
 * That a sync fails is seen; that it does nothing is not, which is what
 * `require` is for: it turns levels of `inspectGuarantees` into checks.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory;
 * `--allow-sys=statfs` tells its type and its free space.
 *
 * @param path The directory, or a file in it: a path or a `file:` URL.
 * @param options What to try, and what to insist on.
 * @returns What was found.
 * @throws {TypeError} If an argument or an option is malformed.
 *
 * @example Usage
 * ```ts
 * import { doctor } from "@aj/atomic/doctor";
 * import assert from "node:assert/strict";
 *
 * const { ok, checks } = await doctor(await Deno.makeTempDir());
 * assert.equal(ok, checks.every((check) => check.ok));
 * ```
 */
export async function doctor(
  path: string | URL,
  options: DoctorOptions = {},
): Promise<DoctorReport> {
  const { probe = true, require = [] } = checkOptions("doctor", options);
  const port = currentPort();
  const place = absolutePlace(port, path);
  return await runAsync(port, examine(port, place, probe, [...require]));
}
