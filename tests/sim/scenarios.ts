/**
 * What several processes do at once.
 *
 * @module
 */

import { openFile, readFrom, readWhole } from "../../_read.ts";
import { prepareWrite, writeWhole } from "../../_write.ts";
import type { WriteOptions } from "../../mod.ts";
import {
  closing,
  failedWith,
  type Protocol,
  Refusal,
} from "../../_protocol.ts";
import { FileClaim, Violation } from "./claims.ts";
import type { Actor, Scenario } from "./interleave.ts";
import { Machine, type Process } from "./posix.ts";
import type { Scene } from "./scene.ts";
import { liveView } from "./view.ts";

const encoder = new TextEncoder();

/** A write by a process of its own. */
export function writer(
  process: Process,
  path: string,
  text: string,
  options: WriteOptions = {},
): Actor {
  const { durability = "full", createNew = false } = options;
  return {
    process,
    start(): Protocol<unknown> {
      const bytes = encoder.encode(text);
      return writeWhole(
        prepareWrite(
          "writeBytesAtomic",
          "bytesWrite",
          path,
          options,
          () => bytes,
        ),
      );
    },
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

/** A read by a process of its own: it must find a version that was there while it read. */
export function reader(process: Process, path: string): Actor {
  let before = 0;
  return {
    process,
    start(port) {
      return (function* (): Protocol<unknown> {
        const bytes = yield* readWhole(port, path, {
          maxBytes: 2 ** 32,
          capacity: 2 ** 32,
          retryMs: 0,
          signal: undefined,
        });
        return new TextDecoder().decode(bytes);
      })();
    },
    resolved(text, world) {
      const claim = world.claim(path);
      const index = typeof text === "string" ? claim.indexOf(text) : -1;
      if (index < before) {
        throw new Violation(
          `a reader of ${path} has read ${JSON.stringify(text)}`,
        );
      }
      before = index;
    },
    rejected(error, world) {
      const wasAbsent = world.claim(path).first === undefined;
      if (!wasAbsent || !failedWith(error, "ENOENT")) {
        throw new Violation(`a reader of ${path} fails: ${error}`);
      }
    },
  };
}

/** A snapshot by a process of its own: it reads what it has opened, whatever comes meanwhile. */
export function snapshot(process: Process, path: string): Actor {
  let opened: string | undefined;
  return {
    process,
    start(port) {
      const request = {
        maxBytes: 2 ** 32,
        capacity: 2 ** 32,
        retryMs: 0,
        signal: undefined,
      };
      return (function* (): Protocol<unknown> {
        const { file } = yield* openFile(port, path, request);
        opened = new TextDecoder().decode(process.openedBy(file.path));
        return yield* closing(file, function* () {
          const once = yield* readFrom(file, request);
          const again = yield* readFrom(file, request);
          return [once, again].map((bytes) => new TextDecoder().decode(bytes));
        });
      })();
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
      const names: Record<string, string[]> = { "/d": ["f"] };
      if (path === "/d/a/f") names["/d"] = ["a"];
      if (path === "/d/a/f") names["/d/a"] = ["f"];
      const legal = texts.map((text) => ({ text, mode: 0o644 }));
      const survives = durability !== "none";
      const view = liveView(machine);
      const scene: Scene = {
        operation: name,
        machine,
        claims: [new FileClaim(path, legal, survives, view)],
        innocents: new Map(),
        names: new Map(Object.entries(names)),
        isSecret: false,
      };
      return { scene, actors: plan.actors(machine, path) };
    },
  };
}

const FULL: WriteOptions = {};
const NEW: WriteOptions = { createNew: true };
const ORDERED: WriteOptions = { durability: "ordered" };
const NONE: WriteOptions = { durability: "none" };

/** Writers of one file, each with its options; a reader too if asked for. */
function writers(
  name: string,
  all: readonly WriteOptions[],
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
