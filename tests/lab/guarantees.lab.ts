/**
 * What is said of real file systems, looked at by every runtime; what the doctor
 * finds on them; and that looking changes nothing.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type {
  DoctorReport,
  GuaranteeLevel,
  GuaranteeReport,
} from "../../mod.ts";
import { type Mounts, withMounts } from "./mounts.ts";
import { run } from "./run.ts";
import {
  BUN,
  cachesIn,
  DENO,
  DENO_ALL,
  DENO_STATFS,
  NODE_24,
  type Runtime,
} from "./runtimes.ts";
import { deeds, parseLog } from "./strace_log.ts";

/** With all permissions: on Deno no others show the mounts. */
const PERMITTED: readonly Runtime[] = [DENO_ALL, BUN, NODE_24];

/** Kept from one test to the next, since Deno compiles into it. */
const cache = mkdtempSync(join(tmpdir(), "atomic-deno-"));
const caches = cachesIn(cache);
after(() => rmSync(cache, { recursive: true, force: true }));

async function asked<T>(
  runtime: Runtime,
  directory: string,
  args: readonly string[],
  under: readonly string[] = [],
): Promise<T> {
  const command = runtime.command(directory, "./inspector.ts", ...args);
  const { code, stdout, stderr } = await run([...under, ...command], {
    env: caches,
  });
  assert.equal(code, 0, `${runtime.name}: ${stderr}`);
  return JSON.parse(stdout);
}

function inspected(
  runtime: Runtime,
  path: string,
): Promise<GuaranteeReport> {
  return asked(runtime, path, ["inspect", path]);
}

function examined(
  runtime: Runtime,
  path: string,
  ...require: readonly string[]
): Promise<DoctorReport> {
  return asked(runtime, path, ["doctor", path, ...require]);
}

function failures({ checks }: DoctorReport): string[] {
  return checks.filter(({ ok }) => !ok).map(({ name }) => name);
}

interface Case {
  readonly name: string;
  readonly mount: (mounts: Mounts) => string;
  readonly filesystem: string;
  readonly filesystemClass: string;
  readonly weakened?: readonly string[];
  readonly durability: GuaranteeLevel;
}

const CASES: readonly Case[] = [
  ...["ext2", "ext3", "ext4", "xfs", "btrfs"].map((type): Case => ({
    name: type,
    mount: (mounts) => mounts.disk("disk", type),
    filesystem: type,
    filesystemClass: "disk",
    durability: ["ext2", "ext3"].includes(type) ? "best-effort" : "guaranteed",
  })),
  ...["ext4", "btrfs"].map((type): Case => ({
    name: `${type} without barriers`,
    mount: (mounts) => mounts.disk("disk", type, "nobarrier"),
    filesystem: type,
    filesystemClass: "disk",
    weakened: ["nobarrier"],
    durability: "not-promised",
  })),
  {
    name: "ext4 without barriers, in the other spelling",
    mount: (mounts) => mounts.disk("disk", "ext4", "barrier=0"),
    filesystem: "ext4",
    filesystemClass: "disk",
    weakened: ["nobarrier"],
    durability: "not-promised",
  },
  ...["tmpfs", "ramfs"].map((type): Case => ({
    name: type,
    mount: (mounts) => mounts.mount("memory", "-t", type, type),
    filesystem: type,
    filesystemClass: "memory",
    durability: "not-promised",
  })),
  {
    name: "a path with spaces, a tab, a backslash and a comma",
    mount: (mounts) => mounts.disk("a b\tc\\d,e", "xfs"),
    filesystem: "xfs",
    filesystemClass: "disk",
    durability: "guaranteed",
  },
  {
    name: "a bind mount",
    mount: (mounts) => {
      const disk = mounts.disk("disk", "ext4");
      mkdirSync(join(disk, "part"));
      return mounts.mount("bound", "--bind", join(disk, "part"));
    },
    filesystem: "ext4",
    filesystemClass: "disk",
    durability: "guaranteed",
  },
  {
    name: "a mount over another",
    mount: (mounts) => {
      mounts.disk("disk", "ext4");
      return mounts.mount("disk", "-t", "tmpfs", "tmpfs");
    },
    filesystem: "tmpfs",
    filesystemClass: "memory",
    durability: "not-promised",
  },
  {
    name: "an overlay over ext4",
    mount: (mounts) => mounts.overlay("merged", mounts.disk("d i,sk", "ext4")),
    filesystem: "overlay",
    filesystemClass: "overlay",
    durability: "guaranteed",
  },
  {
    name: "a volatile overlay",
    mount: (mounts) =>
      mounts.overlay("merged", mounts.disk("disk", "ext4"), "volatile"),
    filesystem: "overlay",
    filesystemClass: "overlay",
    // Older kernels show the first.
    weakened: ["volatile", "fsync=volatile"],
    durability: "not-promised",
  },
  {
    name: "an overlay over tmpfs",
    mount: (mounts) =>
      mounts.overlay("merged", mounts.mount("memory", "-t", "tmpfs", "tmpfs")),
    filesystem: "overlay",
    filesystemClass: "overlay",
    durability: "not-promised",
  },
];

for (const known of CASES) {
  test(`${known.name}: the right type, class and levels on every runtime; the doctor finds it well, and leaves nothing`, () =>
    withMounts(async (mounts) => {
      const path = known.mount(mounts);
      const before = readdirSync(path).toSorted();
      for (const runtime of PERMITTED) {
        const { environment, guarantees } = await inspected(runtime, path);
        assert.equal(environment.filesystem, known.filesystem, runtime.name);
        assert.equal(environment.filesystemClass, known.filesystemClass);
        assert.equal(environment.mountPoint, path);
        const { weakened = [] } = known;
        const options = environment.weakeningOptions ?? ["unseen"];
        assert.equal(options.length, Math.min(1, weakened.length));
        assert.ok(options.every((option) => weakened.includes(option)));
        assert.equal(guarantees.crashDurability.level, known.durability);
        assert.equal(guarantees.atomicVisibility.level, "guaranteed");
        assert.equal(guarantees.writerExclusion.level, "guaranteed");
        const { evidence } = guarantees.crashDurability;
        assert.ok(evidence.startsWith(`type ${known.filesystem} from /proc`));
        assert.deepEqual(readdirSync(path).toSorted(), before);

        const report = await examined(runtime, path, "atomicVisibility");
        assert.deepEqual(failures(report), [], runtime.name);
        assert.deepEqual(readdirSync(path).toSorted(), before);
        const required = await examined(runtime, path, "crashDurability");
        assert.deepEqual(
          failures(required),
          known.durability === "guaranteed" ? [] : ["require crashDurability"],
        );

        const file = join(path, "f");
        const write = ["write", file, "crashDurability"];
        const { name } = await asked<{ name?: string }>(runtime, path, write);
        assert.equal(
          name,
          known.durability === "guaranteed"
            ? undefined
            : "UnsupportedEnvironmentError",
        );
        if (name === undefined) execFileSync("rm", [file]);
        assert.deepEqual(readdirSync(path).toSorted(), before);
      }
    }));
}

test("Deno that may look at file systems alone does not tell ext4 from ext2, and says why", () =>
  withMounts(async (mounts) => {
    const path = mounts.disk("disk", "ext4");
    const report = await inspected(DENO_STATFS, path);
    assert.equal(report.environment.filesystem, "ext2, ext3 or ext4");
    assert.equal(report.guarantees.atomicVisibility.level, "guaranteed");
    assert.equal(report.guarantees.crashDurability.level, "best-effort");
    assert.match(report.guarantees.crashDurability.evidence, /--allow-all/);
    const blind = await inspected(DENO, path);
    assert.equal(blind.environment.filesystem, "unknown");
    assert.match(
      blind.guarantees.crashDurability.evidence,
      /add --allow-sys=statfs/,
    );
    assert.deepEqual(failures(await examined(DENO, path)), []);
  }));

test("an overlay whose upper layer is out of sight, as in a container, is unknown", () =>
  withMounts(async (mounts) => {
    const memory = mounts.mount("memory", "-t", "tmpfs", "tmpfs");
    const path = mounts.overlay("merged", memory);
    const hide = 'umount --lazy "$0" && exec "$@"';
    const under = ["unshare", "--mount", "sh", "-c", hide, memory];
    for (const runtime of PERMITTED) {
      const report = await asked<GuaranteeReport>(
        runtime,
        path,
        ["inspect", path],
        under,
      );
      assert.equal(report.environment.filesystem, "overlay");
      assert.equal(report.environment.upper, undefined);
      assert.equal(report.guarantees.crashDurability.level, "unknown");
      assert.match(
        report.guarantees.crashDurability.evidence,
        /cannot be seen from here/,
      );
    }
  }));

test("a single file that is mounted is reported as one that cannot be replaced, and cannot be", () =>
  withMounts(async (mounts) => {
    const directory = mounts.made("directory");
    const source = join(directory, "source");
    const file = join(directory, "f");
    writeFileSync(source, "");
    writeFileSync(file, "");
    mounts.mountOn(file, "--bind", source);
    for (const runtime of PERMITTED) {
      const { guarantees } = await inspected(runtime, file);
      assert.equal(guarantees.atomicVisibility.level, "unsupported");
      const written = await asked<{ name: string }>(
        runtime,
        directory,
        ["write", file],
      );
      assert.equal(written.name, "TargetBusyError");
    }
  }));

test("inspection writes nothing: of its system calls none makes, changes or opens for writing anything there", () =>
  withMounts(async (mounts) => {
    const path = mounts.disk("disk", "ext4");
    const target = join(path, "f");
    writeFileSync(target, "");
    const log = join(mounts.directory, "log");
    const strace = ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", log];
    for (const runtime of PERMITTED) {
      await asked(runtime, path, ["inspect", target], strace);
      const calls = parseLog(readFileSync(log, "utf8"));
      const statfs = calls.filter(({ name, paths }) =>
        name === "statfs" && paths.includes(path)
      );
      assert.ok(statfs.length >= 1, `${runtime.name}: not looked at`);
      assert.deepEqual(deeds(calls, target), [], runtime.name);
      const anywhere = calls.filter(({ name, paths }) =>
        /^(?:mkdir|rename|link|symlink|unlink|f?truncate|mknod)/.test(name) &&
        paths.some((one) => one.startsWith(mounts.directory))
      );
      assert.deepEqual(anywhere, [], runtime.name);
      assert.deepEqual(readdirSync(path).toSorted(), ["f", "lost+found"]);
      // Control: the same log shows what the doctor does.
      await asked(runtime, path, ["doctor", target], strace);
      const done = deeds(parseLog(readFileSync(log, "utf8")), target);
      for (const verb of ["create", "rename", "link", "fsync", "unlink"]) {
        assert.ok(done.some((deed) => deed.startsWith(verb)), verb);
      }
    }
  }));

test("on a terminal, Deno asks nobody for a permission to look", () =>
  withMounts(async ({ directory }) => {
    const onTerminal = async (...args: readonly string[]) => {
      const command = DENO.command(join(directory, "x"), "./inspector.ts")
        .filter((word) => word !== "--no-prompt");
      const words = [...command, ...args].map((word) => `'${word}'`).join(" ");
      // A doctor that asks waits for an answer; in a group in the background,
      // which timeout makes under most shells, it would be stopped before it asks.
      const limited = `timeout --foreground 5 ${words}`;
      const script = ["script", "-qec", limited, "/dev/null"];
      return (await run(script, { env: caches })).stdout;
    };
    const report = await onTerminal("inspect", directory);
    assert.doesNotMatch(report, /requests/);
    assert.match(report, /"filesystem":"unknown"/);
    // Control: what must be permitted is asked for.
    assert.match(await onTerminal("doctor", directory), /requests/);
  }));

test("the doctor fails on a read-only mount, and says that it is one", () =>
  withMounts(async (mounts) => {
    const path = mounts.mount("memory", "-t", "tmpfs", "-o", "ro", "tmpfs");
    for (const runtime of PERMITTED) {
      const report = await examined(runtime, path, "atomicVisibility");
      assert.equal(report.ok, false);
      assert.deepEqual(failures(report), [
        "replaceable",
        "exclusive create",
        "require atomicVisibility",
      ]);
      const details = report.checks.map(({ detail }) => detail).join("\n");
      assert.match(details, /mounted read-only: write to another one/);
      assert.match(details, /mounted with ro/);
    }
  }));

test("the doctor fails on a full disk, says so, and leaves it as it was", () =>
  withMounts(async (mounts) => {
    const small = ["-t", "tmpfs", "-o", "size=64k"];
    const path = mounts.mount("small", ...small, "tmpfs");
    const fill = `head -c 1000000 /dev/zero > "$0/filling" || true`;
    execFileSync("sh", ["-c", fill, path], { stdio: "ignore" });
    for (const runtime of PERMITTED) {
      const report = await examined(runtime, path);
      assert.equal(report.ok, false);
      const failed = failures(report);
      assert.ok(failed.includes("free space"), String(failed));
      assert.ok(failed.includes("write"), String(failed));
      const write = report.checks.find(({ name }) => name === "write");
      assert.match(write?.detail ?? "", /no space is left .*free some/);
      assert.deepEqual(readdirSync(path), ["filling"]);
    }
  }));

test("the doctor fails where the directory is missing, and makes none", () =>
  withMounts(async ({ directory }) => {
    const path = join(directory, "missing", "f");
    for (const runtime of PERMITTED) {
      const report = await examined(runtime, path);
      assert.deepEqual(failures(report), ["directory"]);
      const [first] = report.checks;
      assert.match(first?.detail ?? "", /does not exist.*make it first/);
      assert.deepEqual(readdirSync(directory), []);
    }
  }));
