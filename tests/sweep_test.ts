import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { openAtomicWriter, withLock } from "../mod.ts";
import {
  AtomicError,
  NotFoundError,
  sweepTemporaries,
  sweepTemporariesSync,
} from "../sweep.ts";
import { fixture } from "./child.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

const FORMS = [
  { name: "async", sweep: sweepTemporaries },
  {
    name: "sync",
    sweep: (...args: Parameters<typeof sweepTemporariesSync>) =>
      new Promise<ReturnType<typeof sweepTemporariesSync>>((resolve) =>
        resolve(sweepTemporariesSync(...args))
      ),
  },
] as const;

/** The number of a process that has ended. */
function deadPid(): number {
  return Number(execFileSync("sh", ["-c", "echo $$"]));
}

/** A file as an old writer leaves it. */
function leave(directory: string, name: string): string {
  const path = join(directory, name);
  writeFileSync(path, "left");
  const yesterday = Date.now() / 1000 - 25 * 3600;
  utimesSync(path, yesterday, yesterday);
  return path;
}

for (const form of FORMS) {
  test(`${form.name}: old temporary files of the dead go, and nothing else`, () =>
    inScratch(async (directory) => {
      const uuid = crypto.randomUUID();
      const dead = deadPid();
      const old = [
        leave(directory, `.f.${dead}.${uuid}.tmp`),
        leave(directory, `.a.b.${dead}.${uuid}.tmp`),
        leave(directory, `.two\nlines.${dead}.${uuid}.tmp`),
      ];
      const others = [
        leave(directory, "f"),
        leave(directory, `f.${dead}.${uuid}.tmp`),
        leave(directory, `.f.${dead}.tmp`),
        leave(directory, `.f.${uuid}.tmp`),
        leave(directory, `.f.x.${uuid}.tmp`),
        leave(directory, `.f.${dead}.${uuid}.tmp.bak`),
        leave(directory, ".f.tmp"),
        leave(directory, ".g.lock"),
      ];
      const young = join(directory, `.y.${dead}.${uuid}.tmp`);
      writeFileSync(young, "");
      const folder = join(directory, `.d.${dead}.${uuid}.tmp`);
      mkdirSync(folder);
      const link = join(directory, `.l.${dead}.${uuid}.tmp`);
      symlinkSync("f", link);
      leave(folder, `.inside.${dead}.${uuid}.tmp`);
      const before = readdirSync(directory).toSorted();
      const dry = await form.sweep(directory, { dryRun: true });
      assert.deepEqual(dry.removed.toSorted(), old.toSorted());
      assert.deepEqual(readdirSync(directory).toSorted(), before);
      const report = await form.sweep(pathToFileURL(`${directory}/`));
      assert.equal(report.directory, directory);
      assert.deepEqual(report.removed.toSorted(), old.toSorted());
      const kept = Object.fromEntries(
        report.kept.map(({ path, reason }) => [path, reason]),
      );
      assert.deepEqual(
        Object.keys(kept).toSorted(),
        [young, folder, link].toSorted(),
      );
      assert.match(kept[young] ?? "", /changed \d+ s ago, and olderThanMs is/);
      assert.match(kept[folder] ?? "", /no file: directory/);
      assert.match(kept[link] ?? "", /no file: symlink/);
      const left = new Set(
        readdirSync(directory).map((name) => join(directory, name)),
      );
      for (const path of others) assert.ok(left.has(path), path);
      await form.sweep(directory, { olderThanMs: 0 });
      assert.ok(!readdirSync(directory).includes(`.y.${dead}.${uuid}.tmp`));
    }));

  test(`${form.name}: what this process is writing stays, however old it looks`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort();
      port.pid = deadPid();
      await onPort(port, async () => {
        const writer = await openAtomicWriter(path);
        await writer.write(new Uint8Array([65]));
        symlinkSync(".", join(directory, "link"));
        for (const place of [directory, join(directory, "link")]) {
          const report = await form.sweep(place, { olderThanMs: 0 });
          assert.equal(report.kept[0]?.reason, "this process is writing it");
        }
        await writer.commit();
      });
      assert.equal(readFileSync(path, "utf8"), "A");
    }));

  test(`${form.name}: a lock that its holder frees meanwhile is nothing to be swept`, () =>
    inScratch(async (directory) => {
      const lock = join(directory, ".f.lock");
      mkdirSync(lock);
      const temporary = join(
        directory,
        `.f.7.${crypto.randomUUID()}.tmp`,
      );
      writeFileSync(temporary, "");
      const port = new FaultPort().intercept(({ name, args: [path] }) => {
        if (name === "readdir" && path === lock) rmdirSync(lock);
        return undefined;
      });
      port.isAlive = () => false;
      // A clock of milliseconds may be behind the one of the file.
      port.date = () => Date.now() + 1000;
      const { removed } = await onPort(
        port,
        () => form.sweep(directory, { olderThanMs: 0 }),
      );
      assert.deepEqual(removed, [temporary]);
    }));

  test(`${form.name}: names of a lock go where it is free, and stay where it is held`, () =>
    inScratch(async (directory) => {
      const lock = join(directory, ".f.lock");
      const lockFile = join(lock, "lock");
      const name = () =>
        join(lock, `7.1700000000000.${crypto.randomUUID()}.held`);
      mkdirSync(lock);
      writeFileSync(lockFile, "");
      const claims = [name(), name()];
      for (const path of claims) linkSync(lockFile, path);
      const dry = await form.sweep(directory, { dryRun: true });
      assert.equal(dry.removed.length, 0);
      assert.equal(dry.kept.length, 4);
      const report = await form.sweep(directory);
      assert.deepEqual(
        report.removed.toSorted(),
        [lock, lockFile, ...claims].toSorted(),
      );
      assert.deepEqual(readdirSync(directory), []);
      // Without its lock file, and with nothing but that.
      for (const left of [name(), lockFile]) {
        mkdirSync(lock);
        writeFileSync(left, "");
        const { removed } = await form.sweep(directory);
        assert.deepEqual(removed, [lock, left]);
        assert.deepEqual(readdirSync(directory), []);
      }
      await withLock(join(directory, "f"), async () => {
        linkSync(lockFile, name());
        const { removed, kept } = await form.sweep(directory);
        assert.deepEqual(removed, []);
        assert.equal(kept.length, 4);
        for (const { reason } of kept) assert.match(reason, /its lock is held/);
      });
      await form.sweep(directory);
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${form.name}: what only looks like a lock stays`, () =>
    inScratch(async (directory) => {
      const file = join(directory, ".file.lock");
      writeFileSync(file, "");
      const full = join(directory, ".full.lock");
      mkdirSync(full);
      writeFileSync(join(full, "lock"), "");
      writeFileSync(join(full, "notes"), "precious");
      // As other packages make them, while they are held.
      const empty = join(directory, ".empty.lock");
      mkdirSync(empty);
      symlinkSync(full, join(directory, ".link.lock"));
      const before = readdirSync(directory).toSorted();
      const { removed } = await form.sweep(directory);
      assert.deepEqual(removed, []);
      assert.deepEqual(readdirSync(directory).toSorted(), before);
      assert.deepEqual(readdirSync(full).toSorted(), ["lock", "notes"]);
      const old = await form.sweep(directory, { olderThanMs: 0 });
      assert.deepEqual(old.removed, [empty]);
    }));

  test(`${form.name}: what was changed a moment ago, or later than the clock says, is as old as nothing`, () =>
    inScratch(async (directory) => {
      const path = leave(directory, `.f.7.${crypto.randomUUID()}.tmp`);
      const port = new FaultPort();
      port.isAlive = () => false;
      port.date = () => Math.floor(statSync(path).mtimeMs) - 5;
      const kept = await onPort(
        port,
        () => form.sweep(directory, { olderThanMs: 1 }),
      );
      assert.deepEqual(kept.removed, []);
      const { removed } = await onPort(
        port,
        () => form.sweep(directory, { olderThanMs: 0 }),
      );
      assert.deepEqual(removed, [path]);
    }));

  test(`${form.name}: what another process that runs has written stays, however old`, () =>
    inScratch(async (directory) => {
      const child = spawn("sleep", ["60"]);
      try {
        leave(directory, `.f.${child.pid}.${crypto.randomUUID()}.tmp`);
        const report = await form.sweep(directory, { olderThanMs: 0 });
        assert.match(report.kept[0]?.reason ?? "", /^process \d+ runs$/);
      } finally {
        child.kill();
        await once(child, "exit");
      }
    }));

  test(`${form.name}: what has this process's number and is older than it was left by the one before it`, () =>
    inScratch(async (directory) => {
      const name = `.f.${process.pid}.${crypto.randomUUID()}.tmp`;
      const path = leave(directory, name);
      const port = new FaultPort();
      // Deno knows it as process 1 only.
      const startedAt = port.startedAt() ?? Date.now();
      port.startedAt = () => startedAt;
      const { removed } = await onPort(port, () => form.sweep(directory));
      assert.deepEqual(removed, [path]);
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${form.name}: what was written since this process began stays, also where the runtime may not ask`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort();
      port.isAlive = () => undefined;
      const startedAt = port.startedAt() ?? Date.now();
      port.startedAt = () => startedAt;
      const name = `.f.${port.pid}.${crypto.randomUUID()}.tmp`;
      const path = leave(directory, name);
      const leftAfter = async (mtimeMs: number) => {
        utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
        const { kept } = await onPort(
          port,
          () => form.sweep(directory, { olderThanMs: 0, dryRun: true }),
        );
        return kept.map(({ reason }) => reason);
      };
      const runs = [`process ${port.pid} runs`];
      assert.deepEqual(await leftAfter(startedAt), runs);
      // As a file system says it that counts in steps of two seconds.
      assert.deepEqual(await leftAfter(startedAt - 1900), runs);
      assert.deepEqual(await leftAfter(startedAt - 2100), []);
      port.startedAt = () => undefined;
      assert.deepEqual(await leftAfter(startedAt - 3_600_000), runs);
    }));

  test(`${form.name}: what cannot be removed is told, and does not keep the rest`, () =>
    inScratch(async (directory) => {
      const dead = deadPid();
      const uuid = crypto.randomUUID();
      const first = leave(directory, `.a.${dead}.${uuid}.tmp`);
      const second = leave(directory, `.b.${dead}.${uuid}.tmp`);
      const lock = join(directory, ".f.lock");
      mkdirSync(lock);
      writeFileSync(join(lock, "lock"), "not empty");
      linkSync(join(lock, "lock"), join(lock, `7.1.${uuid}`));
      const port = new FaultPort().fail("unlink", "EACCES", 1);
      const report = await onPort(port, () => form.sweep(directory));
      assert.equal(report.removed.length, 1);
      const [failed, ...locks] = report.kept;
      assert.ok([first, second].includes(failed?.path ?? ""));
      assert.match(failed?.reason ?? "", /unlink failed: EACCES/);
      assert.equal(locks.length, 3);
      assert.match(locks[0]?.reason ?? "", /is not a lock of this library/);
    }));

  test(`${form.name}: a malformed argument is a TypeError, a missing directory a NotFoundError`, () =>
    inScratch(async (directory) => {
      const wrong = (value: unknown) =>
        assert.rejects(form.sweep(value as string), TypeError);
      await wrong("");
      await wrong(7);
      await assert.rejects(
        form.sweep(directory, { olderThanMs: -1 }),
        TypeError,
      );
      await assert.rejects(
        form.sweep(join(directory, "none")),
        NotFoundError,
      );
      writeFileSync(join(directory, "file"), "");
      const error = await rejection(form.sweep(join(directory, "file")));
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ENOTDIR");
      assert.match(error.message, /file": it is not a directory: name the one/);
      const controller = new AbortController();
      controller.abort();
      leave(directory, `.a.1.${crypto.randomUUID()}.tmp`);
      await assert.rejects(
        form.sweep(directory, { signal: controller.signal }),
        { name: "AbortError" },
      );
    }));
}

test(
  "a worker does not take its own beginning for that of its process",
  { timeout: 600_000 },
  () =>
    inScratch(async (directory) => {
      const name = `.f.${process.pid}.${crypto.randomUUID()}.tmp`;
      const path = leave(directory, name);
      const worker = new Worker(pathToFileURL(fixture("sweeper")), {
        workerData: { directory },
      });
      const [kept] = await once(worker, "message");
      await worker.terminate();
      assert.deepEqual(kept, [{ path, reason: `process ${process.pid} runs` }]);
    }),
);
