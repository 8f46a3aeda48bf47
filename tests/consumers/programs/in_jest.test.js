/**
 * The package in a context of Jest, whose `Error`, `Object` and `Promise` are not
 * those of the runtime.
 */
/* global expect, test */

import { readFileSync } from "node:fs";
import {
  appendJsonl,
  NotFoundError,
  readJson,
  updateJsonAtomic,
  withLock,
  writeBytesAtomic,
  writeJsonAtomic,
} from "@aj/atomic";

test("a new file is made", async () => {
  const { created } = await writeJsonAtomic("data/new.json", { a: 1 });
  expect(created).toBe(true);
  expect(JSON.parse(readFileSync("data/new.json", "utf8"))).toEqual({ a: 1 });
});

test("where there is no file, there is the fallback", async () => {
  expect(await readJson("data/none.json", { fallback: 1 })).toBe(1);
  await expect(readJson("data/none.json")).rejects.toThrow(NotFoundError);
});

test("an update, an append, a lock and bytes", async () => {
  const add = (count) => count + 1;
  await updateJsonAtomic("data/count.json", add, { initial: 0 });
  const { value } = await updateJsonAtomic("data/count.json", add);
  expect(value).toBe(2);
  await appendJsonl("data/log.jsonl", [{ id: 1 }]);
  expect(readFileSync("data/log.jsonl", "utf8")).toBe('{"id":1}\n');
  expect(await withLock("data/count.json", () => 1)).toBe(1);
  await writeBytesAtomic("data/bytes", new Uint8Array([1, 2]));
  expect([...readFileSync("data/bytes")]).toEqual([1, 2]);
});

test("a promise is refused, and so is what createNew finds", async () => {
  await expect(writeJsonAtomic("data/p.json", { p: Promise.resolve(1) }))
    .rejects.toThrow("await it first");
  await expect(writeJsonAtomic("data/new.json", 1, { createNew: true }))
    .rejects.toMatchObject({ code: "EEXIST" });
});
