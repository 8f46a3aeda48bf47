/**
 * What can be said of a path by looking alone.
 *
 * @module
 */

import { keptChecksum } from "./_checksum_choice.ts";
import { MOST_LINKS } from "./_directories.ts";
import type { FilesystemClass } from "./_filesystems.ts";
import {
  findingsOf,
  fsyncOf,
  type GuaranteeFindings,
  unlessNoSqlite,
  weakeningOptions,
} from "./_levels.ts";
import { mountOf } from "./_mounts.ts";
import { GUARANTEES } from "./_options.ts";
import { directoryOf, joinPath } from "./_path.ts";
import {
  call,
  failedWith,
  type Protocol,
  SystemCallError,
} from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";
import { lookAround, type Surroundings } from "./_surroundings.ts";
import { lstatIfPresent } from "./_target.ts";

/** Where a file is, or would be. */
export interface Environment {
  /** Which runtime asks. */
  readonly runtime: "Deno" | "Bun" | "Node";
  /** The operating system, as in `"linux"`, `"darwin"`, `"windows"`. */
  readonly platform: string;
  /** The type, as in `"ext4"`; where it may be several, all of them; `"unknown"` where it could not be found out. */
  readonly filesystem: string;
  /** Its kind; of an overlay that of its upper layer is in {@linkcode Environment.upper}. */
  readonly filesystemClass: FilesystemClass;
  /** The type of the upper layer of an overlay, where that could be seen. */
  readonly upper: string | undefined;
  /** Where it is mounted, if that could be looked at. */
  readonly mountPoint: string | undefined;
  /** The mount options that take something away; `undefined` if they could not be looked at. */
  readonly weakeningOptions: readonly string[] | undefined;
  /** What the runtime's fsync comes to. */
  readonly fsync: string;
  /** How all this is known, or why it is not. */
  readonly evidence: readonly string[];
}

/** What holds for writes of one file: plain data, but for {@linkcode GuaranteeReport.summary}. */
export interface GuaranteeReport {
  /** The path that was asked about, made absolute. */
  readonly path: string;
  /** What was looked at: the directory of the file, links resolved, or the nearest one above it that exists. */
  readonly inspected: string;
  /** Where that is. */
  readonly environment: Environment;
  /** How far each guarantee holds there. */
  readonly guarantees: GuaranteeFindings;
  /** The same in words, for people. */
  summary(): string;
}

/** A class so that a method is no part of the data. */
export class Report implements GuaranteeReport {
  readonly path: string;
  readonly inspected: string;
  readonly environment: Environment;
  readonly guarantees: GuaranteeFindings;

  constructor(
    path: string,
    inspected: string,
    environment: Environment,
    guarantees: GuaranteeFindings,
  ) {
    this.path = path;
    this.inspected = inspected;
    this.environment = environment;
    this.guarantees = guarantees;
  }

  summary(): string {
    const { runtime, platform, filesystem, fsync, evidence } = this.environment;
    const width = Math.max(...GUARANTEES.map((name) => name.length));
    return [
      `${this.path}: ${filesystem} at ${this.inspected}, by ${runtime} on ${platform} (fsync: ${fsync})`,
      ...GUARANTEES.map((name) =>
        `  ${name.padEnd(width)}  ${this.guarantees[name].level}`
      ),
      ...evidence.map((words) => `  - ${words}`),
    ].join("\n");
  }
}

/** Looks at where a path leads. */
export function* inspect(host: Host, path: string): Protocol<Report> {
  const { real, directory } = yield* nearest(host, path);
  const around = yield* lookAround(host, directory);
  const found = unlessNoSqlite(host, findingsOf(host, around));
  const onDisk = withMountedFile(found, around, real);
  const findings = yield* withChecksum(host, onDisk, real);
  return new Report(path, directory, environmentOf(host, around), findings);
}

function environmentOf(host: Host, around: Surroundings): Environment {
  const { filesystem = "unknown", candidates, upper, mount, evidence } = around;
  const classes = new Set(candidates.map((one) => one.class));
  const [only = "unknown", another] = classes;
  return {
    runtime: host.runtime,
    platform: host.platform,
    filesystem,
    filesystemClass: another === undefined ? only : "unknown",
    upper: upper?.filesystem,
    mountPoint: mount?.point,
    weakeningOptions: mount === undefined
      ? undefined
      : weakeningOptions(around),
    fsync: fsyncOf(host),
    evidence,
  };
}

/** A file that is itself a mount point, as in a container, cannot be replaced. */
function withMountedFile(
  findings: GuaranteeFindings,
  { mounts }: Surroundings,
  real: string | undefined,
): GuaranteeFindings {
  const isMounted = real !== undefined && mountOf(mounts, real)?.point === real;
  if (!isMounted) return findings;
  const refused = {
    level: "unsupported",
    evidence:
      `"${real}" is a mount point itself, which no rename replaces: mount its directory instead`,
  } as const;
  return { ...findings, atomicVisibility: refused, crashDurability: refused };
}

/** A file that has a checksum needs none of its file system's. */
function* withChecksum(
  host: Host,
  findings: GuaranteeFindings,
  real: string | undefined,
): Protocol<GuaranteeFindings> {
  if (real === undefined) return findings;
  const sidecar = yield* keptChecksum(host, real);
  if (sidecar === undefined) return findings;
  const integrityDetection = {
    level: "guaranteed",
    evidence:
      `"${sidecar.path}" is kept: a read with checksum: true finds damage`,
  } as const;
  return { ...findings, integrityDetection };
}

interface Nearest {
  /** The real path, if it is a file that exists. */
  readonly real: string | undefined;
  /** The directory that exists: of the file, or above it. */
  readonly directory: string;
}

/** Where a path leads, through links, as far as that exists. Makes nothing. */
function* nearest(host: Host, path: string): Protocol<Nearest> {
  let place = path;
  for (let links = 0; links <= MOST_LINKS;) {
    // Asked for without it, Deno might ask the user.
    if (host.permission("read", place) !== "granted") break;
    const above = directoryOf(host, place);
    try {
      const real = yield* call("realpath", place);
      if (host.permission("read", real) !== "granted") break;
      const { kind } = yield* call("lstat", real);
      return kind === "directory"
        ? { real: undefined, directory: real }
        : { real, directory: directoryOf(host, real) };
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      if (!failedWith(error, "ENOENT", "ENOTDIR") || above === place) break;
    }
    const text = yield* danglingText(place);
    if (text !== undefined) links++;
    place = text === undefined ? above : joinPath(host, above, text);
  }
  return { real: undefined, directory: place };
}

/** Where a link leads that leads to nothing: a write makes the file there. */
function* danglingText(path: string): Protocol<string | undefined> {
  try {
    const status = yield* lstatIfPresent(path);
    return status?.kind === "symlink"
      ? yield* call("readlink", path)
      : undefined;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return undefined;
  }
}
