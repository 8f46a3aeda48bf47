/**
 * What can be seen, by looking alone, of the file system that a directory is
 * on. What may not be looked at is told with what would permit it, and nobody is
 * asked for a permission.
 *
 * @module
 */

import {
  type Filesystem,
  filesystemNamed,
  filesystemsOf,
} from "./_filesystems.ts";
import { hasJournal } from "./_journal.ts";
import { type Mount, mountOf, optionValue, parseMounts } from "./_mounts.ts";
import {
  call,
  closing,
  failedWith,
  type Protocol,
  SystemCallError,
} from "./_protocol.ts";
import {
  type FilesystemStatus,
  type Host,
  NOT_CAPABLE,
  type OpenFile,
} from "./_runtime/port.ts";

/** What was seen. */
export interface Surroundings {
  /** As it is told to people: of several that it may be all, `undefined` if it is not known. */
  readonly filesystem: string | undefined;
  /** What it is, or may be. */
  readonly candidates: readonly Filesystem[];
  /** The mount, where the list of mounts was looked at. */
  readonly mount: Mount | undefined;
  /** All mounts, where they were looked at. */
  readonly mounts: readonly Mount[];
  /** That of the upper layer, where it is an overlay. */
  readonly upper: Surroundings | undefined;
  /** Whether it keeps a journal, where that depends and could be looked at. */
  readonly hasJournal: boolean | undefined;
  /** What `statfs` reported, if it did. */
  readonly status: FilesystemStatus | undefined;
  /** How all this is known, or why it is not. */
  readonly evidence: readonly string[];
}

const MOUNTS = "/proc/self/mountinfo";

/** Looks at the file system of a directory, by its real path. */
export function* lookAround(
  host: Host,
  directory: string,
): Protocol<Surroundings> {
  return yield* seen(host, directory, yield* readMounts(host));
}

/** The same without the list of mounts, at the cost of one call; with it where that alone tells what a daemon makes. */
export function* glance(
  host: Host,
  directory: string,
): Protocol<Surroundings> {
  const brief = yield* seen(host, directory, { mounts: [], evidence: [] });
  const isDaemon = brief.candidates.some((one) => one.class === "fuse");
  return isDaemon ? yield* lookAround(host, directory) : brief;
}

interface MountList {
  readonly mounts: readonly Mount[];
  /** Why there are none. */
  readonly evidence: readonly string[];
}

function* seen(
  host: Host,
  directory: string,
  list: MountList,
): Protocol<Surroundings> {
  const { status, why, isReached } = yield* statfs(host, directory);
  const evidence = [...why, ...list.evidence];
  // Windows has no number for it.
  const type = host.windows ? undefined : status?.type;
  const possible = type === undefined
    ? shares(host, directory)
    : filesystemsOf(host.platform, type);
  const mount = mountOf(list.mounts, directory);
  const named = mount && filesystemNamed(mount.type);
  // A path that statfs does not reach may lead elsewhere.
  const fits = mount === undefined || isReached && type === undefined ||
    type !== undefined &&
      (named === undefined ? possible.length === 0 : possible.includes(named));
  if (mount !== undefined && fits) {
    evidence.push(
      `type ${mount.type} from ${MOUNTS}, mounted at ${mount.point}`,
    );
    const candidates = named === undefined ? [] : [named];
    const isOverlay = named?.class === "overlay";
    const upper = isOverlay
      ? yield* lookAtUpper(host, mount, list, evidence)
      : undefined;
    return {
      filesystem: mount.type,
      candidates,
      mount,
      mounts: list.mounts,
      upper,
      hasJournal: mount.type === "ext4"
        ? yield* hasJournal(host, mount.device)
        : undefined,
      status,
      evidence,
    };
  }
  if (mount !== undefined) {
    evidence.push(`${MOUNTS} has type ${mount.type}, which does not fit`);
  }
  const names = possible.map(({ names: [name] }) => name);
  const filesystem = names.length === 0 ? undefined : eitherOf(names);
  if (type !== undefined) {
    evidence.push(
      filesystem === undefined
        ? `type 0x${type.toString(16)} from statfs is not known`
        : `type ${filesystem} from statfs`,
    );
  }
  return {
    filesystem,
    candidates: possible,
    mount: undefined,
    mounts: list.mounts,
    upper: undefined,
    hasJournal: undefined,
    status,
    evidence,
  };
}

/** What a path alone says. */
function shares(host: Host, directory: string): readonly Filesystem[] {
  const cifs = filesystemNamed("cifs");
  return host.windows && /^[\\/]{2}[^\\/?.]/.test(directory) && cifs
    ? [cifs]
    : [];
}

function eitherOf(names: readonly string[]): string {
  const last = names.at(-1) ?? "";
  return names.length < 2
    ? last
    : `${names.slice(0, -1).join(", ")} or ${last}`;
}

interface Status {
  readonly status: FilesystemStatus | undefined;
  /** Why it is not known. */
  readonly why: readonly string[];
  /** Not where there is no way to the directory. */
  readonly isReached: boolean;
}

function* statfs(host: Host, directory: string): Protocol<Status> {
  const missing = [
    permit(host, "statfs", directory, "--allow-sys=statfs"),
    permit(host, "read", directory, `--allow-read=${directory}`),
  ].filter((flag) => flag !== undefined);
  if (missing.length > 0) {
    const why = [`not permitted to look: add ${missing.join(" ")}`];
    return { status: undefined, why, isReached: true };
  }
  try {
    const status = yield* call("statfs", directory);
    return { status, why: [], isReached: true };
  } catch (error) {
    const reason = reasonOf(error, "--allow-sys=statfs");
    const isReached = !failedWith(
      error,
      "EACCES",
      "ELOOP",
      "ENOENT",
      "ENOTDIR",
    );
    return { status: undefined, why: [`statfs ${reason}`], isReached };
  }
}

/** The flag that is missing; asked for instead, Deno might ask the user. */
function permit(
  host: Host,
  access: "read" | "statfs",
  path: string,
  flag: string,
): string | undefined {
  const state = host.permission(access, path);
  if (state === "granted") return undefined;
  const [name = ""] = flag.replace("--allow-", "").split("=");
  return state === "denied"
    ? `${flag} (and take away the --deny-${name} that covers it)`
    : flag;
}

function reasonOf(error: unknown, flag: string): string {
  if (!(error instanceof SystemCallError)) throw error;
  const { code = "an error without a code" } = error;
  return code === NOT_CAPABLE
    ? `was not permitted: add ${flag}`
    : `failed with ${code}`;
}

/** Deno shows nothing below `/proc` to who has not all permissions. */
const ALL = "Deno shows it with --allow-all alone";

function* readMounts(host: Host): Protocol<MountList> {
  if (host.platform !== "linux") {
    return { mounts: [], evidence: ["mount options are not looked at here"] };
  }
  if (host.permission("read", MOUNTS) !== "granted") {
    return {
      mounts: [],
      evidence: [`not permitted to look at ${MOUNTS}: ${ALL}`],
    };
  }
  try {
    const file = yield* call("open", MOUNTS);
    const list = yield* closing(file, () => readText(file));
    return { mounts: parseMounts(list), evidence: [] };
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    const { code = "an error without a code" } = error;
    const reason = code === NOT_CAPABLE
      ? `not permitted to look at ${MOUNTS}: ${ALL}`
      : `${MOUNTS} could not be read (${code})`;
    return { mounts: [], evidence: [reason] };
  }
}

/** A list that is longer is not one that a person has made. */
const LONGEST_LIST = 16 * 1024 * 1024;

/** The kernel gives its size as 0. */
function* readText(file: OpenFile): Protocol<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(64 * 1024);
  let text = "";
  for (let length = 0; length < LONGEST_LIST;) {
    const read = yield* call("read", file, buffer);
    if (read === 0) break;
    length += read;
    text += decoder.decode(buffer.subarray(0, read), { stream: true });
  }
  return text;
}

/** An overlay holds what its upper layer does, which a container may not see. */
function* lookAtUpper(
  host: Host,
  mount: Mount,
  list: MountList,
  evidence: string[],
): Protocol<Surroundings | undefined> {
  const path = optionValue(mount, "upperdir");
  if (path === undefined) {
    evidence.push("the overlay has no upper layer, and can only be read");
    return undefined;
  }
  // In a container the path may be another one's: that of the overlay itself, or
  // of one beside it, which cannot be the upper layer of one.
  const below = mountOf(list.mounts, path)?.type ?? "";
  const isOverlay = filesystemNamed(below)?.class === "overlay";
  if (isOverlay || !(yield* isDirectory(host, path))) {
    evidence.push(
      `its upper layer "${path}" cannot be seen from here, so what it holds is not known`,
    );
    return undefined;
  }
  const upper = yield* seen(host, path, list);
  evidence.push(
    `its upper layer "${path}" is on ${upper.filesystem ?? "an unknown type"}`,
  );
  return upper;
}

function* isDirectory(host: Host, path: string): Protocol<boolean> {
  if (!path.startsWith("/") || host.permission("read", path) !== "granted") {
    return false;
  }
  try {
    return (yield* call("lstat", path)).kind === "directory";
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return false;
  }
}
