/**
 * The examples do what they say, on a copy of this checkout. Above all: what
 * the service has acknowledged is there after any kill.
 *
 * `LAB_SEED` repeats the moments of the kills, as far as the machine does.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { cloneInto } from "../consumers/command.ts";
import { inScratch, leftovers } from "../scratch.ts";
import { Program } from "./program.ts";
import { randomFrom } from "./random.ts";
import { type Finished, run } from "./run.ts";
import { BUN, cachesIn, DENO, NODE_22, NODE_24, NODE_26 } from "./runtimes.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** A fresh clone, built and installed: a stale `dist` must not be what is tested. */
let clone = "";
let env: Record<string, string> = {};

before(async () => {
  clone = realpathSync(mkdtempSync(join(tmpdir(), "atomic-clone-")));
  env = { ...cachesIn(`${clone}-deno`), NO_COLOR: "1" };
  cloneInto(clone);
  symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
  // As npm installs "file:../..".
  const scope = join(clone, "examples/bun/node_modules/@aj");
  mkdirSync(scope, { recursive: true });
  symlinkSync("../../../..", join(scope, "atomic"));
  const { code, stdout } = await run([
    join(root, "node_modules/.bin/tsc"),
    "-p",
    join(clone, "tsconfig.build.json"),
  ]);
  assert.equal(code, 0, stdout);
});

after(() => {
  rmSync(clone, { recursive: true, force: true });
  rmSync(`${clone}-deno`, { recursive: true, force: true });
});

/** What an example must not do, for a control. */
type Edit = readonly [find: string, replace: string];

/** The path of the example in the clone, or of a copy beside it with one line broken. */
function example(path: string, edit?: Edit): string {
  const original = join(clone, "examples", path);
  if (edit === undefined) return original;
  const [find, replace] = edit;
  const code = readFileSync(original, "utf8");
  assert.equal(code.split(find).length, 2, `${path} has once: ${find}`);
  const broken = original.replace(/\.ts$/, "_broken.ts");
  writeFileSync(broken, code.replace(find, () => replace));
  return broken;
}

// The service on Bun.

interface Item {
  readonly count: number;
  readonly filler: string;
}

type Items = Readonly<Record<string, Item>>;

const KEYS = Array.from({ length: 8 }, (_, index) => `client-${index}`);

interface Service {
  readonly program: Program;
  readonly url: string;
}

async function startService(program: string, path: string): Promise<Service> {
  const started = new Program(BUN.command("", program, path), env);
  const match = await started.printed(/^listening on (\S+)\n/);
  assert.ok(match, `the service does not start: ${started.stderr}`);
  return { program: started, url: match[1] ?? "" };
}

async function getItems(url: string): Promise<Items> {
  const response = await fetch(`${url}items`);
  assert.equal(response.status, 200);
  return JSON.parse(await response.text());
}

/** Clients of a service that is killed again and again, and what they know of its items. */
class Clients {
  acknowledgements = 0;
  /** What was acknowledged, or was read, and is gone. */
  readonly lost: string[] = [];
  readonly undone: string[] = [];
  /** Looks at the file that found a part of a state. */
  readonly torn: string[] = [];
  looks = 0;
  readonly #sent = new Map<string, number>();
  readonly #acknowledged = new Map<string, number>();
  readonly #seen = new Map<string, number>();

  /** The requests that no answer came to. */
  get unanswered(): number {
    return KEYS.filter((key) =>
      this.#sent.get(key) !== this.#acknowledged.get(key)
    ).length;
  }

  /** Compares with what the service has after a restart, and goes on from there. */
  compare(items: Items): void {
    for (const key of KEYS) {
      const count = items[key]?.count ?? 0;
      const acknowledged = this.#acknowledged.get(key) ?? 0;
      const seen = this.#seen.get(key) ?? 0;
      const sent = this.#sent.get(key) ?? 0;
      if (count < acknowledged) {
        this.lost.push(`${key}: ${acknowledged} acknowledged, ${count} found`);
      }
      if (count < seen) {
        this.undone.push(`${key}: ${seen} read, ${count} found`);
      }
      assert.ok(count <= sent, `${key}: ${sent} sent, ${count} found`);
      this.#sent.set(key, count);
      this.#acknowledged.set(key, count);
      this.#seen.set(key, count);
    }
  }

  isTorn(path: string): boolean {
    // Only a control may be killed before it has made one.
    if (!existsSync(path)) return false;
    const text = readFileSync(path, "utf8");
    this.looks++;
    try {
      JSON.parse(text);
      return false;
    } catch {
      this.torn.push(`${text.length} characters of a state`);
      return true;
    }
  }

  /** Changes items, reads them, and looks at the file, until the service ends by the will of `isEnding`. */
  async load(
    url: string,
    path: string,
    isEnding: () => boolean,
    onAcknowledged: () => void,
  ): Promise<void> {
    const untilEnd = async (request: () => Promise<void>) => {
      try {
        for (;;) await request();
      } catch (error) {
        if (!isEnding() || error instanceof assert.AssertionError) throw error;
      }
    };
    const changing = KEYS.map((key) =>
      untilEnd(async () => {
        const count = (this.#sent.get(key) ?? 0) + 1;
        const filler = "x".repeat(count * 37 % 2000);
        this.#sent.set(key, count);
        const { status } = await fetch(`${url}items/${key}`, {
          method: "PUT",
          body: JSON.stringify({ count, filler }),
        });
        assert.equal(status, 204);
        this.#acknowledged.set(key, count);
        this.acknowledgements++;
        onAcknowledged();
      })
    );
    const reading = untilEnd(async () => {
      for (const [key, { count }] of Object.entries(await getItems(url))) {
        this.#seen.set(key, count);
      }
      for (let look = 0; look < 10; look++) this.isTorn(path);
    });
    await Promise.all([...changing, reading]);
  }
}

interface Killed {
  cycles: number;
  /** Cycles in which requests had no answer yet, and in which a file was being written. */
  unanswered: number;
  writing: number;
  readonly clients: Clients;
  temporaries: string[];
  readonly pids: Set<number>;
}

/** Kills the service under load and starts it again, until `isEnough`. */
async function killService(
  program: string,
  path: string,
  random: () => number,
  isEnough: (soFar: Killed) => boolean,
): Promise<Killed> {
  const clients = new Clients();
  const killed: Killed = {
    cycles: 0,
    unanswered: 0,
    writing: 0,
    clients,
    temporaries: [],
    pids: new Set(),
  };
  while (!isEnough(killed)) {
    const service = await startService(program, path);
    let isEnding = false;
    try {
      clients.compare(await getItems(service.url));
      const first = clients.acknowledgements;
      const wanted = first + 1 + Math.floor(random() * 40);
      const busy = Promise.withResolvers<void>();
      const loaded = clients.load(service.url, path, () => isEnding, () => {
        if (clients.acknowledgements >= wanted) busy.resolve();
      });
      // A service that ends by itself ends the load, with an error.
      await Promise.race([busy.promise, loaded]);
      if (random() < 0.7) await setTimeout(random() * 4);
      isEnding = true;
      service.program.signal("SIGKILL");
      assert.equal(await service.program.ended, null, service.program.stderr);
      await loaded;
    } finally {
      service.program.signal("SIGKILL");
      await service.program.ended;
    }
    // Else the service of a control could not start again.
    if (clients.isTorn(path)) rmSync(path);
    const temporaries = leftovers(dirname(path));
    if (clients.unanswered > 0) killed.unanswered++;
    if (temporaries.some((name) => !killed.temporaries.includes(name))) {
      killed.writing++;
    }
    killed.temporaries = temporaries;
    killed.pids.add(service.program.pid);
    killed.cycles++;
  }
  const last = await startService(program, path);
  try {
    clients.compare(await getItems(last.url));
  } finally {
    last.program.signal("SIGTERM");
    assert.equal(await last.program.ended, 0, last.program.stderr);
  }
  return killed;
}

const KILLS = 200;

test(
  `Bun: a service killed ${KILLS} times under load has every acknowledged change after every restart`,
  { timeout: 600_000 },
  (t) =>
    inScratch(async (directory) => {
      const start = performance.now();
      const killed = await killService(
        example("bun/service.ts"),
        join(directory, "state.json"),
        randomFrom(t),
        ({ cycles }) => cycles === KILLS,
      );
      const { clients, unanswered, writing, temporaries, pids } = killed;
      t.diagnostic(
        `${KILLS} kills in ${
          Math.round((performance.now() - start) / 1000)
        } s, ${clients.acknowledgements} changes acknowledged, ${clients.lost.length} lost, ${clients.undone.length} read and undone, ${clients.torn.length} of ${clients.looks} looks at the file torn; ${unanswered} kills with requests unanswered, ${writing} while a file was being written; ${temporaries.length} temporary files left`,
      );
      assert.deepEqual(clients.lost, []);
      assert.deepEqual(clients.undone, []);
      assert.deepEqual(clients.torn, []);
      // Else they were not killed under load.
      assert.ok(unanswered > KILLS / 2, `${unanswered} kills unanswered`);
      assert.ok(writing > KILLS / 20, `${writing} kills while writing`);
      // One for each killed write at most, and nothing else.
      assert.ok(temporaries.length <= writing);
      for (const name of temporaries) {
        const [, pid] =
          /^\.state\.json\.(\d+)\.[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\.tmp$/
            .exec(name) ?? [];
        assert.ok(pids.has(Number(pid)), name);
      }
      assert.deepEqual(
        readdirSync(directory).toSorted(),
        [...temporaries, "state.json"].toSorted(),
      );
    }),
);

const SERVICE_CONTROLS = [
  {
    breaks: "acknowledges before the write is durable",
    edit: [
      "  await writeTextAtomic(file, text);\n",
      "  void writeTextAtomic(file, text);\n",
    ],
    missed: ({ clients: { lost } }: Killed) => lost,
  },
  {
    breaks: "lets readers see what is not durable yet",
    edit: [
      "GET: () => Response.json(durable.items)",
      "GET: () => Response.json(newest.items)",
    ],
    missed: ({ clients: { undone } }: Killed) => undone,
  },
  {
    breaks: "writes in place, in two parts",
    edit: [
      "  await writeTextAtomic(file, text);\n",
      "  await Bun.write(file, text.slice(0, 9));\n  await Bun.sleep(1);\n  await Bun.write(file, text);\n",
    ],
    missed: ({ clients: { torn } }: Killed) => torn,
  },
] as const;

for (const { breaks, edit, missed } of SERVICE_CONTROLS) {
  test(
    `control: the same clients catch a service that ${breaks}`,
    { timeout: 600_000 },
    (t) =>
      inScratch(async (directory) => {
        const killed = await killService(
          example("bun/service.ts", edit),
          join(directory, "state.json"),
          randomFrom(t),
          (soFar) => missed(soFar).length > 0 || soFar.cycles === KILLS,
        );
        t.diagnostic(
          `${killed.cycles} kills: ${missed(killed).slice(0, 3).join("; ")}`,
        );
        assert.ok(missed(killed).length > 0);
      }),
  );
}

test("Bun: a service that is told to stop under load answers what was asked, keeps it, and leaves nothing", (t) =>
  inScratch(async (directory) => {
    const path = join(directory, "deep", "state.json");
    const clients = new Clients();
    const { program, url } = await startService(
      example("bun/service.ts"),
      path,
    );
    try {
      let isEnding = false;
      await clients.load(url, path, () => isEnding, () => {
        if (isEnding || clients.acknowledgements < 100) return;
        isEnding = true;
        program.signal("SIGTERM");
      });
      assert.equal(await program.ended, 0, program.stderr);
    } finally {
      program.signal("SIGKILL");
    }
    t.diagnostic(`${clients.acknowledgements} changes acknowledged`);
    clients.compare(JSON.parse(readFileSync(path, "utf8")).items);
    assert.deepEqual(clients.lost, []);
    assert.deepEqual(clients.undone, []);
    assert.deepEqual(clients.torn, []);
    assert.deepEqual(readdirSync(dirname(path)), ["state.json"]);
  }));

test("Bun: the service says what is wrong with a request, and keeps any key and value that is right", () =>
  inScratch(async (directory) => {
    const program = example("bun/service.ts");
    const path = join(directory, "state.json");
    const service = await startService(program, path);
    const ask = async (method: string, name: string, body?: string) => {
      const response = await fetch(
        new URL(name, service.url),
        body === undefined ? { method } : { method, body },
      );
      return [response.status, await response.text()] as const;
    };
    try {
      const wrong = [
        [400, /must be JSON/, "PUT", "items/a", "{"],
        [400, /must be JSON/, "PUT", "items/a", ""],
        [400, /^{"error":"A key is/, "PUT", "items/a%2Fb", "1"],
        [400, /A key is/, "PUT", `items/${"a".repeat(101)}`, "1"],
        [404, /no item \\"a\\"/, "GET", "items/a"],
        [404, /no item/, "GET", "items/constructor"],
        [404, /no DELETE \/items\/a: try/, "DELETE", "items/a"],
        [413, /^/, "PUT", "items/a", `"${"x".repeat(200_000)}"`],
      ] as const;
      for (const [status, message, method, name, body] of wrong) {
        const [actual, text] = await ask(method, name, body);
        assert.equal(actual, status, `${method} ${name}: ${text}`);
        assert.match(text, message);
      }
      assert.deepEqual(readdirSync(directory), []);
      for (const key of ["a", "__proto__", "constructor", "0"]) {
        assert.deepEqual(await ask("PUT", `items/${key}`, `["${key}"]`), [
          204,
          "",
        ]);
        assert.deepEqual(await ask("GET", `items/${key}`), [
          200,
          `["${key}"]`,
        ]);
      }
      const [, all] = await ask("GET", "items");
      service.program.signal("SIGTERM");
      assert.equal(await service.program.ended, 0);
      const { revision, items } = JSON.parse(readFileSync(path, "utf8"));
      assert.equal(revision, 4);
      assert.equal(JSON.stringify(items), all);
      for (const args of [[], [""], [path, "x"], [path, "70000"]]) {
        const usage = await run(BUN.command("", program, ...args), { env });
        assert.equal(usage.code, 2);
        assert.match(usage.stderr, /^Usage: /);
      }
    } finally {
      service.program.signal("SIGKILL");
    }
  }));

async function put(
  { url }: Service,
  key: string,
  body: string,
): Promise<readonly [number, string]> {
  const response = await fetch(`${url}items/${key}`, { method: "PUT", body });
  return [response.status, await response.text()];
}

function nested(depth: number): string {
  return `${"[".repeat(depth)}1${"]".repeat(depth)}`;
}

test("Bun: a value or a state that is too much for the file is refused, and changes after it are kept", () =>
  inScratch(async (directory) => {
    const path = join(directory, "state.json");
    const room = 10_000_000;
    const items = { a: "x".repeat(room - 50_000) };
    writeFileSync(path, JSON.stringify({ revision: 1, items }));
    const service = await startService(example("bun/service.ts"), path);
    try {
      for (const depth of [65, 1000, 40_000]) {
        const [status, text] = await put(service, "deep", nested(depth));
        assert.equal(status, 400, text);
        assert.match(text, /nested 64 deep/);
      }
      assert.deepEqual(await put(service, "deep", nested(64)), [204, ""]);
      const [status, text] = await put(service, "b", `"${"x".repeat(60_000)}"`);
      assert.equal(status, 507, text);
      assert.match(text, /no room/);
      assert.deepEqual(await put(service, "b", "1"), [204, ""]);
      // Indented, a deep value would take the square of its length.
      assert.ok(statSync(path).size < room - 49_000);
      const wide = `[${"0,".repeat(20_000)}0]`;
      assert.deepEqual(await put(service, "a", wide), [204, ""]);
      assert.equal(
        readFileSync(path, "utf8"),
        `{"revision":4,"items":{"a":${wide},"deep":${nested(64)},"b":1}}\n`,
      );
    } finally {
      service.program.signal("SIGKILL");
    }
  }));

test("Bun: a change whose write failed is not shown, and comes with the next write", () =>
  inScratch(async (directory) => {
    const path = join(directory, "state.json");
    const service = await startService(example("bun/service.ts"), path);
    try {
      mkdirSync(path);
      const [status, text] = await put(service, "a", "1");
      assert.equal(status, 500, text);
      assert.match(text, /may not have been kept: send it again/);
      assert.deepEqual(await getItems(service.url), {});
      rmSync(path, { recursive: true });
      assert.deepEqual(await put(service, "b", "2"), [204, ""]);
      assert.deepEqual(await getItems(service.url), { a: 1, b: 2 });
    } finally {
      service.program.signal("SIGKILL");
    }
  }));

test("Bun: a file that is no state of the service is named, and left as it is", () =>
  inScratch(async (directory) => {
    const path = join(directory, "state.json");
    const fails = async (reason: RegExp) => {
      const service = new Program(
        BUN.command("", example("bun/service.ts"), path),
        env,
      );
      // Else one that serves it would run until the deadline.
      void service.printed(/^listening/).then(() => service.signal("SIGKILL"));
      assert.equal(await service.ended, 1);
      assert.match(service.stderr, /^\S+\/state\.json: .+\n$/);
      assert.match(service.stderr, reason);
      assert.equal(service.stdout, "");
    };
    const texts = [
      ...["[]", '"x"', "null", '{"items":{"a":1}}', '{"revision":1}'],
      ...['{"revision":1,"items":[]}', '{"revision":-1,"items":{}}'],
      ...['{"revision":"1","items":{}}', '{"revision":0.5,"items":{}}'],
      `{"revision":1,"items":{"a":${nested(65)}}}`,
    ];
    for (const text of texts) {
      writeFileSync(path, text);
      await fails(/: this is not a state of this service/);
      assert.equal(readFileSync(path, "utf8"), text);
    }
    writeFileSync(path, '{"revision": 1,}');
    await fails(/not JSON: .* line 1, column 16/);
    rmSync(path);
    mkdirSync(path);
    await fails(/it is a directory/);
    assert.deepEqual(readdirSync(directory), ["state.json"]);
  }));

test("Bun: a request that is never sent to its end does not keep a service that is told to stop", () =>
  inScratch(async (directory) => {
    for (const signals of [1, 2]) {
      const { program, url } = await startService(
        example("bun/service.ts"),
        join(directory, "state.json"),
      );
      const { hostname, port } = new URL(url);
      const socket = connect(Number(port), hostname);
      const sending = new AbortController();
      try {
        const closed = new Promise<void>((resolve) => {
          socket.on("error", () => {}).on("close", () => resolve());
        });
        socket.write(
          `PUT /items/a HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: 9999\r\n\r\n"`,
        );
        await setTimeout(200);
        program.signal("SIGTERM");
        // Never idle, so that no idle timeout ends it.
        const send = async () => {
          while (!sending.signal.aborted && !socket.destroyed) {
            await setTimeout(100);
            socket.write("x");
          }
        };
        const sent = send();
        if (signals === 2) {
          await setTimeout(500);
          program.signal("SIGTERM");
        }
        assert.equal(await program.ended, signals === 1 ? 0 : null);
        await closed;
        sending.abort();
        await sent;
      } finally {
        sending.abort();
        socket.destroy();
        program.signal("SIGKILL");
      }
      assert.deepEqual(readdirSync(directory), []);
    }
  }));

// The programs on Deno.

const [denoPath = ""] = DENO.command("", "");

/** A command of Deno with the network cut off. */
function denoIn(directory: string, ...args: readonly string[]): string[] {
  return [
    "env",
    `--chdir=${directory}`,
    "HTTP_PROXY=http://127.0.0.1:9",
    "HTTPS_PROXY=http://127.0.0.1:9",
    denoPath,
    ...args,
  ];
}

const CUSTOMERS = ["ann", "bob", "__proto__"];

function orders(first: number, last: number): string {
  let lines = "";
  for (let index = first; index < last; index++) {
    const customer = CUSTOMERS[index % CUSTOMERS.length];
    lines += `${JSON.stringify({ customer, cents: index })}\n`;
  }
  return lines;
}

function totals(count: number): Record<string, number> {
  const cents = new Map<string, number>();
  for (let index = 0; index < count; index++) {
    const customer = CUSTOMERS[index % CUSTOMERS.length] ?? "";
    cents.set(customer, (cents.get(customer) ?? 0) + index);
  }
  return Object.fromEntries(cents);
}

const ROUND = 5000;

/** Kills the task in the middle of its work, some times; what it had said to be counted and was not. */
async function killTask(
  command: readonly string[],
  data: string,
  random: () => number,
  kills: number,
): Promise<string[]> {
  mkdirSync(data);
  const forgotten: string[] = [];
  let total = 0;
  let counted = 0;
  for (let done = 0; done < kills;) {
    assert.ok(total < 20 * kills * ROUND, "never killed in the middle");
    appendFileSync(join(data, "orders.jsonl"), orders(total, total + ROUND));
    total += ROUND;
    const task = new Program(command, env);
    try {
      const batches = 1 + Math.floor(random() * 10);
      await task.printed(new RegExp(`(?:^counted .*\n){${batches}}`, "m"));
    } finally {
      task.signal("SIGKILL");
      await task.ended;
    }
    const { stdout, stderr } = task;
    assert.match(
      stdout,
      new RegExp(`^going on after ${counted} orders\n`),
      stderr,
    );
    const said = [...stdout.matchAll(/counted (\d+) orders\n/g)].at(-1)?.[1];
    const checkpoint = existing(join(data, "totals.json"));
    counted = checkpoint.counted;
    if (counted < Number(said)) {
      forgotten.push(`${said} said to be counted, ${counted} were`);
    }
    assert.deepEqual(checkpoint.cents, totals(counted));
    if (counted < total) done++;
  }
  const { code, stdout, stderr } = await run(command, { env });
  assert.equal(code, 0, stderr);
  assert.ok(stdout.startsWith(`going on after ${counted} orders\n`), stdout);
  assert.ok(stdout.endsWith(`all ${total} orders are counted\n`), stdout);
  assert.deepEqual(existing(join(data, "totals.json")), {
    counted: total,
    cents: totals(total),
  });
  return forgotten;
}

/** The checkpoint, or the one to begin with where none was written. */
function existing(path: string): {
  counted: number;
  cents: Record<string, number>;
} {
  return existsSync(path)
    ? JSON.parse(readFileSync(path, "utf8"))
    : { counted: 0, cents: {} };
}

test("Deno: a task that is killed in the middle of its work goes on where it was, and counts every order once", async (t) => {
  const directory = join(clone, "examples/deno");
  const data = join(directory, "data");
  const kills = 10;
  try {
    const forgotten = await killTask(
      denoIn(directory, "task", "--quiet", "total"),
      data,
      randomFrom(t),
      kills,
    );
    const left = leftovers(data);
    t.diagnostic(
      `${kills} kills in the middle; ${left.length} temporary files left`,
    );
    assert.deepEqual(forgotten, []);
    assert.ok(left.length <= kills);
    assert.deepEqual(
      readdirSync(data).toSorted(),
      [...left, "orders.jsonl", "totals.json"].toSorted(),
    );
  } finally {
    rmSync(data, { recursive: true, force: true });
  }
});

test("control: the same kills catch a task that says counted before it is durable", (t) =>
  inScratch(async (directory) => {
    const program = example("deno/total_orders.ts", [
      "  await writeJsonAtomic(CHECKPOINT, {",
      "  void writeJsonAtomic(CHECKPOINT, {",
    ]);
    const data = join(directory, "data");
    const flags = [
      "--no-prompt",
      `--allow-read=${data}`,
      `--allow-write=${data}`,
    ];
    const forgotten = await killTask(
      denoIn(directory, "run", ...flags, program),
      data,
      randomFrom(t),
      10,
    );
    t.diagnostic(forgotten.join("; "));
    assert.ok(forgotten.length > 0);
  }));

interface Total {
  readonly log: string;
  /** Runs the program, which must end so. */
  readonly counts: (stdout: RegExp) => Promise<void>;
  readonly fails: (reason: RegExp) => Promise<void>;
  /** Looks whether the first orders are counted, each once, and no others. */
  readonly counted: (count: number) => void;
}

function inTotal(body: (total: Total) => Promise<void>): Promise<void> {
  return inScratch(async (directory) => {
    const data = join(directory, "data");
    mkdirSync(data);
    const flags = [`--allow-read=${data}`, `--allow-write=${data}`];
    const program = example("deno/total_orders.ts");
    const total = () =>
      run(denoIn(directory, "run", "--no-prompt", ...flags, program), { env });
    await body({
      log: join(data, "orders.jsonl"),
      async counts(pattern) {
        const { code, stdout, stderr } = await total();
        assert.equal(stderr, "");
        assert.equal(code, 0);
        assert.match(stdout, pattern);
      },
      async fails(reason) {
        const { code, stdout, stderr } = await total();
        assert.equal(code, 1, stdout);
        assert.match(stderr, reason);
        // One line, and no trace of calls.
        assert.match(stderr, /^.+\n$/);
        assert.doesNotMatch(stdout, /^all /m);
      },
      counted(count) {
        assert.deepEqual(existing(join(data, "totals.json")), {
          counted: count,
          cents: totals(count),
        });
      },
    });
  });
}

test("Deno: a last order that is still being written is counted once it is whole", () =>
  inTotal(async ({ log, counts, counted }) => {
    writeFileSync(log, orders(0, 3));
    const line = Buffer.from(orders(3, 4).replace("ann", "\u00fc"));
    // Within the customer's only character, and elsewhere.
    for (const cut of [1, line.indexOf(0xc3) + 1, line.length - 3]) {
      writeFileSync(log, orders(0, 3));
      appendFileSync(log, line.subarray(0, cut));
      await counts(/all 3 orders are counted\nline 4 is no order yet\n$/);
      counted(3);
    }
    writeFileSync(log, orders(0, 4));
    await counts(/^going on after 3 orders\n.*all 4 orders are counted\n$/s);
    counted(4);
    // Whole, but for its newline.
    appendFileSync(log, orders(4, 5).trimEnd());
    await counts(/all 5 orders are counted\n$/);
    appendFileSync(log, `\n${orders(5, 6)}`);
    await counts(/all 6 orders are counted\n$/);
    counted(6);
  }));

test("Deno: a broken line with others behind it ends the total with its number, until it is mended", () =>
  inTotal(async ({ log, counts, fails, counted }) => {
    for (const after of [orders(61, 64), "{\n", '{"customer":']) {
      writeFileSync(log, `${orders(0, 60)}{"customer":\n${after}`);
      await fails(/line 61\b/);
      counted(50);
    }
    writeFileSync(log, orders(0, 64));
    await counts(/^going on after 50 orders\n.*all 64 orders are counted\n$/s);
    counted(64);
    // Two in one, as of one appended to another without a newline.
    writeFileSync(log, orders(0, 65).replace(/\n(?=[^\n]*\n$)/, ""));
    await fails(/line 64\b/);
    counted(64);
  }));

test("Deno: an order of the wrong shape is named, and not counted", () =>
  inTotal(async ({ log, counts, fails, counted }) => {
    const wrong = [
      ...['{"customer":"ann","cents":"250"}', '{"customer":"ann"}', "null"],
      ...['{"customer":"ann","cents":0.5}', '{"cents":1}', "[]", "1"],
    ];
    for (const order of wrong) {
      writeFileSync(log, `${orders(0, 2)}${order}\n${orders(3, 5)}`);
      await fails(/orders\.jsonl: order 3 is malformed: /);
      counted(0);
    }
    writeFileSync(log, orders(0, 5));
    await counts(/all 5 orders are counted\n$/);
    counted(5);
  }));

test("Deno: a log with fewer orders than are counted is told, and nothing is counted", () =>
  inTotal(async ({ log, counts, fails, counted }) => {
    writeFileSync(log, orders(0, 3));
    await counts(/all 3 orders are counted\n$/);
    writeFileSync(log, orders(0, 2));
    await fails(/orders\.jsonl has 2 orders, but 3 are counted/);
    rmSync(log);
    await fails(/has 0 orders, but 3 are counted/);
    counted(3);
  }));

test("Deno: the tasks run with permissions for their data alone, and without network", async () => {
  const directory = join(clone, "examples/deno");
  const { tasks } = JSON.parse(
    readFileSync(join(directory, "deno.json"), "utf8"),
  );
  assert.deepEqual(tasks.total.match(/--(?:allow|no-prompt)\S*/g), [
    "--no-prompt",
    "--allow-read=./data",
    "--allow-write=./data",
  ]);
  const task = (name: string) =>
    run(denoIn(directory, "task", "--quiet", name), { env });
  try {
    assert.deepEqual(await task("total"), {
      code: 0,
      stdout: "going on after 0 orders\nall 0 orders are counted\n",
      stderr: "",
    });
    for (const count of [1, 2]) {
      assert.equal((await task("order")).code, 0);
      const { stdout } = await task("total");
      assert.match(stdout, new RegExp(`all ${count} orders are counted\n$`));
      const { cents } = existing(join(directory, "data/totals.json"));
      assert.deepEqual(cents, { ann: 250 * count });
    }
    assert.equal((await task("order")).code, 0);
    const denied = await run(
      denoIn(
        directory,
        ...["run", "--no-prompt", "--allow-read=./data", "total_orders.ts"],
      ),
      { env },
    );
    assert.equal(denied.code, 1);
    assert.match(denied.stderr, /PermissionScopeError: .*--allow-write/);
  } finally {
    rmSync(join(directory, "data"), { recursive: true, force: true });
  }
});

test("Deno: the main job of the README writes the document and prints the receipt", async () => {
  const { scripts } = JSON.parse(
    readFileSync(join(clone, "package.json"), "utf8"),
  );
  const { code, stdout, stderr } = await run(
    [
      "env",
      `--chdir=${clone}`,
      "sh",
      "-c",
      `echo '{"port": 8080}' | (PATH=node_modules/.bin:$PATH; ${scripts.try})`,
    ],
    { env },
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /directorySynced: true/);
  assert.match(stdout, /read back: { port: 8080 }/);
  assert.deepEqual(readdirSync(join(clone, "data")), ["document.json"]);
});

// The program on Node.

for (const runtime of [NODE_22, NODE_24, NODE_26]) {
  test(`${runtime.name}: settings are kept for their owner alone, and what is wrong is said, each with its exit code`, () =>
    inScratch(async (directory) => {
      const file = join(directory, "settings.json");
      const program = example("node/settings.ts");
      const settings = (...args: string[]): Promise<Finished> =>
        run(
          runtime.command(directory, program, ...args, "--file", file),
          { env },
        );
      const says = async (stdout: string, ...args: string[]) =>
        assert.deepEqual(await settings(...args), {
          code: 0,
          stdout,
          stderr: "",
        });
      const fails = async (code: number, reason: RegExp, ...args: string[]) => {
        const finished = await settings(...args);
        assert.equal(finished.code, code, finished.stderr);
        assert.match(finished.stderr, reason);
        // Its own words, and no trace of calls.
        assert.doesNotMatch(finished.stderr, /^\s+at /m);
        assert.equal(finished.stdout, "");
      };

      await fails(1, /no settings in .*settings\.json: make some/, "list");
      await fails(1, /no settings in/, "get", "token");
      assert.deepEqual(readdirSync(directory), []);
      await says("", "set", "token", "s3cret");
      assert.equal(statSync(file).mode & 0o777, 0o600);
      await says("", "set", "__proto__", "kept");
      await says("", "set", "colour", "red and blue");
      await says("s3cret\n", "get", "token");
      await says("kept\n", "get", "__proto__");
      await says("__proto__=kept\ncolour=red and blue\ntoken=s3cret\n", "list");
      await says("", "unset", "colour");
      await fails(1, /no setting "colour"/, "get", "colour");
      await fails(1, /no setting "colour"/, "unset", "colour");
      await fails(1, /no setting "constructor"/, "get", "constructor");
      const wrongLines = [[], ["get"], ["list", "a"], ["set", "a"], ["put"]];
      for (const line of wrongLines) await fails(2, /^Usage: /, ...line);
      await fails(2, /--fil.*\nUsage: /s, "list", "--fil", "x");
      const nameless = await run(
        runtime.command(directory, program, "list", "--file", ""),
        { env },
      );
      assert.equal(nameless.code, 2);
      assert.match(nameless.stderr, /^--file names no file\nUsage: /);

      writeFileSync(file, '{"a": "1"}', { mode: 0o644 });
      await says("", "set", "token", "s3cret");
      assert.equal(statSync(file).mode & 0o777, 0o600);
      const broken = '{\n  "a": "1",\n}\n';
      for (
        const [text, reason] of [
          [broken, /settings\.json:3:1: this is no JSON/],
          ['["a"]', /not an object whose values are strings/],
          ['{"a": 1}', /not an object whose values are strings/],
        ] as const
      ) {
        writeFileSync(file, text);
        await fails(3, reason, "set", "token", "s3cret");
        assert.equal(readFileSync(file, "utf8"), text);
      }
      rmSync(file);
      mkdirSync(file);
      await fails(3, /settings\.json/, "list");
      assert.deepEqual(readdirSync(directory), ["settings.json"]);
    }));
}
