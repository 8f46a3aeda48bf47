/**
 * A lock that is tried from a second process of the same runtime: in its own,
 * SQLite itself excludes a second holder, whatever the kernel does.
 *
 * @module
 */

/** What a second process found. */
export type Tried = "held" | "free";

/** Tries the lock of the file that is its last argument; the same for all three runtimes. */
const SCRIPT = `
const path = process.argv.at(-1);
const load = (name) => process.getBuiltinModule(name);
const open = () => {
  try {
    return new (load("bun:sqlite").Database)(path, { readwrite: true });
  } catch {
    return new (load("node:sqlite").DatabaseSync)(path);
  }
};
const database = open();
try {
  database.exec("PRAGMA busy_timeout=0");
  database.exec("PRAGMA journal_mode=MEMORY");
  database.exec("BEGIN EXCLUSIVE");
  database.exec("PRAGMA user_version=1");
  console.log("free");
} catch (error) {
  console.log(/locked|busy/i.test(String(error)) ? "held" : String(error));
} finally {
  database.close();
}
`;

/** How each runtime runs a script. */
const FLAGS: Readonly<Record<string, readonly string[]>> = {
  bun: ["-e"],
  deno: ["eval", "--no-lock", "--quiet"],
  node: ["--no-warnings", "-e"],
};

/** The arguments for this runtime; `undefined` where the executable is a program of its own, which would be started once more. */
export function argumentsFor(
  executable: string,
  path: string,
): string[] | undefined {
  const [, name = ""] = /([a-z]+)[\d.]*(?:\.exe)?$/i.exec(executable) ?? [];
  const flags = FLAGS[name.toLowerCase()];
  return flags && [...flags, SCRIPT, path];
}

/** What it has printed, unless something else went wrong. */
export function triedAs(output: string): Tried | undefined {
  const word = output.trim();
  return word === "held" || word === "free" ? word : undefined;
}
