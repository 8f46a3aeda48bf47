/**
 * What one realm does at once.
 *
 * @module
 */

import {
  AlreadyExistsError,
  openAtomicWriter,
  type WriteOptions,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../../mod.ts";
import { FileClaim, Violation } from "./claims.ts";
import { Machine } from "./posix.ts";
import type { Action, RealmScenario } from "./realm.ts";
import { withParents } from "./scene.ts";
import { liveView, pathsIn } from "./view.ts";

interface Write {
  readonly path?: string;
  readonly isSync?: true;
  readonly isStream?: true;
  readonly options?: WriteOptions;
}

interface Plan {
  readonly writes: readonly Write[];
  readonly old?: true;
  readonly isSlow?: true;
  /** Whether a call fails. */
  readonly fails?: true;
}

const SYNC: Write = { isSync: true };
const NEW: Write = { options: { createNew: true } };
const STREAM: Write = { isStream: true };
const ORDERED: Write = { options: { durability: "ordered" } };

async function inParts(
  path: string,
  text: string,
  options: WriteOptions,
): Promise<WriteReceipt> {
  const writer = await openAtomicWriter(path, options);
  await writer.write(new TextEncoder().encode(`${text}\n`));
  return await writer.commit();
}

function realm(name: string, plan: Plan): RealmScenario {
  const { writes, old, isSlow, fails } = plan;
  // A stream has its place when it is committed.
  const isInOrder = writes.every(({ isStream }) => !isStream);
  const pathOf = (write: Write) => write.path ?? "/d/f";
  const paths = [...new Set(writes.map(pathOf))];
  const textOf = (index: number) => `text${index}\n`;
  return {
    name: [
      name,
      ...isSlow ? ["on a slow disk"] : [],
      ...fails ? ["and a call fails"] : [],
    ].join(", "),
    isSlow: isSlow ?? false,
    faults: fails ? 1 : 0,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      if (old) {
        for (const path of paths) {
          const file = root.create(path, 0o644);
          root.write(file, new TextEncoder().encode("old"));
          root.close(file);
        }
      }
      machine.syncAll();
      machine.processes.shift();
      const view = liveView(machine);
      const claims = paths.map((path) => {
        const legal = writes.flatMap((write, index) =>
          pathOf(write) === path ? [{ text: textOf(index) }] : []
        );
        return new FileClaim(path, legal, true, view, isInOrder);
      });
      const actions = writes.map((write, index): Action => {
        const { isSync, isStream, options = {} } = write;
        const path = pathOf(write);
        const text = `text${index}`;
        const claim = claims.find((claim) => claim.path === path);
        return {
          name: `write ${index}${isSync ? ", sync," : ""} of ${path}`,
          start() {
            if (isStream) return inParts(path, text, options);
            if (!isSync) return writeTextAtomic(path, text, options);
            return new Promise((resolve) =>
              resolve(writeTextAtomicSync(path, text, options))
            );
          },
          resolved({ superseded }) {
            // In place of a superseded write stands any of those called later.
            const texts = superseded
              ? writes.map((_, other) => textOf(other))
                .filter((_, other) => other > index || !isInOrder)
              : [textOf(index)];
            const { durability = "full" } = options;
            claim?.promise(texts, durability === "full");
          },
          ...(options.createNew
            ? {
              rejected(error) {
                if (!(error instanceof AlreadyExistsError)) {
                  throw new Violation(`createNew fails with ${error}`);
                }
              },
            }
            : {}),
        };
      });
      const scene = {
        operation: name,
        machine,
        claims,
        innocents: new Map<string, string>(),
        paths: new Set([...pathsIn(view), ...paths.flatMap(withParents)]),
        isSecret: false,
      };
      return { scene, process: machine.start("realm", 100), actions };
    },
  };
}

export const REALM_SCENARIOS: readonly RealmScenario[] = [
  realm("two writes", { writes: [{}, {}], old: true }),
  realm("three writes", { writes: [{}, {}, {}], old: true }),
  realm("a write, and a synchronous one", { writes: [{}, SYNC], old: true }),
  realm("a synchronous write among two", { writes: [{}, SYNC, {}], old: true }),
  realm("two writes, and a synchronous one", {
    writes: [{}, {}, SYNC],
    old: true,
  }),
  realm("a synchronous write that promises less than the one it overtakes", {
    writes: [{}, { ...ORDERED, ...SYNC }],
    old: true,
  }),
  realm("two files in one directory", {
    writes: [{}, { path: "/d/g" }],
    old: true,
  }),
  realm("three files in one directory", {
    writes: [{}, { path: "/d/g" }, { path: "/d/h" }],
    old: true,
  }),
  realm("two files in a directory that is missing", {
    writes: [{ path: "/d/a/f" }, { path: "/d/a/g" }],
  }),
  realm("createNew before another write", { writes: [NEW, {}] }),
  realm("createNew after another write", { writes: [{}, NEW] }),
  realm("createNew and a synchronous write", { writes: [NEW, SYNC] }),
  realm("a stream and a synchronous write", {
    writes: [STREAM, SYNC],
    old: true,
  }),
  realm("a stream, a write and a synchronous write", {
    writes: [STREAM, {}, SYNC],
    old: true,
  }),
  realm("a synchronous write of another file", {
    writes: [{}, { path: "/d/g", isSync: true }],
    old: true,
  }),
  realm("two writes", { writes: [{}, {}], old: true, fails: true }),
  realm("a write, and a synchronous one", {
    writes: [{}, SYNC],
    old: true,
    fails: true,
  }),
  realm("two files in one directory", {
    writes: [{}, { path: "/d/g" }],
    old: true,
    fails: true,
  }),
  realm("two files in a directory that is missing", {
    writes: [{ path: "/d/a/f" }, { path: "/d/a/g" }],
    fails: true,
  }),
  realm("writes that differ in their mode", {
    writes: [{ options: { mode: 0o600 } }, {}, { options: { mode: 0o600 } }],
    old: true,
  }),
];

/** With so many schedules that most are sampled. */
export const SLOW_REALM_SCENARIOS: readonly RealmScenario[] = [
  realm("a write, and a synchronous one", {
    writes: [{}, SYNC],
    old: true,
    isSlow: true,
  }),
  realm("a stream and a synchronous write", {
    writes: [STREAM, SYNC],
    old: true,
    isSlow: true,
  }),
  realm("two files in one directory", {
    writes: [{}, { path: "/d/g" }],
    old: true,
    isSlow: true,
    fails: true,
  }),
  realm("two writes", { writes: [{}, {}], old: true, isSlow: true }),
  realm("a synchronous write among two", {
    writes: [{}, SYNC, {}],
    old: true,
    isSlow: true,
  }),
  realm("two files in one directory", {
    writes: [{}, { path: "/d/g" }],
    old: true,
    isSlow: true,
  }),
  realm("two files in a directory that is missing", {
    writes: [{ path: "/d/a/f" }, { path: "/d/a/g" }],
    isSlow: true,
  }),
];
