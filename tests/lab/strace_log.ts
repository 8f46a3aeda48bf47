/**
 * What `strace -f -y -o` wrote, read.
 *
 * @module
 */

import { basename, dirname } from "node:path";

/** One system call of one thread. */
export interface LoggedCall {
  readonly name: string;
  /** The paths it names, itself or by a descriptor; not the data it moves. */
  readonly paths: readonly string[];
  /** The constants among its arguments, as in `"O_WRONLY|O_CREAT"`. */
  readonly flags: string;
  /** The errno name, if it failed. */
  readonly error: string | undefined;
  readonly injected: boolean;
  /** The line of the log where it was issued, and the one where it returned. */
  readonly issued: number;
  readonly returned: number;
}

const UNFINISHED = /^(\d+) +(\w+\(.*) <unfinished \.\.\.>$/;
const RESUMED = /^(\d+) +<\.\.\. \w+ resumed>(.*)$/;
const WHOLE = /^(\d+) +(\w+\(.*)$/;
/** Signals, exits, and what a dying thread can no longer be asked. */
const NO_CALL = /^\d+ +(?:---|\+\+\+|(?:<\.\.\. )?\?\?\?)/;
const CALL = /^(\w+)\((.*)\) += (.*)$/;

/** The calls of a log, in the order in which they were issued. */
export function parseLog(log: string): LoggedCall[] {
  const calls: LoggedCall[] = [];
  const begun = new Map<string, { text: string; issued: number }>();
  for (const [index, line] of log.split("\n").entries()) {
    if (line === "" || NO_CALL.test(line)) continue;
    // Another thread has cut in: the rest of the call is on a later line.
    const [, interrupted, head] = UNFINISHED.exec(line) ?? [];
    if (interrupted !== undefined && head !== undefined) {
      begun.set(interrupted, { text: head, issued: index });
      continue;
    }
    const [, thread, rest] = RESUMED.exec(line) ?? WHOLE.exec(line) ?? [];
    if (thread === undefined || rest === undefined) {
      throw new Error(`Not understood in line ${index + 1}: ${line}`);
    }
    const { text, issued } = begun.get(thread) ?? { text: "", issued: index };
    begun.delete(thread);
    calls.push(parseCall(text + rest, issued, index));
  }
  for (const { text, issued } of begun.values()) {
    calls.push(parseCall(`${text}) = ?`, issued, Infinity));
  }
  return calls.sort((a, b) => a.issued - b.issued);
}

const QUOTED = /"((?:[^"\\]|\\.)*)"/g;
const DESCRIPTOR = /\b\d+<([^>]*)>/g;
const MOVES_DATA = /^p?(?:read|write)(?:64|v2?)?$/;

function parseCall(
  text: string,
  issued: number,
  returned: number,
): LoggedCall {
  const [, name = "", args = "", result = ""] = CALL.exec(text) ?? [];
  if (name === "") throw new Error(`Not a whole call: ${text}`);
  const unquoted = args.replaceAll(QUOTED, "");
  const quoted = MOVES_DATA.test(name) ? [] : args.matchAll(QUOTED);
  return {
    name,
    paths: [...unquoted.matchAll(DESCRIPTOR), ...quoted]
      .map(([, path = ""]) => path),
    flags: /\bO_[A-Z_|]+/.exec(unquoted)?.[0] ?? "",
    error: /^-1 (E\w+)/.exec(result)?.[1],
    injected: result.endsWith("(INJECTED)"),
    issued,
    returned,
  };
}

/** They change nothing and make nothing durable. */
const LOOKING = new Set([
  "access",
  "close",
  "execve",
  "faccessat",
  "faccessat2",
  "fcntl",
  "fstat",
  "fstatfs",
  "ioctl",
  "lseek",
  "lstat",
  "newfstatat",
  "pread64",
  "read",
  "readlink",
  "readlinkat",
  "stat",
  "statfs",
  "statx",
]);

/**
 * What a log says was done to `target` and its directory, one line for each
 * call that does more than look, such as `"rename temporary target"`; once that
 * has succeeded, even looking at the temporary file's name is told. A call that
 * failed is told with its error, and one that was issued before the call above
 * it had returned with that.
 */
export function deeds(calls: readonly LoggedCall[], target: string): string[] {
  const told: string[] = [];
  let before: LoggedCall | undefined;
  let renamed = false;
  for (const call of calls) {
    const objects = call.paths.map((path) => roleOf(path, target))
      .filter((role) => role !== undefined);
    const verb: string | undefined = deed(call) ??
      (renamed && objects.includes("temporary") ? call.name : undefined);
    if (verb === undefined || objects.length === 0) continue;
    told.push([
      verb,
      ...objects,
      ...(call.error !== undefined ? [call.error] : []),
      ...(before !== undefined && call.issued < before.returned
        ? [`before ${before.name} returned`]
        : []),
    ].join(" "));
    before = call;
    renamed ||= verb === "rename" && call.error === undefined;
  }
  return told;
}

function deed({ name, flags }: LoggedCall): string | undefined {
  if (LOOKING.has(name)) return undefined;
  if (name.startsWith("open")) {
    if (flags.includes("O_CREAT|O_EXCL")) return "create";
    return /O_WRONLY|O_RDWR|O_CREAT|O_TRUNC/.test(flags)
      ? `${name} ${flags}`
      : undefined;
  }
  return /^rename(?:at2?)?$/.test(name) ? "rename" : name;
}

const TEMPORARY = /^\.f\.\d+\.[-0-9a-f]{36}\.tmp$/;

/** Whether `path` is a temporary file of a target that is called `f`. */
export function isTemporary(path: string): boolean {
  return TEMPORARY.test(basename(path));
}

function roleOf(path: string, target: string): string | undefined {
  if (path === target) return "target";
  if (path === dirname(target)) return "directory";
  if (dirname(path) !== dirname(target)) return undefined;
  return isTemporary(path) ? "temporary" : basename(path);
}
