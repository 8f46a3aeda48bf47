import assert from "node:assert/strict";
import fc from "fast-check";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import {
  type JsonlReadOptions,
  NotFoundError,
  ParseError,
  readJsonl,
  readJsonlSync,
  SerializationError,
  withDefaults,
  writeJsonlAtomic,
  writeJsonlAtomicSync,
  type WriteProgress,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";

const seed = Number(process.env.FC_SEED ?? 20261120);
const numRuns = Number(process.env.FC_RUNS ?? 300);

async function readAll(path: string, options?: JsonlReadOptions) {
  const values: unknown[] = [];
  for await (const value of readJsonl(path, options)) values.push(value);
  return values;
}

const READERS = [
  readAll,
  (path: string, options?: JsonlReadOptions) =>
    new Promise<unknown[]>((resolve) => {
      resolve([...readJsonlSync(path, options)]);
    }),
];

test("records are written one on each line, and read back", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const records = [{ a: 1 }, [2, "three"], null, "é😀\n", 0, true, {}];
    const text = records.map((record) => `${JSON.stringify(record)}\n`).join(
      "",
    );
    const asynchronous = async function* () {
      yield* records;
    };
    for (
      const write of [
        () => writeJsonlAtomic(path, records),
        () => writeJsonlAtomic(path, asynchronous()),
        () => writeJsonlAtomicSync(path, new Set(records)),
      ]
    ) {
      const receipt = await write();
      assert.equal(readFileSync(path, "utf8"), text);
      assert.equal(receipt.bytes, new TextEncoder().encode(text).length);
      for (const read of READERS) assert.deepEqual(await read(path), records);
    }
    await writeJsonlAtomic(path, records, { trailingNewline: false });
    assert.equal(readFileSync(path, "utf8"), text.slice(0, -1));
    for (const read of READERS) assert.deepEqual(await read(path), records);
    await writeJsonlAtomic(path, []);
    assert.equal(readFileSync(path, "utf8"), "");
    await writeJsonlAtomic(path, [{ b: 1, a: 2 }], { sortKeys: true });
    assert.equal(readFileSync(path, "utf8"), '{"a":2,"b":1}\n');
  }));

test("a record without a JSON form is named with its place, and nothing is written", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    for (
      const [records, message] of [
        [[1, undefined], /undefined has no JSON form at \$\[1\]$/],
        [[{ a: [1n] }], /the BigInt 1n has no JSON form at \$\[0\]\.a\[0\]$/],
      ] as const
    ) {
      for (const write of [writeJsonlAtomic, writeJsonlAtomicSync]) {
        const error = await rejection(
          (async () => await write(path, records))(),
        );
        assert.ok(error instanceof SerializationError);
        assert.match(error.message, message);
      }
    }
    assert.equal(readFileSync(path, "utf8"), "old");
    assert.deepEqual(leftovers(directory), []);
  }));

test("what is no list of records is an error before the disk is touched", () =>
  inScratch(async (directory) => {
    const port = new FaultPort();
    await onPort(port, async () => {
      for (
        const records of [
          "text",
          new Uint8Array(2),
          new ArrayBuffer(2),
          new Map(),
          5,
          null,
          undefined,
          {},
        ]
      ) {
        for (const write of [writeJsonlAtomic, writeJsonlAtomicSync]) {
          const call: (path: string, records: unknown) => unknown =
            write as never;
          const error = await rejection(
            (async () => await call(join(directory, "f"), records))(),
          );
          assert.ok(error instanceof TypeError, String(records));
          assert.match(error.message, /^Records must come from/);
        }
      }
      const write: (
        path: string,
        records: unknown,
        options: unknown,
      ) => unknown = writeJsonlAtomicSync as never;
      assert.throws(
        () => write("f", [], { indent: 2 }),
        /Unknown option "indent"/,
      );
      const read: (path: string, options: unknown) => unknown =
        readJsonl as never;
      assert.throws(() => read("f", { maxLineBytes: 0 }), TypeError);
      assert.throws(() => read("f", { onError: "warn" }), TypeError);
      assert.throws(() => read("", {}), TypeError);
    });
    assert.deepEqual(port.calls, []);
  }));

test("progress tells of bytes and records", () =>
  inScratch(async (directory) => {
    const told: WriteProgress[] = [];
    const records = Array.from({ length: 1000 }, () => "x".repeat(998));
    await writeJsonlAtomic(join(directory, "f"), records, {
      onProgress: (progress) => told.push(progress),
    });
    assert.deepEqual(told.at(-1), { bytes: 1_001_000, records: 1000 });
    assert.ok(told.length > 2);
  }));

test("a missing file is a NotFoundError, or the fallback", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (const read of READERS) {
      assert.ok(await rejection(read(path)) instanceof NotFoundError);
    }
    assert.deepEqual([...readJsonlSync(path, { fallback: [1] })], [1]);
    const values: number[] = [];
    for await (const value of readJsonl<number>(path, { fallback: [1, 2] })) {
      values.push(value);
    }
    assert.deepEqual(values, [1, 2]);
  }));

test("a line that is not JSON is an error with its place, is skipped, or is reported", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, '\ufeff{"a":1}\r\n\n  \r\n{"é":x}\r\n[2]\n{"torn":');
    for (const read of READERS) {
      const error = await rejection(read(path));
      assert.ok(error instanceof ParseError);
      assert.deepEqual(
        [error.line, error.column, error.byteOffset],
        [4, 6, 3 + 7 + 2 + 1 + 4 + 6],
      );
      assert.deepEqual(await read(path, { onError: "skip" }), [{ a: 1 }, [2]]);
      const errors: ParseError[] = [];
      await read(path, { onError: (error) => errors.push(error) });
      assert.deepEqual(errors.map(({ line }) => line), [4, 6]);
      assert.match(errors[1]?.message ?? "", /it ends too early at line 6/);
    }
  }));

test("what a reviver or onError throws ends the reading as it is", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "1\nx\n");
    const own = new RangeError("own");
    const fail = () => {
      throw own;
    };
    for (const read of READERS) {
      assert.equal(await rejection(read(path, { reviver: fail })), own);
      assert.equal(await rejection(read(path, { onError: fail })), own);
    }
  }));

test("maxLineBytes refuses a longer line, keeps none of it, and goes on after it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(
      path,
      `"1234"\r\n"${"x".repeat(2_000_000)}"\n"5678"\n"90123"`,
    );
    for (const read of READERS) {
      const error = await rejection(read(path, { maxLineBytes: 6 }));
      assert.ok(error instanceof ParseError);
      assert.deepEqual([error.line, error.byteOffset], [2, 8]);
      assert.match(error.message, /longer than the 6 bytes/);
      assert.deepEqual(
        await read(path, { maxLineBytes: 6, onError: "skip" }),
        ["1234", "5678"],
      );
    }
  }));

test("leaving the loop early closes the file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "1\n2\n3\n");
    const port = new FaultPort();
    await onPort(port, async () => {
      for await (const _value of readJsonl(path)) break;
      for (const _value of readJsonlSync(path)) break;
      await rejection(readAll(path, { signal: AbortSignal.abort("enough") }));
      const failing = new FaultPort(port).fail("read", "EIO");
      await onPort(
        failing,
        () => assert.rejects(readAll(path), { code: "EIO", syscall: "read" }),
      );
    });
    assert.equal(
      port.names.filter((name) => name === "close").length,
      port.names.filter((name) => name === "open").length,
    );
  }));

test("withDefaults binds them too", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const bound = withDefaults({ sortKeys: true, onError: "skip" });
    await bound.writeJsonlAtomic(path, [{ b: 1, a: 2 }]);
    assert.equal(readFileSync(path, "utf8"), '{"a":2,"b":1}\n');
    bound.writeJsonlAtomicSync(path, [{ b: 1, a: 2 }], { sortKeys: false });
    writeFileSync(path, "x\n1\n");
    assert.deepEqual([...bound.readJsonlSync(path)], [1]);
    for await (const value of bound.readJsonl(path)) assert.equal(value, 1);
    const writer = await bound.openAtomicWriter(path);
    await writer.write(new Uint8Array([0x32]));
    await writer.commit();
    const snapshot = await bound.openSnapshot(path);
    assert.equal(await snapshot.text(), "2");
    await snapshot[Symbol.asyncDispose]();
  }));

/** A slow and obvious reader: all in memory, one line after the other. */
function referenceRead(bytes: Uint8Array): {
  values: unknown[];
  errors: { line: number; byteOffset: number; exact?: number }[];
} {
  const values: unknown[] = [];
  const errors: { line: number; byteOffset: number; exact?: number }[] = [];
  let start = 0;
  for (let line = 1; start < bytes.length; line++) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline === -1 ? bytes.length : newline;
    let from = start;
    if (line === 1 && [0xef, 0xbb, 0xbf].every((b, i) => bytes[i] === b)) {
      from += 3;
    }
    let text: string | undefined;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
        .decode(bytes.slice(from, end)).replace(/\r$/, "");
      // JSON's own idea of white space.
      if (!/^[ \t\r]*$/.test(text)) values.push(JSON.parse(text));
    } catch (error) {
      // Where the runtime tells the position, it must be ours.
      const [, position] = /at position (\d+)/.exec(String(error)) ?? [];
      const exact = text === undefined || position === undefined ? {} : {
        exact: from +
          new TextEncoder().encode(text.slice(0, Number(position))).length,
      };
      errors.push({ line, byteOffset: from, ...exact });
    }
    start = end + 1;
  }
  return { values, errors };
}

test(
  "whatever the bytes and however they are cut, the reader agrees with a slow and obvious one",
  { timeout: 600_000 },
  async () => {
    const piece = fc.oneof(
      fc.json().map((json) => new TextEncoder().encode(json)),
      fc.constantFrom(
        "\n",
        "\r\n",
        "\r",
        " ",
        "\0\0\0",
        "\ufeff",
        "é",
        "😀",
        "{",
        '"',
      )
        .map((text) => new TextEncoder().encode(text)),
      fc.uint8Array({ maxLength: 4 }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(piece, { maxLength: 20 }),
        fc.integer({ min: 1, max: 9 }),
        (pieces, cut) =>
          inScratch(async (directory) => {
            const path = join(directory, "f");
            const bytes = new Uint8Array(pieces.flatMap((part) => [...part]));
            writeFileSync(path, bytes);
            const expected = referenceRead(bytes);
            const port = new FaultPort().intercept(({ name, args }) => {
              const [file, into] = args;
              return name === "read" && into instanceof Uint8Array
                ? { args: [file, into.subarray(0, cut)] }
                : undefined;
            });
            await onPort(port, async () => {
              for (const read of READERS) {
                const errors: ParseError[] = [];
                const values = await read(path, {
                  onError: (error) => errors.push(error),
                });
                assert.deepEqual(values, expected.values);
                assert.deepEqual(
                  errors.map(({ line }) => line),
                  expected.errors.map(({ line }) => line),
                );
                for (const [index, error] of errors.entries()) {
                  const exact = expected.errors[index]?.exact;
                  assert.equal(error.byteOffset, exact ?? error.byteOffset);
                  const lineStart = expected.errors[index]?.byteOffset ?? -1;
                  const next = bytes.indexOf(0x0a, lineStart);
                  const lineEnd = next === -1 ? bytes.length : next;
                  assert.ok(error.byteOffset >= lineStart);
                  assert.ok(error.byteOffset <= lineEnd);
                }
              }
            });
          }),
      ),
      { seed, numRuns },
    );
  },
);
