/**
 * The checks of a directory, and their report.
 *
 * @module
 */

import { MET } from "./_demand.ts";
import { realDirectory } from "./_directories.ts";
import { explain } from "./_failure.ts";
import { type GuaranteeReport, inspect } from "./_inspection.ts";
import { isLockName } from "./_claim.ts";
import type { Guarantee } from "./_options.ts";
import { PROBES } from "./_probes.ts";
import { call, failedWith, type Protocol, ProtocolError } from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { glance } from "./_surroundings.ts";
import { locateTarget } from "./_target.ts";
import { writerOf } from "./_temporary.ts";
import { isError } from "./_runtime/errno.ts";

/** One thing that was looked at or tried out. */
export interface DoctorCheck {
  /** What. */
  readonly name: string;
  /** Whether it is as it must be. */
  readonly ok: boolean;
  /** What was found; where it is not as it must be, what to do. */
  readonly detail: string;
}

/** What `doctor` found: plain data, but for {@linkcode DoctorReport.summary}. */
export interface DoctorReport {
  /** The path that was asked about, made absolute. */
  readonly path: string;
  /** Whether all checks are. */
  readonly ok: boolean;
  /** One after the other. */
  readonly checks: readonly DoctorCheck[];
  /** What is known of the place by looking alone. */
  readonly inspection: GuaranteeReport;
  /** The same in words, for people. */
  summary(): string;
}

class Report implements DoctorReport {
  readonly path: string;
  readonly ok: boolean;
  readonly checks: readonly DoctorCheck[];
  readonly inspection: GuaranteeReport;

  constructor(
    path: string,
    checks: readonly DoctorCheck[],
    inspection: GuaranteeReport,
  ) {
    this.path = path;
    this.ok = checks.every(({ ok }) => ok);
    this.checks = checks;
    this.inspection = inspection;
  }

  summary(): string {
    const failed = this.checks.filter(({ ok }) => !ok).length;
    const verdict = failed === 0 ? "all is well" : `${failed} failed`;
    return [
      `${this.path}: of ${this.checks.length} checks ${verdict}`,
      ...this.checks.map(({ name, ok, detail }) =>
        `  ${ok ? "ok  " : "FAIL"}  ${name}: ${detail}`
      ),
      this.inspection.summary(),
    ].join("\n");
  }
}

/** Makes all checks. */
export function* examine(
  port: Port,
  path: string,
  isTried: boolean,
  require: readonly Guarantee[],
): Protocol<DoctorReport> {
  const report = yield* inspect(port, path);
  const checks: DoctorCheck[] = [];
  const directory = yield* existingDirectory(port, path);
  checks.push(directory.check, ...replaceable(report));
  if (directory.path !== undefined) {
    checks.push(yield* freeSpace(port, directory.path));
    if (isTried) checks.push(...yield* tryAll(port, directory.path));
    checks.push(yield* leftovers(port, directory.path));
  }
  for (const guarantee of require) {
    const { level, evidence } = report.guarantees[guarantee];
    checks.push({
      name: `require ${guarantee}`,
      ok: level === "guaranteed",
      detail: `${level}: ${evidence}`,
    });
  }
  return new Report(path, checks, report);
}

/** Turns what a body throws into a check that failed. */
function* check(
  port: Port,
  path: string,
  name: string,
  body: () => Protocol<Omit<DoctorCheck, "name">>,
  access: "write" | "examine" = "write",
): Protocol<DoctorCheck> {
  try {
    return { name, ...yield* body() };
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    const attempt = { operation: "doctor", access, path };
    const told = explain(port, attempt, error);
    return {
      name,
      ok: false,
      detail: isError(told) ? told.message : String(told),
    };
  }
}

interface Found {
  /** What the other checks are of. */
  readonly path: string | undefined;
  readonly check: DoctorCheck;
}

function* existingDirectory(port: Port, path: string): Protocol<Found> {
  let found: string | undefined;
  const body = function* () {
    const place = yield* directoryAt(port, path);
    if (place.path === undefined) return { ok: false, detail: place.detail };
    found = place.path;
    return { ok: true, detail: place.path };
  };
  const made = yield* check(port, path, "directory", body, "examine");
  return { path: found, check: made };
}

type Place =
  | { readonly path: string }
  | { readonly path: undefined; readonly detail: string };

/** The path itself if it is a directory, else that of the file that a write would make or replace there. */
function* directoryAt(port: Port, path: string): Protocol<Place> {
  try {
    const real = yield* realDirectory(port, path);
    // Deno may be allowed to name a link to it alone.
    yield* call("readdir", real);
    return { path: real };
  } catch (error) {
    if (!failedWith(error, "ENOENT", "ENOTDIR")) throw error;
  }
  const target = yield* locateTarget(port, {
    path,
    symlinks: "follow",
    parents: true,
    createNew: false,
    durability: "none",
    retryMs: 0,
    signal: undefined,
    demand: MET,
  });
  if (!target.isPlanned) return { path: target.directory };
  const detail =
    `"${target.directory}" does not exist, or is no directory: make it first, or let the first write make it, with parents: true`;
  return { path: undefined, detail };
}

/** That nothing can replace it, a test beside it does not show. */
function replaceable({ guarantees }: GuaranteeReport): DoctorCheck[] {
  const { level, evidence } = guarantees.atomicVisibility;
  return level === "unsupported"
    ? [{ name: "replaceable", ok: false, detail: evidence }]
    : [];
}

function* freeSpace(port: Port, directory: string): Protocol<DoctorCheck> {
  const name = "free space";
  const { status, evidence } = yield* glance(port, directory);
  if (status === undefined) {
    return { name, ok: true, detail: evidence.join("; ") };
  }
  const { freeBytes } = status;
  if (freeBytes === undefined) return { name, ok: true, detail: "not counted" };
  return freeBytes > 0
    ? { name, ok: true, detail: `${freeBytes} bytes` }
    : { name, ok: false, detail: "none is left: free some" };
}

function* tryAll(port: Port, directory: string): Protocol<DoctorCheck[]> {
  const checks: DoctorCheck[] = [];
  for (const probe of PROBES) {
    const made = yield* check(port, directory, probe.name, function* () {
      return { ok: true, detail: yield* probe.try(port, directory) };
    });
    checks.push(made);
    // The others would tell the same.
    if (!made.ok && probe === PROBES[0]) break;
  }
  return checks;
}

function leftovers(port: Port, directory: string): Protocol<DoctorCheck> {
  return check(port, directory, "leftovers", function* () {
    const names = yield* call("readdir", directory);
    const temporary = names.map(writerOf)
      .filter((pid) => pid !== undefined).length;
    const locks = names.filter(isLockName).length;
    const detail = temporary + locks === 0
      ? "none"
      : `${temporary} temporary files and ${locks} locks, of writers that are at work or were killed`;
    return { ok: true, detail };
  });
}
