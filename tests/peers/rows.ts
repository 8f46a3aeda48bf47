/**
 * The rows of the comparison: what is asked of a writer, and how it is found out.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { document } from "../lab/document.ts";
import type { LoggedCall } from "../lab/strace_log.ts";
import { type Bench, OLD, type Traced } from "./bench.ts";
import type { WriterName } from "./writers.ts";

export interface Row {
  readonly title: string;
  /** How it is tested, in a sentence. */
  readonly method: string;
  /** Footnotes of the document, by their names. */
  readonly notes?: Partial<Readonly<Record<WriterName, string>>>;
  /** Whether the README shows it too. */
  readonly isHeadline?: true;
  /** What the cell says. */
  readonly find: (bench: Bench) => Promise<string>;
}

const MEBIBYTE = 1024 * 1024;

/** Where a row is about temporary files, and the writer has none. */
const IN_PLACE = "in place";

/** Where a row is about a runtime that the writer is no part of. */
const NOT_THERE = "–";

/** How long to wait for what happens by chance; it is seen within the first seconds. */
const PATIENCE_MS = 30_000;

/** Each the first process of a PID namespace of its own. */
const CONTAINER = [
  "unshare",
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
];

function yesIf(condition: boolean): string {
  return condition ? "yes" : "no";
}

function failed({ outcomes }: Traced | Awaited<ReturnType<Bench["write"]>>) {
  return outcomes.some(({ error }) => error !== undefined);
}

/** Reads `path` until a read finds none of the whole documents, or `enough` says so. */
async function isTorn(
  path: string,
  whole: readonly string[],
  enough: (versions: number) => boolean,
): Promise<boolean> {
  const known = [OLD, ...whole].map((text) => Buffer.from(text));
  let last = -1;
  let versions = 0;
  while (!enough(versions)) {
    const found = readFileSync(path);
    const which = known.findIndex((document) => document.equals(found));
    if (which === -1) return true;
    if (which !== last) versions++;
    last = which;
    await setTimeout(0);
  }
  return false;
}

const LARGE = [4 * MEBIBYTE, 3 * MEBIBYTE];

function largeDocuments(label: string): string[] {
  return LARGE.map((length, index) => document(`${label}-${index}`, length));
}

async function isReplacedWhole(bench: Bench): Promise<string> {
  const stop = new AbortController();
  const written = bench.attempt({
    manner: "endlessly",
    lengths: LARGE,
    signal: stop.signal,
  });
  try {
    const end = performance.now() + PATIENCE_MS;
    const torn = await isTorn(
      bench.target,
      largeDocuments("new"),
      (versions) => {
        assert.ok(performance.now() < end, `only ${versions} versions seen`);
        return versions >= 20;
      },
    );
    return yesIf(!torn);
  } finally {
    stop.abort();
    await written;
  }
}

interface Kill {
  readonly syscall: string;
  /** Which of its calls in a thread. */
  readonly when: number;
}

/** The calls that touch the directory, as strace counts them. */
function killsIn(log: string, directory: string): Kill[] {
  const counts = new Map<string, number>();
  const kills = new Map<string, Kill>();
  for (const line of log.split("\n")) {
    const [, thread, syscall] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (thread === undefined || syscall === undefined) continue;
    const when = (counts.get(`${thread} ${syscall}`) ?? 0) + 1;
    counts.set(`${thread} ${syscall}`, when);
    if (line.includes(directory) && syscall !== "execve") {
      kills.set(`${syscall} ${when}`, { syscall, when });
    }
  }
  return [...kills.values()];
}

async function survivesKills(bench: Bench): Promise<string> {
  const length = 300_000;
  // One thread for file operations: the count of calls is then that of the log.
  const writing = { lengths: [length], env: { UV_THREADPOOL_SIZE: "1" } };
  const whole = [OLD, document("new-0", length)];
  const { log, calls } = await bench.trace(writing);
  const ofTarget = await bench.trace(writing, ["-P", bench.target]);
  const kills = [
    ...killsIn(ofTarget.log, bench.directory)
      .map((kill) => ({ ...kill, only: ["-P", bench.target] })),
    ...killsIn(log, bench.directory).map((kill) => ({ ...kill, only: [] })),
  ];
  let temporaryFiles = 0;
  for (const { syscall, when, only } of kills) {
    bench.reset();
    const rule = `inject=${syscall}:signal=KILL:when=${when}`;
    await bench.attempt({
      ...writing,
      under: ["strace", "-f", "-o", "/dev/null", "-e", `trace=${syscall}`]
        .concat("-e", rule, only),
    });
    if (!whole.includes(bench.content())) return "no";
    temporaryFiles += bench.leftovers().length;
  }
  // Else no kill has hit between the creation of the file and its rename.
  assert.ok(temporaryFiles > 0, `${kills.length} kills`);
  assert.ok(replacing(calls, bench.target) !== undefined);
  return "yes";
}

/** The rename that puts a new file into place. */
function replacing(
  calls: readonly LoggedCall[],
  target: string,
): LoggedCall | undefined {
  return calls.findLast(({ name, paths }) =>
    name.startsWith("rename") && paths.at(-1) === target
  );
}

function temporaryName(
  calls: readonly LoggedCall[],
  target: string,
): string | undefined {
  return replacing(calls, target)?.paths.at(-2);
}

function isSync({ name }: LoggedCall): boolean {
  return name === "fsync" || name === "fdatasync";
}

async function atFullDisk(bench: Bench): Promise<string> {
  const { directory, target } = bench;
  const type = ["-t", "tmpfs", "-o", "size=64k"];
  execFileSync("mount", [...type, "tmpfs", directory]);
  try {
    bench.reset();
    const written = await bench.write({ lengths: [MEBIBYTE] });
    const kept = readFileSync(target, "utf8") === OLD;
    if (failed(written)) return kept ? "yes" : "rejects, truncated";
    assert.ok(!kept && statSync(target).size < MEBIBYTE);
    return "resolves, truncated";
  } finally {
    execFileSync("umount", ["--lazy", directory]);
  }
}

async function syncsFileBefore(bench: Bench): Promise<string> {
  const { calls } = await bench.trace();
  const rename = replacing(calls, bench.target);
  return yesIf(calls.some((call) =>
    isSync(call) && call.error === undefined &&
    (rename === undefined
      ? call.paths.includes(bench.target)
      : call.returned < rename.issued &&
        call.paths.includes(rename.paths.at(-2) ?? ""))
  ));
}

async function syncsDirectoryAfter(bench: Bench): Promise<string> {
  const { calls } = await bench.trace();
  const rename = replacing(calls, bench.target);
  if (rename === undefined) return IN_PLACE;
  return yesIf(calls.some((call) =>
    isSync(call) && call.error === undefined &&
    call.issued > rename.returned && call.paths.includes(bench.directory)
  ));
}

async function tellsFailedSync(bench: Bench): Promise<string> {
  const traced = await bench.trace({}, [
    "-e",
    "inject=fsync,fdatasync:error=EIO",
  ]);
  const hit = traced.calls.some((call) =>
    isSync(call) && call.injected &&
    call.paths.some((path) => dirname(path) === bench.directory)
  );
  if (!hit) return "no sync";
  return yesIf(failed(traced) && bench.content() === OLD);
}

async function passesByPlantedLink(bench: Bench): Promise<string> {
  const { calls } = await bench.trace({ under: CONTAINER });
  const temporary = temporaryName(calls, bench.target);
  if (temporary === undefined) return IN_PLACE;
  // What the writer is led to is inside of the test's own directory.
  assert.equal(dirname(temporary), bench.directory);
  bench.reset();
  const victim = join(bench.directory, "victim");
  writeFileSync(victim, "intact");
  symlinkSync(victim, temporary);
  await bench.write({ under: CONTAINER });
  return yesIf(readFileSync(victim, "utf8") === "intact");
}

async function createsExclusively(bench: Bench): Promise<string> {
  const { calls } = await bench.trace();
  const temporary = temporaryName(calls, bench.target);
  if (temporary === undefined) return IN_PLACE;
  const created = calls.filter(({ paths, flags }) =>
    paths.includes(temporary) && flags.includes("O_CREAT")
  );
  assert.ok(created.length > 0);
  return yesIf(created.every(({ flags }) => flags.includes("O_EXCL")));
}

async function sharesPid(bench: Bench): Promise<string> {
  const lengths = [8, 7, 6, 5].map((factor) => factor * MEBIBYTE);
  const labels = ["left", "right"];
  const whole = labels.flatMap((label) =>
    lengths.map((length, index) => document(`${label}-${index}`, length))
  );
  // Those that start in different seconds miss each other; not three times.
  for (let round = 0; round < 3; round++) {
    let running = true;
    const writers = Promise.all(labels.map((label) =>
      bench.attempt({
        manner: "by the clock",
        label,
        lengths,
        under: CONTAINER,
      })
    )).finally(() => running = false);
    const torn = await isTorn(bench.target, whole, () => !running)
      .finally(() => writers);
    const written = await writers;
    if (torn || written.some(failed)) return "no";
    for (const { outcomes, stderr } of written) {
      assert.equal(outcomes.length, lengths.length, stderr);
    }
  }
  return "yes";
}

async function tidiesUp(bench: Bench): Promise<string> {
  const traced = await bench.trace({}, [
    "-e",
    "inject=rename,renameat,renameat2:error=EIO",
  ]);
  if (replacing(traced.calls, bench.target) === undefined) return IN_PLACE;
  assert.ok(failed(traced));
  return yesIf(bench.leftovers().length === 0);
}

async function keepsMode(bench: Bench): Promise<string> {
  chmodSync(bench.target, 0o600);
  await bench.write();
  return yesIf((statSync(bench.target).mode & 0o7777) === 0o600);
}

async function keepsOwner(bench: Bench): Promise<string> {
  chownSync(bench.target, 65534, 65534);
  await bench.write();
  const { uid, gid } = statSync(bench.target);
  return yesIf(uid === 65534 && gid === 65534);
}

async function keepsSymlink(bench: Bench): Promise<string> {
  const link = join(bench.directory, "link");
  symlinkSync(basename(bench.target), link);
  await bench.write({ path: link });
  return yesIf(
    lstatSync(link).isSymbolicLink() &&
      bench.content() === document("new-0", 1000),
  );
}

async function keepsHardLink(bench: Bench): Promise<string> {
  const other = join(bench.directory, "other");
  linkSync(bench.target, other);
  await bench.write();
  return yesIf(readFileSync(other, "utf8") === document("new-0", 1000));
}

async function replacesMountedFile(bench: Bench): Promise<string> {
  const { target } = bench;
  execFileSync("mount", ["--bind", target, target]);
  try {
    const written = await bench.write();
    return yesIf(!failed(written) && bench.content() !== OLD);
  } finally {
    execFileSync("umount", ["--lazy", target]);
  }
}

/** Who does not wait for the others has written the last one long before them. */
const LONG_THEN_SHORT = [...Array.from({ length: 99 }, () => MEBIBYTE), 1000];

async function keepsOrder(bench: Bench): Promise<string> {
  const end = performance.now() + 3000;
  const last = document("new-99", 1000);
  do {
    const written = await bench.write({
      manner: "at once",
      lengths: LONG_THEN_SHORT,
      // On one core a fast disk is done with the long ones before the short one is called.
      under: ["strace", "-f", "-o", "/dev/null", "-e", "trace=write"]
        .concat("-P", bench.target, "-e", "inject=write:delay_enter=10000"),
    });
    if (failed(written) || bench.content() !== last) return "no";
  } while (performance.now() < end);
  return "yes";
}

async function makesDirectory(bench: Bench): Promise<string> {
  const path = join(bench.directory, "new", "newer", "f");
  return yesIf(!failed(await bench.write({ path })));
}

async function takesLongestName(bench: Bench): Promise<string> {
  const path = join(bench.directory, "n".repeat(255));
  writeFileSync(path, OLD);
  const written = await bench.write({ path });
  return yesIf(
    !failed(written) &&
      readFileSync(path, "utf8") === document("new-0", 1000),
  );
}

async function waitsForDescriptor(bench: Bench): Promise<string> {
  return yesIf(
    !failed(
      await bench.write({
        manner: "starved",
        under: ["prlimit", "--nofile=256:256"],
      }),
    ),
  );
}

async function runsOnDeno(
  bench: Bench,
  allowed: string,
): Promise<string> {
  const { code, outcomes, stderr } = await bench.attempt({ allowed });
  if (stderr.includes("is part of Bun")) return NOT_THERE;
  if (code === 0 && outcomes.every(({ error }) => error === undefined)) {
    return "yes";
  }
  assert.match(stderr + JSON.stringify(outcomes), /--allow-/);
  return "no";
}

async function refusesIllFormed(bench: Bench): Promise<string> {
  const written = await bench.write({ manner: "ill-formed" });
  if (failed(written)) return yesIf(bench.content() === OLD);
  assert.match(bench.content(), /^\ufffd/);
  return "no";
}

export const ROWS: readonly Row[] = [
  {
    title: "a reader never finds a part of the content",
    method:
      "Documents of 3 and 4 MiB replace each other while the file is read in a loop, until a read finds part of one, or 20 replacements have been seen.",
    isHeadline: true,
    find: isReplacedWhole,
  },
  {
    title: "old or new content after a SIGKILL at any system call",
    method:
      "strace kills the process at each call that touched the directory in a run without kills, one run for each call.",
    isHeadline: true,
    find: survivesKills,
  },
  {
    title: "a disk that fills up: rejects and keeps the old content",
    method:
      "A document of 1 MiB is written on a tmpfs of 64 KiB, of which 4 KiB are taken.",
    notes: { "write-file-atomic": "count", "atomically": "count" },
    isHeadline: true,
    find: atFullDisk,
  },
  {
    title: "file synced before the promise resolves",
    method:
      "strace shows an fsync or fdatasync of the new file, before the rename where there is one.",
    notes: {
      "@aj/atomic": "durability",
      "write-file-atomic": "fsync",
      "atomically": "fsync",
      "fs.promises.writeFile": "flush",
    },
    isHeadline: true,
    find: syncsFileBefore,
  },
  {
    title: "directory synced after the rename",
    method: "strace shows an fsync of the directory after the rename.",
    isHeadline: true,
    find: syncsDirectoryAfter,
  },
  {
    title: "a failed sync of the file: rejects and keeps the old content",
    method: "strace makes every fsync and fdatasync fail with EIO.",
    find: tellsFailedSync,
  },
  {
    title:
      "writers with the same pid, in two containers, do not disturb each other",
    method:
      "A process in each of two PID namespaces writes 4 documents of 5 to 8 MiB at the same moments by the clock, 3 times or until a write is rejected or a read finds part of one.",
    notes: { "write-file-atomic": "hash", "steno": "fixed" },
    isHeadline: true,
    find: sharesPid,
  },
  {
    title: "100 writes at once: all resolve, the last call remains",
    method:
      "100 writes are called in one process, 99 of 1 MiB and then one of 1 KB, each held up by 10 ms where it is written in place, again and again for 3 seconds or until it does not hold.",
    find: keepsOrder,
  },
  {
    title: "a link planted at the temporary name is not followed",
    method:
      "The name is learnt from a run as the first process of a container; a symlink of that name awaits the next such run.",
    notes: {
      "write-file-atomic": "hash",
      "atomically": "random",
      "steno": "fixed",
    },
    isHeadline: true,
    find: passesByPlantedLink,
  },
  {
    title: "temporary file created exclusively",
    method: "strace shows O_EXCL where the temporary file is opened.",
    find: createsExclusively,
  },
  {
    title: "no temporary file left after a failed write",
    method: "strace makes every rename fail with EIO.",
    find: tidiesUp,
  },
  {
    title: "mode of the replaced file kept",
    method: "A file of mode 0600 is replaced, where the umask is 022.",
    find: keepsMode,
  },
  {
    title: "owner of the replaced file kept",
    method: "A file of another user and group is replaced by root.",
    find: keepsOwner,
  },
  {
    title: "a symlink stays one, and its target is replaced",
    method: "The path that is written is a symlink.",
    find: keepsSymlink,
  },
  {
    title: "other hard links see the new content",
    method: "The file has a second name, which is read after the write.",
    notes: { "@aj/atomic": "links" },
    isHeadline: true,
    find: keepsHardLink,
  },
  {
    title: "a bind-mounted single file can be written",
    method: "The file is mounted onto itself, as a container mounts a file.",
    notes: { "@aj/atomic": "busy", "atomically": "retries" },
    isHeadline: true,
    find: replacesMountedFile,
  },
  {
    title: "a missing directory is made",
    method: "Two directories of the path do not exist.",
    notes: { "@aj/atomic": "mkdir" },
    find: makesDirectory,
  },
  {
    title: "a name of 255 bytes, the longest there is",
    method: "A file of that name is replaced.",
    find: takesLongestName,
  },
  {
    title: "waits while no file descriptor is free",
    method:
      "All 256 descriptors that the process may have are taken when the write is called, and given back after 300 ms.",
    find: waitsForDescriptor,
  },
  {
    title: "runs on Deno with read and write for the directory",
    method:
      "The writer runs on Deno under those permissions, and that to read the package itself.",
    notes: { "atomically": "uid" },
    isHeadline: true,
    find: (bench) => runsOnDeno(bench, bench.directory),
  },
  {
    title: "runs on Deno with read and write for the file alone",
    method: "Likewise, where the directory is not allowed.",
    find: (bench) => runsOnDeno(bench, bench.target),
  },
  {
    title: "refuses text that UTF-8 cannot hold",
    method: "The text is half a surrogate pair.",
    find: refusesIllFormed,
  },
];
