/**
 * The port on Deno: `Deno.*` only. Neither `node:` modules nor
 * `globalThis.process` are touched before a lock, a checksum or the type of a file
 * system is asked for, since either doubles Deno's start-up time.
 *
 * @module
 */

import { errnoName, isError } from "./errno.ts";
import { createHash } from "./hash.ts";
import { isAlive, threadStartedAt } from "./process.ts";
import {
  type AsyncSystemCalls,
  type FileStatus,
  NOT_CAPABLE,
  type OpenFile,
  type Port,
  type SystemCalls,
} from "./port.ts";
import { argumentsFor, triedAs } from "./second_process.ts";
import { connecting, sqliteCalls } from "./sqlite.ts";
import { filesystemStatus } from "./statfs.ts";

class DenoFile implements OpenFile {
  readonly path: string;
  readonly handle: Deno.FsFile;

  constructor(path: string, handle: Deno.FsFile) {
    this.path = path;
    this.handle = handle;
  }
}

function handle(file: OpenFile): Deno.FsFile {
  return (file as DenoFile).handle;
}

/** A file of Deno's layer for Node, which changes mode and owner by the handle. */
class LayerFile implements OpenFile {
  readonly path: string;
  readonly fd: number;

  constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
  }
}

function status(info: Deno.FileInfo): FileStatus {
  return {
    kind: info.isFile
      ? "file"
      : info.isDirectory
      ? "directory"
      : info.isSymlink
      ? "symlink"
      : "other",
    size: info.size,
    mode: (info.mode ?? 0) & 0o7777,
    uid: info.uid ?? 0,
    gid: info.gid ?? 0,
    nlink: info.nlink ?? 1,
    mtimeMs: info.mtime?.getTime() ?? 0,
    birthMs: info.birthtime?.getTime() ?? 0,
    dev: info.dev,
    ino: info.ino ?? 0,
  };
}

/**
 * Deno 2.9 checks the real path of an open file before it reports on it, and
 * so refuses the handle where the scope is spelled through a link
 * (`--allow-write=/tmp/x` where `/tmp` is one), but not the path.
 */
function isRefused(error: unknown): boolean {
  return error instanceof Deno.errors.NotCapable;
}

/** Before a mere look, for which Deno must not ask its user. */
function refuseUnpermitted(path: string): void {
  const { state } = Deno.permissions.querySync({ name: "read", path });
  if (state === "granted") return;
  throw new Deno.errors.NotCapable(`Requires read access to "${path}"`);
}

// Naming `process` loads Deno's layer for Node: not before a lock is asked for.
const sqlite = sqliteCalls(() =>
  connecting(
    globalThis.process?.getBuiltinModule?.("node:sqlite"),
    "DatabaseSync",
  )
);

const sync: SystemCalls = {
  create: (path, mode) =>
    new DenoFile(
      path,
      Deno.openSync(path, { write: true, createNew: true, mode }),
    ),
  createChangeable: (path, mode) =>
    new LayerFile(path, nodeFs().openSync(path, "wx", mode)),
  open: (path) => new DenoFile(path, Deno.openSync(path)),
  openChangeable: (path) => new LayerFile(path, nodeFs().openSync(path, "r")),
  openAppend: (path) =>
    new DenoFile(path, Deno.openSync(path, { read: true, append: true })),
  read(file, into, position) {
    if (position !== undefined) {
      handle(file).seekSync(position, Deno.SeekMode.Start);
    }
    return handle(file).readSync(into) ?? 0;
  },
  write: (file, bytes) => handle(file).writeSync(bytes),
  fstat(file) {
    if (file instanceof LayerFile) return layerStatus(file);
    try {
      return status(handle(file).statSync());
    } catch (error) {
      if (!isRefused(error)) throw error;
      return status(Deno.statSync(file.path));
    }
  },
  fchmod(file, mode) {
    if (file instanceof LayerFile) nodeFs().fchmodSync(file.fd, mode);
    else Deno.chmodSync(file.path, mode);
  },
  fchown(file, uid, gid) {
    if (file instanceof LayerFile) nodeFs().fchownSync(file.fd, uid, gid);
    else Deno.chownSync(file.path, uid, gid);
  },
  fsync: (file) => handle(file).syncSync(),
  truncate: (file, length) => handle(file).truncateSync(length),
  close(file) {
    if (file instanceof LayerFile) nodeFs().closeSync(file.fd);
    else handle(file).close();
  },
  lstat: (path) => status(Deno.lstatSync(path)),
  access(path) {
    refuseUnpermitted(path);
    try {
      Deno.lstatSync(path);
      return true;
    } catch {
      return false;
    }
  },
  readlink: (path) => Deno.readLinkSync(path),
  realpath: (path) => Deno.realPathSync(path),
  mkdir: (path) => Deno.mkdirSync(path),
  // Of a file too: Deno has one call for both.
  rmdir: (path) => Deno.removeSync(path),
  link: (from, to) => Deno.linkSync(from, to),
  rename: (from, to) => Deno.renameSync(from, to),
  unlink: (path) => Deno.removeSync(path),
  readdir: (path) => Array.from(Deno.readDirSync(path), ({ name }) => name),
  statfs: (path) => filesystemStatus(nodeFs().statfsSync(path)),
  ...sqlite.sync,
  lockElsewhere(path) {
    const output = secondProcess(path)?.outputSync();
    return output && triedAs(new TextDecoder().decode(output.stdout));
  },
  sleep: (ms) =>
    void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
};

const async: AsyncSystemCalls = {
  create: async (path, mode) =>
    new DenoFile(
      path,
      await Deno.open(path, { write: true, createNew: true, mode }),
    ),
  createChangeable: (path, mode) => settled(sync.createChangeable, path, mode),
  open: async (path) => new DenoFile(path, await Deno.open(path)),
  openChangeable: (path) => settled(sync.openChangeable, path),
  openAppend: async (path) =>
    new DenoFile(path, await Deno.open(path, { read: true, append: true })),
  async read(file, into, position) {
    if (position !== undefined) {
      await handle(file).seek(position, Deno.SeekMode.Start);
    }
    return await handle(file).read(into) ?? 0;
  },
  write: (file, bytes) => handle(file).write(bytes),
  async fstat(file) {
    if (file instanceof LayerFile) return layerStatus(file);
    try {
      return status(await handle(file).stat());
    } catch (error) {
      if (!isRefused(error)) throw error;
      return status(await Deno.stat(file.path));
    }
  },
  fchmod: (file, mode) =>
    file instanceof LayerFile
      ? settled(sync.fchmod, file, mode)
      : Deno.chmod(file.path, mode),
  fchown: (file, uid, gid) =>
    file instanceof LayerFile
      ? settled(sync.fchown, file, uid, gid)
      : Deno.chown(file.path, uid, gid),
  fsync: (file) => handle(file).sync(),
  truncate: (file, length) => handle(file).truncate(length),
  close: (file) => settled(sync.close, file),
  lstat: async (path) => status(await Deno.lstat(path)),
  async access(path) {
    refuseUnpermitted(path);
    return await Deno.lstat(path).then(() => true, () => false);
  },
  readlink: (path) => Deno.readLink(path),
  realpath: (path) => Deno.realPath(path),
  mkdir: (path) => Deno.mkdir(path),
  rmdir: (path) => Deno.remove(path),
  link: (from, to) => Deno.link(from, to),
  rename: (from, to) => Deno.rename(from, to),
  unlink: (path) => Deno.remove(path),
  readdir: (path) => Array.fromAsync(Deno.readDir(path), ({ name }) => name),
  statfs: async (path) =>
    filesystemStatus(await nodeFs().promises.statfs(path)),
  ...sqlite.async,
  async lockElsewhere(path) {
    const output = await secondProcess(path)?.output();
    return output && triedAs(new TextDecoder().decode(output.stdout));
  },
  sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
};

/** One that tries a lock, where Deno may start it. */
function secondProcess(path: string): Deno.Command | undefined {
  const { state } = Deno.permissions.querySync({ name: "run" });
  if (state !== "granted") return undefined;
  const args = argumentsFor(Deno.execPath(), path);
  return args && new Deno.Command(Deno.execPath(), { args, stderr: "null" });
}

/** A short call, made at once. */
function settled<Args extends unknown[], R>(
  perform: (...args: Args) => R,
  ...args: Args
): Promise<R> {
  return new Promise((resolve) => resolve(perform(...args)));
}

/** What Deno lacks, and its layer for Node has: statfs, and changes of mode and owner by a handle. */
function nodeFs(): typeof import("node:fs") {
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (typeof fs?.statfsSync === "function") return fs;
  throw Object.assign(new Error("This Deno has no statfs"), { code: "ENOSYS" });
}

function layerStatus({ fd }: LayerFile): FileStatus {
  const stats = nodeFs().fstatSync(fd);
  return {
    kind: stats.isDirectory() ? "directory" : "file",
    size: stats.size,
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    nlink: stats.nlink,
    mtimeMs: stats.mtimeMs,
    birthMs: stats.birthtimeMs,
    dev: stats.dev,
    ino: stats.ino,
  };
}

/** Makes the port. Nothing is read, hooked or asked for until it is used. */
export function denoPort(): Port {
  return {
    sync,
    async,
    windows: Deno.build.os === "windows",
    runtime: "Deno",
    platform: Deno.build.os,
    // It takes Node's layer, which a lock does too.
    looksUnasked: ["lock"],
    warn: (message) => console.warn(message),
    changesByPath: true,
    pid: Deno.pid,
    cwd: () => Deno.cwd(),
    randomUUID: () => crypto.randomUUID(),
    createHash,
    now: () => performance.now(),
    date: () => Date.now(),
    isAlive(pid) {
      const { state } = Deno.permissions.querySync({ name: "run" });
      return state === "granted" ? isAlive(pid) : undefined;
    },
    hasSqlite: () => sqlite.isThere(),
    // The threads of `deno serve --parallel` look like the first one. Where this
    // is process 1, as in a container, they begin with it.
    startedAt: () =>
      "Window" in globalThis && Deno.pid === 1 ? threadStartedAt() : undefined,
    permission(access, path) {
      const { state } = Deno.permissions.querySync(
        access === "statfs"
          ? { name: "sys", kind: "statfs" }
          : { name: access, path },
      );
      return state === "prompt" ? "missing" : state;
    },
    onExit: (callback) =>
      (globalThis as typeof globalThis & EventTarget)
        .addEventListener("unload", callback, { once: true }),
    errorCode(error) {
      if (isRefused(error)) return NOT_CAPABLE;
      // A path that is no UTF-8.
      if (error instanceof Deno.errors.InvalidData) return "EILSEQ";
      if (!isError(error)) return undefined;
      if ("code" in error && typeof error.code === "string") return error.code;
      const [, errno] = /\(os error (\d+)\)/.exec(error.message) ?? [];
      return errno && errnoName(Deno.build.os, Number(errno));
    },
  };
}
