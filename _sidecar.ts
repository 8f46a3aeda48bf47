/**
 * The checksum beside a file: `f.sha256` for `f`, in the form of `sha256sum`.
 *
 * ```text
 * <digest>  f
 * # previous=<digest>        what the file held before, as long as it may hold it still
 * # id=<uuid>                another one with every write
 * ```
 *
 * It is replaced before the file is. Until the file follows, and after a crash
 * between the two, the file holds what the sidecar calls previous: whatever is
 * there, it is named.
 *
 * @module
 */

import { type DirectoryRequest, openToSync } from "./_directories.ts";
import { digestOfFile, DIGITS } from "./_hashing.ts";
import type { ChecksumAlgorithm } from "./_options.ts";
import { nameOf } from "./_path.ts";
import {
  call,
  closing,
  failedWith,
  type Protocol,
  Refusal,
} from "./_protocol.ts";
import { readWhole } from "./_read_file.ts";
import { retrying } from "./_retry.ts";
import type { Host } from "./_runtime/port.ts";
import { lastSyncFailure, syncSince } from "./_sync_failures.ts";
import { lstatIfPresent, type Target } from "./_target.ts";

/** The digests that a sidecar names. */
export interface Digests {
  readonly digest: string;
  /** Of the content that it replaced, as far as that may still be there. */
  readonly previous: readonly string[];
}

/** What a sidecar says. */
export interface Sidecar extends Digests {
  /** The sidecar itself. */
  readonly path: string;
  readonly algorithm: ChecksumAlgorithm;
  /** Differs from that of every other write; one of another program has none. */
  readonly id: string | undefined;
}

/** What is waited for, and for how long. */
interface SidecarRequest {
  readonly retryMs: number;
  readonly signal: AbortSignal | undefined;
}

/** More were never in place at the same time; a longer file is somebody else's. */
export const MOST_PREVIOUS = 8;
const MOST_BYTES = 4096;

/** Where the checksum of a file is. */
export function sidecarPath(
  path: string,
  algorithm: ChecksumAlgorithm,
): string {
  return `${path}.${algorithm}`;
}

/** The checksums that this library keeps of a file: it writes none by SHA-1. */
export function* ownSidecars(
  host: Host,
  file: string,
  request: SidecarRequest,
): Protocol<Sidecar[]> {
  const found: Sidecar[] = [];
  for (const algorithm of ["sha512", "sha256"] as const) {
    const sidecar = yield* findSidecar(host, file, algorithm, request);
    // One that somebody has published says what the content should be, and is not
    // ours to change; anything else has nothing to do with the file.
    if (typeof sidecar === "object" && sidecar.id !== undefined) {
      found.push(sidecar);
    }
  }
  return found;
}

/** The checksum to compare a file with: one that this library keeps, else the strongest; `undefined` if it has none. */
export function* readAnySidecar(
  host: Host,
  file: string,
  request: SidecarRequest,
): Protocol<Sidecar | undefined> {
  const found: Sidecar[] = [];
  let foreign: ChecksumAlgorithm | undefined;
  for (const algorithm of ["sha512", "sha256", "sha1"] as const) {
    const sidecar = yield* findSidecar(host, file, algorithm, request);
    if (sidecar === "foreign") foreign ??= algorithm;
    else if (sidecar !== undefined) found.push(sidecar);
  }
  const [strongest] = found;
  // Else somebody would be told to make what is there, and cannot be read.
  if (strongest === undefined && foreign !== undefined) {
    throw isForeign(file, foreign);
  }
  return found.find(({ id }) => id !== undefined) ?? strongest;
}

/** The checksum of a file; `undefined` if it has none. */
export function* readSidecar(
  host: Host,
  file: string,
  algorithm: ChecksumAlgorithm,
  request: SidecarRequest,
): Protocol<Sidecar | undefined> {
  const sidecar = yield* findSidecar(host, file, algorithm, request);
  if (sidecar !== "foreign") return sidecar;
  throw isForeign(file, algorithm);
}

function isForeign(file: string, algorithm: ChecksumAlgorithm): Refusal {
  const path = sidecarPath(file, algorithm);
  return new Refusal(
    "FOREIGN_CHECKSUM",
    `"${path}" is not the checksum of this file and no other, in lines that end with a newline alone, or may not be read: find out what it is, and move it away`,
  );
}

function* findSidecar(
  host: Host,
  file: string,
  algorithm: ChecksumAlgorithm,
  request: SidecarRequest,
): Protocol<Sidecar | "foreign" | undefined> {
  const path = sidecarPath(file, algorithm);
  const reading = {
    ...request,
    maxBytes: MOST_BYTES,
    capacity: MOST_BYTES,
  };
  let bytes: Uint8Array;
  // Every write asks, and nearly always there is none.
  if (!(yield* call("access", path))) return undefined;
  try {
    const { kind, size } = yield* call("lstat", path);
    // Neither follows a link that somebody has planted, nor waits for a pipe.
    if (kind !== "file" || size > MOST_BYTES) return "foreign";
    bytes = yield* readWhole(host, path, reading);
  } catch (error) {
    if (failedWith(error, "ENOENT")) return undefined;
    // Ours belongs to the owner of the file.
    if (failedWith(error, "EACCES", "EPERM")) return "foreign";
    throw error;
  }
  const text = new TextDecoder().decode(bytes);
  const parsed = parse(text, nameOf(host, file), DIGITS[algorithm]);
  return parsed === undefined ? "foreign" : { path, algorithm, ...parsed };
}

function parse(
  text: string,
  name: string,
  digits: number,
): Omit<Sidecar, "path" | "algorithm"> | undefined {
  const hex = new RegExp(`^[0-9a-f]{${digits}}$`);
  const isDigest = (value: string) => hex.test(value);
  const values = (key: string) =>
    text.split("\n").filter((line) => line.startsWith(`# ${key}=`))
      .map((line) => line.slice(`# ${key}=`.length));
  const [line, ...others] = text.split("\n").filter((line) =>
    line !== "" && !line.startsWith("#")
  );
  const [, mark = "", found = "", named] =
    /^(\\?)([0-9a-f]+) [ *](?:\.\/)?(.*)$/is.exec(line ?? "") ?? [];
  const digest = found.toLowerCase();
  const isOurs = named === escaped(name) && others.length === 0 &&
    mark === (named === name ? "" : "\\");
  if (!isOurs || !isDigest(digest)) return undefined;
  const previous = values("previous").filter(isDigest);
  return { digest, previous, id: values("id").at(0) };
}

/** As `sha256sum` writes a name that it could not put into a line. */
function escaped(name: string): string {
  return name.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r");
}

/** The text of a sidecar. */
export function sidecarText(
  name: string,
  { digest, previous, id }: Omit<Sidecar, "path" | "algorithm">,
): string {
  const shown = escaped(name);
  return [
    // A "-" would be the standard input.
    `${shown === name ? "" : "\\"}${digest}  ${
      name === "-" ? "./" : ""
    }${shown}`,
    ...previous.map((old) => `# previous=${old}`),
    ...(id === undefined ? [] : [`# id=${id}`]),
    "",
  ].join("\n");
}

/** Whether the sidecar says that the file may hold what has this digest. */
export function isNamed(sidecar: Sidecar, digest: string): boolean {
  return sidecar.digest === digest || sidecar.previous.includes(digest);
}

/**
 * What the new sidecar calls previous: the digest of what the file holds now.
 * But where the old sidecar knows nothing of that, it was damaged, and what the
 * old one says is kept: else the damage would be called good.
 */
export function* previousDigests(
  host: Host,
  file: string,
  algorithm: ChecksumAlgorithm,
  request: SidecarRequest,
): Protocol<string[]> {
  const current = yield* currentDigest(host, file, algorithm, request);
  if (current === undefined) return [];
  const old = yield* readSidecar(host, file, algorithm, request);
  if (old !== undefined) {
    return isNamed(old, current)
      ? [current]
      : [old.digest, ...old.previous].slice(0, MOST_PREVIOUS);
  }
  for (const other of yield* ownSidecars(host, file, request)) {
    const digest = yield* currentDigest(host, file, other.algorithm, request);
    if (digest === undefined || !isNamed(other, digest)) return [];
  }
  return [current];
}

/** The digest of what the file holds; `undefined` where there is none. */
export function* currentDigest(
  host: Host,
  path: string,
  algorithm: ChecksumAlgorithm,
  request: SidecarRequest,
): Protocol<string | undefined> {
  const { signal } = request;
  const status = yield* lstatIfPresent(path);
  if (status?.kind !== "file") return undefined;
  const file = yield* retrying(host, request, () => call("open", path));
  return yield* closing(
    file,
    () => digestOfFile(host, algorithm, file, signal),
  );
}

/** Removes the checksums of a file but for that of one algorithm: they will not fit any more. */
export function* removeSidecars(
  host: Host,
  request: DirectoryRequest,
  { path, directory }: Pick<Target, "path" | "directory">,
  kept: ChecksumAlgorithm | false,
): Protocol<void> {
  // An abort comes too late: another checksum is in place, or the file is gone.
  const late = { ...request, signal: undefined };
  const found = yield* ownSidecars(host, path, late);
  const removed = found.filter(({ algorithm }) => algorithm !== kept);
  if (removed.length === 0) return;
  const failure = lastSyncFailure(host, directory);
  const durability = request.durability === "none" ? "none" : "full";
  const handle = yield* retrying(
    host,
    late,
    () => openToSync(host, { ...late, durability }, directory),
  );
  yield* closing(handle, function* () {
    for (const sidecar of removed) yield* call("unlink", sidecar.path);
    // Else the new content could be there after a crash, and a checksum of the
    // old one.
    if (handle === undefined) return;
    yield* syncSince(host, handle, directory, failure);
  });
}
