/**
 * What is done on a disk whose power is cut, and what must be found there
 * afterwards. Of everything there are versions, counted from 1.
 *
 * @module
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  appendJsonl,
  moveAtomic,
  readJson,
  readJsonl,
  readText,
  repairJsonl,
  updateJsonAtomic,
  writeJsonlAtomic,
  writeTextAtomic,
} from "../../mod.ts";
import { document, wholeLabel } from "./document.ts";

/** One of the things that are done. */
export interface Step {
  /** Makes the version that follows the one that is there. */
  perform(directory: string, version: number): Promise<unknown>;
  /** The version that is there, and whole; 0 if there is none. */
  find(directory: string): Promise<number>;
}

const RECORDS = 300;

/** Of one block, or of many. */
function content(version: number): string {
  return document(`${version}.`, version % 2 === 1 ? 200 : 100_000);
}

/** Of a text; "" stands for no file. */
function versionOf(text: string): number {
  if (text === "") return 0;
  const label = wholeLabel(text);
  assert.ok(label !== undefined, `it is torn, with ${text.length} characters`);
  return Number(label);
}

interface Versioned {
  readonly version: number;
}

/** The versions that the records have, in their order. */
async function recorded(path: string): Promise<number[]> {
  const found: number[] = [];
  for await (const { version } of readJsonl<Versioned>(path)) {
    found.push(version);
  }
  return found;
}

export const STEPS: Readonly<Record<string, Step>> = {
  write: {
    perform: (directory, version) =>
      writeTextAtomic(join(directory, "text"), content(version)),
    find: async (directory) =>
      versionOf(await readText(join(directory, "text"), { fallback: "" })),
  },
  create: {
    perform: (directory, version) =>
      writeTextAtomic(
        join(directory, "made", `${version}`, "deep", "text"),
        content(version),
        { createNew: true },
      ),
    async find(directory) {
      for (let version = 1;; version++) {
        const path = join(directory, "made", `${version}`, "deep", "text");
        const text = await readText(path, { fallback: "" });
        if (text === "") return version - 1;
        assert.equal(versionOf(text), version);
      }
    },
  },
  stream: {
    perform: (directory, version) =>
      writeJsonlAtomic(
        join(directory, "records.jsonl"),
        Array.from({ length: RECORDS }, (_, index) => ({ version, index })),
      ),
    async find(directory) {
      const path = join(directory, "records.jsonl");
      if (!existsSync(path)) return 0;
      const [first = 0, ...rest] = await recorded(path);
      assert.equal(rest.length, RECORDS - 1);
      assert.ok(rest.every((version) => version === first));
      return first;
    },
  },
  checksum: {
    perform: (directory, version) =>
      writeTextAtomic(join(directory, "checked"), content(version), {
        checksum: true,
      }),
    find: async (directory) =>
      versionOf(
        await readText(join(directory, "checked"), {
          checksum: true,
          fallback: "",
        }),
      ),
  },
  update: {
    perform: (directory) =>
      updateJsonAtomic(
        join(directory, "count.json"),
        (count: number) => count + 1,
        { initial: 0 },
      ),
    find: (directory) =>
      readJson<number>(join(directory, "count.json"), { fallback: 0 }),
  },
  append: {
    perform: (directory, version) =>
      appendJsonl(join(directory, "log.jsonl"), [
        { version, filling: "x".repeat(version % 2 === 1 ? 10 : 20_000) },
        { version },
      ]),
    async find(directory) {
      const path = join(directory, "log.jsonl");
      if (!existsSync(path)) return 0;
      await repairJsonl(path);
      const found = await recorded(path);
      assert.deepEqual(
        found,
        found.map((_, index) => Math.floor(index / 2) + 1),
      );
      return Math.floor(found.length / 2);
    },
  },
  move: {
    async perform(directory, version) {
      const from = join(directory, "from", "text");
      // The move has to make it last.
      await writeTextAtomic(from, content(version), { durability: "none" });
      await moveAtomic(from, join(directory, "to", "text"), {
        overwrite: true,
      });
    },
    find: async (directory) =>
      versionOf(
        await readText(join(directory, "to", "text"), { fallback: "" }),
      ),
  },
};
