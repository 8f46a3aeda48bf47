import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { describe, describeThrown } from "../_describe.ts";
import {
  absolutePath,
  directoryOf,
  joinPath,
  nameOf,
  withoutDots,
} from "../_path.ts";
import { SerializationError, withDefaults } from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";
import { type Form, FORMS } from "./twins.ts";

/** A call with arguments that the types forbid. */
type Unchecked = (...args: readonly unknown[]) => Promise<unknown>;

function unchecked(form: Form, name: Exclude<keyof Form, "name">): Unchecked {
  return form[name] as Unchecked;
}

for (const form of FORMS) {
  test(`${form.name}: a malformed path is a TypeError that shows it, before the disk is touched`, () =>
    inScratch(async (directory) => {
      for (
        const [path, message] of [
          ["", /must not be empty/],
          ["a\0b", /NUL/],
          [`${directory}/`, /ends in a separator/],
          [`${directory}/new/.`, /whose last part is "\."/],
          ["..", /whose last part is "\.\."/],
          [`${directory}/\ud800`, /well-formed/],
          [undefined, /string or a file URL: received undefined/],
          [5, /received the number 5/],
          [{}, /received an instance of Object/],
          ["file:///etc/f", /pass new URL\(\.\.\.\), or put "\.\/" before/],
          ["FILE:f", /Path must be a path, or a URL object/],
          ["~/f", /which only a shell takes for the home directory/],
          ["~", /must not begin with "~"/],
          [new URL("https://example.com/f"), /file URL: received "https:/],
          [new URL("file:///a%2Fb"), /encoded separator/],
          [new URL("file://host/f"), /must not name a host/],
          [new URL("file:///a%00b"), /NUL/],
          [new URL("file:///%ff"), /encoded as UTF-8/],
          [new URL("file:///dir/"), /ends in a separator/],
        ] as const
      ) {
        const port = new FaultPort();
        await onPort(port, async () => {
          for (const name of ["writeText", "readText"] as const) {
            const error = await rejection(unchecked(form, name)(path, "new"));
            // The second argument of a read is its options.
            if (name === "readText" && !(error instanceof TypeError)) continue;
            assert.ok(error instanceof TypeError);
            if (name === "writeText") assert.match(error.message, message);
          }
          const error = await rejection(unchecked(form, "readText")(path));
          assert.ok(error instanceof TypeError);
          assert.match(error.message, message);
        });
        assert.deepEqual(port.calls, []);
      }
    }));

  test(`${form.name}: a malformed option is a TypeError that names it, before the disk is touched`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [options, message] of [
          [
            { durabilty: "none" },
            /^Unknown option "durabilty": did you mean "durability"\?; the options here are durability, mode/,
          ],
          [
            { durability: "fast" },
            /^Option "durability" must be "full" or "ordered" or "none": received the string "fast"/,
          ],
          [
            { mode: "0600" },
            /^Option "mode" must be an integer from 0 to 0o7777: received the string "0600"/,
          ],
          [{ mode: 0o10000 }, /received the number 4096/],
          [{ mode: 1.5 }, /"mode"/],
          [{ owner: 0 }, /^Option "owner" must be { uid, gid }/],
          [{ owner: { uid: 0 } }, /"owner"/],
          [{ owner: { uid: -1, gid: 0 } }, /"owner"/],
          [
            { preserve: 1 },
            /^Option "preserve" must be a boolean: received the number 1/,
          ],
          [{ symlinks: true }, /"symlinks"/],
          [{ parents: "yes" }, /"parents"/],
          [{ createNew: null }, /"createNew" must be a boolean: received null/],
          [{ retryMs: -1 }, /"retryMs"/],
          [{ retryMs: NaN }, /"retryMs"/],
          [
            { signal: {} },
            /^Option "signal" must be an AbortSignal: received an instance of Object/,
          ],
          [{ trailingNewline: 0 }, /"trailingNewline"/],
          [{ indent: 2 }, /^Unknown option "indent": the options here/],
          [{ MODE: 0o600 }, /^Unknown option "MODE": did you mean "mode"\?/],
          [{ fsync: false }, /"fsync": use durability: "full"/],
          [{ chown: 0 }, /"chown": use owner: { uid, gid }; the options/],
          [{ encoding: "utf8" }, /"encoding": text is always UTF-8/],
          [{ flag: "a" }, /"flag": .*appendJsonl appends/],
          // Of a text there is no indent.
          [{ spaces: 2 }, /"spaces": the options here/],
          [() => {}, /received a function; no callback is called/],
          ["utf8", /received the string "utf8"; text is always UTF-8/],
          [{ maxBytes: 2 }, /^Unknown option "maxBytes"/],
          [
            "fast",
            /^Options must be a plain object: received the string "fast"/,
          ],
          [
            [],
            /^Options must be a plain object: received an instance of Array/,
          ],
          [new Map([["mode", 0o600]]), /an instance of Map/],
          [AbortSignal.abort(), /an instance of AbortSignal/],
          // What it inherits would be lost, or escape the check.
          [Object.create({ createNew: true }), /^Options must be a plain/],
          [{ signal: { aborted: false, reason: 0 } }, /"signal"/],
          [null, /^Options must be a plain object: received null/],
        ] as const
      ) {
        const port = new FaultPort();
        const error = await onPort(
          port,
          () => rejection(unchecked(form, "writeText")(path, "new", options)),
        );
        assert.ok(error instanceof TypeError, JSON.stringify(options));
        assert.match(error.message, message);
        assert.deepEqual(port.calls, []);
      }
      for (
        const [options, message] of [
          [{ indent: 11 }, /"indent"/],
          [
            { indent: "--" },
            /"indent" must be an integer from 0 to 10, or a string of at most 10 white-space/,
          ],
          [{ spaces: 2 }, /"spaces": use indent; the options here/],
          [{ replacer: {} }, /"replacer"/],
          [{ replacer: [true] }, /"replacer"/],
          [{ replacer: [, "a"] }, /"replacer"/],
          [{ sortKeys: 1 }, /"sortKeys"/],
          [{ onLossy: "warn" }, /"onLossy"/],
        ] as const
      ) {
        const error = await rejection(
          unchecked(form, "writeJson")(path, {}, options),
        );
        assert.ok(error instanceof TypeError);
        assert.match(error.message, message);
      }
      for (
        const [options, message] of [
          [{ maxBytes: -1 }, /"maxBytes"/],
          [{ reviver: 1 }, /"reviver" must be a function/],
          [{ durability: "full" }, /^Unknown option "durability"/],
          ["utf-8", /received the string "utf-8"; text is always UTF-8/],
        ] as const
      ) {
        const error = await rejection(
          unchecked(form, "readJson")(path, options),
        );
        assert.ok(error instanceof TypeError);
        assert.match(error.message, message);
      }
      assert.equal(existsSync(path), false);
    }));

  test(`${form.name}: a value of the wrong kind is an error that says what to call instead`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      for (
        const [name, value, message] of [
          [
            "writeText",
            5,
            /^Text must be a string, or a source of strings: received the number 5/,
          ],
          [
            "writeText",
            undefined,
            /^Text must be a string, or a source of strings: received undefined/,
          ],
          ["writeText", new Uint8Array(1), /writeBytesAtomic/],
          [
            "writeBytes",
            "text",
            /^Bytes must be an ArrayBuffer or a view of one, as a Uint8Array is, or a source of such: received the string "text"; text is written with writeTextAtomic$/,
          ],
          [
            "writeBytes",
            { [Symbol.toStringTag]: "Uint8Array" },
            /an instance of Object/,
          ],
          ["writeBytes", detached(), /an instance of Uint8Array/],
          // Before the directory is made.
          ["writeBytes", [new Uint8Array(1), 2], /Chunk 1 .* the number 2/],
          ["writeText", ["one", , "two"], /Chunk 1 .* received undefined/],
        ] as const
      ) {
        const port = new FaultPort();
        const error = await onPort(
          port,
          () => rejection(unchecked(form, name)(path, value)),
        );
        assert.ok(error instanceof TypeError, String(error));
        assert.match(error.message, message);
        assert.deepEqual(port.calls, []);
      }
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: an ArrayBuffer, and every view of one, are bytes, whole and in a source`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const { buffer } = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
      const resizable = new ArrayBuffer(3, { maxByteLength: 9 });
      new Uint8Array(resizable).set([7, 8, 9]);
      for (
        const [bytes, expected] of [
          [buffer, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
          [new DataView(buffer, 2, 3), [2, 3, 4]],
          [new Uint16Array(buffer, 4, 2), [4, 5, 6, 7]],
          [new Uint8Array(buffer, 9), [9]],
          [resizable, [7, 8, 9]],
          [new ArrayBuffer(0), []],
        ] as const
      ) {
        const { bytes: count } = await form.writeBytes(path, bytes);
        assert.equal(count, expected.length);
        assert.deepEqual([...await form.readBytes(path)], expected);
        await form.writeBytes(path, [bytes, bytes]);
        assert.deepEqual(
          [...await form.readBytes(path)],
          [...expected, ...expected],
        );
        assert.equal(
          await form.hashBytes(bytes),
          await form.hashBytes(Uint8Array.from(expected)),
        );
      }
    }));

  test(`${form.name}: the bytes of a file have no room behind them`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const length of [0, 1, 1000, 70_000]) {
        writeFileSync(path, new Uint8Array(length));
        const { buffer } = await form.readBytes(path);
        assert.equal(buffer.byteLength, length);
      }
      const { buffer, length } = await form.readBytes("/proc/self/status");
      assert.equal(buffer.byteLength, length);
    }));

  test(`${form.name}: one record that is no list is an error that says what to do`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort();
      const error = await onPort(
        port,
        () => rejection(unchecked(form, "append")(path, { id: 1 })),
      );
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /put brackets around one record/);
      assert.deepEqual(port.calls, []);
    }));

  test(`${form.name}: an update whose function returns nothing says to return the new content, and changes nothing`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const error = await rejection(
        unchecked(form, "updateText")(path, () => {}),
      );
      assert.ok(error instanceof TypeError);
      assert.match(
        error.message,
        /must return the new content: received undef/,
      );
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: text with a lone surrogate is a SerializationError that says where`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const port = new FaultPort();
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "ok 😀 \udc00 no")),
      );
      assert.ok(error instanceof SerializationError);
      assert.equal(error.code, "SERIALIZATION");
      assert.match(error.message, /\(\\udc00\) at index 6/);
      assert.deepEqual(port.calls, []);
    }));

  test(`${form.name}: a path may be a string, relative too, or a file URL`, () =>
    inScratch(async (directory) => {
      const name = "ü #%?é";
      const path = join(directory, name);
      await form.writeText(pathToFileURL(path), "by URL");
      assert.equal(readFileSync(path, "utf8"), "by URL\n");
      assert.equal(await form.readText(pathToFileURL(path)), "by URL\n");
      const before = process.cwd();
      process.chdir(directory);
      try {
        const receipt = await form.writeText("sub/../f", "relative", {
          parents: true,
        }).catch(() => form.writeText("f", "relative"));
        assert.equal(receipt.path, join(directory, "f"));
        assert.equal(await form.readText("./f"), "relative\n");
      } finally {
        process.chdir(before);
      }
    }));

  test(`${form.name}: an option that is undefined is one that is not named`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const receipt = await form.writeText(path, "new", {
        durability: undefined,
        mode: undefined,
        signal: undefined,
        trailingNewline: undefined,
      });
      assert.equal(receipt.directorySynced, true);
      assert.equal(readFileSync(path, "utf8"), "new\n");
    }));
}

/** A view whose buffer was given away. */
function detached(): Uint8Array {
  const bytes = new Uint8Array(8);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

test("each option is read once, so that it cannot change after its check", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    let reads = 0;
    const options = {
      get mode() {
        return reads++ === 0 ? 0o600 : -1;
      },
    };
    const [async, sync] = FORMS;
    await sync?.writeText(path, "new", options);
    assert.equal(reads, 1);
    const late: { fallback?: string } = { fallback: "none" };
    const reading = async?.readText(join(directory, "missing"), late);
    delete late.fallback;
    assert.equal(await reading, "none");
  }));

test("where the current directory is gone, or is no UTF-8, a path must be absolute", () => {
  const port = new FaultPort();
  for (
    const cwd of [() => {
      throw new Error("gone");
    }, () => "/d\ufffd"]
  ) {
    port.cwd = cwd;
    assert.throws(() => absolutePath(port, "f"), /Path must be absolute/);
    assert.equal(absolutePath(port, "/f"), "/f");
  }
});

test("the async functions reject and never throw", () => {
  const [form] = FORMS;
  assert.ok(form !== undefined);
  for (
    const name of [
      "writeText",
      "writeJson",
      "writeBytes",
      "readText",
      "readJson",
      "readBytes",
    ] as const
  ) {
    const promise = unchecked(form, name)("", Symbol("x"), 5);
    assert.ok(promise instanceof Promise);
    promise.catch(() => {});
  }
  const broken = {
    get retryMs(): number {
      throw new Error("broken");
    },
  };
  const bound = withDefaults({});
  for (
    const promise of [
      bound.readBytes("f", broken),
      bound.readJson("f", broken),
      bound.readText("f", broken),
      bound.writeBytesAtomic("f", new Uint8Array(), broken),
      bound.writeJsonAtomic("f", 1, broken),
      bound.writeTextAtomic("f", "", broken),
    ]
  ) {
    assert.ok(promise instanceof Promise);
    promise.catch(() => {});
  }
});

test("withDefaults gives each function the defaults it knows, and a call's own options go first", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const bound = withDefaults({
      durability: "ordered",
      indent: 0,
      trailingNewline: false,
      maxBytes: 20,
      reviver: (_key, value) => value === 1 ? "one" : value,
    });
    const receipt = await bound.writeJsonAtomic(path, { a: 1 });
    assert.equal(receipt.directorySynced, false);
    assert.equal(readFileSync(path, "utf8"), '{"a":1}');
    assert.deepEqual(await bound.readJson(path), { a: "one" });
    assert.deepEqual(bound.readJsonSync(path, { reviver: undefined }), {
      a: "one",
    });
    assert.equal(bound.readTextSync(path), '{"a":1}');
    assert.equal(await bound.readText(path), '{"a":1}');
    assert.equal(
      bound.writeJsonAtomicSync(path, { a: 1 }, { durability: "full" })
        .directorySynced,
      true,
    );
    bound.writeTextAtomicSync(path, "text", { trailingNewline: true });
    assert.equal(readFileSync(path, "utf8"), "text\n");
    await bound.writeTextAtomic(path, "text");
    assert.equal(readFileSync(path, "utf8"), "text");
    assert.equal(
      bound.writeBytesAtomicSync(path, new Uint8Array(21)).directorySynced,
      false,
    );
    await bound.writeBytesAtomic(path, new Uint8Array(21));
    await assert.rejects(bound.readBytes(path), { code: "TOO_LARGE" });
    assert.throws(() => bound.readBytesSync(path), { code: "TOO_LARGE" });
    assert.equal(bound.readBytesSync(path, { maxBytes: 21 }).length, 21);
    const missing = join(directory, "missing");
    assert.equal(
      await bound.readJson<number | null>(missing, { fallback: null }),
      null,
    );
    const { readText } = bound as unknown as { readText: Unchecked };
    await assert.rejects(readText(path, 5), TypeError);
    await assert.rejects(readText(path, { indent: 2 }), TypeError);
  }));

test("withDefaults rejects an option that no function knows, and a fallback", () => {
  const bind: (options: object) => unknown = withDefaults;
  assert.throws(() => bind({ durabilty: "none" }), TypeError);
  assert.throws(() => bind({ fallback: 1 }), TypeError);
  assert.throws(() => bind({ mode: "0600" }), TypeError);
});

test("paths on Windows are split and joined with either separator, and URLs name drives and shares", () => {
  const host = new FaultPort();
  host.windows = true;
  for (
    const [given, path] of [
      ["C:\\a\\f", "C:\\a\\f"],
      ["C:/a/f", "C:/a/f"],
      ["\\\\server\\share\\f", "\\\\server\\share\\f"],
      [new URL("file:///C:/a%20b/f"), "C:\\a b\\f"],
      [new URL("file://server/share/f"), "\\\\server\\share\\f"],
    ] as const
  ) {
    assert.equal(absolutePath(host, given), path);
  }
  for (
    const path of ["C:f", "c:", new URL("file:///f"), new URL("file:///C:")]
  ) {
    assert.throws(() => absolutePath(host, path), TypeError);
  }
  for (
    const [path, directory, name] of [
      ["\\foo", "\\", "foo"],
      ["/foo", "/", "foo"],
      ["C:\\f", "C:\\", "f"],
      ["\\\\server\\share\\f", "\\\\server\\share\\", "f"],
      ["\\\\server\\share\\d\\f", "\\\\server\\share\\d", "f"],
    ] as const
  ) {
    assert.equal(directoryOf(host, path), directory);
    assert.equal(nameOf(host, path), name);
  }
  assert.throws(() => absolutePath(host, "C:\\a\\"), /separator/);
  assert.throws(
    () => absolutePath(host, new URL("file:///C:/a%5Cb")),
    /encoded separator/,
  );
  assert.equal(directoryOf(host, "C:\\a/f"), "C:\\a");
  assert.equal(directoryOf(host, "C:\\f"), "C:\\");
  assert.equal(nameOf(host, "C:\\a/f"), "f");
  assert.equal(joinPath(host, "C:\\a", "f"), "C:\\a\\f");
  assert.equal(joinPath(host, "C:\\", "f"), "C:\\f");
  const posix = new FaultPort();
  assert.equal(directoryOf(posix, "/f"), "/");
  assert.equal(joinPath(posix, "/", "f"), "/f");
  assert.equal(nameOf(posix, "/a\\b"), "a\\b");
  assert.equal(withoutDots(posix, "/a/./b/../c"), "/a/c");
  assert.equal(withoutDots(posix, "/../c"), "/c");
  assert.equal(withoutDots(host, "C:\\a\\..\\c"), "C:\\c");
});

test("values in messages are told in words, however odd they are", () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  for (
    const [value, words] of [
      ["x".repeat(100), /^the string "x{57}…"$/],
      [-0, /^the number 0$/],
      [Symbol("s"), /^the symbol Symbol\(s\)$/],
      [Object.create(null), /^an object$/],
      [proxy, /^an object$/],
      [
        new (class {
          static name = 5 as unknown as string;
        })(),
        /^an object$/,
      ],
    ] as const
  ) {
    assert.match(describe(value), words);
  }
  assert.equal(describeThrown(Object.create(null)), "an object");
});

test("a file whose name only looks like a mistake is written where its path begins otherwise", () =>
  inScratch(async (directory) => {
    const before = process.cwd();
    process.chdir(directory);
    try {
      for (const name of ["~f", "file", "filed:x"]) {
        await FORMS[0]?.writeText(name, "x");
      }
      for (const path of ["./file:x", "./~/f"]) {
        await FORMS[0]?.writeText(path, "x");
      }
    } finally {
      process.chdir(before);
    }
    assert.deepEqual(
      readdirSync(directory).toSorted(),
      ["file", "file:x", "filed:x", "~", "~f"],
    );
  }));

test("a mode that was written in decimal is a TypeError that names the octal one", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    await onPort(port, async () => {
      for (const mode of [400, 440, 600, 640, 644, 664, 666, 755, 777]) {
        const error = await rejection(
          unchecked(FORMS[0] as Form, "writeText")(path, "x", { mode }),
        );
        assert.ok(error instanceof TypeError);
        assert.match(error.message, new RegExp(`as 0o${mode}: received the`));
      }
    });
    assert.deepEqual(port.calls, []);
    await FORMS[0]?.writeText(path, "x", { mode: 0o600 });
  }));
