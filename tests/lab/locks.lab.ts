/**
 * Locks on the real system, on three runtimes: their holders are killed and
 * stopped, many contend, and not all of them are of one user.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { updateJsonAtomic } from "../../json.ts";
import { withLock } from "../../lock.ts";
import { moveAtomic } from "../../move.ts";
import { sweepTemporaries } from "../../sweep.ts";
import { STALE_MS } from "./aged_lock.ts";
import { disturb, type Disturbance } from "./disturbance.ts";
import { Program } from "./program.ts";
import { inLab, run } from "./run.ts";
import { BUN, cachesIn, DENO, NODE_24, RUNTIMES } from "./runtimes.ts";
import { testimonyOf } from "./witness.ts";

/** The library's, which the kernel frees, or one that is broken at some age. */
type LockKind = "kernel" | "aged";

function runtimeOf(index: number): (typeof RUNTIMES)[number] {
  const runtime = RUNTIMES[index % RUNTIMES.length];
  assert.ok(runtime !== undefined);
  return runtime;
}

/** On Deno a program starts itself as a worker only where it may read its code. */
function readingCode(command: readonly string[]): string[] {
  const code = fileURLToPath(new URL("../../", import.meta.url));
  return command.map((word) =>
    word.startsWith("--allow-read=") ? `${word},${code}` : word
  );
}

const running = new Set<Program>();

function started(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
): Program {
  const program = new Program(command, env);
  running.add(program);
  return program;
}

// A test that fails may not leave programs that wait to be killed.
afterEach(async () => {
  for (const program of running) {
    program.signal("SIGKILL");
    await program.ended;
  }
  running.clear();
});

function matches({ stdout }: Program, pattern: RegExp): number[] {
  return Array.from(stdout.matchAll(pattern), ([, number]) => Number(number));
}

/** Of the programs that increment to their end, and of those that are killed. */
interface Increments {
  readonly times: number;
  readonly kills: number;
}

interface Counted extends Disturbance {
  readonly count: number;
  readonly acknowledged: number;
  /** Acknowledged, and then written by somebody else again. */
  readonly lost: number;
  /** How often somebody was there who was not killed. */
  readonly intruders: number;
}

/** Two processes on each runtime increment one number, while they are stopped and others are killed. */
function countUp(
  kind: LockKind,
  { times, kills }: Increments,
): Promise<Counted> {
  return inLab(async ({ directory, outside }) => {
    const path = join(directory, "count.json");
    const witness = join(directory, "witness");
    writeFileSync(witness, new Uint8Array(8));
    const env = cachesIn(join(outside, "deno"));
    let id = 0;
    const start = (times: number) => {
      id += 100;
      const args = [kind, path, witness, String(id), String(times)];
      const { command } = runtimeOf(id / 100);
      return [
        id,
        started(command(directory, "./taker.ts", ...args), env),
      ] as const;
    };
    const takers = [...RUNTIMES, ...RUNTIMES].map(() => start(times));
    const disturbed = disturb({
      programs: takers,
      witness,
      stopMs: 2 * STALE_MS,
    });
    const killed: (readonly [number, Program])[] = [];
    for (let kill = 0; kill < kills; kill++) {
      const victim = start(100_000);
      const [, program] = victim;
      await program.printed(/\d+\n\d+\n/);
      await setTimeout(kill % 7);
      program.signal("SIGSTOP");
      await setTimeout(20);
      if (kill % 3 !== 0) program.signal("SIGCONT");
      if (kill % 3 === 1) await setTimeout(kill % 5);
      program.signal("SIGKILL");
      await program.ended;
      killed.push(victim);
    }
    const disturbance = await disturbed;
    for (const [, taker] of takers) {
      assert.equal(await taker.ended, 0, taker.stderr);
      assert.equal(matches(taker, /^(\d+)$/gm).length, times);
    }
    const all = [...takers, ...killed].map(([, program]) => program);
    const numbers = all.flatMap((program) => matches(program, /^(\d+)$/gm));
    const isKilled = new Set(killed.map(([id]) => id));
    const found = all.flatMap((program) => matches(program, /^after (\d+)$/gm));
    const met = all.flatMap((program) => matches(program, /^not (alone)$/gm));
    if (kind === "kernel") {
      // The last to be killed may have held it, or waited for it.
      await sweepTemporaries(directory, { olderThanMs: 0 });
      assert.deepEqual(readdirSync(directory).toSorted(), [
        "count.json",
        "witness",
      ]);
    }
    return {
      ...disturbance,
      count: Number(readFileSync(path, "utf8")),
      acknowledged: numbers.length,
      lost: numbers.length - new Set(numbers).size,
      intruders: met.length + found.filter((id) => !isKilled.has(id)).length,
    };
  });
}

function told(counted: object): string {
  return Object.entries(counted).map(([name, value]) => `${value} ${name}`)
    .join(", ");
}

test("two processes on each runtime update a number while others are killed, and all are stopped: no increment is lost", async (t) => {
  const kills = 30;
  const counted = await countUp("kernel", { times: 300, kills });
  t.diagnostic(`${told(counted)}, ${kills} kills`);
  const { count, acknowledged, lost, intruders, holdersStopped } = counted;
  assert.equal(lost, 0);
  assert.equal(intruders, 0);
  assert.ok(count >= acknowledged && count <= acknowledged + kills);
  assert.ok(holdersStopped > 0);
});

test("control: under a lock file that is broken at some age, increments are lost, or two hold it", async (t) => {
  for (let run = 0; run < 5; run++) {
    const counted = await countUp("aged", { times: 100, kills: 6 });
    t.diagnostic(told(counted));
    if (counted.lost > 0 || counted.intruders > 0) return;
  }
  assert.fail("The lab does not see that this lock is none");
});

/** The more of a kind, the less it costs to start one. */
const VICTIMS = Array.from({ length: 1000 }, (_, index) => ({
  id: index + 1,
  runtime: index % 10 < 1 ? NODE_24 : index % 10 < 5 ? DENO : BUN,
}));

/** How many of them start, wait or are killed at once. */
const LANES = 4;

/** The files that it has open: not the sockets and queues, which a runtime makes as it pleases. */
function openFilesOf({ pid }: Program): string[] {
  const directory = `/proc/${pid}/fd`;
  return readdirSync(directory)
    .map((name) => readlinkSync(join(directory, name)))
    .filter((target) => target.startsWith("/"))
    .toSorted();
}

test("a thousand holders are killed: after each the next one gets the lock, and no file is left, or left open", (t) =>
  inLab(async ({ directory, outside }) => {
    const locked = join(directory, "locked");
    mkdirSync(locked);
    const path = join(locked, "f");
    const witness = join(directory, "witness");
    writeFileSync(witness, new Uint8Array(8));
    const go = join(directory, "go");
    const env = cachesIn(join(outside, "deno"));
    const waiters: Program[] = [];
    for (const [index, { command }] of RUNTIMES.entries()) {
      const args = [path, witness, String(10_000 + index), go];
      const waiter = started(
        command(directory, "./waiter.ts", ...args),
        env,
      );
      await waiter.printed(/ready/);
      waiters.push(waiter);
    }
    const before = waiters.map(openFilesOf);
    writeFileSync(go, "");
    const heirs: Program[] = [];
    const queue = [...VICTIMS];
    const killAll = async () => {
      for (;;) {
        const { runtime, id } = queue.pop() ?? {};
        if (runtime === undefined) return;
        const args = [path, witness, String(id)];
        const victim = started(
          runtime.command(directory, "./victim.ts", ...args),
          env,
        );
        const held = await victim.printed(/after \d+\n/);
        assert.ok(held !== null, victim.stderr);
        victim.signal("SIGKILL");
        await victim.ended;
        heirs.push(victim);
      }
    };
    await Promise.all(Array.from({ length: LANES }, killAll));
    rmSync(go);
    for (const waiter of waiters) await waiter.printed(/taken \d+\n/);
    const after = waiters.map(openFilesOf);
    let last = 0;
    await withLock(path, () => [last] = testimonyOf(witness));
    assert.deepEqual(readdirSync(locked), []);
    const found = [...waiters, ...heirs]
      .flatMap((program) => matches(program, /^after (\d+)$/gm))
      .concat(last)
      .filter((id) => id !== 0);
    const taken = waiters.flatMap((waiter) =>
      matches(waiter, /^taken (\d+)$/gm)
    );
    t.diagnostic(
      `${heirs.length} killed, ${found.length} locks inherited; by those that wait ${taken} taken, ${
        waiters.map((waiter) => matches(waiter, /^after (\d+)$/gm).length)
      } of them inherited; ${before.flat().length} files open before, ${after.flat().length} after`,
    );
    // Each was found by one, and so by the next: none was there beside another.
    assert.deepEqual(
      found.toSorted((one, other) => one - other),
      VICTIMS.map(({ id }) => id),
    );
    for (const waiter of waiters) {
      assert.match(waiter.stdout, /^after \d+$/m);
      assert.doesNotMatch(waiter.stdout, /not alone/);
    }
    assert.deepEqual(after, before);
  }));

/** Processes that take one lock in a loop, by themselves or in threads. */
interface Crowd {
  readonly processes: number;
  /** None: the process itself. */
  readonly threads: number;
  /** How often each of them takes it. */
  readonly times: number;
}

interface Stressed extends Disturbance {
  /** By the sum of what each has counted. */
  readonly taken: number;
  /** By the witness, whose count nobody protects but the lock. */
  readonly witnessed: number;
  /** How often somebody else was there. */
  readonly disturbed: number;
}

/** Takes one lock in many processes or threads, which are stopped while they hold it. */
function stress(
  kind: LockKind,
  { processes, threads, times }: Crowd,
): Promise<Stressed> {
  return inLab(async ({ directory, outside }) => {
    const path = join(directory, "f");
    const witness = join(directory, "witness");
    writeFileSync(witness, new Uint8Array(8));
    const env = cachesIn(join(outside, "deno"));
    const programs = Array.from({ length: processes }, (_, index) => {
      const ids = 100 * (index + 1);
      const args = [kind, path, witness, ids, times, threads].map(String);
      const { command } = runtimeOf(index);
      return [
        ids,
        started(
          readingCode(command(directory, "./stress.ts", ...args)),
          env,
        ),
      ] as const;
    });
    const stopMs = kind === "aged" ? 2 * STALE_MS : 20;
    const disturbance = await disturb({ programs, witness, stopMs });
    let taken = 0;
    let disturbed = 0;
    for (const [, program] of programs) {
      assert.equal(await program.ended, 0, program.stderr);
      const all = matches(program, /^(\d+) taken/gm);
      assert.deepEqual(all, Array(threads || 1).fill(times));
      taken += (threads || 1) * times;
      disturbed += matches(program, /(\d+) disturbed/g)
        .reduce((sum, one) => sum + one, 0);
    }
    const [, witnessed] = testimonyOf(witness);
    if (kind === "kernel") {
      assert.deepEqual(readdirSync(directory), ["witness"]);
    }
    return { ...disturbance, taken, witnessed, disturbed };
  });
}

const CROWDS: readonly (Crowd & { readonly name: string })[] = [
  { name: "twelve processes", processes: 12, threads: 0, times: 3000 },
  {
    name: "four threads of a process on each runtime",
    processes: 3,
    threads: 4,
    times: 1200,
  },
];

for (const { name, ...crowd } of CROWDS) {
  test(`${name} take one lock in a tight loop, and are stopped: there is one holder at a time`, async (t) => {
    const start = performance.now();
    const stressed = await stress("kernel", crowd);
    const { taken, witnessed, disturbed, holdersStopped } = stressed;
    const perSecond = Math.round(1000 * taken / (performance.now() - start));
    t.diagnostic(`${told(stressed)}, ${perSecond} a second`);
    assert.equal(disturbed, 0);
    assert.equal(witnessed, taken);
    assert.ok(holdersStopped > 0);
  });

  test(`control: under a lock file that is broken at some age, ${name} are seen to hold it at once`, async (t) => {
    for (let run = 0; run < 5; run++) {
      const stressed = await stress("aged", { ...crowd, times: 200 });
      t.diagnostic(told(stressed));
      const { taken, witnessed, disturbed } = stressed;
      if (disturbed > 0 && taken !== witnessed) return;
    }
    assert.fail("The lab does not see that this lock is none");
  });
}

/** However busy the machine is; who comes in turn meets one holder or two. */
const MOST_HOLDS = 10;

test("who asks again and again lets those go first who wait", (t) =>
  inLab(async ({ directory, outside }) => {
    const path = join(directory, "f");
    const env = cachesIn(join(outside, "deno"));
    for (const { name, command } of RUNTIMES) {
      const count = join(directory, "count");
      const greedy = started(
        command(directory, "./greedy.ts", path, count),
        env,
      );
      await greedy.printed(/began/);
      const holds: number[] = [];
      const taken = () => Number(readFileSync(count, "utf8"));
      for (let time = 0; time < 20; time++) {
        const before = taken();
        await withLock(path, () => void holds.push(taken() - before), {
          timeoutMs: 600_000,
        });
      }
      greedy.signal("SIGKILL");
      await greedy.ended;
      t.diagnostic(`${name}: ${holds.join(", ")} holds meanwhile`);
      assert.ok(Math.max(...holds) <= MOST_HOLDS, holds.join());
    }
  }));

test("a move that is waited for within the function of an update of its file is refused after a while", () =>
  inLab(async ({ directory }) => {
    const path = join(directory, "f");
    writeFileSync(path, "1");
    await updateJsonAtomic<number>(path, async (value) => {
      const moving = moveAtomic(path, join(directory, "g"));
      await assert.rejects(moving, {
        code: "PENDING",
        message: /what is called from within its function waits for itself/,
      });
      return (value ?? 0) + 1;
    });
    assert.equal(readFileSync(path, "utf8"), "2\n");
  }));

const MANY = 2000;

for (const { name, command } of RUNTIMES) {
  test(`${MANY} updates, appends and locks at once on ${name} find descriptors enough, of which there are 1024`, (t) =>
    inLab(async ({ directory, outside }) => {
      const program = [
        ...["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"],
        ...command(directory, "./many_locks.ts", directory, String(MANY)),
      ];
      const env = cachesIn(join(outside, "deno"));
      const { code, stdout, stderr } = await run(program, { env });
      assert.equal(code, 0, stderr);
      t.diagnostic(stdout.trim().replaceAll("\n", ", "));
      const names = readdirSync(directory);
      assert.equal(names.length, 3 * MANY);
      assert.deepEqual(names.filter((name) => name.startsWith(".")), []);
    }));
}

const ROOT = 0;
/** Of nobody who has an account here. */
const STRANGERS = [54_321, 54_322] as const;
/** That of all of them; a file is of it only in a directory that says so. */
const COMMON_GROUP = 54_320;

/** Runs a command as a user whose files have all the modes that the mask leaves. */
function asUser(
  uid: number,
  umask: string,
  command: readonly string[],
): string[] {
  const id = [`--reuid=${uid}`, `--regid=${uid}`, `--groups=${COMMON_GROUP}`];
  const masked = ["sh", "-c", `umask ${umask}; exec "$@"`, "sh", ...command];
  return ["setpriv", ...id, "--", ...masked];
}

interface Shared {
  readonly path: string;
  readonly witness: string;
  readonly directory: string;
  /** Starts a program of the lab, on a runtime that depends on the number, as a user. */
  start(
    uid: number,
    umask: string,
    id: number,
    program: string,
    ...args: readonly string[]
  ): Program;
}

/** A directory in which all users may write, as in one with a common group. */
function inShared<T>(body: (shared: Shared) => Promise<T>): Promise<T> {
  return inLab(async ({ directory, outside }) => {
    const cache = join(outside, "deno");
    const witness = join(directory, "witness");
    writeFileSync(witness, new Uint8Array(8));
    mkdirSync(cache);
    chmodSync(outside, 0o755);
    chmodSync(witness, 0o666);
    for (const path of [directory, cache]) chmodSync(path, 0o777);
    const path = join(directory, "f");
    return await body({
      path,
      witness,
      directory,
      start(uid, umask, id, program, ...args) {
        const { command } = runtimeOf(id / 100);
        const env = cachesIn(join(cache, String(uid)));
        return started(
          asUser(uid, umask, command(directory, program, ...args)),
          { ...env, HOME: cache },
        );
      },
    });
  });
}

/** What each has printed at its end, once it has ended well. */
async function endsOf(programs: readonly Program[]): Promise<string[]> {
  for (const program of programs) {
    assert.equal(await program.ended, 0, program.stderr);
  }
  return programs.flatMap(({ stdout }) => stdout.match(/^\d+ taken.*/m) ?? []);
}

for (const [shift, { name }] of RUNTIMES.entries()) {
  test(`root holds a lock on ${name} in a directory for everybody: two other users wait for it, and get it when root is killed`, (t) =>
    inShared(async ({ path, witness, directory, start }) => {
      const rootId = 100 * (RUNTIMES.length + shift);
      const holding = [path, witness, String(rootId)];
      const holder = start(ROOT, "022", rootId, "./victim.ts", ...holding);
      assert.ok(await holder.printed(/after 0\n/), holder.stderr);
      const users = STRANGERS.map((uid, index) => {
        const id = rootId + 100 * (index + 1);
        const args = ["kernel", path, witness, String(id), "100", "0"];
        return start(uid, "022", id, "./stress.ts", ...args);
      });
      const lock = join(directory, ".f.lock");
      const waiting = () =>
        readdirSync(lock).filter((name) => /^\d/.test(name)).length;
      while (waiting() < 3) await setTimeout(10);
      assert.deepEqual(testimonyOf(witness), [rootId, 0]);
      // The one who comes next must find nobody.
      writeFileSync(witness, new Uint8Array(8));
      holder.signal("SIGKILL");
      await holder.ended;
      const ends = await endsOf(users);
      t.diagnostic(ends.join("; "));
      for (const end of ends) {
        assert.equal(end, "100 taken, 0 refused, 0 disturbed");
      }
      assert.deepEqual(testimonyOf(witness), [0, 200]);
      assert.deepEqual(readdirSync(directory), ["witness"]);
    }));
}

for (const umask of ["022", "077"]) {
  test(`root and two users of one group, whose umask is ${umask}, lock a file in a directory of that group: they wait for each other, and nobody is refused`, (t) =>
    inShared(async ({ path, witness, directory, start }) => {
      execFileSync("chown", [`${ROOT}:${COMMON_GROUP}`, directory]);
      execFileSync("chmod", ["2770", directory]);
      const users = [ROOT, ...STRANGERS].map((uid, index) => {
        const id = 100 * (index + 1);
        const args = ["kernel", path, witness, String(id), "200", "0"];
        return start(uid, umask, id, "./stress.ts", ...args);
      });
      const ends = await endsOf(users);
      t.diagnostic(ends.join("; "));
      for (const end of ends) {
        assert.equal(end, "200 taken, 0 refused, 0 disturbed");
      }
      assert.deepEqual(testimonyOf(witness), [0, 600]);
      assert.deepEqual(readdirSync(directory), ["witness"]);
    }));
}

test("a lock that root has left in the directory of another user is no obstacle to that user", () =>
  inShared(async ({ path, witness, directory, start }) => {
    const [owner] = STRANGERS;
    execFileSync("chown", [String(owner), directory]);
    execFileSync("chmod", ["755", directory]);
    const args = [path, witness, "100"];
    const root = start(ROOT, "022", 100, "./victim.ts", ...args);
    assert.ok(await root.printed(/after 0\n/), root.stderr);
    root.signal("SIGKILL");
    await root.ended;
    const heir = start(owner, "022", 200, "./victim.ts", path, witness, "200");
    assert.ok(await heir.printed(/after 100\n/), heir.stderr);
  }));

for (const [shift, { name }] of RUNTIMES.entries()) {
  test(`in a sticky directory a user holds a lock on ${name}: another who may not write in it is told whose it is, and root waits for it`, (t) =>
    inShared(async ({ path, witness, directory, start }) => {
      const [owner, other] = STRANGERS;
      // By another program: Bun before 1.4 cannot set the sticky bit.
      execFileSync("chmod", ["1777", directory]);
      const id = 100 * (RUNTIMES.length + shift);
      const args = [path, witness, String(id)];
      const holder = start(owner, "022", id, "./victim.ts", ...args);
      assert.ok(await holder.printed(/after 0\n/), holder.stderr);
      const before = readdirSync(directory, { recursive: true }).toSorted();
      const contend = (uid: number, id: number) => {
        const args = ["kernel", path, witness, String(id), "20", "0"];
        return start(uid, "022", id, "./stress.ts", ...args);
      };
      const told =
        /its lock ".*\.f\.lock(\/lock)?" belongs to another user \(uid 54321\), who does not let this process use it/;
      const refused = contend(other, id + 100);
      assert.ok(await refused.printed(told), refused.stdout + refused.stderr);
      holder.signal("SIGKILL");
      await holder.ended;
      // What is left is free, but it is still the other user's.
      await setTimeout(200);
      assert.deepEqual(testimonyOf(witness), [id, 0]);
      assert.deepEqual(
        readdirSync(directory, { recursive: true }).toSorted(),
        before,
      );
      writeFileSync(witness, new Uint8Array(8));
      // Root removes what was left, and then the other gets on too.
      const all = [contend(ROOT, id + 200), contend(owner, id + 300), refused];
      const ends = await endsOf(all);
      t.diagnostic(ends.join("; "));
      for (const end of ends) {
        assert.match(end, /^20 taken, \d+ refused, 0 disturbed$/);
      }
      assert.match(ends[0] ?? "", / 0 refused/);
      assert.deepEqual(testimonyOf(witness), [0, 60]);
      assert.deepEqual(readdirSync(directory), ["witness"]);
    }));
}

test("in a sticky directory of a group users whose umask lets the group write wait for each other", (t) =>
  inShared(async ({ path, witness, directory, start }) => {
    execFileSync("chown", [`${ROOT}:${COMMON_GROUP}`, directory]);
    execFileSync("chmod", ["3775", directory]);
    const users = [ROOT, ...STRANGERS].map((uid, index) => {
      const id = 100 * (index + 1);
      const args = ["kernel", path, witness, String(id), "100", "0"];
      return start(uid, "002", id, "./stress.ts", ...args);
    });
    const ends = await endsOf(users);
    t.diagnostic(ends.join("; "));
    for (const end of ends) {
      assert.equal(end, "100 taken, 0 refused, 0 disturbed");
    }
    assert.deepEqual(testimonyOf(witness), [0, 300]);
  }));
