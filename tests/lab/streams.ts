/**
 * Thirty thousand streams that fail, are aborted, or are half read. Prints how
 * many descriptors are open before and after, and by how much the process grew
 * after the first ten thousand.
 *
 * @module
 */

import { readdirSync } from "node:fs";
import process from "node:process";
import {
  openAtomicWriter,
  openSnapshot,
  readJsonl,
  writeBytesAtomic,
  writeJsonlAtomic,
  writeTextAtomicSync,
} from "../../mod.ts";

const [directory = "."] = process.argv.slice(2);
const path = `${directory}/f`;
const STREAMS = 30_000;
const WARM_UP = 10_000;

function descriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

async function* failing(): AsyncGenerator<Uint8Array, void, undefined> {
  yield new Uint8Array(1000);
  throw new Error("the source's own");
}

const bytes = new Uint8Array(1000);

const WAYS: readonly (() => Promise<unknown>)[] = [
  () => writeBytesAtomic(path, failing()),
  () => writeJsonlAtomic(path, [1, 2, undefined]),
  async () => {
    const controller = new AbortController();
    const hanging = new ReadableStream<Uint8Array>();
    const writing = writeBytesAtomic(path, hanging, {
      signal: controller.signal,
    });
    controller.abort("enough");
    await writing;
  },
  async () => {
    const writer = await openAtomicWriter(path);
    await writer.write(bytes);
    await writer[Symbol.asyncDispose]();
  },
  async () => {
    for await (const _value of readJsonl(path)) break;
  },
  async () => {
    const snapshot = await openSnapshot(path);
    for await (const _line of snapshot.lines()) break;
    await snapshot[Symbol.asyncDispose]();
  },
];

writeTextAtomicSync(path, "1\n2\n3\n");
for (const way of WAYS) await way().catch(() => {});
const before = descriptors();
let warm = 0;
for (let index = 0; index < STREAMS; index++) {
  await WAYS[index % WAYS.length]?.().catch(() => {});
  if (index === WARM_UP) warm = process.memoryUsage().rss;
}
console.log(JSON.stringify({
  before,
  after: descriptors(),
  grownMiB: Math.round((process.memoryUsage().rss - warm) / 1024 / 1024),
  left: readdirSync(directory),
}));
