/**
 * Every system call of an operation fails: once, from then on, or with all that
 * come after it; with each code that the call may plausibly fail with.
 *
 * @module
 */

import type { SystemCalls } from "../../_runtime/port.ts";
import type { CrashBounds } from "./crash.ts";
import {
  crashRun,
  type Finding,
  type Run,
  type RunResult,
} from "./crash_run.ts";
import type { Fault } from "./machine_port.ts";
import type { Tally } from "./report.ts";

/** What each call may fail with. */
const CODES: Readonly<Record<keyof SystemCalls, readonly string[]>> = {
  create: ["EACCES", "EDQUOT", "EIO", "EMFILE", "ENFILE", "ENOSPC", "EROFS"],
  createChangeable: [
    "EACCES",
    "EDQUOT",
    "EIO",
    "EMFILE",
    "ENFILE",
    "ENOSPC",
    "EROFS",
  ],
  open: ["EACCES", "EIO", "EMFILE"],
  openChangeable: ["EACCES", "EIO", "EMFILE"],
  openAppend: ["EACCES", "EIO", "EMFILE", "EROFS"],
  read: ["EIO"],
  write: ["EDQUOT", "EIO", "ENOSPC"],
  fstat: ["EIO"],
  fchmod: ["EIO", "EPERM"],
  fchown: ["EIO", "EPERM"],
  fsync: ["EDQUOT", "EIO", "ENOSPC"],
  truncate: ["EIO"],
  close: ["EIO"],
  lstat: ["EACCES", "EIO"],
  access: [],
  readlink: ["EACCES", "EIO"],
  realpath: ["EACCES", "EIO", "EMFILE"],
  mkdir: ["EACCES", "EDQUOT", "EIO", "ENOSPC"],
  rmdir: ["EACCES", "EIO"],
  link: ["EDQUOT", "EIO", "EMLINK", "ENOSPC", "EPERM"],
  rename: ["EACCES", "EBUSY", "EDQUOT", "EIO", "ENOSPC", "EXDEV"],
  unlink: ["EACCES", "EIO"],
  readdir: ["EACCES", "EIO"],
  openDatabase: ["SQLITE_CANTOPEN"],
  execute: ["SQLITE_IOERR"],
  closeDatabase: [],
  lockElsewhere: [],
  statfs: [],
  sleep: [],
};

/** The calls that a server may have carried out although it reports a failure. */
const AMBIGUOUS = ["link", "rename", "unlink"];

type Extent = "once" | "the same call from then on" | "all from then on";
const EXTENTS: readonly Extent[] = [
  "once",
  "the same call from then on",
  "all from then on",
];

/** Runs an operation with its signal aborted before each of its calls; the first violation ends it. */
export async function abortAtEach(
  run: Run,
  tally: Tally,
  bounds: CrashBounds,
): Promise<Finding | undefined> {
  const { calls, finding } = await crashRun(run, tally, bounds);
  if (finding !== undefined) return finding;
  for (const abortAt of calls.keys()) {
    const { finding } = await crashRun({ ...run, abortAt }, tally, bounds);
    if (finding !== undefined) return finding;
  }
  return undefined;
}

/** Runs an operation with each failure there is; the first violation ends it. */
export async function failEach(
  run: Run,
  tally: Tally,
  bounds: CrashBounds,
): Promise<Finding | undefined> {
  return await failEachOf(
    (fault) =>
      crashRun(fault === undefined ? run : { ...run, fault }, tally, bounds),
  );
}

/** Runs something with each failure there is. */
export async function failEachOf(
  runWith: (fault?: Run["fault"]) => Promise<RunResult>,
): Promise<Finding | undefined> {
  const { calls, finding } = await runWith();
  if (finding !== undefined) return finding;
  for (const [index, { name }] of calls.entries()) {
    const faults: Fault[] = CODES[name].map((code) => ({
      code,
      isDone: false,
    }));
    if (AMBIGUOUS.includes(name)) faults.push({ code: "EIO", isDone: true });
    for (const fault of faults) {
      for (const extent of EXTENTS) {
        if (fault.isDone && extent !== "once") continue;
        const { finding } = await runWith((call, now) => {
          const isMeant = now === index || now > index &&
              (extent === "all from then on" ||
                extent === "the same call from then on" &&
                  call.name === name);
          return isMeant && call.name !== "sleep" ? fault : undefined;
        });
        if (finding === undefined) continue;
        const done = fault.isDone ? ", although it was done" : "";
        return {
          ...finding,
          run:
            `${finding.run}; call ${index}, ${name}, fails with ${fault.code}, ${extent}${done}`,
        };
      }
    }
  }
  return undefined;
}
