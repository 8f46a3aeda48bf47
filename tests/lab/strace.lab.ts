/**
 * What the runtimes really ask of the kernel, in which order, and what becomes
 * of a write when the kernel refuses.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { document } from "./document.ts";
import { inLab, type Lab } from "./run.ts";
import { NODE_22, NODE_26, type Runtime, RUNTIMES } from "./runtimes.ts";
import { deeds, isTemporary, type LoggedCall, parseLog } from "./strace_log.ts";
import type { Outcome } from "./writer.ts";

const REPLACE = [
  "create temporary",
  "write temporary",
  "fsync temporary",
  "rename temporary target",
  "fsync directory",
];

const FORMS = ["sync", "async"] as const;

/** Below and above the size up to which the async form stays on its thread. */
const LENGTHS = [100, 300_000];

interface Traced {
  readonly outcome: Outcome;
  readonly calls: readonly LoggedCall[];
  /** Where it writes. */
  readonly target: string;
  /** What it found there. */
  readonly old: string;
  /** What it shall leave there. */
  readonly new: string;
}

/** Replaces a file of the lab under strace, with further options for that. */
async function trace(
  { directory, outside, write }: Lab,
  runtime: Runtime,
  form: "sync" | "async",
  length: number,
  options: readonly string[] = [],
): Promise<Traced> {
  const target = join(directory, "f");
  const old = document("old", length);
  const writing = { form, path: target, label: "new", lengths: [length] };
  // Deno fills its caches, and syncs and renames there, before anything is looked at.
  await write(runtime, writing);
  writeFileSync(target, old);
  const log = join(outside, "log");
  const [outcome] = await write(runtime, {
    ...writing,
    under: [
      "strace",
      "-f",
      "-y",
      "--seccomp-bpf",
      "-e",
      "trace=%file,%desc",
      "-o",
      log,
      ...options,
    ],
  });
  assert.ok(outcome !== undefined);
  return {
    outcome,
    calls: parseLog(readFileSync(log, "utf8")),
    target,
    old,
    new: document("new-0", length),
  };
}

for (const runtime of [...RUNTIMES, NODE_22, NODE_26]) {
  for (const form of FORMS) {
    for (const length of LENGTHS) {
      test(`${runtime.name}, ${form}, ${length} bytes: each call is issued after the one before it has returned, and none names the temporary file after the rename`, () =>
        inLab(async (lab) => {
          const traced = await trace(lab, runtime, form, length);
          const { outcome, calls, target } = traced;
          assert.equal(outcome.error, undefined);
          assert.equal(readFileSync(target, "utf8"), traced.new);
          assert.deepEqual(deeds(calls, target), REPLACE);
          const names = calls.flatMap(({ paths }) => paths.filter(isTemporary));
          assert.equal(new Set(names).size, 1);
          // The rig bites: without its syncs the same log is not accepted.
          const unsynced = calls.filter(({ name }) => name !== "fsync");
          assert.notDeepEqual(deeds(unsynced, target), REPLACE);
        }));
    }
  }
}

for (const runtime of RUNTIMES) {
  for (const form of FORMS) {
    for (const length of LENGTHS) {
      test(`${runtime.name}, ${form}, ${length} bytes: a file that cannot be synced is not renamed, and not synced again`, () =>
        inLab(async (lab) => {
          const { outcome, calls, target, old } = await trace(
            lab,
            runtime,
            form,
            length,
            ["-e", "inject=fsync:error=EIO"],
          );
          assert.equal(outcome.error?.name, "AtomicError");
          assert.equal(outcome.error.code, "EIO");
          assert.equal(outcome.error.syscall, "fsync");
          assert.equal(outcome.error.committed, false);
          assert.deepEqual(deeds(calls, target), [
            "create temporary",
            "write temporary",
            "fsync temporary EIO",
            "unlink temporary",
          ]);
          assert.deepEqual(readdirSync(lab.directory), ["f"]);
          assert.equal(readFileSync(target, "utf8"), old);
        }));

      test(`${runtime.name}, ${form}, ${length} bytes: a rename that fails with EIO leaves the old content and says that it does not know`, () =>
        inLab(async (lab) => {
          const { outcome, calls, target, old } = await trace(
            lab,
            runtime,
            form,
            length,
            ["-e", "inject=rename,renameat,renameat2:error=EIO"],
          );
          assert.equal(outcome.error?.name, "AtomicError");
          assert.equal(outcome.error.code, "EIO");
          assert.equal(outcome.error.syscall, "rename");
          assert.equal(outcome.error.committed, "unknown");
          assert.deepEqual(deeds(calls, target), [
            "create temporary",
            "write temporary",
            "fsync temporary",
            "rename temporary target EIO",
            "unlink temporary",
          ]);
          assert.deepEqual(readdirSync(lab.directory), ["f"]);
          assert.equal(readFileSync(target, "utf8"), old);
        }));

      test(`${runtime.name}, ${form}, ${length} bytes: a directory that cannot be synced is an error after which the new content is visible`, () =>
        inLab(async (lab) => {
          const traced = await trace(
            lab,
            runtime,
            form,
            length,
            // The directory's sync only, which is all that the log then shows:
            // strace counts for each thread on its own, so that "the second
            // sync" would not find it in the async form.
            ["-P", lab.directory, "-e", "inject=fsync:error=EIO"],
          );
          const { outcome, calls, target } = traced;
          assert.equal(outcome.error?.name, "DurabilityError");
          assert.equal(outcome.error.code, "EIO");
          assert.equal(outcome.error.syscall, "fsync");
          assert.equal(outcome.error.committed, true);
          assert.deepEqual(deeds(calls, target), ["fsync directory EIO"]);
          assert.deepEqual(readdirSync(lab.directory), ["f"]);
          assert.equal(readFileSync(target, "utf8"), traced.new);
        }));
    }
  }
}

const TEMPORARY = "/d/.f.7.00000000-0000-4000-8000-000000000000.tmp";

/** A log as strace writes it where the threads of a pool cut in on each other. */
const LOG = {
  create: [
    `7  openat(AT_FDCWD</>, "${TEMPORARY}", O_WRONLY|O_CREAT|O_EXCL, 0644 <unfinished ...>`,
    `8  epoll_wait(3<anon_inode:[eventpoll]>,  <unfinished ...>`,
    `7  <... openat resumed>)             = 5<${TEMPORARY}>`,
    `8  <... epoll_wait resumed>[], 1024, 0) = 0`,
  ],
  write: [
    `7  write(5<${TEMPORARY}>, "\\"/d/f\\") = 6</d/f>", 14) = 14`,
  ],
  sync: [`8  fsync(5<${TEMPORARY}> <unfinished ...>`],
  synced: [`8  <... fsync resumed>)              = 0`],
  close: [`7  close(5<${TEMPORARY}>)            = 0`],
  rename: [`7  rename("${TEMPORARY}", "/d/f") = 0`],
  confirm: [`9  fsync(4</d>)                      = 0`],
  exit: [
    `9  ???( <unfinished ...>`,
    `9  <... ??? resumed>)                = ?`,
    `9  +++ exited with 0 +++`,
  ],
};

/** The deeds in a log of these parts. */
function deedsIn(...parts: readonly (keyof typeof LOG)[]): string[] {
  return deeds(parseLog(parts.flatMap((part) => LOG[part]).join("\n")), "/d/f");
}

test("control: calls that the log shows in two parts are put together again", () => {
  assert.deepEqual(
    deedsIn(
      "create",
      "write",
      "sync",
      "synced",
      "close",
      "rename",
      "confirm",
      "exit",
    ),
    REPLACE,
  );
});

test("control: a missing sync, of the file or the directory, is seen", () => {
  assert.deepEqual(
    deedsIn("create", "write", "close", "rename", "confirm"),
    REPLACE.toSpliced(2, 1),
  );
  assert.deepEqual(
    deedsIn("create", "write", "sync", "synced", "close", "rename"),
    REPLACE.toSpliced(4, 1),
  );
});

test("control: calls in another order are seen", () => {
  const [create = "", write = "", sync = "", rename = "", confirm = ""] =
    REPLACE;
  assert.deepEqual(
    deedsIn("create", "sync", "synced", "write", "rename", "confirm"),
    [create, sync, write, rename, confirm],
  );
  assert.deepEqual(
    deedsIn("create", "write", "sync", "synced", "confirm", "rename"),
    [create, write, sync, confirm, rename],
  );
});

test("control: a rename that does not wait for the sync to return is seen", () => {
  const [create = "", write = "", sync = "", rename = "", confirm = ""] =
    REPLACE;
  assert.deepEqual(
    deedsIn("create", "write", "sync", "rename", "synced", "confirm"),
    [create, write, sync, `${rename} before fsync returned`, confirm],
  );
  assert.deepEqual(
    deedsIn("create", "write", "sync", "rename"),
    [create, write, sync, `${rename} before fsync returned`],
  );
});

test("control: a call on the temporary file after the rename is seen", () => {
  assert.deepEqual(
    deedsIn(
      "create",
      "write",
      "sync",
      "synced",
      "rename",
      "close",
      "confirm",
    ),
    REPLACE.toSpliced(4, 0, "close temporary"),
  );
});

test("control: a temporary file that may have been there before is seen", () => {
  const log = LOG.create.join("\n").replace("|O_EXCL", "");
  assert.deepEqual(deeds(parseLog(log), "/d/f"), [
    "openat O_WRONLY|O_CREAT temporary",
  ]);
});

test("control: a log that is not understood is an error", () => {
  assert.throws(() => parseLog("7  strange"), /line 1: 7 {2}strange/);
  assert.throws(() => parseLog("7  <... fsync resumed>) = 0"), /whole call/);
});
