/**
 * Power cuts on real file systems: all that the kernel writes to a disk is
 * recorded while the library works there; then the disk is made again as a cut
 * at some moment leaves it, mounted and looked at. What was acknowledged before
 * the cut must be there, everything must be whole, and the work must go on.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { sweepTemporaries } from "../../mod.ts";
import { FaultPort, onPort } from "../fault_port.ts";
import { inScratch } from "../scratch.ts";
import { breakCopy, copyTo, type Edit } from "./broken_copy.ts";
import { withMounts } from "./mounts.ts";
import { STEPS } from "./power_steps.ts";
import { Program } from "./program.ts";
import { randomFrom } from "./random.ts";
import { RecordedDisk } from "./recorded_disk.ts";
import { run } from "./run.ts";
import { cachesIn, NODE_24, type Runtime, RUNTIMES } from "./runtimes.ts";

/** How often each step is performed. */
const ROUNDS = 6;
/** At how many moments the power is cut; Infinity cuts it at all of them. */
const CUTS = Number(process.env.POWER_CUTS ?? 24);

/** The least that they take, in MiB. */
const SIZES = { ext4: 64, xfs: 320, btrfs: 128 } as const;
type FileSystem = keyof typeof SIZES;
const FILE_SYSTEMS = ["ext4", "xfs", "btrfs"] as const;

/** A step that was performed, and between which moments. */
interface Deed {
  readonly step: string;
  readonly asked: number;
  readonly done: number;
}

async function command(...words: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(words);
  assert.equal(code, 0, `${words.join(" ")}: ${stderr}`);
  return stdout.trim();
}

/** Far beyond what anything that is waited for takes on a busy machine. */
const DEADLINE_MS = 600_000;

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!await isSo()) {
    assert.ok(Date.now() < deadline, "it has not come to that");
    await setTimeout(10);
  }
}

/** Mounts the disk while `body` runs. Nothing here may block: the kernel waits for this very process. */
async function whileMounted<T>(
  disk: RecordedDisk,
  directory: string,
  body: (mounted: string) => Promise<T>,
): Promise<T> {
  const socket = join(directory, "socket");
  const file = join(directory, "disk");
  const mounted = join(directory, "mounted");
  mkdirSync(mounted);
  writeFileSync(file, "");
  await disk.listen(socket);
  const server = new Program(["nbdfuse", file, "--unix", socket], {});
  const undo = [() => Promise.resolve(server.signal("SIGTERM"))];
  try {
    await until(async () => (await run(["mountpoint", file])).code === 0);
    undo.push(async () => void await command("umount", file));
    const losetup = ["losetup", "--direct-io=on", "-f", "--show", file];
    const loop = await command(...losetup);
    undo.push(async () => void await command("losetup", "-d", loop));
    await command("mount", loop, mounted);
    undo.push(async () => void await command("umount", mounted));
    return await body(mounted);
  } finally {
    for (const one of undo.toReversed()) await one().catch(console.error);
    await server.ended;
    disk.close();
  }
}

/** Performs all steps in turns, each when the one before has been acknowledged. */
async function work(
  disk: RecordedDisk,
  command: readonly string[],
  caches: Record<string, string>,
): Promise<Deed[]> {
  const deeds: Deed[] = [];
  const program = new Program(command, caches);
  try {
    await program.printed(/^ready$/m);
    for (let version = 1; version <= ROUNDS; version++) {
      for (const step of Object.keys(STEPS)) {
        const asked = disk.position;
        program.say(`${step} ${version}`);
        const done = new RegExp(`^${step} ${version} done$`, "m");
        assert.ok(await program.printed(done), program.stderr);
        deeds.push({ step, asked, done: disk.position });
      }
    }
    program.sayNoMore();
    assert.equal(await program.ended, 0, program.stderr);
  } finally {
    program.signal("SIGKILL");
    await program.ended;
  }
  return deeds;
}

/** The moments at which something was acknowledged, and any others. */
function cutsAmong(
  disk: RecordedDisk,
  deeds: readonly Deed[],
  next: () => number,
): number[] {
  const acknowledged = deeds.map(({ done }) => done);
  const all = [...Array(disk.position + 1).keys()];
  if (all.length <= CUTS) return all;
  const some = (of: readonly number[]) =>
    Array.from(
      { length: CUTS / 2 },
      () => of[Math.floor(next() * of.length)] ?? 0,
    );
  return [...some(acknowledged), ...some(all)];
}

/** What is wrong on the disk after a cut there. */
async function look(
  directory: string,
  deeds: readonly Deed[],
  cut: number,
): Promise<string[]> {
  const wrong: string[] = [];
  for (const [name, step] of Object.entries(STEPS)) {
    const own = deeds.filter((deed) => deed.step === name);
    const asked = own.filter((deed) => deed.asked <= cut).length;
    const done = own.filter((deed) => deed.done <= cut).length;
    try {
      const found = await step.find(directory);
      if (found < done || found > asked) {
        wrong.push(`${name}: found ${found} of ${done} to ${asked}`);
      }
      await step.perform(directory, found + 1);
    } catch (error) {
      wrong.push(`${name}: ${error}`);
    }
  }
  const left = () =>
    readdirSync(directory, { recursive: true, encoding: "utf8" })
      .filter((path) => /\.(?:tmp$|lock)/.test(path));
  // Whoever has the writer's number by now: he died with the machine.
  const port = new FaultPort();
  port.isAlive = () => false;
  await onPort(port, async () => {
    // What is in a lock goes with it.
    const places = left().map((path) => dirname(path))
      .filter((place) => !place.endsWith(".lock"));
    for (const place of new Set(places)) {
      await sweepTemporaries(join(directory, place), { olderThanMs: 0 });
    }
  });
  return [...wrong, ...left().map((path) => `${path} is left`)];
}

/** Mounts what a cut has left while `body` runs, and removes it. */
async function afterwards<T>(
  image: string,
  point: string,
  body: () => Promise<T>,
): Promise<T> {
  const loop = await command("losetup", "-f", "--show", image);
  try {
    await command("mount", loop, point);
    try {
      return await body();
    } finally {
      await command("umount", point);
    }
  } finally {
    await command("losetup", "-d", loop);
    // A process with mounts of its own that began meanwhile holds this one until
    // it ends, and two states of one file system cannot be mounted at once.
    await until(async () => await command("losetup", "-j", image) === "");
    rmSync(image);
  }
}

interface Outcome {
  readonly cuts: number;
  readonly writes: number;
  readonly violations: readonly string[];
}

/** Works on a new disk, and looks at what cuts leave of it. */
function cutPower(
  type: FileSystem,
  runtime: Runtime,
  next: () => number,
  program = "./power_workload.ts",
): Promise<Outcome> {
  return withMounts(async (mounts) => {
    const directory = mounts.mount("memory", "-t", "tmpfs", "tmpfs");
    const caches = cachesIn(mounts.made("caches"));
    const base = join(directory, "base");
    writeFileSync(base, "");
    truncateSync(base, SIZES[type] * 2 ** 20);
    execFileSync(`mkfs.${type}`, ["-q", base], { stdio: "pipe" });
    const disk = new RecordedDisk(base);
    const deeds = await whileMounted(disk, directory, (mounted) => {
      const home = join(mounted, "home");
      return work(disk, runtime.command(mounted, program, home), caches);
    });
    const violations: string[] = [];
    const point = mounts.made("cut");
    const image = join(directory, "image");
    const cuts = cutsAmong(disk, deeds, next);
    for (const cut of cuts) {
      // What was not flushed has come to last in its order, or at random.
      for (const isKept of [() => true, () => next() < 0.5]) {
        disk.cutAt(cut, image, isKept);
        const wrong = await afterwards(
          image,
          point,
          () => look(join(point, "home"), deeds, cut),
        );
        violations.push(...wrong.map((what) => `${cut}: ${what}`));
      }
    }
    return { cuts: 2 * cuts.length, writes: disk.position, violations };
  });
}

/** Why no disk can be recorded on this machine; `false` where one can. */
function whyNot(): string | false {
  try {
    closeSync(openSync("/dev/fuse", "r+"));
    return false;
  } catch (error) {
    return `there is no FUSE: ${error}`;
  }
}

const skip = whyNot();

for (const type of FILE_SYSTEMS) {
  for (const runtime of RUNTIMES) {
    test(
      `${type}, ${runtime.name}: what was acknowledged before a power cut is there after it, and whole`,
      { skip },
      async (context: TestContext) => {
        const { cuts, writes, violations } = await cutPower(
          type,
          runtime,
          randomFrom(context),
        );
        context.diagnostic(`${cuts} cuts among ${writes} writes and flushes`);
        assert.deepEqual(violations, []);
      },
    );
  }
}

interface Control {
  /** What the broken code does. */
  readonly breaks: string;
  readonly type: FileSystem;
  readonly edits: readonly Edit[];
  readonly finds: RegExp;
}

const CONTROLS: readonly Control[] = [
  {
    breaks: "the file is not synced",
    type: "xfs",
    edits: [{
      file: "_core.ts",
      find:
        'if (request.durability !== "none") yield* blockingCall("fsync", file);',
      replace: "",
    }],
    finds: /write: found \d of \d to \d/,
  },
  {
    breaks: "the directory is not synced",
    type: "ext4",
    edits: [{
      file: "_core.ts",
      find:
        "    yield* afterCommit(\n      syncSince(port, directory, target.directory, syncFailure),\n    );\n",
      replace: "",
    }],
    finds: /(?:write|create|stream|checksum|update): found \d of \d to \d/,
  },
  {
    breaks: "a checksum is not synced before the content",
    type: "btrfs",
    edits: [{
      file: "_core.ts",
      find:
        '    durability: request.durability === "none" ? "none" : "full",\n',
      replace: '    durability: "none",\n',
    }],
    // Of what was not synced the name is there, and nothing in it.
    finds: /checksum: .* is not the checksum of this file/,
  },
  {
    breaks: "an append is not synced",
    type: "btrfs",
    edits: [{
      file: "_jsonl_append.ts",
      find: 'if (durability !== "none") yield* blockingCall("fsync", file);',
      replace: "",
    }],
    finds: /append: found \d of \d to \d/,
  },
  {
    breaks: "what is moved is not synced",
    type: "xfs",
    edits: [{
      file: "_sync_failures.ts",
      find: "    yield* syncFile(port, file, status);\n",
      replace: "",
    }],
    finds: /move: /,
  },
];

for (const { breaks, type, edits, finds } of CONTROLS) {
  test(
    `control: on ${type}, that ${breaks} is found`,
    { skip },
    (context: TestContext) =>
      inScratch(async (copy) => {
        copyTo(copy);
        breakCopy(copy, edits);
        const program = join(copy, "tests", "lab", "power_workload.ts");
        const { cuts, violations } = await cutPower(
          type,
          NODE_24,
          randomFrom(context),
          pathToFileURL(program).href,
        );
        const found = violations.filter((what) => finds.test(what));
        context.diagnostic(`${found.length} found after ${cuts} cuts`);
        assert.ok(found.length > 0, violations.join("\n"));
      }),
  );
}
