/**
 * What a write replaces: the path behind symbolic links, and the file there.
 *
 * @module
 */

import { type DirectoryRequest, ensureDirectory } from "./_directories.ts";
import type { SymlinkPolicy } from "./_options.ts";
import { directoryOf, joinPath, nameOf } from "./_path.ts";
import { call, failedWith, type Protocol, Refusal } from "./_protocol.ts";
import type { FileStatus, Host } from "./_runtime/port.ts";
import { temporaryName } from "./_temporary.ts";

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
}

/** As many links as Linux follows in one path. */
const MOST_LINKS = 40;
const STICKY_WORLD_WRITABLE = 0o1002;

/** Resolves the path of a request, and makes its missing parents. */
export function* resolveTarget(
  host: Host,
  request: TargetRequest,
): Protocol<Target> {
  let path = request.path;
  for (let links = 0; links <= MOST_LINKS; links++) {
    const name = nameOf(host, path);
    const directory = yield* ensureDirectory(
      host,
      request,
      directoryOf(host, path),
    );
    const target = joinPath(host, directory, name);
    const status = yield* lstatIfPresent(target);
    if (status?.kind === "symlink" && request.symlinks !== "replace") {
      if (request.symlinks === "reject") {
        throw new Refusal(
          "ELOOP",
          `"${target}" is a symbolic link, which symlinks: "reject" does not allow`,
        );
      }
      yield* refusePlantedLink(host, directory, target, status);
      path = joinPath(host, directory, yield* call("readlink", target));
      continue;
    }
    if (status !== undefined && request.createNew) {
      throw new Refusal(
        "EEXIST",
        "it exists, and createNew asks for a new file",
      );
    }
    if (status?.kind === "directory") {
      throw new Refusal(
        "EISDIR",
        "it is a directory: name a file inside it",
      );
    }
    if (status?.kind === "other") {
      throw new Refusal(
        "NOT_A_FILE",
        "it is a device, a pipe or a socket, which a rename would replace by a plain file: write to it in place",
      );
    }
    return {
      path: target,
      directory,
      name,
      existing: status?.kind === "file" ? status : undefined,
      absent: status === undefined,
    };
  }
  throw new Refusal(
    "ELOOP",
    `more than ${MOST_LINKS} symbolic links lead from one to the next`,
  );
}

function* lstatIfPresent(path: string): Protocol<FileStatus | undefined> {
  try {
    return yield* call("lstat", path);
  } catch (error) {
    if (failedWith(error, "ENOENT")) return undefined;
    throw error;
  }
}

/**
 * In a directory where everybody may make links, one made by somebody else
 * would lead the write wherever its maker likes: the rule of Linux's
 * `protected_symlinks`, applied whether or not that is switched on.
 */
function* refusePlantedLink(
  host: Host,
  directory: string,
  path: string,
  link: FileStatus,
): Protocol<void> {
  if (host.windows) return;
  const { mode, uid } = yield* directoryStatus(directory);
  if ((mode & STICKY_WORLD_WRITABLE) !== STICKY_WORLD_WRITABLE) return;
  if (link.uid === uid) return;
  if (link.uid === (yield* ownUserIn(host, directory))) return;
  throw new Refusal(
    "ELOOP",
    `"${path}" is a symbolic link that another user (uid ${link.uid}) made in a directory everybody can write to: remove it, or write with symlinks: "replace"`,
  );
}

/** By handle: `directory` may itself be spelled through a link. */
function* directoryStatus(directory: string): Protocol<FileStatus> {
  const handle = yield* call("open", directory);
  try {
    return yield* call("fstat", handle);
  } finally {
    yield* call("close", handle);
  }
}

/**
 * The user our files belong to in this directory. Asking the process instead
 * needs a permission on Deno, and is wrong on a mount that maps users.
 */
function* ownUserIn(host: Host, directory: string): Protocol<number> {
  const path = joinPath(host, directory, temporaryName(host, "owner"));
  const probe = yield* call("create", path, 0o600);
  try {
    yield* call("unlink", path);
    return (yield* call("fstat", probe)).uid;
  } finally {
    yield* call("close", probe);
  }
}
