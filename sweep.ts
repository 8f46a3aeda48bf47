/**
 * What killed writers have left in a directory.
 *
 * @example Sweeping at the start of a program
 * ```ts
 * import { sweepTemporaries } from "@aj/atomic/sweep";
 *
 * const directory = await Deno.makeTempDir();
 * const { removed, kept } = await sweepTemporaries(directory);
 * for (const path of removed) console.log(`removed ${path}`);
 * for (const { path, reason } of kept) console.log(`${path}: ${reason}`);
 * ```
 *
 * @module
 */

import { type Attempt, explain } from "./_failure.ts";
import { checkOptions, type SweepOptions } from "./_options.ts";
import { absoluteDirectory } from "./_path.ts";
import { promised } from "./_promised.ts";
import { currentPort } from "./_runtime/current.ts";
import {
  type Kept,
  type Sweep,
  sweep,
  sweepSync,
  type Swept,
} from "./_sweep.ts";

export type { SweepOptions } from "./_options.ts";
export {
  AtomicError,
  type AtomicErrorOptions,
  NotFoundError,
  PermissionScopeError,
} from "./errors.ts";

/** What a sweep leaves, and why. */
export interface KeptFile {
  /** The file. */
  readonly path: string;
  /** Why it was left. */
  readonly reason: string;
}

/** What a sweep has done. */
export interface SweepReport {
  /** The directory. */
  readonly directory: string;
  /** The files that were removed; of a dry run, those that would be. */
  readonly removed: readonly string[];
  /** Those of this library that were left. */
  readonly kept: readonly KeptFile[];
}

/**
 * Removes what killed writers of this library have left in a directory: their
 * temporary files, and their names of locks. Nothing else is touched, and
 * directories in it are not looked into.
 *
 * A temporary file is removed where its writer's process is gone, as far as the
 * runtime may ask (Deno only with `--allow-run`), and it has not been changed for
 * `olderThanMs`. As long as another process has the number in its name, it stays,
 * however old. What has the number of this process goes where it is older than
 * the process (on Deno only that of process 1), as after the restart of a
 * container, whose first process is always number 1; a worker, which does not know
 * when its process began, leaves it. In containers that share a directory the numbers of processes say nothing: there
 * only its age protects a writer, who is told with an error, his file as it was,
 * should it be wrong. Names of locks are removed where the lock is free, which is
 * certain.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory.
 *
 * @param directory The directory: a path or a `file:` URL.
 * @param options What to remove.
 * @returns What was removed, and what was left.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {NotFoundError} If there is no such directory.
 * @throws {PermissionScopeError} If Deno's permissions do not cover it.
 * @throws {AtomicError} If it cannot be read, or is no directory.
 *
 * @example Usage
 * ```ts
 * import { sweepTemporaries } from "@aj/atomic/sweep";
 *
 * const directory = await Deno.makeTempDir();
 * await sweepTemporaries(directory, { olderThanMs: 3_600_000, dryRun: true });
 * ```
 */
export function sweepTemporaries(
  directory: string | URL,
  options: SweepOptions = {},
): Promise<SweepReport> {
  return promised(async () => {
    const task = prepare("sweepTemporaries", directory, options);
    try {
      return reportOf(task, await sweep(task));
    } catch (error) {
      throw explain(task.port, task.attempt, error);
    }
  });
}

/**
 * The synchronous form of {@linkcode sweepTemporaries}.
 *
 * On Deno it requires `--allow-read` and `--allow-write` for the directory.
 *
 * @param directory The directory: a path or a `file:` URL.
 * @param options What to remove.
 * @returns What was removed, and what was left.
 * @throws {TypeError} If an argument or an option is malformed.
 * @throws {AtomicError} If it fails, as {@linkcode sweepTemporaries} does.
 *
 * @example Usage
 * ```ts
 * import { sweepTemporariesSync } from "@aj/atomic/sweep";
 *
 * sweepTemporariesSync(Deno.makeTempDirSync());
 * ```
 */
export function sweepTemporariesSync(
  directory: string | URL,
  options: SweepOptions = {},
): SweepReport {
  const task = prepare("sweepTemporariesSync", directory, options);
  try {
    return reportOf(task, sweepSync(task));
  } catch (error) {
    throw explain(task.port, task.attempt, error);
  }
}

const DAY_MS = 24 * 60 * 60 * 1000;

function prepare(
  operation: string,
  directory: string | URL,
  given: SweepOptions,
): Sweep {
  const { olderThanMs = DAY_MS, dryRun = false, signal } = checkOptions(
    "sweep",
    given,
  );
  const port = currentPort();
  const path = absoluteDirectory(port, directory);
  const attempt: Attempt = { operation, access: "sweep", path };
  return { port, attempt, olderThanMs, dryRun, signal };
}

function reportOf({ attempt }: Sweep, { removed, kept }: Swept): SweepReport {
  const files: Kept[] = kept;
  return { directory: attempt.path, removed, kept: files };
}
