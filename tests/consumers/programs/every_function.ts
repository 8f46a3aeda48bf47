/**
 * Uses every function and type of the package, with nothing but the package:
 * it is compiled by several compilers, with and without the types of Node.
 *
 * @module
 */

import {
  acquireLock,
  AlreadyExistsError,
  AtomicError,
  type AtomicWriter,
  inspectLock,
  isLocked,
  type Lock,
  type LockInfo,
  openAtomicWriter,
  openSnapshot,
  ParseError,
  readBytes,
  readBytesSync,
  readJson,
  readJsonl,
  readJsonlSync,
  readJsonSync,
  readText,
  readTextSync,
  SerializationError,
  type Snapshot,
  tryAcquireLock,
  updateJsonAtomic,
  type UpdateResult,
  updateTextAtomicSync,
  withDefaults,
  withLock,
  writeBytesAtomic,
  writeBytesAtomicSync,
  writeJsonAtomic,
  writeJsonAtomicSync,
  writeJsonlAtomic,
  writeJsonlAtomicSync,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "@aj/atomic";
import { AtomicError as SameError } from "@aj/atomic/errors";
import { writeJsonAtomic as sameFunction } from "@aj/atomic/json";
import type { JsonlReadOptions } from "@aj/atomic/jsonl";
import type { TextWriteOptions } from "@aj/atomic/text";
import type { ProgressOption, WriteOptions } from "@aj/atomic/bytes";
import { withDefaults as sameDefaults } from "@aj/atomic/defaults";

interface Visits {
  readonly visits: number;
}

function expect(what: string, holds: boolean): void {
  if (!holds) throw new Error(`Expected: ${what}`);
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("Expected a rejection");
}

async function main(): Promise<void> {
  const folder = "data/every-function";

  const receipt: WriteReceipt = await writeJsonAtomic(`${folder}/a.json`, {
    visits: 1,
  });
  expect("durable", receipt.fileSynced && receipt.directorySynced);
  expect("nothing lost", receipt.notPreserved.length === 0);
  const read: Visits = await readJson<Visits>(`${folder}/a.json`);
  expect("JSON is read back", read.visits === 1);
  writeJsonAtomicSync(`${folder}/a.json`, { visits: 2 });
  expect(
    "JSON, sync",
    readJsonSync<Visits>(`${folder}/a.json`).visits === 2,
  );
  const fallback: Visits = await readJson(`${folder}/none.json`, {
    fallback: { visits: 0 },
  });
  expect("fallback", fallback.visits === 0);

  const text: TextWriteOptions = { durability: "ordered", mode: 0o600 };
  await writeTextAtomic(`${folder}/t.txt`, "hello", text);
  expect("text", await readText(`${folder}/t.txt`) === "hello\n");
  writeTextAtomicSync(`${folder}/t.txt`, ["a", "b"]);
  expect("text, sync", readTextSync(`${folder}/t.txt`) === "ab\n");

  const bytes: WriteOptions & ProgressOption = { onProgress: () => {} };
  await writeBytesAtomic(`${folder}/b`, [new Uint8Array([1, 2])], bytes);
  expect("bytes", (await readBytes(`${folder}/b`)).length === 2);
  writeBytesAtomicSync(`${folder}/b`, new Uint8Array(3));
  expect("bytes, sync", readBytesSync(`${folder}/b`).length === 3);

  await writeJsonlAtomic(`${folder}/l.jsonl`, [{ visits: 1 }, { visits: 2 }]);
  const lines: JsonlReadOptions = { onError: "throw" };
  let sum = 0;
  for await (const record of readJsonl<Visits>(`${folder}/l.jsonl`, lines)) {
    sum += record.visits;
  }
  writeJsonlAtomicSync(`${folder}/l.jsonl`, [{ visits: 3 }]);
  for (const record of readJsonlSync<Visits>(`${folder}/l.jsonl`)) {
    sum += record.visits;
  }
  expect("records", sum === 6);

  const writer: AtomicWriter = await openAtomicWriter(`${folder}/w`);
  await writer.write(new Uint8Array(4));
  expect("writer", (await writer.commit()).bytes === 4);
  const stream: WritableStream<Uint8Array> =
    (await openAtomicWriter(`${folder}/w`)).writable;
  await stream.abort();

  const snapshot: Snapshot = await openSnapshot(`${folder}/t.txt`);
  try {
    expect("snapshot", await snapshot.text() === "ab\n");
    for await (const line of snapshot.lines()) expect("line", line === "ab");
    const readable: ReadableStream<Uint8Array> = snapshot.readable;
    await readable.cancel();
  } finally {
    await snapshot[Symbol.asyncDispose]();
  }

  const quick = withDefaults({ durability: "none" });
  expect(
    "defaults",
    !(await quick.writeTextAtomic(`${folder}/q`, "quick")).fileSynced,
  );

  const lock: Lock = await acquireLock(`${folder}/q`);
  await writeTextAtomic(`${folder}/q`, "locked", { lock });
  expect("isLocked", await isLocked(`${folder}/q`));
  await lock.release();
  const none: Lock | undefined = await tryAcquireLock(`${folder}/q`);
  await none?.release();
  const info: LockInfo = await inspectLock(`${folder}/q`);
  expect("free again", !info.isLocked);
  expect("withLock", await withLock(`${folder}/q`, () => 1) === 1);

  const updated: UpdateResult<Visits> = await updateJsonAtomic(
    `${folder}/u.json`,
    ({ visits }: Visits) => ({ visits: visits + 1 }),
    { initial: { visits: 0 } },
  );
  expect("update", updated.value.visits === 1 && updated.changed);
  const same = updateTextAtomicSync(`${folder}/q`, (text = "") => text);
  expect("unchanged", !same.changed);

  const exists = await rejection(
    writeTextAtomic(`${folder}/q`, "again", { createNew: true }),
  );
  expect(
    "AlreadyExistsError",
    exists instanceof AlreadyExistsError && exists.committed === false,
  );
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  const refused = await rejection(writeJsonAtomic(`${folder}/c`, cyclic));
  expect("SerializationError", refused instanceof SerializationError);
  const parse = await rejection(readJson(`${folder}/q`));
  expect("ParseError", parse instanceof ParseError && parse.line === 1);

  // An entry of its own must not bring a second copy of the code with it.
  expect("one AtomicError", Object.is(SameError, AtomicError));
  expect("one writeJsonAtomic", Object.is(sameFunction, writeJsonAtomic));
  expect("one withDefaults", Object.is(sameDefaults, withDefaults));
}

// A rejection that nobody handles ends the process with an error, everywhere.
main();
