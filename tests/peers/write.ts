/**
 * The program that the comparison runs: `WRITER MANNER PATH LABEL LENGTH...`
 * writes a document of each length to the path with the named writer, in one
 * of the {@linkcode Manner}s, and prints an {@linkcode Outcome} for each as a
 * line of JSON. The writers have their documented defaults.
 *
 * @module
 */

import { closeSync, openSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import process from "node:process";
import { writeTextAtomic } from "../../mod.ts";
import { document } from "../lab/document.ts";
import type { WriterName } from "./writers.ts";

export type Manner =
  /** One after the other. */
  | "in turn"
  /** All called before the first has ended. */
  | "at once"
  /** At a full second and each quarter after it, so that two processes write at once. */
  | "by the clock"
  /** In turn, again and again, until the process is killed; tells only failures. */
  | "endlessly"
  /** While the process has no file descriptor to spare, for 300 ms. */
  | "starved"
  /** Half a surrogate pair, in place of the documents. */
  | "ill-formed";

/** What became of one write. */
export interface Outcome {
  readonly error?: string;
}

/** What all of them can do. */
type Write = (path: string, text: string) => Promise<unknown>;

type Callable = (...args: readonly unknown[]) => unknown;

function isCallable(value: unknown): value is Callable {
  return typeof value === "function";
}

function member(of: unknown, name: string): Callable {
  const value = of !== null && typeof of === "object"
    ? Reflect.get(of, name)
    : undefined;
  if (!isCallable(value)) throw new TypeError(`There is no ${name}()`);
  return value;
}

/** What a package exports. Its address is computed, so that types are checked where it is not installed. */
function installed(entry: string): Promise<unknown> {
  return import(new URL(`./node_modules/${entry}`, import.meta.url).href);
}

const WRITERS: Readonly<Record<WriterName, () => Promise<Write> | Write>> = {
  "@aj/atomic": () => (path, text) => writeTextAtomic(path, text),
  "write-file-atomic": async () => {
    const module = await installed("write-file-atomic/lib/index.js");
    const write = member(module, "default");
    return async (path, text) => await write(path, text);
  },
  "atomically": async () => {
    const write = member(
      await installed("atomically/dist/index.js"),
      "writeFile",
    );
    return async (path, text) => await write(path, text);
  },
  "steno": async () => {
    const constructor = member(await installed("steno/lib/index.js"), "Writer");
    // One for each file, as its documentation wants it.
    const writers = new Map<string, unknown>();
    return async (path, text) => {
      const writer = writers.get(path) ??
        Reflect.construct(constructor, [path]);
      writers.set(path, writer);
      return await Reflect.apply(member(writer, "write"), writer, [text]);
    };
  },
  "Deno.writeTextFile": () => Deno.writeTextFile,
  "Bun.write": () => {
    if (!("Bun" in globalThis)) throw new TypeError("This is part of Bun");
    const write = member(Reflect.get(globalThis, "Bun"), "write");
    return async (path, text) => await write(path, text);
  },
  "fs.promises.writeFile": () => (path, text) => writeFile(path, text),
};

async function outcomeOf(writing: () => Promise<unknown>): Promise<Outcome> {
  try {
    await writing();
    return {};
  } catch (error) {
    return { error: String(error) };
  }
}

function tell(outcome: Outcome): void {
  console.log(JSON.stringify(outcome));
}

/** Takes all file descriptors that the process may have, and gives them back later. */
function starve(path: string): void {
  const held: number[] = [];
  try {
    while (true) held.push(openSync(path, "r"));
  } catch {
    setTimeout(() => held.forEach((descriptor) => closeSync(descriptor)), 300);
  }
}

/** Waits until the clock shows a multiple of that many milliseconds. */
async function multipleOf(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms - Date.now() % ms));
}

function isWriterName(name: string): name is WriterName {
  return Object.hasOwn(WRITERS, name);
}

const [name = "", manner = "", path = "", label = "", ...lengths] =
  "Deno" in globalThis ? Deno.args : process.argv.slice(2);
if (!isWriterName(name)) throw new TypeError(`There is no writer ${name}`);
const write = await WRITERS[name]();
const documents = lengths.map((length, index) =>
  document(`${label}-${index}`, Number(length))
);

if (manner === "in turn") {
  for (const text of documents) tell(await outcomeOf(() => write(path, text)));
} else if (manner === "by the clock") {
  await multipleOf(1000);
  for (const text of documents) {
    tell(await outcomeOf(() => write(path, text)));
    await multipleOf(250);
  }
} else if (manner === "at once") {
  const writings = documents.map((text) => outcomeOf(() => write(path, text)));
  (await Promise.all(writings)).forEach(tell);
} else if (manner === "endlessly") {
  while (true) {
    for (const text of documents) {
      const outcome = await outcomeOf(() => write(path, text));
      if (outcome.error !== undefined) tell(outcome);
    }
  }
} else if (manner === "starved") {
  // Loads what the writer loads at its first write: that too takes descriptors.
  await write(path, documents[0] ?? "");
  // Deno prepares its signals when they are first asked for, and dies where it
  // finds no descriptor for them.
  const nothing = () => {};
  process.on("SIGUSR2", nothing).off("SIGUSR2", nothing);
  starve(path);
  for (const text of documents) tell(await outcomeOf(() => write(path, text)));
} else if (manner === "ill-formed") {
  tell(await outcomeOf(() => write(path, "\ud800")));
} else {
  throw new TypeError(`There is no manner ${manner}`);
}
