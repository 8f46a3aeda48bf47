/**
 * The library on a simulated machine: a port whose system calls are those of
 * one of its processes, looked at before and after, and failed where a test
 * says so.
 *
 * @module
 */

import type {
  AsyncSystemCalls,
  Database,
  FileStatus,
  Hash,
  OpenFile,
  Port,
  SystemCalls,
} from "../../_runtime/port.ts";
import { DIGITS } from "../../_hashing.ts";
import type { ChecksumAlgorithm } from "../../_options.ts";
import { hash } from "./hash.ts";
import {
  type Descriptor,
  type Inode,
  PosixError,
  type Process,
} from "./posix.ts";
import { type SimulatedDatabase, SimulatedSqlite } from "./sqlite.ts";

/** A system call as a simulated process makes it. */
export interface SimulatedCall {
  readonly process: Process;
  readonly name: keyof SystemCalls;
  readonly args: readonly unknown[];
}

/** How a call fails: nothing was done, or all was done and the answer is wrong. */
export interface Fault {
  readonly code: string;
  readonly isDone: boolean;
}

/** What watches the calls. */
export interface Observer {
  before(call: SimulatedCall): Fault | undefined;
  after(call: SimulatedCall, outcome: string): void;
}

/** How an asynchronous call is carried out: at once, or when a schedule says so. */
export type Schedule = (
  call: SimulatedCall,
  perform: () => unknown,
) => Promise<unknown>;

/** What else than its process makes a port what it is. */
export interface PortOptions {
  /** Whether its SQLite makes a file that is missing. */
  readonly makesDatabases?: boolean;
  /** Distinguishes a name from all that somebody still knows. */
  freshNumber?(): number;
  /**
   * Of these files nobody may ask for the mode, and who asks for the number of
   * their names is noted: what others do to them would make states that differ
   * in nothing else.
   */
  readonly plain?: RegExp | undefined;
  /** Told what somebody has asked of a plain file. */
  asked?(what: string): void;
  /** Whether each name of a file shows a number of its own. */
  readonly numbersNames?: boolean;
}

const AT_ONCE: Schedule = (_call, perform) =>
  new Promise((resolve) => resolve(perform()));

export class MachinePort implements Port {
  readonly windows = false;
  readonly runtime = "Node";
  readonly platform = "linux";
  readonly looksUnasked: Port["looksUnasked"] = [];
  readonly changesByPath: boolean = false;
  readonly pid: number;
  readonly process: Process;
  /** Milliseconds; only sleeping takes time, unless `tick` says otherwise. */
  clock = 0;
  /** How far the clock goes each time it is looked at: above 1, no call is cheap enough to be made inline. */
  tick = 0;
  readonly #observer: Observer;
  readonly #schedule: Schedule;
  readonly #options: PortOptions;
  readonly #sqlite: SimulatedSqlite;
  #sync: SystemCalls | undefined;
  #async: AsyncSystemCalls | undefined;
  #uuids = 0;

  constructor(
    process: Process,
    observer: Observer,
    schedule: Schedule = AT_ONCE,
    options: PortOptions = {},
  ) {
    this.process = process;
    this.#options = options;
    this.#sqlite = new SimulatedSqlite(process, options.makesDatabases ?? true);
    this.pid = process.pid;
    this.#observer = observer;
    this.#schedule = schedule;
  }

  /** Made on first use: most processes make their calls through `perform`. */
  get sync(): SystemCalls {
    return this.#sync ??= new Proxy(this.#raw, {
      get: (_raw, name: keyof SystemCalls) => (...args: unknown[]) =>
        this.perform({ process: this.process, name, args }),
    });
  }

  get async(): AsyncSystemCalls {
    const promising: Partial<AsyncSystemCalls> = {};
    return this.#async ??= new Proxy(promising, {
      get: (_none, name: keyof SystemCalls) => (...args: unknown[]) => {
        const call = { process: this.process, name, args };
        return this.#schedule(call, () => this.perform(call));
      },
    }) as AsyncSystemCalls;
  }

  cwd(): string {
    return "/";
  }

  /** Never the same twice on one machine, and the same in every run. */
  randomUUID(): string {
    const number = this.#options.freshNumber?.() ?? ++this.#uuids;
    const count = `${number}`.padStart(12, "0");
    const name = [...this.process.name].map((letter) =>
      letter.charCodeAt(0).toString(16)
    ).join("").slice(-8).padStart(8, "0");
    return `${name}-0000-4000-8000-${count}`;
  }

  /** What it has open, beyond what the machine knows of it. */
  get key(): string {
    return this.#sqlite.key;
  }

  createHash(algorithm: string): Hash {
    return simulatedHash(algorithm as ChecksumAlgorithm);
  }

  now(): number {
    return this.clock += this.tick;
  }

  /** As another container's look: of nobody it is known that he still works. */
  isAlive(): false {
    return false;
  }

  hasSqlite(): true {
    return true;
  }

  startedAt(): undefined {
    return undefined;
  }

  /** Time stands still, or each run would be another one. */
  date(): number {
    return 0;
  }

  permission(): "granted" {
    return "granted";
  }

  onExit(): void {}

  warn(): void {}

  errorCode(error: unknown): string | undefined {
    return error instanceof PosixError ? error.code : undefined;
  }

  /** Makes a call: looked at, failed or done. */
  perform(call: SimulatedCall): unknown {
    const { name, args } = call;
    const fault = this.#observer.before(call);
    try {
      if (fault === undefined) {
        const result = Reflect.apply(this.#raw[name], this.#raw, args);
        this.#observer.after(call, shown(result));
        return result;
      }
      if (fault.isDone || name === "close" || name === "closeDatabase") {
        Reflect.apply(this.#raw[name], this.#raw, args);
      } else if (name === "fsync") {
        this.process.failSync(descriptor(args[0]));
      }
      throw new PosixError(fault.code, name);
    } catch (error) {
      if (!(error instanceof PosixError)) throw error;
      // On a real system it is another file's by now.
      if (error.code === "EBADF") throw new Error(`${name} of a closed file`);
      this.#observer.after(call, error.code);
      throw error;
    }
  }

  #numbered(status: FileStatus, path: string): FileStatus {
    return this.#options.numbersNames && status.kind === "file"
      ? { ...status, ino: hash(path) }
      : status;
  }

  readonly #raw: SystemCalls = {
    create: (path, mode) => this.process.create(path, mode),
    createChangeable: (path, mode) => this.process.create(path, mode),
    open: (path) => this.process.open(path),
    openChangeable: (path) => this.process.open(path),
    openAppend: (path) => this.process.openAppend(path),
    read: (file, into, position) =>
      this.process.read(descriptor(file), into, position),
    write: (file, bytes) => this.process.write(descriptor(file), bytes),
    fstat: (file) => {
      const opened = descriptor(file);
      return this.#numbered(statusOf(this.process.fstat(opened)), opened.path);
    },
    fchmod: (file, mode) => this.process.chmod(descriptor(file), mode),
    fchown: (file, uid, gid) => this.process.chown(descriptor(file), uid, gid),
    fsync: (file) => this.process.fsync(descriptor(file)),
    truncate: (file, length) => this.process.truncate(descriptor(file), length),
    close: (file) => this.process.close(descriptor(file)),
    lstat: (path) => {
      const inode = this.process.lstat(path);
      const status = this.#numbered(statusOf(inode), path);
      const { plain, asked } = this.#options;
      const isGuarded = status.kind === "file" && plain?.test(path);
      return isGuarded ? guarded(status, asked) : status;
    },
    access: (path) => {
      try {
        this.process.lstat(path);
        return true;
      } catch (error) {
        if (error instanceof PosixError) return false;
        throw error;
      }
    },
    readlink: (path) => this.process.readlink(path),
    realpath: (path) => this.process.realpath(path),
    mkdir: (path) => this.process.mkdir(path),
    rmdir: (path) => this.process.rmdir(path),
    link: (from, to) => this.process.link(from, to),
    rename: (from, to) => this.process.rename(from, to),
    unlink: (path) => this.process.unlink(path),
    readdir: (path) => this.process.readdir(path),
    statfs: () => ({ type: 0xef53, freeBytes: Infinity }),
    openDatabase: (path) => this.#sqlite.open(path),
    execute: (database, sql) => this.#sqlite.execute(databaseOf(database), sql),
    lockElsewhere: () => undefined,
    closeDatabase: (database) => this.#sqlite.close(databaseOf(database)),
    // Whole milliseconds: the jitter would make each run another one.
    sleep: (ms) => {
      this.clock += Math.ceil(ms);
    },
  };
}

function descriptor(file: unknown): Descriptor {
  if (!isDescriptor(file)) throw new Error("Not opened by this port");
  return file;
}

function databaseOf(database: Database): SimulatedDatabase {
  if (!isDatabase(database)) throw new Error("Not opened by this port");
  return database;
}

function isDatabase(value: object): value is SimulatedDatabase {
  return "journal" in value && "file" in value;
}

function isDescriptor(value: unknown): value is Descriptor & OpenFile {
  return typeof value === "object" && value !== null && "inode" in value;
}

function statusOf(inode: Inode): FileStatus {
  const { kind, mode, uid, gid, nlink, device, ino, bytes, text } = inode;
  const size = kind === "symlink" ? text.length : bytes.length;
  const times = { mtimeMs: 0, birthMs: 0 };
  return { kind, size, mode, uid, gid, nlink, ...times, dev: device, ino };
}

const NOT_PLAIN = ["mode", "gid"] as const;

/** How many names there are, as far as a protocol may ask: one, two or more. */
const MOST_NAMES = 3;

/** Without what nobody may ask for; of the number of names it is told when somebody asks. */
function guarded(
  status: FileStatus,
  asked: (what: string) => void = () => {},
): FileStatus {
  const nlink = Math.min(status.nlink, MOST_NAMES);
  for (const field of NOT_PLAIN) {
    Object.defineProperty(status, field, {
      enumerable: false,
      get() {
        throw new Error(`${field} is not for a protocol to ask for here`);
      },
    });
  }
  Object.defineProperty(status, "nlink", {
    enumerable: false,
    get() {
      asked(`${nlink} names`);
      return nlink;
    },
  });
  return status;
}

/** A call as a person reads it. */
export function describeCall({ process, name, args }: SimulatedCall): string {
  // The length of a sleep is a matter of chance.
  const words = name === "sleep" ? [] : args.map(shown);
  return `${process.name}: ${name}(${words.join(", ")})`;
}

/** A value as a person reads it. */
export function shown(value: unknown): string {
  if (value === undefined) return "ok";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return `${value}`;
  if (value instanceof Uint8Array) {
    return JSON.stringify(new TextDecoder().decode(value.subarray(0, 40)));
  }
  if (isDescriptor(value)) return `<${value.path}: ${value.inode.id}>`;
  if (typeof value === "object" && value !== null && isDatabase(value)) {
    return `<database ${value.path}: ${value.file.inode.id}>`;
  }
  if (typeof value === "object" && value !== null && "ino" in value) {
    return JSON.stringify(value);
  }
  return String(value);
}

/** As long as the real ones, and another one for other bytes; nothing here needs more. */
export function simulatedHash(algorithm: ChecksumAlgorithm): Hash {
  const digits = DIGITS[algorithm];
  let text = "";
  return {
    update(bytes) {
      for (const byte of bytes) text += String.fromCharCode(byte);
    },
    digest() {
      const part = hash(text).toString(16).padStart(14, "0");
      return part.repeat(Math.ceil(digits / part.length)).slice(0, digits);
    },
  };
}
