/**
 * What several processes do at once.
 *
 * @module
 */

import {
  openFile,
  readFrom,
  type ReadRequest,
  readWhole,
} from "../../_read_file.ts";
import { append, type Company, complete, lookAgain } from "../../_core.ts";
import { beginStream } from "../../_stream_write.ts";
import { needsNoWrite } from "../../_unchanged.ts";
import { prepare, prepareWrite, writeWhole } from "../../_write.ts";
import type { WriteOptions } from "../../mod.ts";
import {
  closing,
  failedWith,
  type Protocol,
  Refusal,
} from "../../_protocol.ts";
import { FileClaim, Violation } from "./claims.ts";
import type { Actor, Scenario, World } from "./interleave.ts";
import { Machine, type Process } from "./posix.ts";
import { type Scene, withParents } from "./scene.ts";
import { liveView, pathsIn } from "./view.ts";

const encoder = new TextEncoder();

/** How a process writes. */
interface Writing extends WriteOptions {
  readonly isStream?: true;
}

/** Nobody else writes in its realm. */
const ALONE: Company = {
  staged() {},
  checkTurn() {},
  olderTemporary: () => undefined,
};

/** A whole value at once. */
function whole(
  path: string,
  text: string,
  options: WriteOptions,
): Protocol<unknown> {
  const bytes = encoder.encode(text);
  return writeWhole(
    prepareWrite("writeBytesAtomic", "bytesWrite", path, options, () => bytes),
  );
}

/** The same bytes in two parts, as a stream writes them. */
function inParts(
  path: string,
  text: string,
  options: WriteOptions,
): Protocol<unknown> {
  const { port, request } = prepare("a stream", "bytesWrite", path, options);
  const half = Math.floor(text.length / 2);
  return (function* () {
    const write = yield* beginStream(port, request);
    return yield* complete(write, function* () {
      yield* append(write, encoder.encode(text.slice(0, half)));
      yield* append(write, encoder.encode(text.slice(half)));
      yield* lookAgain(write);
    }, ALONE);
  })();
}

/** A write by a process of its own. */
export function writer(
  process: Process,
  path: string,
  text: string,
  { isStream, ...options }: Writing = {},
): Actor {
  const { durability = "full", createNew = false } = options;
  return {
    process,
    start: () =>
      isStream ? inParts(path, text, options) : whole(path, text, options),
    resolved(_receipt, world) {
      const claim = world.claim(path);
      claim.observe(liveView(world.machine));
      if (createNew && claim.indexOf(text) !== 1) {
        throw new Violation(`createNew has replaced ${path}`);
      }
      // What others made, and have not synced yet, is not its to promise.
      const hasMade = world.hasCalled(process, "mkdir");
      const isMade = path.split("/").length > 3;
      const isDurable = durability === "full" && (hasMade || !isMade);
      claim.promise([text], isDurable);
    },
    ...(createNew
      ? {
        rejected(error) {
          const isThere = failedWith(error, "EEXIST") ||
            (error instanceof Refusal && error.code === "EEXIST");
          if (!isThere) throw new Violation(`createNew fails with ${error}`);
        },
      }
      : {}),
  };
}

/** What an update to this text does, by a process of its own: it leaves alone what is there already. */
function updater(process: Process, path: string, text: string): Actor {
  return {
    process,
    *start(port): Protocol<void> {
      const { request } = prepare("an update", "bytesWrite", path, {});
      const writing = whole(path, text, {});
      const found = textFrom(yield* readWhole(port, path, WHOLE));
      const isDone = found === text && (yield* needsNoWrite(port, request));
      if (!isDone) yield* writing;
    },
    resolved(_result, world) {
      const claim = world.claim(path);
      claim.observe(liveView(world.machine));
      claim.promise([text], true);
    },
  };
}

/** A read by a process of its own: it must find what was there when it opened the file. */
export function reader(process: Process, path: string): Actor {
  let opened: string | undefined;
  return {
    process,
    *start(port): Protocol<unknown> {
      const reading = readWhole(port, path, WHOLE);
      for (let step = reading.next(); !step.done;) {
        let result: unknown;
        try {
          result = yield step.value;
        } catch (error) {
          step = reading.throw(error);
          continue;
        }
        if (step.value.name === "open") opened = textOf(process, path);
        step = reading.next(result);
        if (step.done) return textFrom(step.value);
      }
      return undefined;
    },
    resolved(text) {
      if (text === undefined || text !== opened) {
        throw new Violation(
          `a reader of ${path} has opened ${JSON.stringify(opened)} and read ${
            JSON.stringify(text)
          }`,
        );
      }
    },
    rejected(error, world) {
      const wasAbsent = world.claim(path).first === undefined;
      if (!wasAbsent || !failedWith(error, "ENOENT")) {
        throw new Violation(`a reader of ${path} fails: ${error}`);
      }
    },
  };
}

const WHOLE: ReadRequest = {
  maxBytes: 2 ** 32,
  capacity: 2 ** 32,
  retryMs: 0,
  signal: undefined,
};

function textFrom(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** What the file has that the process has open. */
function textOf(process: Process, path: string): string | undefined {
  const bytes = process.openedBy(path);
  return bytes && textFrom(bytes);
}

/** A snapshot by a process of its own: it reads what it has opened, whatever comes meanwhile. */
export function snapshot(process: Process, path: string): Actor {
  let opened: string | undefined;
  return {
    process,
    *start(port): Protocol<unknown> {
      const { file } = yield* openFile(port, path, WHOLE);
      opened = textOf(process, file.path);
      return yield* closing(file, function* () {
        const once = yield* readFrom(file, WHOLE);
        const again = yield* readFrom(file, WHOLE);
        return [textFrom(once), textFrom(again)];
      });
    },
    resolved(found) {
      if (!Array.isArray(found) || found.some((text) => text !== opened)) {
        throw new Violation(
          `a snapshot of ${JSON.stringify(opened)} reads ${
            JSON.stringify(found)
          }`,
        );
      }
    },
  };
}

interface Plan {
  readonly old?: string;
  /** What one write call takes at the most. */
  readonly writeBytes?: number;
  readonly path?: string;
  readonly texts: readonly string[];
  readonly durability?: WriteOptions["durability"];
  readonly kills?: number;
  actors(machine: Machine, path: string): readonly Actor[];
}

function scenario(name: string, plan: Plan): Scenario {
  const { old, texts, durability, path = "/d/f" } = plan;
  return {
    name,
    ...(plan.kills === undefined ? {} : { kills: plan.kills }),
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      if (old !== undefined) {
        const file = root.create(path, 0o644);
        root.write(file, encoder.encode(old));
        root.close(file);
      }
      machine.syncAll();
      machine.processes.shift();
      machine.limits.writeBytes = plan.writeBytes ?? Infinity;
      const legal = texts.map((text) => ({ text, mode: 0o644 }));
      const survives = durability !== "none";
      const view = liveView(machine);
      const scene: Scene = {
        operation: name,
        machine,
        claims: [new FileClaim(path, legal, survives, view)],
        innocents: new Map(),
        paths: new Set([...pathsIn(view), ...withParents(path)]),
        isSecret: false,
      };
      return {
        scene,
        actors: plan.actors(machine, path),
        ended: (world: World) => {
          const isMade = world.claim(path).replacements > 0;
          if (world.kills === 0 && !isMade) {
            throw new Violation(
              "everybody has come to his end, and nobody has written",
            );
          }
        },
      };
    },
  };
}

const FULL: WriteOptions = {};
const NEW: WriteOptions = { createNew: true };
const STREAM: Writing = { isStream: true };
const NEW_STREAM: Writing = { isStream: true, createNew: true };
const ORDERED: WriteOptions = { durability: "ordered" };
const NONE: WriteOptions = { durability: "none" };

/** Writers of one file, each with its options; a reader too if asked for. */
function writers(
  name: string,
  all: readonly Writing[],
  plan: Partial<Plan> & {
    reads?: "whole" | "snapshot";
    samePid?: boolean;
  } = {},
): Scenario {
  const texts = all.map((_, index) => `text${index}`);
  return scenario(name, {
    texts,
    ...plan,
    actors(machine, path) {
      const actors = all.map((options, index) => {
        const pid = plan.samePid ? 1 : 100 + index;
        const process = machine.start(`writer${index}`, pid);
        return writer(process, path, texts[index] ?? "", options);
      });
      if (plan.reads === undefined) return actors;
      const read = plan.reads === "whole" ? reader : snapshot;
      return [...actors, read(machine.start("reader", 99), path)];
    },
  });
}

export const SCENARIOS: readonly Scenario[] = [
  writers("one writer, short writes", [FULL], { old: "old", writeBytes: 2 }),
  writers("one writer and a reader", [FULL], { old: "old", reads: "whole" }),
  writers("one writer and a snapshot", [FULL], {
    old: "old",
    reads: "snapshot",
  }),
  writers("a stream and a writer", [STREAM, FULL], { old: "old" }),
  writers("a stream with createNew and a writer", [NEW_STREAM, FULL]),
  writers("two writers", [FULL, FULL], { old: "old" }),
  writers("two writers of a new file, in containers with the same pid", [
    FULL,
    FULL,
  ], { samePid: true, writeBytes: 3 }),
  writers("two writers and a reader", [FULL, FULL], {
    old: "old",
    reads: "whole",
  }),
  writers("two writers with createNew", [NEW, NEW]),
  writers("a writer, and one with createNew", [FULL, NEW]),
  writers("two writers into a directory that is missing", [FULL, FULL], {
    path: "/d/a/f",
  }),
  writers("full and ordered", [FULL, ORDERED], { old: "old" }),
  scenario("a writer, and an update that finds what it has written", {
    old: "old",
    texts: ["text"],
    actors: (machine, path) => [
      writer(machine.start("writer", 100), path, "text"),
      updater(machine.start("updater", 101), path, "text"),
    ],
  }),
  writers("two writers that are not synced, and a reader", [NONE, NONE], {
    old: "old",
    durability: "none",
    reads: "whole",
  }),
];

/** Larger ones, for which the short form has no time. */
export const LARGE_SCENARIOS: readonly Scenario[] = [
  writers("three writers", [FULL, FULL, FULL], { old: "old" }),
  writers("three writers and a reader, none of which is killed", [
    FULL,
    FULL,
    FULL,
  ], { old: "old", reads: "whole", kills: 0 }),
  writers("two writers, and one with createNew", [FULL, FULL, NEW]),
  writers("three writers with createNew", [NEW, NEW, NEW]),
];
