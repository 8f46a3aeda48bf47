import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import type { SystemCalls } from "../_runtime/port.ts";
import {
  doctor,
  type DoctorReport,
  withLock,
  writeTextAtomic,
} from "../mod.ts";
import { runOnDeno } from "./child.ts";
import { FaultPort, type Interceptor, onPort } from "./fault_port.ts";
import { pretending, rootMount } from "./pretended.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

const PROBES = [
  "exclusive create",
  "write",
  "fsync of a file",
  "fsync of the directory",
  "rename over an open file",
  "hard link",
  "lock",
  "long names",
];

function names({ checks }: DoctorReport): string[] {
  return checks.map(({ name }) => name);
}

function failed({ checks }: DoctorReport): string[] {
  return checks.filter(({ ok }) => !ok).map(({ name }) => name);
}

function detail({ checks }: DoctorReport, name: string): string {
  return checks.find((check) => check.name === name)?.detail ?? "";
}

function examineWith(interceptor: Interceptor): Promise<DoctorReport> {
  return inScratch(async (directory) => {
    const port = new FaultPort().intercept(interceptor);
    const report = await onPort(port, () => doctor(directory));
    assert.deepEqual(readdirSync(directory), []);
    assert.equal(report.ok, false);
    return report;
  });
}

function failing(
  name: keyof SystemCalls,
  code: string,
): Promise<DoctorReport> {
  return examineWith((call) => call.name === name ? { code } : undefined);
}

test("a fit directory passes every check, by itself or by a file in it, and is left as it was", () =>
  inScratch(async (directory) => {
    writeFileSync(join(directory, "f"), "mine");
    for (const path of [directory, join(directory, "f"), `${directory}/new`]) {
      const report = await doctor(path);
      assert.equal(report.ok, true, report.summary());
      assert.deepEqual(names(report), [
        "directory",
        "free space",
        ...PROBES,
        "leftovers",
      ]);
      assert.equal(report.path, path);
      assert.equal(report.inspection.inspected, directory);
      assert.equal(detail(report, "leftovers"), "none");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }
  }));

test("without probe nothing is made", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    const report = await onPort(
      port,
      () => doctor(directory, { probe: false }),
    );
    assert.deepEqual(names(report), ["directory", "free space", "leftovers"]);
    for (const name of ["create", "link", "rename", "unlink", "mkdir"]) {
      assert.ok(!port.names.includes(name), name);
    }
  }));

test("a missing directory fails, and says what to do; nothing else is tried", () =>
  inScratch(async (directory) => {
    for (const path of ["missing/f", "f/g"]) {
      writeFileSync(join(directory, "f"), "");
      const report = await doctor(join(directory, path));
      assert.equal(report.ok, false);
      assert.deepEqual(names(report), ["directory"]);
      assert.match(detail(report, "directory"), /directory/);
    }
    const report = await doctor(join(directory, "missing", "f"));
    assert.match(detail(report, "directory"), /does not exist.*make it first/);
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("each check fails alone where what it tries fails, and says why", async () => {
  for (
    const [call, code, check, reason] of [
      ["openDatabase", "NO_SQLITE", "lock", /a lock needs the SQLite/],
    ] as const
  ) {
    const report = await failing(call, code);
    assert.deepEqual(failed(report), [check]);
    assert.match(detail(report, check), reason);
  }
  const renameless = await failing("rename", "EBUSY");
  // A lock gives a name of its own another one.
  assert.deepEqual(failed(renameless), ["rename over an open file", "lock"]);
  assert.match(detail(renameless, "rename over an open file"), /EBUSY/);
  const syncless = await failing("fsync", "EIO");
  assert.deepEqual(failed(syncless), [
    "fsync of a file",
    "fsync of the directory",
  ]);
  const full = await failing("write", "ENOSPC");
  assert.ok(failed(full).includes("write"));
  assert.match(detail(full, "write"), /no space is left .*free some space/);
  // A lock is a link.
  const linkless = await failing("link", "EPERM");
  assert.deepEqual(failed(linkless), ["hard link", "lock"]);
  assert.match(detail(linkless, "lock"), /hard links/);
});

test("where nothing can be created the others are not tried", async () => {
  const report = await failing("create", "EROFS");
  assert.deepEqual(failed(report), ["exclusive create"]);
  assert.match(detail(report, "exclusive create"), /mounted read-only/);
  assert.deepEqual(names(report), [
    "directory",
    "free space",
    "exclusive create",
    "leftovers",
  ]);
});

test("a system that does the wrong thing without an error is found out", async () => {
  let creates = 0;
  const twice = await examineWith(({ name }) =>
    name === "create" && ++creates === 2 ? { result: { path: "" } } : undefined
  );
  assert.match(detail(twice, "exclusive create"), /created once more|failed/);

  const still = await examineWith(({ name, args: [from] }) =>
    name === "rename" && !String(from).includes(".lock")
      ? { result: undefined }
      : undefined
  );
  assert.deepEqual(failed(still), ["rename over an open file"]);
  assert.match(
    detail(still, "rename over an open file"),
    /reads as "old" after the rename, the new one as "old"/,
  );

  const shared = await examineWith(({ name }) =>
    name === "execute" ? { result: undefined } : undefined
  );
  assert.deepEqual(failed(shared), ["lock"]);
  assert.match(detail(shared, "lock"), /two held one lock at once/);

  const over = await examineWith(({ name, args: [, to] }) =>
    name === "link" && !String(to).includes(".lock")
      ? { result: undefined }
      : undefined
  );
  assert.ok(failed(over).includes("hard link"));

  const lost = await examineWith(({ name, args: [, bytes] }) =>
    name === "write" && bytes instanceof Uint8Array && bytes.length > 1000
      ? { result: bytes.length }
      : undefined
  );
  assert.deepEqual(failed(lost), ["write"]);
  assert.match(detail(lost, "write"), /of 65536 bytes written the file has 0/);
});

test("short writes are no fault, and writes of nothing are", () =>
  inScratch(async (directory) => {
    const port = new FaultPort().shortenWrites(1000);
    const report = await onPort(port, () => doctor(directory));
    assert.equal(report.ok, true, report.summary());
    const none = await examineWith(({ name }) =>
      name === "write" ? { result: 0 } : undefined
    );
    assert.match(detail(none, "write"), /takes no more bytes/);
  }));

test("shorter names are told, and those that are too short fail", async () => {
  const longest = (most: number): Interceptor => ({ name, args: [path] }) =>
    name === "create" && String(path).replace(/.*\//, "").length > most
      ? { code: "ENAMETOOLONG" }
      : undefined;
  await inScratch(async (directory) => {
    const port = new FaultPort().intercept(longest(143));
    const report = await onPort(port, () => doctor(directory));
    assert.equal(report.ok, true, report.summary());
    assert.equal(detail(report, "long names"), "names of 143 bytes");
  });
  const report = await examineWith(longest(100));
  assert.deepEqual(failed(report), ["long names"]);
});

test("no free space fails; what is not counted or may not be asked for does not", () =>
  inScratch(async (directory) => {
    const full = await onPort(
      pretending({ type: 1, freeBytes: 0 }),
      () => doctor(directory),
    );
    assert.deepEqual(failed(full), ["free space"]);
    assert.match(detail(full, "free space"), /none is left/);
    const port = pretending({});
    port.permission = (access) => access === "statfs" ? "missing" : "granted";
    const unseen = await onPort(port, () => doctor(directory));
    assert.equal(unseen.ok, true);
    assert.match(detail(unseen, "free space"), /--allow-sys=statfs/);
  }));

test("require turns levels into checks", () =>
  inScratch(async (directory) => {
    const require = ["atomicVisibility", "crashDurability"] as const;
    for (
      const [type, magic, missing] of [
        ["ext4", 0xef53, []],
        ["tmpfs", 0x01021994, ["require crashDurability"]],
        ["nfs", 0x6969, require.map((name) => `require ${name}`)],
      ] as const
    ) {
      const port = pretending({ type: magic, mounts: rootMount(type) });
      const report = await onPort(port, () => doctor(directory, { require }));
      assert.deepEqual(failed(report), missing);
      assert.equal(report.ok, missing.length === 0);
      assert.match(detail(report, "require crashDurability"), /^\S+: type /);
    }
  }));

test("what killed writers have left is counted, and nothing else is", () =>
  inScratch(async (directory) => {
    const uuid = crypto.randomUUID();
    for (
      const name of [
        `.f.${process.pid}.${uuid}.tmp`,
        `..${process.pid}.${uuid}.tmp`,
        `.a b.json.1.${uuid}.tmp`,
        `.f.lock.12.1700000000000.${uuid}.3.tmp`,
        ".f.lock",
        "f.tmp",
        `f.1.${uuid}.tmp`,
        ".f.1.2.tmp",
        `.f.lock.12.${uuid}`,
        ".lock",
      ]
    ) {
      writeFileSync(join(directory, name), "");
    }
    const before = readdirSync(directory).toSorted();
    const report = await doctor(directory);
    assert.equal(report.ok, true);
    assert.match(
      detail(report, "leftovers"),
      /^4 temporary files and 1 locks, /,
    );
    assert.deepEqual(readdirSync(directory).toSorted(), before);
  }));

test("the names that writes and locks really use are among those that are counted", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const during = new FaultPort();
    const seen: string[] = [];
    const counted = async () =>
      seen.push(detail(await doctor(directory, { probe: false }), "leftovers"));
    await withLock(path, counted);
    async function* source(): AsyncGenerator<string> {
      yield "a";
      await counted();
    }
    await onPort(during, () => writeTextAtomic(path, source()));
    assert.match(seen[0] ?? "", /^0 temporary files and 1 locks/);
    assert.match(seen[1] ?? "", /^1 temporary files and 0 locks/);
  }));

test("whatever call fails, once, the doctor ends with a report and leaves nothing, unless it was the removal", () =>
  inScratch(async (outside) => {
    const whole = new FaultPort();
    const clean = join(outside, "clean");
    mkdirSync(clean);
    await onPort(whole, () => doctor(clean));
    for (const [index, { name }] of whole.calls.entries()) {
      // Nothing is wrong where no second process can be started.
      if (name === "sleep" || name === "lockElsewhere") continue;
      const directory = join(outside, String(index));
      mkdirSync(directory);
      const port = new FaultPort().failNth(index, "EIO");
      const report = await onPort(port, () => doctor(directory));
      const left = readdirSync(directory);
      if (name !== "unlink" && name !== "rmdir") {
        assert.deepEqual(left, [], `${index}: ${name}`);
      } else {
        assert.ok(left.length <= 1);
        // Told by name, or counted.
        if (left.length > 0) assert.ok(report.summary().includes("FAIL"));
      }
    }
    assert.ok(whole.calls.length > 60);
  }));

test("a report is plain data, with a summary for people", () =>
  inScratch(async (directory) => {
    const report = await doctor(directory);
    const parsed = JSON.parse(JSON.stringify(report));
    assert.deepEqual(parsed.checks, report.checks);
    assert.equal(parsed.ok, true);
    const summary = report.summary();
    assert.ok(summary.startsWith(`${directory}: of 11 checks all is well`));
    for (const { name } of report.checks) assert.ok(summary.includes(name));
    assert.ok(summary.includes("crashDurability"));
    const bad = await doctor(join(directory, "missing", "f"));
    assert.match(
      bad.summary(),
      /of 1 checks 1 failed\n {2}FAIL {2}directory: /,
    );
  }));

test("a malformed argument is a TypeError", () =>
  inScratch(async (directory) => {
    const unchecked = doctor as (...args: unknown[]) => Promise<unknown>;
    for (
      const args of [
        [""],
        [5],
        [directory, { probe: "yes" }],
        [directory, { require: ["all"] }],
        [directory, { destructive: true }],
      ]
    ) {
      assert.ok(await rejection(unchecked(...args)) instanceof TypeError);
    }
    assert.deepEqual(readdirSync(directory), []);
  }));

test("on Deno the doctor works with read and write on the directory alone, and names the flags that are missing", () =>
  inScratch(async (directory) => {
    const program = join(directory, "program.ts");
    const inside = join(directory, "inside");
    mkdirSync(inside);
    // Compiled or not, the module is beside this one.
    const module = new URL(
      import.meta.url.endsWith(".js") ? "../doctor.js" : "../doctor.ts",
      import.meta.url,
    );
    writeFileSync(
      program,
      `import { doctor } from ${JSON.stringify(module.href)};
console.log(JSON.stringify(await doctor(${JSON.stringify(inside)})));`,
    );
    const both = [`--allow-read=${inside}`, `--allow-write=${inside}`];
    const fit = await runOnDeno(both, program);
    assert.equal(fit.stderr, "");
    assert.equal(JSON.parse(fit.stdout).ok, true, fit.stdout);
    const read = await runOnDeno([`--allow-read=${inside}`], program);
    const report: DoctorReport = JSON.parse(read.stdout);
    assert.deepEqual(failed(report), ["exclusive create"]);
    assert.match(
      detail(report, "exclusive create"),
      new RegExp(`add --allow-write=${inside}$`),
    );
    assert.deepEqual(readdirSync(inside), []);
    // A permission that is spelled through a link covers that spelling alone.
    const link = join(directory, "link");
    symlinkSync(inside, link);
    writeFileSync(
      program,
      `import { doctor } from ${JSON.stringify(module.href)};
import { sweepTemporaries } from ${
        JSON.stringify(new URL(module.href.replace("doctor", "sweep")).href)
      };
await sweepTemporaries(${JSON.stringify(link)});
console.log(JSON.stringify(await doctor(${JSON.stringify(link)})));`,
    );
    const byLink = await runOnDeno(
      [`--allow-read=${link}`, `--allow-write=${link}`],
      program,
    );
    assert.equal(byLink.stderr, "");
    assert.equal(JSON.parse(byLink.stdout).ok, true, byLink.stdout);
    writeFileSync(
      program,
      `import { doctor } from ${JSON.stringify(module.href)};
console.log(JSON.stringify(await doctor(${JSON.stringify(inside)})));`,
    );
    const elsewhere = [`--allow-read=${join(directory, "elsewhere")}`];
    const refused = await runOnDeno(elsewhere, program);
    const none: DoctorReport = JSON.parse(refused.stdout);
    assert.deepEqual(failed(none), ["directory"]);
    assert.match(
      detail(none, "directory"),
      new RegExp(`: add --allow-read=${inside} --allow-write=${inside}$`),
    );
  }));

test("what no write can replace, or make, fails", async (t) => {
  if (process.platform === "win32") return t.skip("no pipes");
  await inScratch(async (directory) => {
    const pipe = join(directory, "pipe");
    execFileSync("mkfifo", [pipe]);
    assert.deepEqual(failed(await doctor(pipe)), ["directory"]);
    const dangling = join(directory, "link");
    symlinkSync(join(directory, "missing", "f"), dangling);
    const lost = await doctor(dangling);
    assert.deepEqual(failed(lost), ["directory"]);
    assert.match(detail(lost, "directory"), /missing" does not exist/);
    const path = join(directory, "f");
    writeFileSync(path, "");
    const mounts = `${rootMount("xfs")}2 1 8:2 / ${path} rw - xfs source rw\n`;
    const port = pretending({ type: 0x58465342, mounts });
    const mounted = await onPort(port, () => doctor(path));
    assert.deepEqual(failed(mounted), ["replaceable"]);
    assert.match(detail(mounted, "replaceable"), /mount its directory instead/);
  });
});
