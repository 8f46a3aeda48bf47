import assert from "node:assert/strict";
import {
  existsSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  appendJsonl,
  AtomicError,
  ChecksumMismatchError,
  compactJsonl,
  compactJsonlSync,
  type CompactReceipt,
  isLocked,
  type JsonlCompactOptions,
  ParseError,
  verifyChecksum,
  withDefaults,
  withLock,
  writeJsonlAtomic,
  writeTextAtomic,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";

interface Event {
  readonly id: number;
}

type Compact = (
  path: string,
  change: (records: readonly Event[]) => Iterable<unknown>,
  options?: JsonlCompactOptions,
) => Promise<CompactReceipt>;

/** Both, with all records at hand. */
const FORMS: readonly { readonly name: string; readonly compact: Compact }[] = [
  {
    name: "async",
    compact: (path, change, options) =>
      compactJsonl<Event>(path, async function* (records) {
        yield* change(await Array.fromAsync(records));
      }, options),
  },
  {
    name: "sync",
    compact: (path, change, options) =>
      new Promise((resolve) =>
        resolve(
          compactJsonlSync<Event>(
            path,
            (records) => change([...records]),
            options,
          ),
        )
      ),
  },
];

const odd = (records: readonly Event[]) =>
  records.filter(({ id }) => id % 2 === 1);

for (const { name, compact } of FORMS) {
  test(`${name}: a file is written anew with the records that are kept, and the receipt says how many`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      writeFileSync(path, '{"id":1}\n{"id":2}\n\n{"id":3}\n');
      const receipt = await compact(path, odd);
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":3}\n');
      const { recordsRead, recordsWritten, cutBytes, created } = receipt;
      assert.deepEqual(
        { recordsRead, recordsWritten, cutBytes, created },
        { recordsRead: 3, recordsWritten: 2, cutBytes: 0, created: false },
      );
      assert.equal(receipt.path, path);
      assert.equal(receipt.bytes, 18);
      assert.equal(receipt.directorySynced, true);
      assert.deepEqual(readdirSync(directory), ["log"]);
    }));

  test(`${name}: where there is no file there are no records, and one is made`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "new", "log");
      const receipt = await compact(path, (records) => {
        assert.deepEqual(records, []);
        return [{ id: 7 }];
      });
      assert.equal(receipt.created, true);
      assert.equal(receipt.recordsRead, 0);
      assert.equal(readFileSync(path, "utf8"), '{"id":7}\n');
    }));

  test(`${name}: a torn last line is left out and told, one that lacks its newline is kept`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      writeFileSync(path, '{"id":1}\n{"id":');
      const { cutBytes, recordsRead } = await compact(path, odd);
      assert.equal(cutBytes, 6);
      assert.equal(recordsRead, 1);
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n');
      writeFileSync(path, '{"id":1}\n{"id":3}');
      assert.equal((await compact(path, odd)).cutBytes, 0);
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":3}\n');
      // Of a number the rest may be missing.
      writeFileSync(path, "1\n23");
      const seen: unknown[] = [];
      await compact(path, (records) => {
        seen.push(...records);
        return records;
      });
      assert.deepEqual(seen, [1]);
    }));

  test(`${name}: what is no JSON ends it, or is skipped, and the file is as it was`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const text = '{"id":1}\nbroken\n{"id":3}\n';
      writeFileSync(path, text);
      const error = await rejection(compact(path, odd));
      assert.ok(error instanceof ParseError);
      assert.equal(error.line, 2);
      assert.equal(readFileSync(path, "utf8"), text);
      assert.deepEqual(leftovers(directory), []);
      await compact(path, odd, { onError: "skip" });
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":3}\n');
    }));

  test(`${name}: a function that throws, and one that returns no records, leave the file as it was`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      writeFileSync(path, '{"id":1}\n');
      const reason = new RangeError("from the function");
      const thrown = compact(path, () => {
        throw reason;
      });
      assert.equal(await rejection(thrown), reason);
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n');
      assert.equal(await isLocked(path), false);
      assert.deepEqual(readdirSync(directory), ["log"]);
    }));

  test(`${name}: a link is followed or refused, and never replaced`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const link = join(directory, "link");
      writeFileSync(path, '{"id":1}\n{"id":2}\n');
      symlinkSync("log", link);
      await compact(link, odd);
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n');
      const refused = compact(link, odd, { symlinks: "reject" });
      assert.equal((await rejection(refused) as AtomicError).code, "ELOOP");
      const replacing = { symlinks: "replace" } as never;
      await assert.rejects(compact(link, odd, replacing), TypeError);
    }));

  test(`${name}: a checksum is kept, and what is damaged is not called good`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const records = [{ id: 1 }, { id: 2 }];
      await writeJsonlAtomic(path, records, { checksum: true });
      await compact(path, odd);
      await verifyChecksum(path);
      writeFileSync(path, '{"id":9}\n');
      await assert.rejects(compact(path, odd), ChecksumMismatchError);
      assert.equal(readFileSync(path, "utf8"), '{"id":9}\n');
    }));

  test(`${name}: any call may fail: the file has its old content or the new, and nothing is left`, () =>
    inScratch(async (directory) => {
      const old = '{"id":1}\n{"id":2}\n';
      for (let index = 0, hasFailed = true; hasFailed; index++) {
        const path = join(directory, `log${index}`);
        writeFileSync(path, old);
        const port = new FaultPort().failNth(index, "EIO");
        const error = await onPort(
          port,
          () => compact(path, odd).catch((error) => error),
        );
        hasFailed = error instanceof Error || port.calls.length > index;
        const now = readFileSync(path, "utf8");
        assert.ok([old, '{"id":1}\n'].includes(now));
        if (error instanceof AtomicError && error.committed === false) {
          assert.equal(now, old);
        }
        const failed = port.calls[index]?.name ?? "";
        if (["unlink", "rmdir"].includes(failed)) continue;
        assert.deepEqual(leftovers(directory), [], `${index}: ${failed}`);
      }
    }));

  test(`${name}: malformed arguments are TypeErrors, before anything is done`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const port = new FaultPort();
      const wrong = (call: () => unknown) =>
        assert.rejects(async () => await call(), TypeError);
      await onPort(port, async () => {
        const change = "no function" as never;
        await wrong(() => compactJsonl(path, change));
        await wrong(() => compactJsonlSync(path, change));
        await wrong(() => compact(path, odd, { createNew: true } as never));
        await wrong(() => compact(path, odd, { indent: 2 } as never));
      });
      assert.deepEqual(port.calls, []);
      writeFileSync(path, "1\n");
      await wrong(() => compactJsonl(path, () => "records" as never));
      await wrong(() => compactJsonlSync(path, () => 7 as never));
      assert.equal(readFileSync(path, "utf8"), "1\n");
    }));
}

for (const isSync of [true, false]) {
  const name = isSync ? "sync" : "async";

  test(`${name}: what is damaged is not called good where the function does not read it to its end`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const records = Array.from({ length: 9000 }, (_, id) => ({ id }));
      await writeJsonlAtomic(path, records, { checksum: true });
      const damaged = readFileSync(path, "utf8").replace("8999", "7999");
      writeFileSync(path, damaged);
      const compaction = new Promise((resolve) =>
        resolve(
          isSync
            ? compactJsonlSync(path, function* (records) {
              for (const record of records) {
                yield record;
                break;
              }
            })
            : compactJsonl(path, async function* (records) {
              for await (const record of records) {
                yield record;
                break;
              }
            }),
        )
      );
      await assert.rejects(compaction, ChecksumMismatchError);
      assert.equal(readFileSync(path, "utf8"), damaged);
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${name}: the records that a function has not read end with the compaction`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "log");
      const records = Array.from({ length: 9000 }, (_, id) => ({ id }));
      await writeJsonlAtomic(path, records);
      const left: (Iterator<unknown> | AsyncIterator<unknown>)[] = [];
      if (isSync) {
        compactJsonlSync(path, (records) => {
          const iterator = records[Symbol.iterator]();
          left.push(iterator);
          return [iterator.next().value];
        });
      } else {
        await compactJsonl(path, async function* (records) {
          const iterator = records[Symbol.asyncIterator]();
          left.push(iterator);
          yield (await iterator.next()).value;
          // Which is under way when the function ends.
          void iterator.next();
        });
      }
      for (const iterator of left) {
        assert.equal((await iterator.next()).done, true);
      }
      assert.equal(readFileSync(path, "utf8"), '{"id":0}\n');
    }));
}

test("records that are appended while it compacts come after those that are kept", () =>
  inScratch(async (directory) => {
    for (const lock of [true, false]) {
      const path = join(directory, `log-${lock}`);
      writeFileSync(path, '{"id":1}\n{"id":2}\n');
      let appended: Promise<unknown> | undefined;
      await compactJsonl<Event>(path, async function* (events) {
        for await (const event of events) {
          appended ??= appendJsonl(path, [{ id: 4 }], { lock });
          await new Promise((resolve) => setTimeout(resolve, 5));
          if (event.id % 2 === 1) yield event;
        }
      }, { lock });
      await appended;
      assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":4}\n');
    }
  }));

test("a compaction takes a lock that is passed on, and its place in call order", () =>
  inScratch(async (directory) => {
    const path = join(directory, "log");
    const text = writeTextAtomic(path, '{"id":1}\n{"id":2}');
    const compacted = compactJsonl<Event>(path, (events) => events);
    await Promise.all([text, compacted]);
    assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":2}\n');
    await withLock(path, async (lock) => {
      await compactJsonl(path, () => [], { lock });
      await appendJsonl(path, [{ id: 3 }], { lock });
    });
    assert.equal(readFileSync(path, "utf8"), '{"id":3}\n');
  }));

test("a compaction that is aborted leaves the file as it was", () =>
  inScratch(async (directory) => {
    const path = join(directory, "log");
    writeFileSync(path, '{"id":1}\n{"id":2}\n');
    const controller = new AbortController();
    const { signal } = controller;
    const compacted = compactJsonl<Event>(path, async function* (events) {
      for await (const event of events) {
        controller.abort("enough");
        yield event;
      }
    }, { signal });
    assert.equal(await rejection(compacted), "enough");
    assert.equal(readFileSync(path, "utf8"), '{"id":1}\n{"id":2}\n');
    assert.deepEqual(readdirSync(directory), ["log"]);
  }));

test("a file is compacted in memory that does not grow with it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "log");
    function* many() {
      for (let id = 0; id < 200_000; id++) yield { id };
    }
    await writeJsonlAtomic(path, many());
    let most = 0;
    let inside = 0;
    const { recordsRead, recordsWritten } = await compactJsonl<Event>(
      path,
      async function* (events) {
        for await (const event of events) {
          most = Math.max(most, ++inside);
          yield event;
          inside--;
        }
      },
    );
    assert.equal(recordsRead, 200_000);
    assert.equal(recordsWritten, 200_000);
    assert.equal(most, 1);
  }));

test("defaults are bound to compactions too", () =>
  inScratch(async (directory) => {
    const path = join(directory, "log");
    writeFileSync(path, '{"id":1}\nbroken\n');
    const bound = withDefaults({ onError: "skip", durability: "ordered" });
    const receipt = await bound.compactJsonl(path, (records) => records);
    assert.equal(receipt.directorySynced, false);
    assert.equal(bound.compactJsonlSync(path, () => []).recordsWritten, 0);
    assert.equal(readFileSync(path, "utf8"), "");
    assert.ok(existsSync(path));
  }));

test("a compaction into a stream that is read already changes nothing, and leaves nothing", () =>
  inScratch(async (directory) => {
    const path = join(directory, "log");
    writeFileSync(path, '{"id":1}\n');
    const stream = new ReadableStream<unknown>();
    stream.getReader();
    await assert.rejects(compactJsonl(path, () => stream), TypeError);
    assert.deepEqual(readdirSync(directory), ["log"]);
    assert.equal(readFileSync(path, "utf8"), '{"id":1}\n');
  }));
