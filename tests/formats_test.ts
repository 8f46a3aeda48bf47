import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { jsonErrorIndex } from "../_json_syntax.ts";
import {
  type JsonWriteOptions,
  ParseError,
  SerializationError,
  writeJsonAtomic,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";
import { FORMS } from "./twins.ts";

/** A value so deep in arrays. */
function nested(levels: number, value: unknown): unknown {
  return levels === 0 ? value : [nested(levels - 1, value)];
}

for (const form of FORMS) {
  test(`${form.name}: text gets one newline where it has none at its end, and empty text stays empty`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [text, written] of [
          ["a", "a\n"],
          ["a\n", "a\n"],
          ["a\n\n", "a\n\n"],
          ["a\r\n", "a\r\n"],
          ["", ""],
        ] as const
      ) {
        await form.writeText(path, text);
        assert.equal(readFileSync(path, "utf8"), written);
        assert.equal(await form.readText(path), written);
      }
      await form.writeText(path, "a", { trailingNewline: false });
      assert.equal(readFileSync(path, "utf8"), "a");
    }));

  test(`${form.name}: text is read as it is, a byte order mark included`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const text of ["\ufeffx\n", "é 日 😀\n", "\u0000\n"]) {
        await form.writeText(path, text);
        assert.equal(await form.readText(path), text);
      }
    }));

  test(`${form.name}: bytes that are no UTF-8 are a ParseError with their position`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [bytes, line, column, byteOffset] of [
          [[0xff], 1, 1, 0],
          [[0x61, 0x0a, 0xc3, 0xa9, 0xff, 0x62], 2, 2, 4],
          [[0x61, 0xe2, 0x82], 1, 2, 1],
          [[0xf0, 0x9f, 0x98, 0x80, 0xed, 0xa0, 0x80], 1, 3, 4],
          [[0xef, 0xbb, 0xbf, 0x80], 1, 2, 3],
          [[0xe0, 0x9f, 0xbf], 1, 1, 0],
          [[0xf0, 0x8f, 0xbf, 0xbf], 1, 1, 0],
          [[0xf4, 0x90, 0x80, 0x80], 1, 1, 0],
          [[0x0a, 0xc1, 0x80], 2, 1, 1],
        ] as const
      ) {
        writeFileSync(path, new Uint8Array(bytes));
        for (const read of [form.readText, form.readJson]) {
          const error = await rejection(read(path));
          assert.ok(error instanceof ParseError);
          assert.equal(error.code, "PARSE");
          assert.deepEqual(
            [error.line, error.column, error.byteOffset],
            [line, column, byteOffset],
          );
          assert.match(error.message, /it is not UTF-8 at line/);
        }
      }
    }));

  test(`${form.name}: JSON is written with two spaces and a newline, or as the options say`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const value = { b: [1], a: { d: 1, c: 2 } };
      for (
        const [options, text] of [
          [{}, `${JSON.stringify(value, null, 2)}\n`],
          [{ indent: 0 }, `${JSON.stringify(value)}\n`],
          [{ indent: "\t" }, `${JSON.stringify(value, null, "\t")}\n`],
          [{ trailingNewline: false }, JSON.stringify(value, null, 2)],
          [{ indent: 0, sortKeys: true }, '{"a":{"c":2,"d":1},"b":[1]}\n'],
          [{ indent: 0, replacer: ["a", "d"] }, '{"a":{"d":1}}\n'],
          [
            { indent: 0, replacer: ["a", "d", "c"], sortKeys: true },
            '{"a":{"c":2,"d":1}}\n',
          ],
          [
            {
              indent: 0,
              replacer: (key: string, value: unknown) =>
                key === "a" ? "x" : value,
              sortKeys: true,
            },
            '{"a":"x","b":[1]}\n',
          ],
        ] as const
      ) {
        await form.writeJson(path, value, options);
        assert.equal(readFileSync(path, "utf8"), text);
      }
    }));

  test(`${form.name}: a value without a JSON form is a SerializationError that names the place`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const cycle: Record<string, unknown> = { a: { b: [0, {}] } };
      const inner: Record<string, unknown> = {};
      cycle.a = { b: [0, inner] };
      inner["odd key"] = cycle;
      const broken = {
        toJSON() {
          throw new Error("toJSON is broken");
        },
      };
      for (
        const [value, options, message] of [
          [undefined, {}, /: undefined has no JSON form at \$$/],
          [() => 1, {}, /: a function has no JSON form at \$$/],
          [Symbol("x"), {}, /: the symbol Symbol\(x\) has no JSON form at \$$/],
          [1n, {}, /: the BigInt 1n has no JSON form at \$$/],
          [{ a: { b: [0, 0, 0, 1n] } }, {}, /at \$\.a\.b\[3\]$/],
          [
            cycle,
            {},
            /: the value contains itself at \$\.a\.b\[1\]\["odd key"\]$/,
          ],
          [cycle, { sortKeys: true }, /contains itself at/],
          [cycle, { onLossy: "error" }, /contains itself at/],
          [{ a: broken }, {}, /: toJSON is broken$/],
          [{ a: broken }, { sortKeys: true }, /: toJSON is broken$/],
          [
            { a: [1, NaN] },
            { onLossy: "error" },
            /: NaN would become null, and onLossy is "error" at \$\.a\[1\]$/,
          ],
          [[-Infinity], { onLossy: "error" }, /-Infinity would become null/],
          [[-0], { onLossy: "error" }, /-0 would become 0/],
          [
            { a: undefined },
            { onLossy: "error" },
            /undefined would be dropped or become null.* at \$\.a$/,
          ],
          [
            [, 1],
            { onLossy: "error" },
            /undefined would be dropped or become null.* at \$\[0\]$/,
          ],
          [{ a: () => 1 }, { onLossy: "error" }, /a function would be dropped/],
          [{ a: Symbol() }, { onLossy: "error" }, /a symbol would be dropped/],
          [
            { [Symbol("s")]: 1 },
            { onLossy: "error" },
            /the property Symbol\(s\) would be dropped/,
          ],
          [
            new Map(),
            {},
            /an instance of Map would become \{\}: write Object\.fromEntries/,
          ],
          [new Set(), { sortKeys: true }, /an instance of Set would become/],
          [new Map(), { onLossy: "error" }, /would become \{\}.* at \$$/],
          [
            {
              a: {
                async toJSON() {
                  return await Promise.resolve(1);
                },
              },
            },
            {},
            /an instance of Promise, which can be awaited, would become \{\}.* at \$\.a$/,
          ],
          [
            { a: { toJSON: () => ({ b: Promise.resolve(1) }) } },
            {},
            /would become \{\}.* at \$\.a\.b$/,
          ],
          [
            { toJSON: () => new Map([[1, 2]]) },
            {},
            /would become \{\}.* at \$$/,
          ],
          [
            nested(600, Promise.resolve(1)),
            {},
            /which can be awaited, would become \{\}/,
          ],
          [
            { a: [{ b: Promise.resolve(1) }] },
            {},
            /Promise, which can be awaited, would become \{\}: .* at \$\.a\[0\]\.b$/,
          ],
          [Promise.resolve(1), {}, /await it first at \$$/],
          [{ then: () => 1, data: 2 }, {}, /which can be awaited/],
          [{ a: { then: () => 1 } }, { sortKeys: true }, /at \$\.a$/],
          [{ a: { then: () => 1 } }, { replacer: ["a"] }, /at \$\.a$/],
          [
            { a: Promise.resolve(1) },
            { replacer: (_key: string, value: unknown) => value },
            /which can be awaited, would become \{\}.* at \$\.a$/,
          ],
          [
            { a: new Map() },
            { onLossy: "error" },
            /an instance of Map would come back as something else/,
          ],
          [
            { a: new Set() },
            { onLossy: "error" },
            /an instance of Set .* at \$\.a$/,
          ],
          [
            new Uint8Array(1),
            { onLossy: "error" },
            /an instance of Uint8Array/,
          ],
          [
            new (class Point {})(),
            { onLossy: "error" },
            /an instance of Point/,
          ],
          [
            Object.assign([1], { extra: 1 }),
            { onLossy: "error" },
            /the array's property "extra" would be dropped/,
          ],
          [new Number(1), { onLossy: "error" }, /an instance of Number/],
          [
            new (class extends Array {})(),
            { onLossy: "error" },
            /come back as something else/,
          ],
          [
            { a: Object(1n) },
            { sortKeys: true },
            /the BigInt 1n has no JSON form at \$\.a$/,
          ],
          [
            {
              toJSON() {
                throw Object.create(null);
              },
            },
            {},
            /: an object$/,
          ],
        ] as [unknown, JsonWriteOptions, RegExp][]
      ) {
        const port = new FaultPort();
        const error = await onPort(
          port,
          () => rejection(form.writeJson(path, value, options)),
        );
        assert.ok(error instanceof SerializationError, String(message));
        assert.equal(error.code, "SERIALIZATION");
        assert.match(error.message, /^Cannot write ".*f": the value cannot be/);
        assert.match(error.message, message);
        assert.deepEqual(port.calls, []);
      }
    }));

  test(`${form.name}: onLossy error accepts what comes back the same, and what toJSON converts`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const shared = { x: 1 };
      const value = {
        a: [1, "two", null, true, { b: [] }],
        shared: [shared, shared],
        ["__proto__"]: 1,
        date: new Date(0),
        none: Object.assign(Object.create(null), { y: 2 }),
      };
      for (const sortKeys of [false, true]) {
        await form.writeJson(path, value, { onLossy: "error", sortKeys });
        assert.deepEqual(
          JSON.parse(readFileSync(path, "utf8")),
          JSON.parse(JSON.stringify(value)),
        );
      }
      await form.writeJson(path, { date: new Date(NaN) });
      await assert.rejects(
        form.writeJson(path, { n: 1n, toJSON: () => NaN }, {
          onLossy: "error",
        }),
        SerializationError,
      );
    }));

  test(`${form.name}: what is not JSON is a ParseError with line, column and byte offset`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [text, line, column, byteOffset, found] of [
          ["", 1, 1, 0, "it is empty"],
          [" \n", 2, 1, 2, "it is empty"],
          ['{"é":\n  x}', 2, 3, 9, 'unexpected "x"'],
          ["\ufeff[1,]", 1, 5, 6, 'unexpected "]"'],
          ['{"a":"b\\"', 1, 10, 9, "it ends too early"],
          ['{"a": 1', 1, 8, 7, "it ends too early"],
          ["[1]]", 1, 4, 3, 'unexpected "]"'],
          ['"a\nb"', 1, 3, 2, 'unexpected "\\n"'],
          ["{'a': 1}", 1, 2, 1, 'unexpected "\'"'],
          ["[😀]", 1, 2, 1, 'unexpected "😀"'],
          ['{"a": tru', 1, 10, 9, "it ends too early"],
          ["truk", 1, 4, 3, 'unexpected "k"'],
          ["[1.]", 1, 4, 3, 'unexpected "]"'],
          ["-", 1, 2, 1, "it ends too early"],
          ["1e+", 1, 4, 3, "it ends too early"],
          ["01", 1, 2, 1, 'unexpected "1"'],
          ['"\\x"', 1, 3, 2, 'unexpected "x"'],
          ['"\\u00', 1, 6, 5, "it ends too early"],
          ['"\\u00"', 1, 6, 5, 'unexpected "\\""'],
          ["\u00a0", 1, 1, 0, 'unexpected "\u00a0"'],
        ] as const
      ) {
        writeFileSync(path, text);
        const error = await rejection(form.readJson(path));
        assert.ok(error instanceof ParseError, text);
        assert.equal(error.code, "PARSE");
        assert.deepEqual(
          [error.line, error.column, error.byteOffset],
          [line, column, byteOffset],
          text,
        );
        assert.ok(error.message.includes(`it is not JSON: ${found} at line`));
        assert.ok(error.cause instanceof Error);
      }
    }));

  test(`${form.name}: JSON is read with a byte order mark, and through a reviver`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, '\ufeff{"a": [1, 2]}');
      assert.deepEqual(await form.readJson(path), { a: [1, 2] });
      assert.deepEqual(
        await form.readJson(path, {
          reviver: (_key, value) =>
            typeof value === "number" ? value * 2 : value,
        }),
        { a: [2, 4] },
      );
    }));

  test(`${form.name}: bytes are written and read as they are`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const bytes = new Uint8Array(70_000).map((_, index) => index * 7);
      const view = bytes.subarray(1, 69_999);
      const receipt = await form.writeBytes(path, view);
      assert.equal(receipt.bytes, view.length);
      assert.deepEqual(await form.readBytes(path), new Uint8Array(view));
    }));

  test(`${form.name}: a fallback stands for a missing file and for nothing else`, () =>
    inScratch(async (directory) => {
      const missing = join(directory, "missing");
      assert.equal(await form.readText(missing, { fallback: "none" }), "none");
      assert.deepEqual(await form.readJson(missing, { fallback: [] }), []);
      assert.equal(await form.readJson(missing, { fallback: null }), null);
      assert.equal(
        await form.readJson(missing, { fallback: undefined }),
        undefined,
      );
      const none = new Uint8Array();
      assert.equal(await form.readBytes(missing, { fallback: none }), none);
      const broken = join(directory, "broken");
      writeFileSync(broken, "{");
      await assert.rejects(
        form.readJson(broken, { fallback: {} }),
        ParseError,
      );
      await assert.rejects(form.readText(directory, { fallback: "" }), {
        code: "EISDIR",
      });
    }));

  test(`${form.name}: maxBytes refuses a larger file before memory is set aside, and one that grows`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "0123456789");
      assert.equal(await form.readText(path, { maxBytes: 10 }), "0123456789");
      const port = new FaultPort();
      await onPort(
        port,
        () =>
          assert.rejects(form.readText(path, { maxBytes: 9 }), {
            code: "TOO_LARGE",
            message: /it has 10 bytes or more, and maxBytes allows 9/,
          }),
      );
      assert.ok(!port.names.includes("read"));
      const growing = new FaultPort().intercept(({ name }) =>
        name === "fstat"
          ? {
            result: {
              kind: "file",
              size: 3,
              mode: 0o644,
              uid: 0,
              gid: 0,
              nlink: 1,
            },
          }
          : undefined
      );
      await onPort(growing, async () => {
        assert.equal(await form.readText(path), "0123456789");
        await assert.rejects(form.readText(path, { maxBytes: 9 }), {
          code: "TOO_LARGE",
        });
      });
      assert.equal(
        growing.names.filter((name) => name === "open").length,
        growing.names.filter((name) => name === "close").length,
      );
    }));
}

for (const form of FORMS) {
  test(`${form.name}: a file larger than a string or a buffer can be is refused before memory is set aside`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "text");
      for (
        const [read, size] of [
          [form.readText, 2 ** 31],
          [form.readJson, 2 ** 31],
          [form.readBytes, 2 ** 32 + 1],
        ] as const
      ) {
        const port = new FaultPort().intercept(({ name }) =>
          name === "fstat"
            ? {
              result: {
                kind: "file",
                size,
                mode: 0o644,
                uid: 0,
                gid: 0,
                nlink: 1,
              },
            }
            : undefined
        );
        await onPort(port, () =>
          assert.rejects(read(path), {
            code: "TOO_LARGE",
            message: new RegExp(`it has ${size} bytes or more, of which`),
          }));
        assert.deepEqual(port.names, ["open", "fstat", "close"]);
      }
    }));

  test(`${form.name}: reading what waits for its writer leaves the event loop alone`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "text");
      const port = new FaultPort();
      await onPort(port, () => form.readText(path));
      const waiting = port.calls.filter(({ name }) =>
        name === "open" || name === "read"
      );
      assert.ok(waiting.every((call) => call.form === form.name));
    }));
}

test("what looks like a promise or a map and has a JSON form is written", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    class Dictionary extends Map<string, number> {
      toJSON(): unknown {
        return Object.fromEntries(this);
      }
    }
    const entries: [string, number][] = [["a", 1]];
    const then = 1;
    const value = { then, nested: { then: "x" }, query: { toJSON, then() {} } };
    function toJSON(): string {
      return "SELECT 1";
    }
    await writeJsonAtomic(path, new Dictionary(entries), { indent: 0 });
    assert.equal(readFileSync(path, "utf8"), '{"a":1}\n');
    await writeJsonAtomic(path, value, { indent: 0 });
    assert.equal(
      readFileSync(path, "utf8"),
      '{"then":1,"nested":{"then":"x"},"query":"SELECT 1"}\n',
    );
    const replacer = (_key: string, part: unknown) =>
      part instanceof Map ? Object.fromEntries(part) : part;
    const map: unknown = new Map(entries);
    await writeJsonAtomic(path, map, { indent: 0, replacer });
    assert.equal(readFileSync(path, "utf8"), '{"a":1}\n');
    // What is left out by a list of keys does not matter.
    const withPromise = { a: 1, b: Promise.resolve() };
    await writeJsonAtomic(path, withPromise, { indent: 0, replacer: ["a"] });
    assert.equal(readFileSync(path, "utf8"), '{"a":1}\n');
  }));

test("what was checked is what is written: a value is evaluated once", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    for (const options of [{ onLossy: "error" }, { sortKeys: true }] as const) {
      const queue = [1, 2, 3];
      const draining = { toJSON: () => queue.splice(0) };
      await writeJsonAtomic(path, draining, { ...options, indent: 0 });
      assert.equal(readFileSync(path, "utf8"), "[1,2,3]\n");
    }
  }));

type IsNever<T> = [T] extends [never] ? true : false;
type Taken<T> = Parameters<typeof writeJsonAtomic<T>>[1];

/** Held by the compiler: what can be told is refused, and nothing else. */
const REFUSED: [
  IsNever<Taken<Promise<number>>>,
  IsNever<Taken<number | Promise<number>>>,
  IsNever<Taken<() => number>>,
  IsNever<Taken<bigint>>,
  IsNever<Taken<symbol>>,
  IsNever<Taken<Map<string, number>>>,
  IsNever<Taken<Set<string>>>,
] = [true, true, true, true, true, true, true];
const TAKEN: [
  IsNever<Taken<unknown>>,
  IsNever<Taken<{ a: number }>>,
  IsNever<Taken<readonly string[]>>,
  IsNever<Taken<string | null | undefined>>,
  IsNever<Taken<Date>>,
  IsNever<Taken<object>>,
] = [false, false, false, false, false, false];

test("the type of a value refuses what has no JSON form", () => {
  assert.ok(REFUSED.every(Boolean));
  assert.ok(!TAKEN.some(Boolean));
});

test("sortKeys and onLossy change nothing but the order of keys", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    class Point {
      z = 1;
      get y() {
        return 2;
      }
    }
    const raw = "rawJSON" in JSON && typeof JSON.rawJSON === "function"
      ? JSON.rawJSON("12345678901234567890")
      : 5;
    const replacer = function (this: unknown, _key: string, value: unknown) {
      return this instanceof Point && typeof value === "number"
        ? -value
        : value;
    };
    for (
      const [value, options] of [
        [{ b: new Number(1), a: [new String("x"), new Boolean(false)] }, {}],
        [{ b: raw, a: 1 }, {}],
        [{ p: new Point() }, { replacer: ["p", "y", "z", "absent"] }],
        [{ p: new Point() }, { replacer }],
        [{ 10: 1, 9: 2, b: 3, a: 4 }, {}],
      ] as const
    ) {
      const expected = typeof options === "object" && "replacer" in options
        ? typeof options.replacer === "function"
          ? JSON.parse(JSON.stringify(value, options.replacer))
          : JSON.parse(JSON.stringify(value, [...options.replacer]))
        : JSON.parse(JSON.stringify(value));
      for (const form of FORMS) {
        await form.writeJson(path, value, { ...options, sortKeys: true });
        assert.deepEqual(JSON.parse(readFileSync(path, "utf8")), expected);
      }
    }
    const value = { b: 1, 1: 2, a: 3 };
    for (const form of FORMS) {
      await form.writeJson(path, value, {
        replacer: ["b", 1, "a"],
        onLossy: "error",
        indent: 0,
      });
      assert.equal(readFileSync(path, "utf8"), '{"b":1,"1":2,"a":3}\n');
      await form.writeJson(path, { keep: 1, drop: 2 }, {
        replacer: (key: string, value: unknown) =>
          key === "drop" ? undefined : value,
        onLossy: "error",
        indent: 0,
      });
      assert.equal(readFileSync(path, "utf8"), '{"keep":1}\n');
    }
  }));

test("a file that is longer than a string can be is not said to be no UTF-8", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "é日😀");
    const { decode } = TextDecoder.prototype;
    TextDecoder.prototype.decode = () => {
      throw new TypeError("too long for a string");
    };
    try {
      for (const form of FORMS) {
        await assert.rejects(form.readText(path), {
          code: "TOO_LARGE",
          message: /its 9 bytes are more than a string can hold/,
        });
      }
    } finally {
      TextDecoder.prototype.decode = decode;
    }
  }));

test("the JSON error finder agrees with JSON.parse on every short text of a telling alphabet", () => {
  const alphabet = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    '"',
    "0",
    "-",
    ".",
    "e",
    " ",
    "\\",
    "true",
    "a",
  ];
  let texts = [""];
  for (let length = 1; length <= 4; length++) {
    texts = texts.flatMap((text) => alphabet.map((next) => text + next));
    for (const text of texts) {
      let isJson = true;
      try {
        JSON.parse(text);
      } catch {
        isJson = false;
      }
      const index = jsonErrorIndex(text);
      assert.equal(index === undefined, isJson, text);
      assert.ok(index === undefined || index <= text.length);
    }
  }
});

test("the JSON error finder does not mind a million levels, nor a string of ten million characters", () => {
  const depth = 1_000_000;
  assert.equal(jsonErrorIndex("[".repeat(depth)), depth);
  const long = `"${"x\\n".repeat(3_000_000)}`;
  assert.equal(jsonErrorIndex(long), long.length);
});

test("what only looks like a promise or a map is written as JSON has it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    class Numbers extends Array<unknown> {
      toJSON() {
        return this.length;
      }
    }
    for (
      const value of [
        Object.create({ ready: Promise.resolve(1) }, {
          a: { value: 1, enumerable: true },
        }),
        Object.assign(new String("x"), { p: Promise.resolve(1) }),
        Numbers.of(Promise.resolve(1)),
        { [Symbol.toStringTag]: "Map", a: 1 },
        { when: new Date(0), where: new URL("file:///x") },
        Object.assign(() => {}, { toJSON: () => 1 }),
        nested(600, { a: 1 }),
      ]
    ) {
      await writeJsonAtomic(path, value, { indent: 0 });
      const written = readFileSync(path, "utf8");
      assert.equal(written, `${JSON.stringify(value)}\n`);
    }
  }));
