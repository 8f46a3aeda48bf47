/**
 * What a call asks of the file system that it works on, compared with what that
 * is known to hold before anything is made there.
 *
 * @module
 */

import type { Need } from "./_filesystems.ts";
import { findingsOf, unlessNoSqlite } from "./_levels.ts";
import type { Guarantee, Safety } from "./_options.ts";
import { type Protocol, Refusal } from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";
import { glance, lookAround, type Surroundings } from "./_surroundings.ts";

/** What a call asks for. */
export interface Demand {
  /** What it does itself. */
  readonly needs: readonly Need[];
  /** What its caller insists on. */
  readonly require: readonly Guarantee[];
  readonly safety: Safety;
  /** Whether its caller has named one of the two. */
  readonly isNamed: boolean;
  /** Whether the file has a checksum, of a call that would keep it. Asked only where that is insisted on. */
  readonly isKept?: LookForChecksum | undefined;
}

type LookForChecksum = (host: Host, file: string) => Protocol<boolean>;

/** That of a call whose demand was met before: what it has made since is on the same file system. */
export const MET: Demand = {
  needs: [],
  require: [],
  safety: "best-effort",
  isNamed: false,
};

/** The demand of a call with these options. */
export function demandOf(
  needs: readonly Need[],
  { require, safety, checksum }: {
    readonly require?: readonly Guarantee[] | undefined;
    readonly safety?: Safety | undefined;
    readonly checksum?: unknown;
  },
  isKept?: LookForChecksum,
): Demand {
  // With a checksum the library does that itself.
  const isMet = (guarantee: Guarantee) =>
    guarantee === "integrityDetection" && Boolean(checksum);
  return {
    needs,
    // Theirs may change before it is looked at.
    require: (require ?? []).filter((guarantee) => !isMet(guarantee)),
    safety: safety ?? "strict",
    isNamed: require !== undefined || safety !== undefined,
    isKept: checksum === undefined ? isKept : undefined,
  };
}

/** What is left of a demand once it was met: a checksum that was kept may have been given up since. */
export function remaining({ require, isKept }: Demand): Demand {
  const isLeft = isKept !== undefined && require.includes("integrityDetection");
  return isLeft ? { ...MET, require: ["integrityDetection"], isKept } : MET;
}

/** Refuses where the directory is known not to hold what is asked for, or what is insisted on is not known to hold: for the file in it, if that is known by now. */
export function* checkDemand(
  host: Host,
  demand: Demand,
  directory: string,
  file?: string,
): Protocol<void> {
  const { needs, require, safety, isNamed } = demand;
  const mayLack = safety === "best-effort"
    ? []
    : needs.filter((need) => isNamed || host.looksUnasked.includes(need));
  if (require.length === 0 && mayLack.length === 0) return;
  const isWhole = require.length > 0;
  const before = knownBefore(host, directory, isWhole);
  try {
    yield* check(host, demand, mayLack, directory, file, before);
  } catch (error) {
    if (before === undefined || !(error instanceof Refusal)) throw error;
    // What is mounted there may be something else by now.
    forget(host, directory);
    yield* check(host, demand, mayLack, directory, file, undefined);
  }
}

function* check(
  host: Host,
  { require, safety, isKept }: Demand,
  mayLack: readonly Need[],
  directory: string,
  file: string | undefined,
  before: Known | undefined,
): Protocol<void> {
  const isWhole = require.length > 0;
  const { around } = before ?? (yield* lookAt(host, directory, isWhole));
  const found = require.length > 0 ? findingsOf(host, around) : undefined;
  const findings = found && require.includes("writerExclusion")
    ? unlessNoSqlite(host, found)
    : found;
  for (const guarantee of require) {
    const finding = findings?.[guarantee];
    if (finding === undefined || finding.level === "guaranteed") continue;
    const isMet = guarantee === "integrityDetection" && isKept !== undefined &&
      file !== undefined && (yield* isKept(host, file));
    if (isMet) continue;
    throw new Refusal(
      "UNSUPPORTED_ENVIRONMENT",
      `${guarantee} is required, and in "${directory}" it is ${finding.level}: ${finding.evidence}`,
    );
  }
  const lacked = mayLack.filter((need) => lacks(around, need));
  if (lacked.length === 0) return;
  const [only] = around.candidates;
  const reason = `${
    lacked.map((need) => LACKED[need]).join(", and ")
  } in "${directory}", which is on ${around.filesystem ?? "a share"}: ${
    only?.note ?? ""
  }`;
  if (safety === "strict") {
    throw new Refusal(
      "UNSUPPORTED_ENVIRONMENT",
      `${reason}: use a local file system, or accept it with safety: "warn" or "best-effort"`,
    );
  }
  if (isNoted(host, directory)) return;
  host.warn(`@aj/atomic: ${reason}`);
}

const LACKED: Readonly<Record<Need, string>> = {
  rename: "a rename is not known to be atomic and durable",
  lock: "a lock is not known to exclude anybody",
};

/** Of several that it may be, all must lack it: what is not known is no shortfall. */
function lacks({ candidates, upper }: Surroundings, need: Need): boolean {
  if (upper !== undefined) return lacks(upper, need);
  return candidates.length > 0 &&
    candidates.every((candidate) => candidate.lacks.includes(need));
}

/** What is remembered of a directory. */
interface Known {
  readonly around: Surroundings;
  /** With what the list of mounts says of it. */
  readonly isWhole: boolean;
}

const knownByHost = new WeakMap<Host, Map<string, Known>>();
const warnedByHost = new WeakMap<Host, Set<string>>();

/** Bounds the memory: of so many, the oldest are forgotten, and looked at again. */
const MOST_KNOWN = 1000;

function knownBefore(
  host: Host,
  directory: string,
  isWhole: boolean,
): Known | undefined {
  const known = knownByHost.get(host)?.get(directory);
  return known?.isWhole || !isWhole ? known : undefined;
}

function forget(host: Host, directory: string): void {
  knownByHost.get(host)?.delete(directory);
}

/** Looks, and remembers what was seen. */
function* lookAt(
  host: Host,
  directory: string,
  isWhole: boolean,
): Protocol<Known> {
  let known = knownByHost.get(host);
  if (known === undefined) knownByHost.set(host, known = new Map());
  const looked = isWhole
    ? yield* lookAround(host, directory)
    : yield* glance(host, directory);
  const found: Known = { around: withoutMounts(looked), isWhole };
  // What could not be looked at may be, next time.
  const isSeen = looked.status !== undefined &&
    (!isWhole || looked.mount !== undefined);
  if (isSeen) known.set(directory, found);
  const [oldest] = known.keys();
  if (known.size > MOST_KNOWN && oldest !== undefined) known.delete(oldest);
  return found;
}

/** The list of all mounts is long, and was needed to find this one. */
function withoutMounts(around: Surroundings): Surroundings {
  const { upper } = around;
  return { ...around, mounts: [], upper: upper && withoutMounts(upper) };
}

/** Whether the directory was warned of before. */
function isNoted(host: Host, directory: string): boolean {
  let warned = warnedByHost.get(host);
  if (warned === undefined) warnedByHost.set(host, warned = new Set());
  if (warned.has(directory)) return true;
  warned.add(directory);
  const [oldest] = warned;
  if (warned.size > MOST_KNOWN && oldest !== undefined) warned.delete(oldest);
  return false;
}
