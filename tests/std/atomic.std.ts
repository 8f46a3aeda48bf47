/**
 * The library as a Deno program uses it, in the company of `@std`: on real
 * files, with Deno's own test runner. `deno task test:std` runs it where JSR
 * can be reached; no other command reads this folder.
 *
 * @module
 */

import {
  readJson,
  readText,
  writeJsonAtomic,
  writeJsonlAtomic,
  writeTextAtomic,
} from "@aj/atomic";
import { AlreadyExistsError, NotFoundError } from "@aj/atomic/errors";
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ensureDir, exists, walk } from "@std/fs";
import { basename, dirname, join, relative, toFileUrl } from "@std/path";
import { validate, version } from "@std/uuid";

async function inTemporaryDirectory(
  body: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "atomic-std-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** The files below a directory, as paths relative to it. */
async function filesBelow(directory: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const { path } of walk(directory, { includeDirs: false })) {
    paths.push(relative(directory, path));
  }
  return paths.sort();
}

Deno.test("a tree of files is written and read back, and holds nothing else", () =>
  inTemporaryDirectory(async (directory) => {
    const documents = { "a.json": 1, "b/c.json": [2], "b/d/e.json": { f: 3 } };
    await Promise.all(
      Object.entries(documents).map(([path, value]) =>
        writeJsonAtomic(join(directory, path), value)
      ),
    );
    for (const [path, value] of Object.entries(documents)) {
      assertEquals(await readJson(join(directory, path)), value);
    }
    assertEquals(await filesBelow(directory), Object.keys(documents));
  }));

Deno.test("a directory made by ensureDir is written to, by path and by URL", () =>
  inTemporaryDirectory(async (directory) => {
    const path = join(directory, "made", "notes.txt");
    await ensureDir(dirname(path));
    const receipt = await writeTextAtomic(toFileUrl(path), "hello");
    assertEquals(basename(receipt.path), "notes.txt");
    assertEquals(await readText(path), "hello\n");
    assertEquals(receipt.created, true);
  }));

Deno.test("a temporary file is a hidden sibling with a random uuid in its name", () =>
  inTemporaryDirectory(async (directory) => {
    const path = join(directory, "records.jsonl");
    const names: string[] = [];
    async function* records() {
      yield { id: 1 };
      names.push(...await filesBelow(directory));
      yield { id: 2 };
    }
    await writeJsonlAtomic(path, records());
    assertEquals(names.length, 1);
    const [name = ""] = names;
    assertMatch(name, /^\.records\.jsonl\.\d+\..+\.tmp$/);
    const [pid = "", uuid = ""] = name.split(".").slice(-3, -1);
    assertEquals(Number(pid), Deno.pid);
    assert(validate(uuid), uuid);
    assertEquals(version(uuid), 4);
    assertEquals(await filesBelow(directory), ["records.jsonl"]);
  }));

Deno.test("errors are told apart by their class", () =>
  inTemporaryDirectory(async (directory) => {
    const path = join(directory, "once.txt");
    await assertRejects(() => readText(path), NotFoundError);
    await writeTextAtomic(path, "first", { createNew: true });
    await assertRejects(
      () => writeTextAtomic(path, "second", { createNew: true }),
      AlreadyExistsError,
    );
    assertEquals(await readText(path), "first\n");
  }));

Deno.test("a failed write leaves neither the file nor a temporary one", () =>
  inTemporaryDirectory(async (directory) => {
    const path = join(directory, "records.jsonl");
    async function* records() {
      yield { id: 1 };
      assert(!await exists(path));
      throw new RangeError("no more");
    }
    await assertRejects(() => writeJsonlAtomic(path, records()), RangeError);
    assertEquals(await filesBelow(directory), []);
  }));
