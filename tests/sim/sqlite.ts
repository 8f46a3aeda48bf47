/**
 * What SQLite does with a lock file, as far as this library relies on it: an
 * exclusive transaction excludes those of other processes by a lock of the file,
 * and those of its own by its own account.
 *
 * @module
 */

import { type Descriptor, PosixError, type Process } from "./posix.ts";

/** A connection. */
export interface SimulatedDatabase {
  readonly path: string;
  readonly file: Descriptor;
  readonly isReadOnly: boolean;
  /** Whether a transaction would make a journal beside the file. */
  journal: "file" | "memory" | "none";
  state: "idle" | "shared" | "exclusive";
}

/** The SQLite of one process. */
export class SimulatedSqlite {
  readonly #process: Process;
  readonly #makesMissing: boolean;
  readonly #open = new Set<SimulatedDatabase>();

  /** It makes a file that is missing, as Deno's and Node's does, or does not, as Bun's. */
  constructor(process: Process, makesMissing: boolean) {
    this.#process = process;
    this.#makesMissing = makesMissing;
  }

  /** What it knows of its connections, as a text. */
  get key(): string {
    return [...this.#open].map(({ isReadOnly, journal, state }) =>
      `${isReadOnly},${journal},${state}`
    ).join();
  }

  open(path: string): SimulatedDatabase {
    const [file, isReadOnly] = this.#openFile(path);
    const database: SimulatedDatabase = {
      path,
      file,
      isReadOnly,
      journal: "none",
      state: "idle",
    };
    this.#open.add(database);
    return database;
  }

  execute(database: SimulatedDatabase, sql: string): void {
    const { file, isReadOnly, path } = database;
    switch (sql) {
      case "PRAGMA journal_mode=MEMORY":
        this.#checkFree(database);
        database.journal = "memory";
        return;
      case "BEGIN EXCLUSIVE":
        this.#checkFree(database);
        // It cannot lock what it may not write, and takes that for enough.
        if (isReadOnly && this.#process.tryShare(file)) {
          database.state = "shared";
        } else if (!isReadOnly && this.#process.tryLock(file)) {
          database.state = "exclusive";
        } else {
          throw new PosixError("SQLITE_BUSY", "execute", path);
        }
        return;
      case "PRAGMA user_version=1":
        if (isReadOnly) {
          throw new PosixError("SQLITE_READONLY", "execute", path);
        }
        if (database.journal !== "none") return;
        database.journal = "file";
        this.#process.close(this.#process.create(`${path}-journal`, 0o644));
        return;
      default:
        throw new Error(`Not simulated: ${sql}`);
    }
  }

  close(database: SimulatedDatabase): void {
    const { file, journal, path } = database;
    this.#open.delete(database);
    if (journal === "file") this.#process.unlink(`${path}-journal`);
    // SQLite puts off closing a file that another connection has locked.
    const isShared = [...this.#open].some((other) =>
      other.file.inode === file.inode && other.state === "exclusive"
    );
    this.#process.close(file, { keepsLocks: isShared });
  }

  #openFile(path: string): [Descriptor, isReadOnly: boolean] {
    try {
      return [this.#process.open(path, { append: true }), false];
    } catch (error) {
      if (!(error instanceof PosixError)) throw error;
      const isMissing = error.code === "ENOENT";
      if (error.code !== "EACCES" && !isMissing) throw error;
      if (isMissing) return [this.#createFile(path), false];
      return [this.#process.open(path), true];
    }
  }

  #createFile(path: string): Descriptor {
    try {
      if (this.#makesMissing) {
        return this.#process.create(this.#destination(path), 0o644);
      }
    } catch (error) {
      if (!(error instanceof PosixError)) throw error;
      if (error.code !== "ENOENT") throw error;
    }
    throw new PosixError("SQLITE_CANTOPEN", "openDatabase", path);
  }

  /** Where a link leads to a file that is missing, that one is made. */
  #destination(path: string): string {
    try {
      return this.#process.readlink(path);
    } catch (error) {
      if (error instanceof PosixError) return path;
      throw error;
    }
  }

  /** Whether no other connection, of this process or another, has it exclusively. */
  #checkFree(database: SimulatedDatabase): void {
    const { inode } = database.file;
    const isHeldHere = [...this.#open].some((other) =>
      other !== database && other.file.inode === inode &&
      other.state === "exclusive"
    );
    if (isHeldHere || this.#process.isLockedElsewhere(database.file)) {
      throw new PosixError("SQLITE_BUSY", "execute", database.path);
    }
  }
}
