/**
 * Paths as the kernel sees them: made absolute, split at the last separator,
 * never normalized, since `a/../b` is not `b` where `a` is a symbolic link.
 *
 * @module
 */

import { describe } from "./_describe.ts";
import { Refusal } from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";

/** A share, a drive, or the current drive. */
const WINDOWS_ROOT = /^(?:[\\/]{2}[^\\/]+[\\/]+[^\\/]+|[a-z]:)?[\\/]/i;

/** Makes the path of a file that the caller gave absolute, or throws a `TypeError` that says what is wrong with it. */
export function absolutePath(host: Host, path: string | URL): string {
  const text = checkedPath(host, path);
  if (isSeparator(host, text.at(-1))) {
    throw new TypeError(
      `Path must name a file, not a directory: received ${
        JSON.stringify(text)
      }, which ends in a separator`,
    );
  }
  const name = nameOf(host, text);
  if (name === "." || name === "..") {
    throw new TypeError(
      `Path must name a file, not a directory: received ${
        JSON.stringify(text)
      }, whose last part is "${name}"`,
    );
  }
  return madeAbsolute(host, text);
}

/** The same of a path that may name a directory. */
export function absolutePlace(host: Host, path: string | URL): string {
  return madeAbsolute(host, checkedPath(host, path));
}

function checkedPath(host: Host, path: string | URL): string {
  const text = isUrl(path) ? fromFileUrl(host, path) : path;
  if (typeof text !== "string") {
    throw new TypeError(
      `Path must be a string or a file URL: received ${describe(text)}`,
    );
  }
  if (text === "") {
    throw new TypeError('Path must not be empty: received ""');
  }
  if (typeof path === "string") refuseMistaken(path);
  if (text.includes("\0")) {
    throw new TypeError(
      `Path must not contain a NUL character: received ${JSON.stringify(text)}`,
    );
  }
  if (!text.isWellFormed()) {
    throw new TypeError(
      `Path must be well-formed UTF-16, or another file would be written: received ${
        JSON.stringify(text)
      }`,
    );
  }
  return text;
}

/** What was meant for somebody else: here it would name a directory. */
function refuseMistaken(path: string): void {
  const received = `received ${JSON.stringify(path)}`;
  if (/^file:/i.test(path)) {
    throw new TypeError(
      `Path must be a path, or a URL object: ${received}, pass new URL(...), or put "./" before a directory of that name`,
    );
  }
  if (/^~(?:[\\/]|$)/.test(path)) {
    throw new TypeError(
      `Path must not begin with "~", which only a shell takes for the home directory: ${received}, put that directory in its place, or "./" before a directory of that name`,
    );
  }
}

function madeAbsolute(host: Host, text: string): string {
  if (host.windows && /^[a-z]:(?![\\/])/i.test(text)) {
    throw new TypeError(
      `Path must not be relative to the current directory of a drive: received ${
        JSON.stringify(text)
      }`,
    );
  }
  return isAbsolute(host, text)
    ? text
    : joinPath(host, currentDirectory(host, text), text);
}

/** The path of a directory, which may be given with a separator at its end. */
export function absoluteDirectory(host: Host, path: string | URL): string {
  return directoryOf(host, joinPath(host, absolutePlace(host, path), "inside"));
}

function currentDirectory(host: Host, path: string): string {
  let directory: string | undefined;
  let cause: unknown;
  try {
    directory = host.cwd();
  } catch (error) {
    cause = error;
  }
  if (directory !== undefined && !isMangled(directory)) return directory;
  throw new TypeError(
    `Path must be absolute where the current directory is gone, or its name no UTF-8: received ${
      JSON.stringify(path)
    }`,
    { cause },
  );
}

function isMangled(path: string): boolean {
  return path.includes("\ufffd");
}

/**
 * A path that the system gave may hold bytes that are no UTF-8. As a string it
 * names another file, which would be written in place of the one that is meant.
 */
export function refuseMangled(asked: string, given: string): void {
  if (!isMangled(given) || isMangled(asked)) return;
  throw new Refusal(
    "EILSEQ",
    `the way to it leads through "${given}", a name with bytes that are no UTF-8: rename that, or use another path`,
  );
}

/** By shape: in a test runner's realm URL may be another class. */
function isUrl(path: unknown): path is URL {
  return typeof path === "object" && path !== null && "href" in path &&
    "pathname" in path && "protocol" in path;
}

/** The directory part of an absolute path. */
export function directoryOf(host: Host, path: string): string {
  // With the separator of a root: "/f" is in "/", "C:\f" in "C:\".
  const [root = ""] = (host.windows ? WINDOWS_ROOT : /^\//).exec(path) ?? [];
  return path.slice(0, Math.max(lastSeparator(host, path), root.length));
}

/** The part of a path behind its last separator. */
export function nameOf(host: Host, path: string): string {
  return path.slice(lastSeparator(host, path) + 1);
}

/** The path of `name`, itself absolute or relative to `directory`. */
export function joinPath(host: Host, directory: string, name: string): string {
  if (isAbsolute(host, name)) return name;
  if (isSeparator(host, directory.at(-1))) return directory + name;
  return directory + (host.windows ? "\\" : "/") + name;
}

/** An absolute path without `.` and `..`, as Deno's permissions see it. Not for the kernel: behind a link `..` leads elsewhere. */
export function withoutDots(host: Host, path: string): string {
  const parts: string[] = [];
  for (const part of path.split(host.windows ? /[\\/]/ : "/")) {
    // The first part is the root, which is its own parent.
    if (part === "..") parts.splice(Math.max(1, parts.length - 1));
    else if (part !== ".") parts.push(part);
  }
  return parts.join(host.windows ? "\\" : "/");
}

function isAbsolute(host: Host, path: string): boolean {
  return host.windows ? /^(?:[a-z]:)?[\\/]/i.test(path) : path.startsWith("/");
}

function isSeparator(host: Host, character: string | undefined): boolean {
  return character === "/" || (host.windows && character === "\\");
}

function lastSeparator(host: Host, path: string): number {
  const slash = path.lastIndexOf("/");
  return host.windows ? Math.max(slash, path.lastIndexOf("\\")) : slash;
}

function fromFileUrl(host: Host, url: URL): string {
  if (url.protocol !== "file:") {
    throw new TypeError(
      `Path must be a file URL: received ${JSON.stringify(url.href)}`,
    );
  }
  if (
    /%2f/i.test(url.pathname) || (host.windows && /%5c/i.test(url.pathname))
  ) {
    throw new TypeError(
      `File URL must not contain an encoded separator: received ${
        JSON.stringify(url.href)
      }`,
    );
  }
  if (url.hostname !== "" && !host.windows) {
    throw new TypeError(
      `File URL must not name a host: received ${JSON.stringify(url.href)}`,
    );
  }
  const path = decodePath(url);
  if (!host.windows) return path;
  const local = path.replaceAll("/", "\\");
  if (url.hostname !== "") return `\\\\${url.hostname}${local}`;
  if (!/^\\[a-z]:\\/i.test(local)) {
    throw new TypeError(
      `File URL must name a drive: received ${JSON.stringify(url.href)}`,
    );
  }
  return local.slice(1);
}

function decodePath(url: URL): string {
  try {
    return decodeURIComponent(url.pathname);
  } catch (cause) {
    throw new TypeError(
      `File URL must be encoded as UTF-8: received ${JSON.stringify(url.href)}`,
      { cause },
    );
  }
}
