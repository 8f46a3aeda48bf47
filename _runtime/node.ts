/**
 * The port on Node and Bun: `node:fs`, reached through
 * `process.getBuiltinModule`, so that no runtime sees a `node:` import and
 * importing this file on Deno touches nothing.
 *
 * @module
 */

import type { BigIntStats, Stats } from "node:fs";
import type {
  AsyncSystemCalls,
  FileStatus,
  OpenFile,
  Port,
  SystemCalls,
} from "./port.ts";
import { errnoName, isError } from "./errno.ts";
import { createHash } from "./hash.ts";
import { isAlive, threadStartedAt } from "./process.ts";
import { argumentsFor, triedAs } from "./second_process.ts";
import { connecting, sqliteCalls } from "./sqlite.ts";
import { filesystemStatus } from "./statfs.ts";

class NodeFile implements OpenFile {
  readonly path: string;
  readonly fd: number;

  constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
  }
}

function fd(file: OpenFile): number {
  return (file as NodeFile).fd;
}

function status(stats: Stats | BigIntStats): FileStatus {
  return {
    kind: stats.isFile()
      ? "file"
      : stats.isDirectory()
      ? "directory"
      : stats.isSymbolicLink()
      ? "symlink"
      : "other",
    size: Number(stats.size),
    mode: Number(stats.mode) & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    nlink: Number(stats.nlink),
    mtimeMs: Number(stats.mtimeMs),
    birthMs: Number(stats.birthtimeMs),
    dev: Number(stats.dev),
    ino: stats.ino,
  };
}

const EXACTLY = { bigint: true } as const;

/** Of a file with such a number it must be asked for again, exactly. */
function isRounded({ ino }: Stats): boolean {
  return !Number.isSafeInteger(ino);
}

/** Node 22 would tell the user of each program that takes a lock that SQLite is experimental: of it only the locks are used. */
function sqliteModule(): unknown {
  const { process } = globalThis;
  const { emitWarning } = process;
  const others = (...args: Parameters<typeof emitWarning>) => {
    const [warning, type] = args;
    const isIts = `${type}` === "ExperimentalWarning" &&
      /SQLite/.test(`${warning}`);
    if (!isIts) Reflect.apply(emitWarning, process, args);
  };
  process.emitWarning = others as typeof emitWarning;
  try {
    return process.getBuiltinModule("node:sqlite");
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** Makes the port. Nothing is hooked until {@linkcode Port.onExit} is called. */
export function nodePort(): Port {
  const { process } = globalThis;
  const fs = process.getBuiltinModule("node:fs");
  const { promisify } = process.getBuiltinModule("node:util");

  // Bun has its own on every release, Node's since 1.4.
  const sqlite = sqliteCalls(() =>
    connecting(process.getBuiltinModule("bun:sqlite"), "Database", {
      readwrite: true,
      create: false,
    }) ?? connecting(sqliteModule(), "DatabaseSync")
  );

  // "a+" would make what is missing.
  const READ_APPEND = fs.constants.O_RDWR | fs.constants.O_APPEND;

  const create = (path: string, mode: number) =>
    new NodeFile(path, fs.openSync(path, "wx", mode));

  const lockElsewhere = (path: string) => {
    const args = argumentsFor(process.execPath, path);
    if (args === undefined) return undefined;
    try {
      const { execFileSync } = process.getBuiltinModule("node:child_process");
      const output = execFileSync(process.execPath, args, {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      });
      return triedAs(output);
    } catch {
      return undefined;
    }
  };

  const openSync = (path: string) => new NodeFile(path, fs.openSync(path, "r"));

  const sync: SystemCalls = {
    create,
    createChangeable: create,
    open: openSync,
    openChangeable: openSync,
    openAppend: (path) => new NodeFile(path, fs.openSync(path, READ_APPEND)),
    read: (file, into, position) =>
      fs.readSync(fd(file), into, 0, into.length, position ?? null),
    write: (file, bytes) => fs.writeSync(fd(file), bytes),
    fstat(file) {
      const stats = fs.fstatSync(fd(file));
      return status(
        isRounded(stats) ? fs.fstatSync(fd(file), EXACTLY) : stats,
      );
    },
    fchmod: (file, mode) => fs.fchmodSync(fd(file), mode),
    fchown: (file, uid, gid) => fs.fchownSync(fd(file), uid, gid),
    fsync: (file) => fs.fsyncSync(fd(file)),
    truncate: (file, length) => fs.ftruncateSync(fd(file), length),
    close: (file) => fs.closeSync(fd(file)),
    lstat(path) {
      const stats = fs.lstatSync(path);
      return status(isRounded(stats) ? fs.lstatSync(path, EXACTLY) : stats);
    },
    access: (path) => fs.existsSync(path),
    readlink: (path) => fs.readlinkSync(path),
    // The plain form walks the path in JavaScript, one lstat for each part.
    realpath: (path) => fs.realpathSync.native(path),
    mkdir: (path) => fs.mkdirSync(path),
    rmdir: (path) => fs.rmdirSync(path),
    link: (from, to) => fs.linkSync(from, to),
    rename: (from, to) => fs.renameSync(from, to),
    unlink: (path) => fs.unlinkSync(path),
    readdir: (path) => fs.readdirSync(path),
    statfs: (path) => filesystemStatus(fs.statfsSync(path)),
    ...sqlite.sync,
    lockElsewhere,
    sleep: (ms) =>
      void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
  };

  const open = promisify(fs.open);
  const read = promisify(fs.read);
  const write = promisify(fs.write);
  const fstat: (fd: number) => Promise<Stats> = promisify(fs.fstat);
  const fstatExactly = (fd: number) =>
    new Promise<BigIntStats>((resolve, reject) =>
      fs.fstat(
        fd,
        EXACTLY,
        (error, stats) => error ? reject(error) : resolve(stats),
      )
    );
  const fchmod = promisify(fs.fchmod);
  const fchown = promisify(fs.fchown);
  const fsync = promisify(fs.fsync);
  const ftruncate = promisify(fs.ftruncate);
  const close = promisify(fs.close);
  const {
    access,
    lstat,
    readlink,
    mkdir,
    rmdir,
    link,
    rename,
    unlink,
    readdir,
    statfs,
  } = fs.promises;
  const realpath = promisify(fs.realpath.native);

  const createAsync = async (path: string, mode: number) =>
    new NodeFile(path, await open(path, "wx", mode));

  const openAsync = async (path: string) =>
    new NodeFile(path, await open(path, "r"));

  const async: AsyncSystemCalls = {
    create: createAsync,
    createChangeable: createAsync,
    open: openAsync,
    openChangeable: openAsync,
    openAppend: async (path) =>
      new NodeFile(path, await open(path, READ_APPEND)),
    read: async (file, into, position) =>
      (await read(fd(file), into, 0, into.length, position ?? null)).bytesRead,
    write: async (file, bytes) =>
      (await write(fd(file), bytes, 0, bytes.length, null)).bytesWritten,
    async fstat(file) {
      const stats = await fstat(fd(file));
      return status(isRounded(stats) ? await fstatExactly(fd(file)) : stats);
    },
    fchmod: (file, mode) => fchmod(fd(file), mode),
    fchown: (file, uid, gid) => fchown(fd(file), uid, gid),
    fsync: (file) => fsync(fd(file)),
    truncate: (file, length) => ftruncate(fd(file), length),
    close: (file) => close(fd(file)),
    async lstat(path) {
      const stats = await lstat(path);
      return status(isRounded(stats) ? await lstat(path, EXACTLY) : stats);
    },
    access: (path) => access(path).then(() => true, () => false),
    readlink: (path) => readlink(path),
    realpath: (path) => realpath(path),
    mkdir: (path) => mkdir(path).then(() => {}),
    rmdir: (path) => rmdir(path),
    link: (from, to) => link(from, to),
    rename: (from, to) => rename(from, to),
    unlink: (path) => unlink(path),
    readdir: (path) => readdir(path),
    statfs: async (path) => filesystemStatus(await statfs(path)),
    ...sqlite.async,
    async lockElsewhere(path) {
      const args = argumentsFor(process.execPath, path);
      if (args === undefined) return undefined;
      const { execFile } = process.getBuiltinModule("node:child_process");
      return await new Promise((resolve) =>
        execFile(
          process.execPath,
          args,
          (error, stdout) => resolve(error ? undefined : triedAs(stdout)),
        )
      );
    },
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  };

  return {
    sync,
    async,
    windows: process.platform === "win32",
    runtime: "Bun" in globalThis ? "Bun" : "Node",
    platform: process.platform === "win32" ? "windows" : process.platform,
    looksUnasked: ["rename", "lock"],
    warn: (message) => process.emitWarning(message),
    changesByPath: false,
    pid: process.pid,
    cwd: () => process.cwd(),
    randomUUID: () => crypto.randomUUID(),
    createHash,
    now: () => performance.now(),
    date: () => Date.now(),
    isAlive,
    hasSqlite: () => sqlite.isThere(),
    startedAt() {
      const { isMainThread } = process.getBuiltinModule("node:worker_threads");
      return isMainThread ? threadStartedAt() : undefined;
    },
    permission: () => "granted",
    onExit: (callback) => void process.once("exit", callback),
    errorCode(error) {
      if (!isError(error)) return undefined;
      const { code, errno } = error as NodeJS.ErrnoException;
      // "Unknown system error -122", or "UNKNOWN", where libuv has no name for it.
      const isNamed = typeof code === "string" && /^[A-Z]/.test(code) &&
        !/^unknown/i.test(code);
      return isNamed || typeof errno !== "number"
        ? code
        : errnoName(process.platform, Math.abs(errno)) ?? code;
    },
  };
}
