/**
 * The runtime's own SQLite, of which only the locks are used: the one kind of
 * lock that excludes across Deno, Bun and Node, and that the kernel takes back
 * when its holder is killed.
 *
 * @module
 */

import { isError } from "./errno.ts";
import {
  type AsyncSystemCalls,
  type Database,
  NO_SQLITE,
  type SystemCalls,
} from "./port.ts";

/** What the three runtimes' classes have in common. */
interface Connection {
  exec(sql: string): unknown;
  close(): void;
}

/** What the class of a connection is made with. */
export type Connect = (path: string) => Connection;

type SqliteCalls = Pick<
  SystemCalls,
  "openDatabase" | "execute" | "closeDatabase"
>;

type AsyncSqliteCalls = Pick<AsyncSystemCalls, keyof SqliteCalls>;

/** The calls, over what `load` finds on first use. SQLite has no asynchronous ones: those only look so. */
export function sqliteCalls(
  load: () => Connect | undefined,
): { sync: SqliteCalls; async: AsyncSqliteCalls; isThere(): boolean } {
  let connect: Connect | undefined;
  const sync: SqliteCalls = {
    openDatabase(path) {
      connect ??= load();
      if (connect === undefined) {
        throw new SqliteError(NO_SQLITE, new Error("No built-in SQLite"));
      }
      const connection = perform(connect, path);
      const database = { path, connection };
      try {
        // Deno 2.5 would wait for five seconds, and hold the event loop.
        connection.exec("PRAGMA busy_timeout=0");
      } catch (error) {
        // Left to the garbage collector, it would keep its descriptor.
        connection.close();
        throw error;
      }
      open.add(database);
      return database;
    },
    execute(database, sql) {
      perform((text) => connectionOf(database).exec(text), sql);
    },
    closeDatabase(database) {
      const connection = connectionOf(database);
      open.delete(database);
      perform(() => connection.close(), undefined);
    },
  };
  return {
    sync,
    isThere: () => (connect ??= load()) !== undefined,
    async: {
      openDatabase: (path) =>
        new Promise((resolve) => resolve(sync.openDatabase(path))),
      execute: (database, sql) =>
        new Promise((resolve) => resolve(sync.execute(database, sql))),
      closeDatabase: (database) =>
        new Promise((resolve) => resolve(sync.closeDatabase(database))),
    },
  };
}

/** Kept reachable: collected as garbage, a connection frees its lock. */
const open = new Set<Database>();

class SqliteError extends Error {
  override name = "SqliteError";
  readonly code: string;

  constructor(code: string, cause: unknown) {
    super(isError(cause) ? cause.message : String(cause), { cause });
    this.code = code;
  }
}

/** By its message: Deno gives no code. */
const CODES: readonly (readonly [message: RegExp, code: string])[] = [
  [/database (?:table )?is locked|database is busy/i, "SQLITE_BUSY"],
  [/readonly database/i, "SQLITE_READONLY"],
  [/disk I\/O error/i, "SQLITE_IOERR"],
  [/unable to open database/i, "SQLITE_CANTOPEN"],
  [/not a database/i, "SQLITE_NOTADB"],
];

function perform<A, R>(call: (argument: A) => R, argument: A): R {
  try {
    return call(argument);
  } catch (error) {
    const message = isError(error) ? error.message : "";
    const known = CODES.find(([pattern]) => pattern.test(message));
    // Another error, as Deno's of its permissions, says itself what it is.
    if (known === undefined) throw error;
    throw new SqliteError(known[1], error);
  }
}

function connectionOf(database: Database): Connection {
  if (!hasConnection(database)) throw new Error("Not opened by this port");
  return database.connection;
}

function hasConnection(
  database: Database,
): database is Database & { readonly connection: Connection } {
  return "connection" in database;
}

/** How to connect with a class of that name, if the module has it. */
export function connecting(
  module: unknown,
  name: string,
  ...options: readonly unknown[]
): Connect | undefined {
  if (typeof module !== "object" || module === null) return undefined;
  const constructor: unknown = Reflect.get(module, name);
  if (typeof constructor !== "function") return undefined;
  return (path) => {
    const connection: unknown = Reflect.construct(constructor, [
      path,
      ...options,
    ]);
    if (isConnection(connection)) return connection;
    throw new TypeError(`${name} has no exec and close`);
  };
}

function isConnection(value: unknown): value is Connection {
  return typeof value === "object" && value !== null &&
    "exec" in value && typeof value.exec === "function" &&
    "close" in value && typeof value.close === "function";
}
