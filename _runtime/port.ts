/**
 * The port: everything the protocol asks of a runtime.
 *
 * {@linkcode SystemCalls} has one member per system call, named as the kernel
 * names it, and each call does one thing once: no retry, no loop over short
 * counts, no cleanup. Those belong to the protocol, where they are tested once
 * for every runtime. The port knows no protocol; the protocol knows no runtime.
 *
 * @module
 */

import type { Tried } from "./second_process.ts";

/** An open file or directory. Only the port that opened it looks inside. */
export interface OpenFile {
  /** The path it was opened by; Deno can change mode and owner only by path. */
  readonly path: string;
}

/** A file that SQLite has open. Only the port that opened it looks inside. */
export interface Database {
  readonly path: string;
}

/** A digest that is being computed. */
export interface Hash {
  update(bytes: Uint8Array): void;
  /** In hexadecimal digits. Called once. */
  digest(): string;
}

/** What `lstat` and `fstat` report. */
export interface FileStatus {
  readonly kind: "file" | "directory" | "symlink" | "other";
  readonly size: number;
  /** The permission bits with setuid, setgid and sticky (`0o7777`). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  /** When its content was last changed, in milliseconds since the epoch. */
  readonly mtimeMs: number;
  /** When it was made, likewise; 0 where the file system does not say. With that a file is told from one that has its number again. */
  readonly birthMs: number;
  /** With {@linkcode FileStatus.ino}, which file it is. */
  readonly dev: number;
  /** A number above 2^53 is rounded, a bigint is exact. */
  readonly ino: number | bigint;
}

/** Whether the inode number is that of one file only. */
export function isExact({ ino }: FileStatus): boolean {
  return typeof ino === "bigint" || Number.isSafeInteger(ino);
}

/** What `statfs` reports. */
export interface FilesystemStatus {
  /** The kernel's number of the type; 0 where the system gives none. */
  readonly type: number;
  /** What an unprivileged process may still use; `undefined` where none is counted, as on ramfs. */
  readonly freeBytes: number | undefined;
}

/** The system calls, each in the form that blocks. */
export interface SystemCalls {
  /** `O_WRONLY | O_CREAT | O_EXCL`: fails with EEXIST on anything there, a dangling link included. */
  create(path: string, mode: number): OpenFile;
  /** The same; but where {@linkcode Host.changesByPath} says otherwise of others, mode and owner of this one are changed through its handle. */
  createChangeable(path: string, mode: number): OpenFile;
  /** `O_RDONLY`, of a file or a directory. */
  open(path: string): OpenFile;
  /** The same; mode and owner are changed through the handle, as with {@linkcode SystemCalls.createChangeable}. */
  openChangeable(path: string): OpenFile;
  /** `O_RDWR | O_APPEND`, of a file that is there: what is written goes to its end. */
  openAppend(path: string): OpenFile;
  /** Reads once, at `position` or else at the handle's own; 0 at the end. */
  read(file: OpenFile, into: Uint8Array, position?: number): number;
  /** Writes once at the handle's offset, or at the end of a file opened to append; may take fewer bytes than given. */
  write(file: OpenFile, bytes: Uint8Array): number;
  fstat(file: OpenFile): FileStatus;
  fchmod(file: OpenFile, mode: number): void;
  fchown(file: OpenFile, uid: number, gid: number): void;
  fsync(file: OpenFile): void;
  truncate(file: OpenFile, length: number): void;
  close(file: OpenFile): void;
  lstat(path: string): FileStatus;
  /** Whether something can be found there. Cheaper than an `lstat` that fails. Where the sandbox forbids to look it fails, and never asks the user. */
  access(path: string): boolean;
  readlink(path: string): string;
  realpath(path: string): string;
  /** Mode 0777, less the umask. */
  mkdir(path: string): void;
  /** Of an empty directory: fails with ENOTEMPTY where something is in it. */
  rmdir(path: string): void;
  link(from: string, to: string): void;
  rename(from: string, to: string): void;
  unlink(path: string): void;
  /** The names in a directory. */
  readdir(path: string): string[];
  statfs(path: string): FilesystemStatus;
  /** Milliseconds. */
  sleep(ms: number): void;
  /** Opens a file with the runtime's SQLite. */
  openDatabase(path: string): Database;
  /** Executes one statement; fails with `SQLITE_BUSY`, `SQLITE_READONLY` and the like. */
  execute(database: Database, sql: string): void;
  /** Takes back what a transaction has changed, and frees its lock. */
  closeDatabase(database: Database): void;
  /** Tries to lock a file from a second process; `undefined` where none can be started. */
  lockElsewhere(path: string): Tried | undefined;
}

/** The same calls, each off the event loop's thread. */
export type AsyncSystemCalls = {
  readonly [Name in keyof SystemCalls]: (
    ...args: Parameters<SystemCalls[Name]>
  ) => Promise<ReturnType<SystemCalls[Name]>>;
};

/** What the protocol needs to know of the process, and can ask without I/O. */
export interface Host {
  /** Path syntax, no owners, no modes, no directory handles. */
  readonly windows: boolean;
  /** `fchmod` and `fchown` go by path, and so through whatever is there by then. */
  readonly changesByPath: boolean;
  readonly pid: number;
  cwd(): string;
  randomUUID(): string;
  /** `"sha256"` and the like. */
  createHash(algorithm: string): Hash;
  /** Monotonic milliseconds. */
  now(): number;
  /** Milliseconds since the epoch. */
  date(): number;
  /** Whether a process of that number runs here; `undefined` where that may not be asked. Another container's numbers are its own. */
  isAlive(pid: number): boolean | undefined;
  /** When this process began, in milliseconds since the epoch; `undefined` in a worker, which may know its own beginning only. */
  startedAt(): number | undefined;
  readonly runtime: "Deno" | "Bun" | "Node";
  /** As in `"linux"`, `"darwin"`, `"windows"`. */
  readonly platform: string;
  /** For what a call looks at its file system where its caller does not ask for it: not where that doubles the start-up time. */
  readonly looksUnasked: readonly ("rename" | "lock")[];
  /** Tells the program's operator. */
  warn(message: string): void;
  /** What the runtime's own sandbox says of this access below this path; `"denied"` is forbidden by name. Never asks the user. */
  permission(
    access: "read" | "write" | "statfs",
    path: string,
  ): "granted" | "missing" | "denied";
  /** Whether the runtime has a SQLite, which is loaded to find out. */
  hasSqlite(): boolean;
  /** Calls back once when the process or the worker exits normally. */
  onExit(callback: () => void): void;
}

/** One runtime. */
export interface Port extends Host {
  readonly sync: SystemCalls;
  readonly async: AsyncSystemCalls;
  /** The errno name a system call failed with; {@linkcode NOT_CAPABLE} for the sandbox. */
  errorCode(error: unknown): string | undefined;
}

/** The code of a call that Deno's permissions refused: the kernel never saw it. */
export const NOT_CAPABLE = "NotCapable";

/** The code of a call where the runtime has no SQLite. */
export const NO_SQLITE = "NO_SQLITE";
