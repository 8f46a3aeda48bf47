/**
 * The level of each guarantee, from what was seen: that of the file system, less
 * what its mount options, the platform and the runtime take away.
 *
 * @module
 */

import {
  type GuaranteeLevel,
  type Levels,
  lower,
  UNKNOWN,
} from "./_filesystems.ts";
import { type Guarantee, GUARANTEES } from "./_options.ts";
import type { Host } from "./_runtime/port.ts";
import type { Surroundings } from "./_surroundings.ts";

/** How far one guarantee holds, and how that is known. */
export interface GuaranteeFinding {
  /** How far it holds. */
  readonly level: GuaranteeLevel;
  /** How that is known, in words. */
  readonly evidence: string;
}

/** The findings, by guarantee. */
export type GuaranteeFindings = Readonly<Record<Guarantee, GuaranteeFinding>>;

/** What takes a level down. */
interface Weakness {
  readonly guarantees: readonly Guarantee[];
  readonly level: GuaranteeLevel;
  readonly words: string;
}

/** What an option takes away. */
const OPTIONS: readonly (readonly [option: RegExp, weakness: Weakness])[] = [
  [/^(?:nobarrier|barrier=0|fsync_mode=nobarrier)$/, {
    guarantees: ["crashDurability"],
    level: "not-promised",
    words: "what the device holds in its cache is not flushed",
  }],
  // Linux 6.18 shows it as the second.
  [/^(?:volatile|fsync=volatile)$/, {
    guarantees: ["crashDurability"],
    level: "not-promised",
    words: "the overlay syncs nothing",
  }],
  [/^nodata(?:sum|cow)$/, {
    guarantees: ["integrityDetection"],
    level: "not-promised",
    words: "it makes no checksums of data",
  }],
  // The second after an error, the third after an administrator's order.
  [/^(?:ro|emergency_ro|shutdown)$/, {
    guarantees: [
      "atomicVisibility",
      "crashDurability",
      "writerExclusion",
      "metadataPreservation",
    ],
    level: "unsupported",
    words: "it is mounted read-only",
  }],
];

/** The mount options that weaken something. */
export function weakeningOptions(around: Surroundings): string[] {
  const own = around.mount?.options ?? [];
  const upper = around.upper === undefined
    ? []
    : weakeningOptions(around.upper);
  const found = own.filter((option) =>
    OPTIONS.some(([weakens]) => weakens.test(option))
  );
  return [...new Set([...found, ...upper])];
}

/** What the runtime's fsync comes to. */
export function fsyncOf({ runtime, platform }: Host): string {
  if (platform === "windows") {
    return "FlushFileBuffers for the file; directories are not synced";
  }
  if (platform !== "darwin") return "fsync(2)";
  return runtime === "Bun"
    ? "fsync(2), which leaves the content in the cache of the drive"
    : "fcntl(2) with F_FULLFSYNC, which flushes the cache of the drive";
}

/** All levels, with the evidence of each. */
export function findingsOf(
  host: Host,
  around: Surroundings,
): GuaranteeFindings {
  const weaknesses = [...weaknessesOf(host, around)];
  const base = levelsOf(host, around);
  const how = around.evidence.join("; ");
  const notes = notesOf(around);
  const found = GUARANTEES.map((guarantee): [Guarantee, GuaranteeFinding] => {
    if (guarantee === "crossDeviceSafety") return [guarantee, WITHIN];
    let level = base[guarantee];
    const words = [how, ...notes];
    if (guarantee === "integrityDetection") words.push(NO_CHECKSUM);
    if (guarantee === "metadataPreservation") words.push(NO_ATTRIBUTES);
    for (const weakness of weaknesses) {
      if (!weakness.guarantees.includes(guarantee)) continue;
      level = lower(level, weakness.level);
      words.push(weakness.words);
    }
    return [guarantee, { level, evidence: words.join("; ") }];
  });
  return Object.fromEntries(found) as Record<Guarantee, GuaranteeFinding>;
}

/** Where the runtime has no SQLite there is no lock. It is loaded to find out, and so asked for only where that matters. */
export function unlessNoSqlite(
  host: Host,
  findings: GuaranteeFindings,
): GuaranteeFindings {
  if (host.hasSqlite()) return findings;
  const writerExclusion: GuaranteeFinding = {
    level: "unsupported",
    evidence: `${host.runtime} has no SQLite here, which a lock is made with`,
  };
  return { ...findings, writerExclusion };
}

const WITHIN: GuaranteeFinding = {
  level: "guaranteed",
  evidence:
    "the new content is staged in the directory of the file; a rename across file systems is an error that changes nothing",
};

const NO_CHECKSUM =
  "the library keeps a checksum of a file that has one, and makes one where checksum: true asks for it";
const NO_ATTRIBUTES =
  "mode and owner are kept where that is permitted, and told where not; access control lists, extended attributes and other names are not kept";

const WINDOWS: Levels = {
  atomicVisibility: "best-effort",
  crashDurability: "best-effort",
  writerExclusion: "best-effort",
  integrityDetection: "not-promised",
  metadataPreservation: "unsupported",
};

/** The lowest of those that it may be. */
function levelsOf(host: Host, around: Surroundings): Levels {
  const { candidates, upper } = around;
  if (upper !== undefined) return levelsOf(host, upper);
  const all = candidates.map(({ levels }) => levels);
  const [first, ...rest] = all;
  if (first === undefined) return host.windows ? WINDOWS : UNKNOWN;
  return rest.reduce<Levels>((one, other) => ({
    atomicVisibility: lower(one.atomicVisibility, other.atomicVisibility),
    crashDurability: lower(one.crashDurability, other.crashDurability),
    writerExclusion: lower(one.writerExclusion, other.writerExclusion),
    integrityDetection: lower(one.integrityDetection, other.integrityDetection),
    metadataPreservation: lower(
      one.metadataPreservation,
      other.metadataPreservation,
    ),
  }), first);
}

function notesOf({ candidates, upper }: Surroundings): string[] {
  const [only, another] = candidates;
  const own = only === undefined || another !== undefined
    ? []
    : [`${only.names[0]}: ${only.note}`];
  return upper === undefined ? own : [...own, ...notesOf(upper)];
}

const TESTED: readonly Guarantee[] = [
  "atomicVisibility",
  "crashDurability",
  "writerExclusion",
];

function* weaknessesOf(
  host: Host,
  around: Surroundings,
): Generator<Weakness> {
  for (const option of weakeningOptions(around)) {
    for (const [weakens, weakness] of OPTIONS) {
      if (!weakens.test(option)) continue;
      yield { ...weakness, words: `mounted with ${option}: ${weakness.words}` };
    }
  }
  if (host.platform !== "linux") {
    yield {
      guarantees: TESTED,
      level: "best-effort",
      words: `nothing is tested on ${host.platform}`,
    };
  } else if (around.filesystem !== undefined && around.mount === undefined) {
    yield {
      guarantees: ["crashDurability"],
      level: "best-effort",
      words: "mount options that weaken it could not be looked for",
    };
  }
  yield* journalWeaknesses(around);
  if (host.platform === "darwin" && host.runtime === "Bun") {
    yield {
      guarantees: ["crashDurability"],
      level: "not-promised",
      words: `the fsync of Bun is ${fsyncOf(host)}`,
    };
  }
}

function* journalWeaknesses(around: Surroundings): Generator<Weakness> {
  if (around.upper !== undefined) yield* journalWeaknesses(around.upper);
  if (around.mount?.type !== "ext4" || around.hasJournal) return;
  yield {
    guarantees: ["crashDurability"],
    level: "best-effort",
    words: around.hasJournal === false
      ? "it was made without a journal: a power cut may lose a name"
      : "whether it has a journal could not be looked at",
  };
}
