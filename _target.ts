/**
 * What a write replaces: the path behind symbolic links, and the file there.
 *
 * @module
 */

import { checkDemand } from "./_demand.ts";
import {
  type DirectoryRequest,
  ensureDirectory,
  MOST_LINKS,
  plannedDirectory,
} from "./_directories.ts";
import type { SymlinkPolicy } from "./_options.ts";
import { directoryOf, joinPath, nameOf, refuseMangled } from "./_path.ts";
import {
  call,
  closing,
  failedWith,
  type Protocol,
  Refusal,
} from "./_protocol.ts";
import { type FileStatus, isExact, type Port } from "./_runtime/port.ts";
import { retrying } from "./_retry.ts";
import { isPlanted } from "./_sticky.ts";
import {
  createTemporary,
  removeAfterFailure,
  removeTemporary,
} from "./_temporary.ts";

/** What this needs to know of a write. */
export interface TargetRequest extends DirectoryRequest {
  /** Absolute. */
  readonly path: string;
  readonly symlinks: SymlinkPolicy;
  readonly createNew: boolean;
}

/** Where a write goes. */
export interface Target {
  readonly path: string;
  readonly directory: string;
  readonly name: string;
  /** The file that will be replaced, with the mode and the owner to keep. */
  readonly existing: FileStatus | undefined;
  /** Whether nothing has that name yet. */
  readonly absent: boolean;
  /** Whether the directory is still to be made. */
  readonly isPlanned: boolean;
}

/** Resolves the path of a request, and makes its missing parents. */
export function resolveTarget(
  port: Port,
  request: TargetRequest,
): Protocol<Target> {
  return followLinks(port, request, ensureDirectory);
}

/** Where {@linkcode resolveTarget} will lead, without making anything. */
export function locateTarget(
  port: Port,
  request: TargetRequest,
): Protocol<Target> {
  return followLinks(port, request, plannedDirectory);
}

function* followLinks(
  port: Port,
  request: TargetRequest,
  resolveDirectory: typeof ensureDirectory,
): Protocol<Target> {
  let path = request.path;
  for (let links = 0; links <= MOST_LINKS; links++) {
    const name = nameOf(port, path);
    if (["", ".", ".."].includes(name)) throw isDirectory();
    const { path: directory, existing, isMissing } = yield* resolveDirectory(
      port,
      request,
      directoryOf(port, path),
    );
    const target = joinPath(port, directory, name);
    const status = isMissing ? undefined : yield* lstatIfPresent(target);
    if (status?.kind === "symlink" && request.symlinks !== "replace") {
      refuseLink(request, target);
      yield* refuseUnsafeLink(port, request, directory, target, status);
      const text = yield* call("readlink", target);
      refuseMangled(target, text);
      path = joinPath(port, directory, text);
      continue;
    }
    // Not where a link is on the way: the file may be on another file system.
    yield* checkDemand(port, request.demand, existing, target);
    return targetAt(request, directory, name, target, status, isMissing);
  }
  throw new Refusal(
    "ELOOP",
    `more than ${MOST_LINKS} symbolic links lead from one to the next`,
  );
}

/**
 * Looks again at what was located before, without following a link that has
 * taken its place since: the write has its place among those of this file, and
 * elsewhere could come after a newer one.
 */
export function* locateAgain(
  port: Port,
  request: TargetRequest,
  located: Target,
): Protocol<Target> {
  const { name } = located;
  const { path: directory } = yield* ensureDirectory(
    port,
    request,
    located.directory,
  );
  const path = joinPath(port, directory, name);
  return yield* lookAt(request, { directory, name, path });
}

/** What is at that place by now, or why it cannot be replaced. */
export function* lookAt(
  request: TargetRequest,
  { directory, name, path }: Pick<Target, "directory" | "name" | "path">,
): Protocol<Target> {
  const status = yield* lstatIfPresent(path);
  if (status?.kind === "symlink") refuseLink(request, path);
  return targetAt(request, directory, name, path, status, false);
}

/** What is to be replaced, or why it cannot be. */
function targetAt(
  request: TargetRequest,
  directory: string,
  name: string,
  path: string,
  status: FileStatus | undefined,
  isPlanned: boolean,
): Target {
  if (status?.kind === "directory") throw isDirectory();
  if (status?.kind === "other") {
    throw new Refusal(
      "NOT_A_FILE",
      "it is a device, a pipe or a socket, which a rename would replace by a plain file: write to it in place",
    );
  }
  const target = {
    path,
    directory,
    name,
    existing: status?.kind === "file" ? status : undefined,
    absent: status === undefined,
    isPlanned,
  };
  refuseExisting(request, target);
  return target;
}

/** What is there already must stay, where a new file is asked for. */
export function refuseExisting(
  { createNew }: TargetRequest,
  { absent }: Target,
): void {
  if (absent || !createNew) return;
  throw new Refusal("EEXIST", "it exists, and createNew asks for a new file");
}

function refuseLink({ symlinks }: TargetRequest, path: string): void {
  if (symlinks !== "reject") return;
  throw new Refusal(
    "ELOOP",
    `"${path}" is a symbolic link, which symlinks: "reject" does not allow`,
  );
}

/** Whether it is one file, by whatever names. Refuses where that cannot be told. */
export function isSame(
  one: FileStatus,
  other: FileStatus | undefined,
): boolean {
  if (one.dev !== other?.dev || one.ino !== other.ino) return false;
  refuseInexact(one);
  return true;
}

/** A number that is that of other files too tells nothing. */
export function refuseInexact(one: FileStatus): void {
  if (isExact(one)) return;
  throw new Refusal(
    "UNSUPPORTED_ENVIRONMENT",
    `its inode number (about ${one.ino}) is larger than this runtime can tell exactly, so that it cannot know whether two names are one file: use Node or Bun, or another file system`,
  );
}

/** The status of what is there, if anything is. */
export function* lstatIfPresent(
  path: string,
): Protocol<FileStatus | undefined> {
  try {
    return yield* call("lstat", path);
  } catch (error) {
    if (failedWith(error, "ENOENT")) return undefined;
    throw error;
  }
}

function isDirectory(): Refusal {
  return new Refusal("EISDIR", "it is a directory: name a file inside it");
}

/** Refuses a link that somebody may have planted, and those of the kernel to open files, whose text is not where they lead. */
function* refuseUnsafeLink(
  port: Port,
  request: TargetRequest,
  directory: string,
  path: string,
  link: FileStatus,
): Protocol<void> {
  if (port.windows) return;
  if (`${directory}/`.startsWith("/proc/")) {
    throw new Refusal(
      "NOT_A_FILE",
      `"${path}" is the kernel's link to an open file, which cannot be replaced: write to it in place`,
    );
  }
  const planted = yield* isPlanted(
    directory,
    link.uid,
    () => ownUserIn(port, request, directory),
  );
  if (!planted) return;
  throw new Refusal(
    "ELOOP",
    `"${path}" is a symbolic link that another user (uid ${link.uid}) made in a directory everybody can write to: write somewhere else, or have it removed by that user or root`,
  );
}

/**
 * The user our files belong to in this directory. Asking the process instead
 * needs a permission on Deno, and is wrong on a mount that maps users.
 */
export function* ownUserIn(
  port: Port,
  request: Pick<TargetRequest, "retryMs" | "signal">,
  directory: string,
): Protocol<number> {
  const probe = yield* retrying(
    port,
    request,
    () => createTemporary(port, directory, "owner", 0o600),
  );
  let status: FileStatus;
  try {
    status = yield* closing(probe, () => call("fstat", probe));
  } catch (error) {
    yield* removeAfterFailure(probe.path, 0, error);
    throw error;
  }
  yield* removeTemporary(probe.path, 0);
  return status.uid;
}
