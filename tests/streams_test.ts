import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  AtomicError,
  type AtomicWriter,
  openAtomicWriter,
  openSnapshot,
  SerializationError,
  writeBytesAtomic,
  writeBytesAtomicSync,
  type WriteProgress,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";

const encode = (text: string) => new TextEncoder().encode(text);

/** How many handles a port has open. */
function openHandles(port: FaultPort): number {
  const count = (...names: string[]) =>
    port.names.filter((name) => names.includes(name)).length;
  return count("open", "create") - count("close");
}

/** The same chunks from each kind of source. */
function sourcesOf<T>(chunks: readonly T[]) {
  return {
    array: chunks,
    generator: (function* () {
      yield* chunks;
    })(),
    "async generator": (async function* () {
      for (const chunk of chunks) {
        await Promise.resolve();
        yield chunk;
      }
    })(),
    stream: new ReadableStream<T>({
      start(controller) {
        for (const chunk of chunks) controller.enqueue(chunk);
        controller.close();
      },
    }),
  };
}

test("bytes come from arrays, generators, async generators and streams, in chunks of any size", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const chunks = [0, 1, 10, 262_143, 1, 262_144, 300_000, 5, 0, 800_000]
      .map((length, index) => new Uint8Array(length).fill(index + 1));
    const whole = new Uint8Array(await new Blob(chunks).arrayBuffer());
    for (const [name, source] of Object.entries(sourcesOf(chunks))) {
      const receipt = await writeBytesAtomic(path, source);
      assert.equal(receipt.bytes, whole.length, name);
      assert.deepEqual(new Uint8Array(readFileSync(path)), whole, name);
    }
    const { array, generator } = sourcesOf(chunks);
    for (const source of [array, generator]) {
      writeFileSync(path, "");
      const receipt = writeBytesAtomicSync(path, source);
      assert.equal(receipt.bytes, whole.length);
      assert.deepEqual(new Uint8Array(readFileSync(path)), whole);
    }
    assert.deepEqual(leftovers(directory), []);
  }));

test("text comes from sources too, characters split between chunks included, and ends in a newline", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const chunks = ["", "a😀".slice(0, 2), "a😀".slice(2), "é", "", "end"];
    for (const source of Object.values(sourcesOf(chunks))) {
      await writeTextAtomic(path, source);
      assert.equal(readFileSync(path, "utf8"), "a😀éend\n");
    }
    writeTextAtomicSync(path, chunks, { trailingNewline: false });
    assert.equal(readFileSync(path, "utf8"), "a😀éend");
    await writeTextAtomic(path, ["a\n"]);
    assert.equal(readFileSync(path, "utf8"), "a\n");
    await writeTextAtomic(path, []);
    assert.equal(readFileSync(path, "utf8"), "");
    for (const bad of [["a\ud83d"], ["\ude00"], ["a\ud83d", "b"]]) {
      assert.ok(
        await rejection(writeTextAtomic(path, bad)) instanceof
          SerializationError,
      );
      assert.throws(() => writeTextAtomicSync(path, bad), SerializationError);
    }
    assert.equal(readFileSync(path, "utf8"), "");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a source that throws, or yields what is no chunk, leaves the file and no trace, and is left itself", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    const own = new Error("the source's own");
    let isLeft = 0;
    function* failing(end: () => unknown) {
      try {
        yield encode("new");
        yield end() as Uint8Array;
      } finally {
        isLeft++;
      }
    }
    const fail = () => {
      throw own;
    };
    const port = new FaultPort();
    await onPort(port, async () => {
      assert.equal(
        await rejection(writeBytesAtomic(path, failing(fail))),
        own,
      );
      assert.throws(
        () => writeBytesAtomicSync(path, failing(fail)),
        (error) => error === own,
      );
      const wrong = await rejection(
        writeBytesAtomic(path, failing(() => "text")),
      );
      assert.ok(wrong instanceof TypeError);
      assert.match(
        wrong.message,
        /^Chunk 1 of the source must be an ArrayBuffer or a view of one, as a Uint8Array is: received the string "text"/,
      );
      assert.throws(
        () => writeBytesAtomicSync(path, failing(() => 5)),
        TypeError,
      );
      const write: (path: string, source: unknown) => Promise<unknown> =
        writeTextAtomic as never;
      assert.ok(await rejection(write(path, [5])) instanceof TypeError);
      assert.equal(openHandles(port), 0);
    });
    assert.equal(isLeft, 4);
    assert.equal(readFileSync(path, "utf8"), "old");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a source that hangs is ended by the signal, and told so", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    let isLeft = false;
    const hanging: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => {
          isLeft = true;
          return new Promise(() => {});
        },
      }),
    };
    const controller = new AbortController();
    setTimeout(() => controller.abort("enough"), 5);
    const port = new FaultPort();
    const error = await onPort(port, () =>
      rejection(
        writeBytesAtomic(path, hanging, { signal: controller.signal }),
      ));
    assert.equal(error, "enough");
    assert.equal(isLeft, true);
    assert.equal(openHandles(port), 0);
    assert.equal(readFileSync(path, "utf8"), "old");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a source that never waits lets others run, and its signal end it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    // Endless, but for who does not let others run.
    const count = 100_000;
    const sources: Record<
      string,
      () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>
    > = {
      *generator() {
        for (let left = count; left > 0; left--) yield new Uint8Array();
      },
      async *"async generator"() {
        for (let left = count; left > 0; left--) {
          await Promise.resolve();
          yield new Uint8Array();
        }
      },
    };
    for (const [name, source] of Object.entries(sources)) {
      const controller = new AbortController();
      const { signal } = controller;
      let isAtItsEnd = false;
      const begun = async function* () {
        setTimeout(() => controller.abort(name));
        yield* source();
        isAtItsEnd = true;
      };
      const error = await rejection(
        writeBytesAtomic(path, begun(), { signal }),
      );
      assert.equal(error, name);
      assert.equal(isAtItsEnd, false);
    }
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a source that aborts its own write, and then hangs, is left all the same", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const controller = new AbortController();
    async function* source(): AsyncGenerator<Uint8Array, void, undefined> {
      yield new Uint8Array(3);
      controller.abort("enough");
      await new Promise(() => {});
    }
    const error = await rejection(
      writeBytesAtomic(path, source(), { signal: controller.signal }),
    );
    assert.equal(error, "enough");
    assert.deepEqual(readdirSync(directory), []);
  }));

test("any call failing leaves no trace of a stream", () =>
  inScratch(async (directory) => {
    for (let index = 0;; index++) {
      const path = join(directory, `f${index}`);
      writeFileSync(path, "old");
      const port = new FaultPort().failNth(index, "EIO");
      const outcome = await onPort(
        port,
        () =>
          writeBytesAtomic(path, [new Uint8Array(300_000), encode("x")])
            .catch((error: unknown) => error),
      );
      if (!(outcome instanceof Error)) break;
      assert.deepEqual(leftovers(directory), [], `call ${index}`);
      const failed = port.names[index] ?? "";
      const opened = failed === "open" || failed === "create" ? 1 : 0;
      assert.equal(openHandles(port), opened, `call ${index}, ${failed}`);
    }
  }));

test("progress is told while the disk is written to, and at the end", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const chunks = Array.from({ length: 30 }, () => new Uint8Array(50_000));
    for (const write of [writeBytesAtomic, writeBytesAtomicSync]) {
      const told: WriteProgress[] = [];
      await write(path, chunks, {
        onProgress: (progress) => told.push(progress),
      });
      assert.ok(told.length > 3 && told.length < 12, `${told.length}`);
      assert.deepEqual(told.at(-1), { bytes: 1_500_000, records: 30 });
      assert.ok(
        told.every(({ bytes }, index) =>
          bytes > (told[index - 1]?.bytes ?? 0) || index === told.length - 1
        ),
      );
    }
    const own = new Error("enough");
    const error = await rejection(writeBytesAtomic(path, chunks, {
      onProgress() {
        throw own;
      },
    }));
    assert.equal(error, own);
    assert.deepEqual(leftovers(directory), []);
  }));

test("a writer puts its chunks into place at the commit, which may be asked for twice", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    const writer = await openAtomicWriter(path);
    const chunk = encode("ab");
    const first = writer.write(chunk);
    const second = writer.write(encode("cd"));
    await first;
    chunk.fill(0);
    await second;
    assert.equal(readFileSync(path, "utf8"), "old");
    const receipt = await writer.commit();
    assert.equal(receipt.bytes, 4);
    assert.equal(readFileSync(path, "utf8"), "abcd");
    assert.equal(await writer.commit(), receipt);
    await writer.abort();
    await writer[Symbol.asyncDispose]();
    const closed = await rejection(writer.write(chunk));
    assert.ok(closed instanceof AtomicError);
    assert.equal(closed.code, "CLOSED");
    assert.match(closed.message, /the writer is committed/);
    assert.equal(readFileSync(path, "utf8"), "abcd");
  }));

test("a writer takes text as UTF-8 beside bytes of any kind, also through its stream", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const writer = await openAtomicWriter(path);
    await writer.write("ä");
    await writer.write(new DataView(encode("b").buffer));
    await writer.write("😀");
    await writer.commit();
    assert.equal(readFileSync(path, "utf8"), "äb😀");
    const piped = await openAtomicWriter(path);
    await sourcesOf(["one", "two"]).stream.pipeTo(piped.writable);
    assert.equal(readFileSync(path, "utf8"), "onetwo");
    const torn = await openAtomicWriter(path);
    await assert.rejects(torn.write("\ud83d"), /lone surrogate/);
    assert.deepEqual(leftovers(directory), []);
  }));

test("a stream that is read already is refused before the disk is touched", () =>
  inScratch(async (directory) => {
    const path = join(directory, "new", "f");
    const port = new FaultPort();
    await onPort(port, async () => {
      const { stream } = sourcesOf([encode("one")]);
      stream.getReader();
      const error = await rejection(writeBytesAtomic(path, stream));
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /a stream that somebody reads already/);
      const text = sourcesOf(["one"]).stream;
      text.getReader();
      await assert.rejects(writeTextAtomic(path, text), TypeError);
    });
    assert.deepEqual(port.calls, []);
    assert.deepEqual(readdirSync(directory), []);
  }));

test("a Blob, and the body of a Response, are written as they come", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const long = "x".repeat(300_000);
    for (
      const [bytes, expected] of [
        [new Blob(["one", long]), `one${long}`],
        [new Blob([]), ""],
        [new Response(long), long],
        [new Response(null), ""],
        [
          new Request("http://127.0.0.1", { method: "POST", body: "asked" }),
          "asked",
        ],
      ] as const
    ) {
      const receipt = await writeBytesAtomic(path, bytes);
      assert.equal(receipt.bytes, expected.length);
      assert.equal(readFileSync(path, "utf8"), expected);
    }
    const used = new Response("used");
    await used.text();
    const locked = new Response("locked");
    locked.body?.getReader();
    const missing = join(directory, "new", "f");
    for (const response of [used, locked]) {
      const error = await rejection(writeBytesAtomic(missing, response));
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /The body of .* is read already/);
    }
    const write = writeBytesAtomicSync as (
      path: string,
      bytes: unknown,
    ) => unknown;
    for (const bytes of [new Blob(["a"]), new Response("a")]) {
      assert.throws(() => write(missing, bytes), /with writeBytesAtomic$/);
    }
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("a writer that is aborted, disposed of, or whose signal is aborted leaves the file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    const controller = new AbortController();
    const port = new FaultPort();
    await onPort(port, async () => {
      const ends: ((writer: AtomicWriter) => unknown)[] = [
        (writer) => writer.abort("mine"),
        (writer) => writer[Symbol.asyncDispose](),
        () => controller.abort("signal"),
        (writer) => rejection(writer.write(5 as never)),
      ];
      for (const end of ends) {
        const writer = await openAtomicWriter(path, {
          signal: controller.signal,
        });
        await writer.write(encode("new"));
        await end(writer);
        const later = await rejection(writer.write(encode("more")));
        assert.equal(await rejection(writer.commit()), later);
        if (controller.signal.aborted) break;
        assert.equal(openHandles(port), 0);
        assert.deepEqual(leftovers(directory), []);
      }
      assert.equal(openHandles(port), 0);
    });
    assert.equal(readFileSync(path, "utf8"), "old");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a writer is a stream: closing commits, aborting aborts", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    const writer = await openAtomicWriter(path);
    const { stream } = sourcesOf([encode("a"), encode("b")]);
    await stream.pipeTo(writer.writable);
    assert.equal(readFileSync(path, "utf8"), "ab");
    assert.equal((await writer.commit()).bytes, 2);

    const broken = await openAtomicWriter(path);
    const failing = new ReadableStream({
      pull() {
        throw new Error("broken");
      },
    });
    await assert.rejects(failing.pipeTo(broken.writable), /broken/);
    await assert.rejects(broken.commit(), /broken/);
    assert.equal(readFileSync(path, "utf8"), "ab");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a stream takes its place when it is committed", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const early = await openAtomicWriter(path);
    await early.write(encode("opened first, committed last"));
    await writeTextAtomic(path, "between");
    // The same path from within its source.
    await writeBytesAtomic(
      path,
      (async function* () {
        await writeTextAtomic(path, "from within");
        yield encode("outer");
      })(),
    );
    assert.equal(readFileSync(path, "utf8"), "outer");
    const commit = early.commit();
    const later = writeTextAtomic(path, "later");
    await commit;
    await later;
    assert.equal(readFileSync(path, "utf8"), "later\n");
    const overtaken = await openAtomicWriter(path);
    await overtaken.write(encode("older"));
    const older = overtaken.commit();
    writeTextAtomicSync(path, "sync");
    assert.equal((await older).superseded, true);
    assert.equal(readFileSync(path, "utf8"), "sync\n");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a stream that is aborted or overtaken while it waits for its turn leaves nothing", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const controller = new AbortController();
    const port = new FaultPort();
    await onPort(port, async () => {
      const running = writeTextAtomic(path, "running");
      const writer = await openAtomicWriter(path, {
        signal: controller.signal,
      });
      const waiting = await openAtomicWriter(path);
      const running2 = writeTextAtomic(path, "running", { mode: 0o600 });
      const aborted = rejection(writer.commit());
      const overtaken = waiting.commit();
      await Promise.resolve();
      controller.abort("enough");
      writeTextAtomicSync(path, "sync");
      assert.equal(await aborted, "enough");
      assert.equal((await overtaken).superseded, true);
      await Promise.all([running, running2]);
      assert.equal(openHandles(port), 0);
    });
    assert.equal(readFileSync(path, "utf8"), "sync\n");
    assert.deepEqual(leftovers(directory), []);
  }));

test(
  "a snapshot reads the version it opened, whole, whatever replaces the path",
  { timeout: 600_000 },
  () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const old = Array.from({ length: 30_000 }, (_, index) =>
        `line ${index}\r\n`)
        .join("") + "last";
      writeFileSync(path, old);
      const port = new FaultPort();
      await onPort(port, async () => {
        const snapshot = await openSnapshot(path);
        const reading = (async () => {
          const lines: string[] = [];
          for await (const line of snapshot.lines()) {
            lines.push(line);
            if (lines.length % 1000 === 0) {
              await new Promise((resolve) => setTimeout(resolve, 1));
            }
          }
          return lines;
        })();
        for (let index = 0; index < 1000; index++) {
          await writeTextAtomic(path, `${index}`, { durability: "none" });
        }
        assert.deepEqual(await reading, old.split("\r\n"));
        assert.equal(await snapshot.text(), old);
        assert.deepEqual(await snapshot.bytes(), encode(old));
        assert.equal(await new Response(snapshot.readable).text(), old);
        const [once, twice] = await Promise.all([
          snapshot.text(),
          new Response(snapshot.readable).text(),
        ]);
        assert.ok(once === old && twice === old);
        for await (const _line of snapshot.lines()) break;
        await snapshot[Symbol.asyncDispose]();
        await snapshot[Symbol.asyncDispose]();
        await assert.rejects(snapshot.text(), { code: "CLOSED" });
        assert.equal(openHandles(port), 0);
      });
      assert.equal(readFileSync(path, "utf8"), "999\n");
    }),
);

test("a stream that is overtaken closes nothing while a chunk is being written", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort();
    let letGo = () => {};
    const slow = new Promise<void>((resolve) => letGo = resolve);
    let written: unknown;
    let isClosedTooEarly = false;
    const real = new FaultPort();
    port.intercept(({ name, args, form }) => {
      const [file, bytes] = args as [unknown, Uint8Array];
      if (name === "close" && file === written) isClosedTooEarly = true;
      if (name !== "write" || form !== "async" || bytes.length < 300_000) {
        return undefined;
      }
      written = file;
      const perform = async () => {
        const taken = await Reflect.apply(real.async.write, real.async, args);
        written = undefined;
        return taken;
      };
      return { result: slow.then(perform) };
    });
    await onPort(port, async () => {
      const writer = await openAtomicWriter(path);
      const running = writeTextAtomic(path, "running");
      const writing = writer.write(new Uint8Array(400_000));
      const commit = writer.commit();
      while (written === undefined) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      writeTextAtomicSync(path, "sync");
      await new Promise((resolve) => setTimeout(resolve, 5));
      letGo();
      await Promise.all([running, writing]);
      assert.equal((await commit).superseded, true);
      assert.equal(openHandles(port), 0);
    });
    assert.equal(isClosedTooEarly, false);
    assert.equal(readFileSync(path, "utf8"), "sync\n");
    assert.deepEqual(leftovers(directory), []);
  }));

test("a stream keeps the mode that the file has when it is committed", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const writer = await openAtomicWriter(path);
    await writer.write(encode("stream"));
    await writeTextAtomic(path, "secret", { mode: 0o600 });
    const receipt = await writer.commit();
    assert.equal(receipt.created, false);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(readFileSync(path, "utf8"), "stream");
  }));

test("a stream whose source hangs is cancelled, and so is one whose file cannot be written", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "old");
    for (const isHanging of [true, false]) {
      let isCancelled = false;
      const stream = new ReadableStream<Uint8Array>({
        pull: () => new Promise(() => {}),
        cancel() {
          isCancelled = true;
        },
      });
      const controller = new AbortController();
      if (isHanging) setTimeout(() => controller.abort("enough"), 5);
      await rejection(
        writeBytesAtomic(path, stream, {
          signal: controller.signal,
          createNew: !isHanging,
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, 1));
      assert.equal(isCancelled, true, `${isHanging}`);
    }
  }));

test("what a snapshot was asked for before it is disposed of is still read", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "text");
    const snapshot = await openSnapshot(path);
    const bytes = snapshot.bytes();
    const disposed = snapshot[Symbol.asyncDispose]();
    assert.deepEqual(await bytes, encode("text"));
    await disposed;
  }));

test("a snapshot of what is missing, a directory, or not UTF-8 is an error", () =>
  inScratch(async (directory) => {
    await assert.rejects(openSnapshot(join(directory, "f")), {
      code: "ENOENT",
    });
    await assert.rejects(openSnapshot(directory), { code: "EISDIR" });
    const path = join(directory, "f");
    writeFileSync(path, new Uint8Array([0x61, 0x0a, 0x62, 0xff]));
    await assert.rejects(openSnapshot(path, { maxBytes: 3 }), {
      code: "TOO_LARGE",
    });
    const snapshot = await openSnapshot(path);
    const position = { code: "PARSE", line: 2, column: 2, byteOffset: 3 };
    await assert.rejects(snapshot.text(), position);
    await assert.rejects(async () => {
      for await (const _line of snapshot.lines());
    }, position);
    await snapshot[Symbol.asyncDispose]();
  }));
