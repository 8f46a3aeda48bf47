/**
 * The public functions that write, the options that change what they do, and
 * the situations that they find.
 *
 * @module
 */

import {
  type AtomicWriter,
  openAtomicWriter,
  openSnapshot,
  readBytes,
  readJsonl,
  readJsonlSync,
  type ReadOptions,
  readText,
  readTextSync,
  withDefaults,
  writeBytesAtomic,
  writeBytesAtomicSync,
  writeJsonAtomic,
  writeJsonAtomicSync,
  writeJsonlAtomic,
  writeJsonlAtomicSync,
  type WriteOptions,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../../mod.ts";
import { Machine, type Process } from "./posix.ts";

/** A public function, and what it writes. */
export interface Form {
  readonly name: string;
  readonly text: string;
  /** Whether it is to change nothing, and so has no receipt: it is aborted, or reads. */
  readonly changes?: "nothing";
  readonly reads?: true;
  write(path: string, options: WriteOptions): Promise<WriteReceipt | undefined>;
}

const encoder = new TextEncoder();

function* parts(): Generator<string, void, undefined> {
  yield "ne";
  yield "w";
}

async function* asyncParts(): AsyncGenerator<string, void, undefined> {
  yield* parts();
}

async function written(
  path: string,
  options: WriteOptions,
  end: (writer: AtomicWriter) => Promise<WriteReceipt | undefined>,
): Promise<WriteReceipt | undefined> {
  const writer = await openAtomicWriter(path, options);
  await writer.write(encoder.encode("ne"));
  await writer.write(encoder.encode("w\n"));
  return await end(writer);
}

/** As a promise, which a throw rejects. */
function promised<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => resolve(body()));
}

export const FORMS: readonly Form[] = [
  {
    name: "writeTextAtomic",
    text: "new\n",
    write: (path, options) => writeTextAtomic(path, "new", options),
  },
  {
    name: "writeTextAtomicSync",
    text: "new\n",
    write: (path, options) =>
      promised(() => writeTextAtomicSync(path, "new", options)),
  },
  {
    name: "writeTextAtomic of an async iterable",
    text: "new\n",
    write: (path, options) => writeTextAtomic(path, asyncParts(), options),
  },
  {
    name: "writeTextAtomicSync of an iterable",
    text: "new\n",
    write: (path, options) =>
      promised(() => writeTextAtomicSync(path, parts(), options)),
  },
  {
    name: "writeJsonAtomic",
    text: "[1]\n",
    write: (path, options) =>
      writeJsonAtomic(path, [1], { ...options, indent: 0 }),
  },
  {
    name: "writeJsonAtomicSync",
    text: "[1]\n",
    write: (path, options) =>
      promised(() => writeJsonAtomicSync(path, [1], { ...options, indent: 0 })),
  },
  {
    name: "writeJsonlAtomic",
    text: "1\n2\n",
    write: (path, options) => writeJsonlAtomic(path, [1, 2], options),
  },
  {
    name: "writeJsonlAtomicSync",
    text: "1\n2\n",
    write: (path, options) =>
      promised(() => writeJsonlAtomicSync(path, [1, 2], options)),
  },
  {
    name: "writeBytesAtomic",
    text: "new\n",
    write: (path, options) =>
      writeBytesAtomic(path, encoder.encode("new\n"), options),
  },
  {
    name: "writeBytesAtomicSync",
    text: "new\n",
    write: (path, options) =>
      promised(() =>
        writeBytesAtomicSync(path, encoder.encode("new\n"), options)
      ),
  },
  {
    name: "openAtomicWriter, commit",
    text: "new\n",
    write: (path, options) =>
      written(path, options, (writer) => writer.commit()),
  },
  {
    name: "openAtomicWriter, writable closed",
    text: "new\n",
    write: (path, options) =>
      written(path, options, async (writer) => {
        await writer.writable.close();
        return await writer.commit();
      }),
  },
  {
    name: "openAtomicWriter, abort",
    text: "new\n",
    changes: "nothing",
    write: (path, options) =>
      written(path, options, async (writer) => {
        await writer.abort();
        return undefined;
      }),
  },
  {
    name: "withDefaults, writeTextAtomic",
    text: "new\n",
    write: (path, options) =>
      withDefaults(options).writeTextAtomic(path, "new"),
  },
];

/** Reads, which give back what they open whatever fails. */
function reading(
  name: string,
  read: (path: string, options: ReadOptions) => Promise<unknown>,
): Form {
  return {
    name,
    text: "",
    changes: "nothing",
    reads: true,
    async write(path, { retryMs }) {
      await read(path, { retryMs });
      return undefined;
    },
  };
}

export const READS: readonly Form[] = [
  reading("readText", readText),
  reading(
    "readTextSync",
    (path, options) => promised(() => readTextSync(path, options)),
  ),
  reading("readBytes", readBytes),
  reading("readJsonl, two lines", async (path, options) => {
    const records = readJsonl(path, { ...options, onError: "skip" });
    for await (const _record of records);
  }),
  reading("readJsonlSync, left at once", (path, options) =>
    promised(() => {
      const records = readJsonlSync(path, { ...options, onError: () => {} });
      for (const _record of records) break;
    })),
  reading("openSnapshot", async (path, options) => {
    const snapshot = await openSnapshot(path, options);
    try {
      await snapshot.text();
      for await (const _line of snapshot.lines()) break;
    } finally {
      await snapshot[Symbol.asyncDispose]();
    }
  }),
];

/** What a write finds. */
export interface Situation {
  readonly name: string;
  /** The path that the write is given. */
  readonly path: string;
  /** Who writes: root, or a user. */
  readonly uid: number;
  /** Whether a link leads to the file, and whether a stranger made it. */
  readonly link?: "ours" | "planted";
  /** Where the content is once it is written. */
  readonly target: string;
  /** What is there before. */
  readonly old?: {
    readonly text: string;
    readonly mode: number;
    readonly uid: number;
  };
  readonly isParentMissing?: true;
  readonly hasOtherName?: true;
  readonly innocents: Readonly<Record<string, string>>;
  build(root: Process): void;
}

function put(
  process: Process,
  path: string,
  text: string,
  mode = 0o644,
  uid = 0,
): void {
  const file = process.create(path, mode);
  process.write(file, encoder.encode(text));
  process.chown(file, uid, uid);
  process.chmod(file, mode);
  process.close(file);
}

export const SITUATIONS: readonly Situation[] = [
  {
    name: "a new file",
    path: "/d/f",
    uid: 0,
    target: "/d/f",
    innocents: { "/d/other": "other" },
    build(root) {
      root.mkdir("/d");
      put(root, "/d/other", "other");
    },
  },
  {
    name: "a file",
    path: "/d/f",
    uid: 0,
    target: "/d/f",
    old: { text: "old", mode: 0o640, uid: 0 },
    innocents: { "/d/other": "other" },
    build(root) {
      root.mkdir("/d");
      put(root, "/d/other", "other");
      put(root, "/d/f", "old", 0o640);
    },
  },
  {
    name: "a file of another user",
    path: "/d/f",
    uid: 0,
    target: "/d/f",
    old: { text: "old", mode: 0o600, uid: 7 },
    innocents: {},
    build(root) {
      root.mkdir("/d");
      put(root, "/d/f", "old", 0o600, 7);
    },
  },
  {
    name: "a file with a second name",
    path: "/d/f",
    uid: 0,
    target: "/d/f",
    old: { text: "old", mode: 0o644, uid: 0 },
    hasOtherName: true,
    innocents: { "/d/g": "old" },
    build(root) {
      root.mkdir("/d");
      put(root, "/d/f", "old");
      root.link("/d/f", "/d/g");
    },
  },
  {
    name: "missing parents",
    path: "/d/a/b/f",
    uid: 0,
    target: "/d/a/b/f",
    isParentMissing: true,
    innocents: { "/d/other": "other" },
    build(root) {
      root.mkdir("/d");
      put(root, "/d/other", "other");
    },
  },
  {
    name: "a link to a file",
    path: "/d/f",
    uid: 0,
    link: "ours",
    target: "/e/f",
    old: { text: "old", mode: 0o640, uid: 0 },
    innocents: {},
    build(root) {
      root.mkdir("/d");
      root.mkdir("/e");
      put(root, "/e/f", "old", 0o640);
      root.symlink("../e/f", "/d/f");
    },
  },
  {
    name: "a link to nothing",
    path: "/d/f",
    uid: 0,
    link: "ours",
    target: "/e/g",
    innocents: {},
    build(root) {
      root.mkdir("/d");
      root.mkdir("/e");
      root.symlink("/e/g", "/d/f");
    },
  },
  {
    name: "a link that a stranger planted",
    path: "/tmp/f",
    uid: 1000,
    link: "planted",
    target: "/e/f",
    old: { text: "old", mode: 0o666, uid: 1000 },
    innocents: {},
    build(root) {
      root.mkdir("/tmp");
      const directory = root.open("/tmp");
      root.chmod(directory, 0o1777);
      root.close(directory);
      root.mkdir("/e");
      put(root, "/e/f", "old", 0o666, 1000);
      const stranger = root.fork("stranger", 666);
      stranger.symlink("/e/f", "/tmp/f");
    },
  },
  {
    name: "a user's file whose owner cannot be kept",
    path: "/d/f",
    uid: 1000,
    target: "/d/f",
    old: { text: "old", mode: 0o640, uid: 7 },
    innocents: {},
    build(root) {
      root.mkdir("/d");
      const directory = root.open("/d");
      root.chown(directory, 1000, 1000);
      root.close(directory);
      put(root, "/d/f", "old", 0o640, 7);
    },
  },
];

export const OPTIONS: readonly WriteOptions[] = [
  {},
  { mode: 0o600 },
  { owner: { uid: 5, gid: 5 } },
  { preserve: false },
  { createNew: true },
  { symlinks: "replace" },
  { symlinks: "reject" },
  { parents: false },
];

/** A machine in this situation, everything on its disk, and the process that will write. */
export function prepare(
  situation: Situation,
): { machine: Machine; writer: Process } {
  const machine = new Machine();
  machine.mount("elsewhere", 2);
  situation.build(machine.start("setup", 1));
  machine.syncAll();
  const writer = machine.start("writer", 100, situation.uid);
  machine.processes.shift();
  return { machine, writer };
}

/** What must become of a write. */
export type Expected =
  | { readonly resolves: true; readonly target: string }
  | { readonly code: string; readonly target: string };

/** What must become of a read. */
export function expectedRead({ old, uid, target }: Situation): Expected {
  if (old === undefined) return { code: "ENOENT", target };
  const isReadable = uid === 0 || uid === old.uid || (old.mode & 0o004) !== 0;
  return isReadable ? { resolves: true, target } : { code: "EACCES", target };
}

/** What the documentation says of these options in this situation. */
export function expected(
  { path, link, old, uid, isParentMissing, ...situation }: Situation,
  { symlinks, createNew, parents, owner }: WriteOptions,
): Expected {
  const replaces = link !== undefined && symlinks === "replace";
  const target = replaces ? path : situation.target;
  if (link !== undefined && symlinks === "reject") {
    return { code: "ELOOP", target };
  }
  if (link === "planted" && !replaces) return { code: "ELOOP", target };
  if (createNew && (replaces || old !== undefined)) {
    return { code: "EEXIST", target };
  }
  if (isParentMissing && parents === false) return { code: "ENOENT", target };
  if (owner !== undefined && uid !== 0) return { code: "EPERM", target };
  // In a sticky directory nobody but its owner may replace the link.
  if (link === "planted") return { code: "EPERM", target };
  return { resolves: true, target };
}
