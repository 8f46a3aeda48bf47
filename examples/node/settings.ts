/**
 * Keeps settings, tokens among them, in a JSON file that only its owner may
 * read.
 *
 * ```sh
 * node settings.ts set token s3cret
 * node settings.ts get token
 * node settings.ts list
 * node settings.ts unset token --file other.json
 * ```
 *
 * Ends with 0, with 1 if there is no such setting, with 2 for a wrong command
 * line, with 3 if the file cannot be read or written. Two that run at once never
 * tear the file, but the later may undo the change of the earlier.
 */

import process from "node:process";
import { parseArgs } from "node:util";
import {
  AtomicError,
  NotFoundError,
  ParseError,
  readJson,
  writeJsonAtomic,
} from "@aj/atomic";

type Settings = Record<string, string>;

const USAGE = `Usage: settings.ts [--file FILE] COMMAND
  get KEY
  set KEY VALUE
  unset KEY
  list`;

/** What ends the program with a message and a code. */
class Failure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string, cause?: unknown) {
    super(message, { cause });
    this.exitCode = exitCode;
  }
}

function isSettings(value: unknown): value is Settings {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((entry) => typeof entry === "string");
}

async function read(file: string, fallback?: Settings): Promise<Settings> {
  const settings = await readJson(file, fallback ? { fallback } : {});
  // JSON that others edited may be anything.
  if (isSettings(settings)) return settings;
  throw new Failure(3, `${file}: not an object whose values are strings`);
}

async function save(file: string, settings: Settings): Promise<void> {
  // Without the mode, everybody could read a new file.
  await writeJsonAtomic(file, settings, { mode: 0o600, sortKeys: true });
}

function find(settings: Settings, key: string): string {
  const value = Object.hasOwn(settings, key) ? settings[key] : undefined;
  if (value !== undefined) return value;
  throw new Failure(1, `There is no setting "${key}"`);
}

function parse(args: string[]): { file: string; words: string[] } {
  try {
    const { values, positionals } = parseArgs({
      args,
      options: { file: { type: "string", default: "settings.json" } },
      allowPositionals: true,
    });
    if (values.file === "") throw new Error("--file names no file");
    return { file: values.file, words: positionals };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Failure(2, `${reason}\n${USAGE}`, error);
  }
}

async function main(file: string, words: string[]): Promise<void> {
  const [command, key, value] = words;
  const form = `${command} ${words.length - 1}`;
  if (form === "list 0") {
    for (const [name, text] of Object.entries(await read(file))) {
      console.log(`${name}=${text}`);
    }
  } else if (form === "get 1" && key !== undefined) {
    console.log(find(await read(file), key));
  } else if (form === "set 2" && key !== undefined && value !== undefined) {
    await save(file, { ...await read(file, {}), [key]: value });
  } else if (form === "unset 1" && key !== undefined) {
    const settings = await read(file);
    find(settings, key);
    const { [key]: _removed, ...rest } = settings;
    await save(file, rest);
  } else {
    throw new Failure(2, USAGE);
  }
}

/** The library's errors in the terms of this program. */
function explain(error: unknown): unknown {
  if (error instanceof NotFoundError) {
    const message =
      `There are no settings in ${error.path}: make some with set`;
    return new Failure(1, message, error);
  }
  if (error instanceof ParseError) {
    const place = `${error.path}:${error.line}:${error.column}`;
    const message =
      `${place}: this is no JSON; mend it there, or remove the file`;
    return new Failure(3, message, error);
  }
  if (error instanceof AtomicError) return new Failure(3, error.message, error);
  return error;
}

try {
  const { file, words } = parse(process.argv.slice(2));
  await main(file, words);
} catch (error) {
  const failure = explain(error);
  if (!(failure instanceof Failure)) throw failure;
  console.error(failure.message);
  process.exitCode = failure.exitCode;
}
