/**
 * The options, their defaults, and their validation. A misspelt option name or
 * a value of the wrong kind is a `TypeError` before the disk is touched: a
 * `durabilty: "none"` that is silently ignored is a slow program, a
 * `durabilty: "full"` a lost file.
 *
 * @module
 */

import { describe } from "./_describe.ts";
import { hintFor, hintForOptions } from "./_hints.ts";
import { isPlainObject } from "./_plain_object.ts";
import type { ParseError } from "./errors.ts";

/**
 * Bytes over memory of their own, that nobody else sees: `Uint8Array<ArrayBuffer>`
 * to compilers that know this type, which TypeScript does from 5.7 on, and
 * `Uint8Array` to older ones.
 */
export type OwnBytes = ReturnType<typeof Uint8Array.of>;

/**
 * What is waited for before a write resolves.
 *
 * - `"full"`: the new content survives a power cut (file and directory synced).
 * - `"ordered"`: after a power cut the old or the new content is there, whole
 *   (file synced, directory not).
 * - `"none"`: nothing is synced: atomic for readers and against crashes of the
 *   process, but not against those of the machine.
 */
export type Durability = "full" | "ordered" | "none";

/**
 * What is done where the path names a symbolic link. Links among the parent
 * directories are always followed.
 *
 * - `"follow"`: the file it points to is replaced, or created where the link
 *   dangles. In a sticky world-writable directory, as `/tmp` is, only links are
 *   followed that the caller or the directory's owner made.
 * - `"replace"`: the link itself is replaced by the file.
 * - `"reject"`: the write is rejected (code `"ELOOP"`).
 */
export type SymlinkPolicy = "follow" | "replace" | "reject";

/** The numeric owner of a file. */
export interface Owner {
  /** The user id. */
  uid: number;
  /** The group id. */
  gid: number;
}

/** A lock that is held, until it is released or its process ends. */
export interface Lock extends AsyncDisposable, Disposable {
  /** The file it is for: absolute, links resolved. */
  readonly path: string;
  /** Frees it, after the writes that it was handed to. Once is enough. */
  release(): Promise<void>;
  /**
   * Frees it at once, as the end of a block does that has it with `using`. It
   * cannot wait for a write that it was handed to: while there is one it throws a
   * `TypeError`, and the lock is still held. `await using` waits.
   */
  releaseSync(): void;
}

/** How to wait for a lock. */
export interface LockOptions {
  /**
   * How long to wait, in milliseconds; 0 asks once. Without it 10 000, which
   * count anew whenever a task of the same thread has had the lock: among many
   * that all get on nobody gives up.
   *
   * @default {10000}
   */
  timeoutMs?: number | undefined;
  /** Ends the waiting, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** How a checksum is computed. `"sha1"` is for reading old ones. */
export type ChecksumAlgorithm = "sha256" | "sha512" | "sha1";

/** The option of every function that takes a lock. */
export interface SafetyOption {
  /**
   * What is done where the file system is known to keep no lock, as on a network
   * mount.
   *
   * @default {"strict"}
   */
  safety?: Safety | undefined;
}

/** How to take a lock. */
export interface AcquireOptions extends LockOptions, SafetyOption {}

/**
 * What a write may hold where it is made.
 *
 * - `"atomicVisibility"`: whoever opens the file finds the old content or the
 *   new.
 * - `"crashDurability"`: with `durability: "full"` the new content survives a
 *   power cut.
 * - `"writerExclusion"`: a lock has one holder.
 * - `"integrityDetection"`: content that the device has damaged is noticed.
 * - `"metadataPreservation"`: the new file has all that the replaced one had
 *   beside its content.
 * - `"crossDeviceSafety"`: a write that would cross file systems is an error
 *   that changes nothing.
 */
export type Guarantee =
  | "atomicVisibility"
  | "crashDurability"
  | "writerExclusion"
  | "integrityDetection"
  | "metadataPreservation"
  | "crossDeviceSafety";

/** All of them, in their order. */
export const GUARANTEES: readonly Guarantee[] = [
  "atomicVisibility",
  "crashDurability",
  "writerExclusion",
  "integrityDetection",
  "metadataPreservation",
  "crossDeviceSafety",
];

/**
 * What is done where the file system is known not to do what the call asks of
 * it, as a rename or a lock on a network mount.
 *
 * - `"strict"`: the call is rejected with an `UnsupportedEnvironmentError`
 *   before anything is made.
 * - `"warn"`: it proceeds, with a warning once for each directory: a process
 *   warning on Node and Bun, on the console on Deno.
 * - `"best-effort"`: it proceeds.
 */
export type Safety = "strict" | "warn" | "best-effort";

/** The options of every write. */
export interface WriteOptions {
  /**
   * What is waited for before the write resolves.
   *
   * @default {"full"}
   */
  durability?: Durability | undefined;
  /**
   * The permission bits, set exactly, whatever the umask. Without it the file
   * keeps the bits it had; a new one gets 0666 less the umask. Ignored on
   * Windows.
   */
  mode?: number | undefined;
  /**
   * The owner. Rejects where it cannot be set. Without it the file keeps the
   * owner it had, as far as the process may set it. Ignored on Windows.
   */
  owner?: Owner | undefined;
  /**
   * Whether a file that is replaced keeps its mode and its owner. What could
   * not be kept is in {@linkcode WriteReceipt.notPreserved}.
   *
   * @default {true}
   */
  preserve?: boolean | undefined;
  /**
   * What is done where the path names a symbolic link.
   *
   * @default {"follow"}
   */
  symlinks?: SymlinkPolicy | undefined;
  /**
   * Whether missing parent directories are made, durably with
   * `durability: "full"`.
   *
   * @default {true}
   */
  parents?: boolean | undefined;
  /**
   * Whether the file must be new: where it exists, the write rejects with an
   * `AlreadyExistsError`. Of several such writers exactly one succeeds.
   *
   * @default {false}
   */
  createNew?: boolean | undefined;
  /**
   * Whether the write is made under the lock of the file. `true` or options take
   * the lock for this write; a lock that is held already, as that of `withLock`,
   * is used as it is. A write under a lock is rejected with a `LockLostError`
   * where the lock is lost: removed by hand, or freed by the kernel.
   *
   * @default {false}
   */
  lock?: boolean | LockOptions | Lock | undefined;
  /**
   * The checksum beside the file, in `f.sha256` for `f`, in the form that
   * `sha256sum -c` reads. `true` is `"sha256"`; `false` removes it. Without it a
   * file that has one keeps it. A write that changes a checksum takes the lock
   * of the file, whatever `lock` says.
   */
  checksum?: boolean | Exclude<ChecksumAlgorithm, "sha1"> | undefined;
  /**
   * What must be guaranteed in the directory of the file, or the write is
   * rejected with an `UnsupportedEnvironmentError` before anything is made. What
   * cannot be found out counts as not guaranteed: on Deno the message names the
   * flag that would tell.
   *
   * @default {[]}
   */
  require?: readonly Guarantee[] | undefined;
  /**
   * What is done where the file system is known not to do what the write asks of
   * it. On Deno, where looking doubles the start-up time, that is looked for only
   * where `safety`, `require` or a lock is asked for, and `--allow-sys=statfs` is
   * given.
   *
   * @default {"strict"}
   */
  safety?: Safety | undefined;
  /**
   * For how many milliseconds to retry what is transient: no free file
   * descriptor, and on Windows a file that another process has open.
   *
   * @default {1000}
   */
  retryMs?: number | undefined;
  /**
   * Aborts the write: until the new content is in place it rejects with the
   * signal's reason, the target untouched; from then on it is ignored.
   */
  signal?: AbortSignal | undefined;
}

/** How far a write from a source has come. */
export interface WriteProgress {
  /** The bytes taken so far. */
  readonly bytes: number;
  /** The records taken so far; of bytes and text, the chunks. */
  readonly records: number;
}

/** The option of a write whose content comes in parts. */
export interface ProgressOption {
  /** Called now and then while content is taken from its source, and once at its end. What it throws fails the write. */
  onProgress?: ((progress: WriteProgress) => void) | undefined;
}

/** The options of a write of text. */
export interface TextWriteOptions extends WriteOptions {
  /**
   * Whether a newline is added to text that does not end in one. Empty text
   * stays empty.
   *
   * @default {true}
   */
  trailingNewline?: boolean | undefined;
}

/** The options of a write of JSON. */
export interface JsonWriteOptions extends TextWriteOptions {
  /**
   * The third argument of `JSON.stringify`: spaces for each level, or a string.
   *
   * @default {2}
   */
  indent?: number | string | undefined;
  /** The second argument of `JSON.stringify`: a function, or the keys to keep. */
  replacer?: JsonReplacer | readonly (string | number)[] | undefined;
  /**
   * Whether the keys of objects are sorted by UTF-16 code units, so that equal
   * values give equal files. Integer keys come first, as they do in every
   * JavaScript object.
   *
   * @default {false}
   */
  sortKeys?: boolean | undefined;
  /**
   * What to do with a value that JSON would silently change: `NaN`,
   * `Infinity`, `-0`, `undefined`, functions, symbols, holes in arrays,
   * properties with a symbol as key, and objects that come back as something
   * else: `Map`, `Set`, typed arrays, instances of classes. `"error"` rejects
   * with a `SerializationError` that names the place. What has a `toJSON` method
   * is judged by what that returns.
   *
   * @default {"allow"}
   */
  onLossy?: "allow" | "error" | undefined;
}

/** The options of a write of JSON lines. */
export interface JsonlWriteOptions
  extends Omit<JsonWriteOptions, "indent">, ProgressOption {}

/** The function form of the second argument of `JSON.stringify`. */
export type JsonReplacer = (
  this: unknown,
  key: string,
  value: unknown,
) => unknown;

/** The options of an update of text: those of a write, always of a file that may exist. */
export interface TextUpdateOptions
  extends Omit<TextWriteOptions, "createNew" | "trailingNewline"> {
  /**
   * Whether a newline is added to what the function returns, where it ends
   * without one.
   *
   * @default {false}
   */
  trailingNewline?: boolean | undefined;
}

/** The options of an update of JSON. */
export interface JsonUpdateOptions extends Omit<JsonWriteOptions, "createNew"> {
  /** The second argument of `JSON.parse`. */
  reviver?: JsonReviver | undefined;
}

/** What became of an update. */
export interface UpdateResult<T> {
  /** What the function returned. */
  readonly value: T;
  /**
   * Whether the file was written: not where it held just that already, with the
   * mode, the owner and the checksum that are asked for, and could be synced.
   */
  readonly changed: boolean;
  /** That of the write; `undefined` where nothing was written. */
  readonly receipt: WriteReceipt | undefined;
}

/** The options of every read. */
export interface ReadOptions {
  /** Rejects a file of more bytes (code `"TOO_LARGE"`) before memory is set aside for it. */
  maxBytes?: number | undefined;
  /**
   * Whether the content must be what the checksum beside the file says, else a
   * `ChecksumMismatchError`, and without one a `ChecksumMissingError`. `true`
   * takes the strongest that is there. On Deno it requires `--allow-read` for the
   * directory of the file.
   *
   * @default {false}
   */
  checksum?: boolean | ChecksumAlgorithm | undefined;
  /**
   * For how many milliseconds to retry what is transient: no free file
   * descriptor, and on Windows a file that another process has open.
   *
   * @default {1000}
   */
  retryMs?: number | undefined;
  /** Aborts the read, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The option of a read that may find no file. */
export interface FallbackOption<T> {
  /** The result where the file does not exist; without it, that is a `NotFoundError`. */
  fallback?: T;
}

/** The options of a read of JSON. */
export interface JsonReadOptions extends ReadOptions {
  /** The second argument of `JSON.parse`. */
  reviver?: JsonReviver | undefined;
}

/** The second argument of `JSON.parse`. */
export type JsonReviver = (
  this: unknown,
  key: string,
  value: unknown,
) => unknown;

/** The options of a read of JSON lines. */
export interface JsonlReadOptions extends Omit<JsonReadOptions, "maxBytes"> {
  /**
   * What to do with a line that is not JSON: `"throw"` ends the reading with a
   * `ParseError`, `"skip"` goes on with the next line, and a function is given
   * the error before that.
   *
   * @default {"throw"}
   */
  onError?: "throw" | "skip" | ((error: ParseError) => void) | undefined;
  /** A line of more bytes is an error like one that is not JSON, and is not kept in memory. */
  maxLineBytes?: number | undefined;
}

/** The options of `doctor`. */
export interface DoctorOptions {
  /**
   * Whether to try out in the directory what writes and locks need. Everything
   * that is made for it is removed.
   *
   * @default {true}
   */
  probe?: boolean | undefined;
  /**
   * What must be guaranteed there, or a check fails.
   *
   * @default {[]}
   */
  require?: readonly Guarantee[] | undefined;
}

/** What a write did. */
export interface WriteReceipt {
  /** The file written: absolute, symbolic links resolved. */
  readonly path: string;
  /** Its size in bytes. */
  readonly bytes: number;
  /** Whether the file's content was synced to the device. */
  readonly fileSynced: boolean;
  /** Whether the directory was synced, and with it the new content's place in it. */
  readonly directorySynced: boolean;
  /** The digest of the content, in hexadecimal digits, where its checksum was written. */
  readonly digest: string | undefined;
  /** Whether nothing had that name before. */
  readonly created: boolean;
  /** Whether a newer write took this one's place: the other fields are that write's. */
  readonly superseded: boolean;
  /**
   * What the replaced file had and the new one has not: its permission bits,
   * its owner, its other hard links. Access control lists, extended attributes
   * and capabilities are never preserved, and not looked for.
   */
  readonly notPreserved: readonly ("mode" | "owner" | "links")[];
}

/** The options of a move. */
export interface MoveOptions extends Pick<WriteOptions, "require" | "safety"> {
  /**
   * Whether a file that has the new name is replaced. Without it the move is
   * rejected with an `AlreadyExistsError` where something has that name; of
   * several such moves to one name exactly one succeeds.
   *
   * @default {false}
   */
  overwrite?: boolean | undefined;
  /**
   * What is waited for before the move resolves.
   *
   * - `"full"`: after a power cut the file is at its new place.
   * - `"ordered"`: after a power cut it is at the new place or at the old one,
   *   whole.
   * - `"none"`: nothing is synced.
   *
   * @default {"full"}
   */
  durability?: Durability | undefined;
  /**
   * What is done where the new name is that of a symbolic link, as for writes.
   * A link as the source is rejected.
   *
   * @default {"follow"}
   */
  symlinks?: SymlinkPolicy | undefined;
  /**
   * Whether missing parent directories of the new name are made.
   *
   * @default {true}
   */
  parents?: boolean | undefined;
  /**
   * Whether the move is made under the locks of both names, which are taken in
   * an order that is the same for all moves. A lock of either name that is held
   * already, as that of `withLock`, or an array of both, is used as it is. Two
   * that each hold one name's lock and move to the other's wait for each other,
   * until one of them is rejected with a `LockTimeoutError`.
   *
   * @default {false}
   */
  lock?: boolean | LockOptions | Lock | readonly Lock[] | undefined;
  /**
   * For how many milliseconds to retry what is transient.
   *
   * @default {1000}
   */
  retryMs?: number | undefined;
  /** Aborts the move: until the file has its new name it rejects with the signal's reason, nothing changed; from then on it is ignored. */
  signal?: AbortSignal | undefined;
}

/** What a move did. */
export interface MoveReceipt {
  /** The old name: absolute, links resolved. */
  readonly from: string;
  /** The new name: absolute, links resolved. */
  readonly to: string;
  /** The size of the file in bytes. */
  readonly bytes: number;
  /** Whether the file's content was synced to the device before it got its new name. */
  readonly fileSynced: boolean;
  /** Whether the directories of both names were synced after they changed. */
  readonly directorySynced: boolean;
  /** Whether another file had the new name, which is gone now. */
  readonly replaced: boolean;
}

/** The options of an append of JSON lines. */
export interface JsonlAppendOptions extends
  Pick<
    WriteOptions,
    "durability" | "parents" | "require" | "retryMs" | "safety"
  >,
  Pick<JsonWriteOptions, "replacer" | "sortKeys" | "onLossy"> {
  /**
   * What is done where the path names a symbolic link: the file it points to is
   * appended to, or the append is rejected (code `"ELOOP"`).
   *
   * @default {"follow"}
   */
  symlinks?: "follow" | "reject" | undefined;
  /**
   * The lock of the file, under which it is appended to: `true` or options take
   * it, a lock that is held already is used as it is. With `false`, nobody else
   * may append to the file meanwhile.
   *
   * @default {true}
   */
  lock?: boolean | LockOptions | Lock | undefined;
  /** Aborts the append: until the first byte is written it rejects with the signal's reason, the file untouched; from then on it is ignored. */
  signal?: AbortSignal | undefined;
}

/** What an append did. */
export interface AppendReceipt {
  /** The file appended to: absolute, symbolic links resolved. */
  readonly path: string;
  /** How many records were appended. */
  readonly records: number;
  /** Where the first of them begins in the file. */
  readonly offset: number;
  /** The bytes of the records, each with its newline. */
  readonly bytes: number;
  /** Whether the file was synced to the device. */
  readonly fileSynced: boolean;
  /** Whether its directory was synced since the file is there, and with it its place. */
  readonly directorySynced: boolean;
  /** Whether there was no such file before. */
  readonly created: boolean;
}

/** The options of a repair of JSON lines. */
export interface JsonlRepairOptions extends
  Pick<
    JsonlAppendOptions,
    "symlinks" | "lock" | "retryMs" | "safety" | "signal"
  > {}

/** The options of {@linkcode compactJsonl}. */
export interface JsonlCompactOptions
  extends
    Omit<JsonlWriteOptions, "createNew" | "lock" | "symlinks">,
    Pick<JsonlAppendOptions, "lock" | "symlinks">,
    Pick<JsonlReadOptions, "reviver" | "onError" | "maxLineBytes"> {}

/** What a compaction did. */
export interface CompactReceipt extends WriteReceipt {
  /** How many records the function was given. */
  readonly recordsRead: number;
  /** How many it gave back. */
  readonly recordsWritten: number;
  /** How many bytes of a torn line at the end of the file it was not given. */
  readonly cutBytes: number;
}

/** What a repair found, and did. */
export interface RepairReport {
  /** The file: absolute, symbolic links resolved. */
  readonly path: string;
  /** Whether there is no file, and so nothing to repair. */
  readonly missing: boolean;
  /** Where the last line begins that ended in no newline; the size of a file that has none. */
  readonly offset: number;
  /** Whether that line was whole, but for zeros, and was given its newline. */
  readonly completed: boolean;
  /** How many bytes were cut: of a torn line, or zeros behind a whole one. */
  readonly cutBytes: number;
  /** What was cut: no more than its first 65536 bytes. */
  readonly cut: OwnBytes;
}

/** What is wrong with a value, as the words behind "must be". */
type Check = (value: unknown) => string | undefined;

function oneOf(...words: readonly string[]): Check {
  const expected = words.map((word) => JSON.stringify(word)).join(" or ");
  return (value) =>
    typeof value === "string" && words.includes(value) ? undefined : expected;
}

function integer(from: number, to: number, expected: string): Check {
  return (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= from &&
      value <= to
      ? undefined
      : expected;
}

/** What is written in decimal and meant in octal. */
const MISTAKEN_MODES: ReadonlySet<unknown> = new Set([
  ...[400, 440, 444, 600, 640, 644, 660, 664, 666],
  ...[700, 750, 755, 770, 775, 777],
]);

const fileMode: Check = (value) =>
  MISTAKEN_MODES.has(value)
    ? `in octal, as 0o${value}`
    : integer(0, 0o7777, "an integer from 0 to 0o7777")(value);

const boolean: Check = (value) =>
  typeof value === "boolean" ? undefined : "a boolean";
function booleanOr(...words: readonly string[]): Check {
  const word = oneOf(...words);
  return (value) => {
    if (typeof value === "boolean") return undefined;
    const expected = word(value);
    return expected && `a boolean or ${expected}`;
  };
}
const callback: Check = (value) =>
  typeof value === "function" ? undefined : "a function";
// By shape: in a test runner's realm AbortSignal may be another class.
const signal: Check = (value) =>
  typeof value === "object" && value !== null && "aborted" in value &&
    "throwIfAborted" in value && typeof value.throwIfAborted === "function"
    ? undefined
    : "an AbortSignal";
const id = integer(0, 2 ** 32 - 2, "");
const owner: Check = (value) =>
  typeof value === "object" && value !== null && "uid" in value &&
    "gid" in value && id(value.uid) === undefined && id(value.gid) === undefined
    ? undefined
    : "{ uid, gid } with both ids integers from 0 to 4294967294";
// Anything but white space would write what no JSON parser reads.
const indent: Check = (value) =>
  (typeof value === "string" && /^[ \t\n\r]{0,10}$/.test(value)) ||
    integer(0, 10, "")(value) === undefined
    ? undefined
    : "an integer from 0 to 10, or a string of at most 10 white-space characters";
const replacer: Check = (value) =>
  typeof value === "function" || (Array.isArray(value) &&
      [...value].every((key) =>
        typeof key === "string" || typeof key === "number"
      ))
    ? undefined
    : "a function, or an array of strings and numbers";
const milliseconds: Check = (value) =>
  typeof value === "number" && value >= 0
    ? undefined
    : "a number of at least 0";

const LOCK_CHECKS = {
  timeoutMs: milliseconds,
  signal,
} satisfies Record<keyof LockOptions, Check>;

const SAFETY_CHECKS = {
  safety: oneOf("strict", "warn", "best-effort"),
} satisfies Record<keyof SafetyOption, Check>;

const ACQUIRE_CHECKS = {
  ...LOCK_CHECKS,
  ...SAFETY_CHECKS,
} satisfies Record<keyof AcquireOptions, Check>;

/** Whether it is a lock, ours or not, and no options for one: which it is, is told when it is used. */
export function isLock(value: unknown): value is Lock {
  return typeof value === "object" && value !== null && "release" in value;
}

const lock: Check = (value) =>
  isLock(value)
    ? undefined
    : lockWish(value, "a boolean, a held Lock, or { timeoutMs, signal }");

/** Of two files. */
const locks: Check = (value) =>
  isLock(value) || (Array.isArray(value) && [...value].every(isLock))
    ? undefined
    : lockWish(
      value,
      "a boolean, a held Lock, an array of such, or { timeoutMs, signal }",
    );

function lockWish(value: unknown, expected: string): string | undefined {
  if (typeof value === "boolean") return undefined;
  if (!isPlainObject(value)) return expected;
  const checks: Readonly<Record<string, Check>> = LOCK_CHECKS;
  for (const [name, option] of Object.entries(value)) {
    if (!Object.hasOwn(checks, name)) return `${expected}, without "${name}"`;
    const wanted = option === undefined ? undefined : checks[name]?.(option);
    if (wanted !== undefined) return `${expected}, where ${name} is ${wanted}`;
  }
  return undefined;
}

const PROGRESS_CHECKS = {
  onProgress: callback,
} satisfies Record<keyof ProgressOption, Check>;

const guarantees: Check = (value) => {
  const expected = `an array of ${
    GUARANTEES.map((name) => `"${name}"`).join(", ")
  }`;
  if (!Array.isArray(value)) return expected;
  const wrong = [...value].filter((name) => !GUARANTEES.includes(name));
  return wrong.length === 0
    ? undefined
    : `${expected}, without ${describe(wrong[0])}`;
};

const DOCTOR_CHECKS = {
  probe: boolean,
  require: guarantees,
} satisfies Record<keyof DoctorOptions, Check>;

const WRITE_CHECKS = {
  durability: oneOf("full", "ordered", "none"),
  mode: fileMode,
  owner,
  preserve: boolean,
  symlinks: oneOf("follow", "replace", "reject"),
  parents: boolean,
  createNew: boolean,
  lock,
  checksum: booleanOr("sha256", "sha512"),
  require: guarantees,
  ...SAFETY_CHECKS,
  retryMs: milliseconds,
  signal,
} satisfies Record<keyof WriteOptions, Check>;

const TEXT_WRITE_CHECKS = {
  ...WRITE_CHECKS,
  trailingNewline: boolean,
} satisfies Record<keyof TextWriteOptions, Check>;

const JSON_WRITE_CHECKS = {
  ...TEXT_WRITE_CHECKS,
  indent,
  replacer,
  sortKeys: boolean,
  onLossy: oneOf("allow", "error"),
} satisfies Record<keyof JsonWriteOptions, Check>;

const READ_CHECKS = {
  maxBytes: integer(0, Number.MAX_SAFE_INTEGER, "an integer of at least 0"),
  checksum: booleanOr("sha256", "sha512", "sha1"),
  retryMs: milliseconds,
  signal,
} satisfies Record<keyof ReadOptions, Check>;

const JSON_READ_CHECKS = {
  ...READ_CHECKS,
  reviver: callback,
} satisfies Record<keyof JsonReadOptions, Check>;

const { indent: _indent, ...LINE_WRITE_CHECKS } = JSON_WRITE_CHECKS;
const { maxBytes: _maxBytes, ...LINE_READ_CHECKS } = JSON_READ_CHECKS;

const JSONL_WRITE_CHECKS = {
  ...LINE_WRITE_CHECKS,
  ...PROGRESS_CHECKS,
} satisfies Record<keyof JsonlWriteOptions, Check>;

const JSONL_READ_CHECKS = {
  ...LINE_READ_CHECKS,
  onError: (value: unknown) =>
    value === "throw" || value === "skip" || typeof value === "function"
      ? undefined
      : '"throw", "skip" or a function',
  maxLineBytes: integer(1, 2 ** 31 - 1, "an integer from 1 to 2147483647"),
} satisfies Record<keyof JsonlReadOptions, Check>;

/** The options of the functions that compute a digest of a file, or look for its checksum. */
export interface ChecksumOptions {
  /**
   * How it is computed. Without it `hashFile` takes `"sha256"`, and
   * `readChecksum` and `verifyChecksum` the strongest that is there.
   */
  algorithm?: ChecksumAlgorithm | undefined;
  /**
   * For how many milliseconds to retry what is transient.
   *
   * @default {1000}
   */
  retryMs?: number | undefined;
  /** Aborts the call, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** The options of {@linkcode writeChecksum}. */
export interface ChecksumWriteOptions extends
  Pick<
    WriteOptions,
    | "durability"
    | "lock"
    | "require"
    | "retryMs"
    | "safety"
    | "signal"
  > {
  /** How it is computed. Without it as the one that is kept, and where none is, by `"sha256"`. */
  algorithm?: Exclude<ChecksumAlgorithm, "sha1"> | undefined;
  /**
   * What is done where the path names a symbolic link: the checksum is that of
   * the file it points to, or the call is rejected (code `"ELOOP"`).
   *
   * @default {"follow"}
   */
  symlinks?: "follow" | "reject" | undefined;
}

/** The options of {@linkcode sweepTemporaries}. */
export interface SweepOptions {
  /**
   * How long a temporary file must not have been changed, in milliseconds. That
   * protects writers in other containers, of whose processes nothing is known.
   *
   * @default {86400000}
   */
  olderThanMs?: number | undefined;
  /**
   * Whether nothing is removed, only told.
   *
   * @default {false}
   */
  dryRun?: boolean | undefined;
  /** Ends the sweep, which rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

const SWEEP_CHECKS = {
  olderThanMs: milliseconds,
  dryRun: boolean,
  signal,
} satisfies Record<keyof SweepOptions, Check>;

const CHECKSUM_CHECKS = {
  algorithm: oneOf("sha256", "sha512", "sha1"),
  retryMs: milliseconds,
  signal,
} satisfies Record<keyof ChecksumOptions, Check>;

const CHECKSUM_WRITE_CHECKS = {
  algorithm: oneOf("sha256", "sha512"),
  durability: WRITE_CHECKS.durability,
  lock,
  require: guarantees,
  ...SAFETY_CHECKS,
  retryMs: milliseconds,
  signal,
  symlinks: oneOf("follow", "reject"),
} satisfies Record<keyof ChecksumWriteOptions, Check>;

const MOVE_CHECKS = {
  overwrite: boolean,
  durability: WRITE_CHECKS.durability,
  symlinks: WRITE_CHECKS.symlinks,
  parents: boolean,
  require: guarantees,
  ...SAFETY_CHECKS,
  lock: locks,
  retryMs: milliseconds,
  signal,
} satisfies Record<keyof MoveOptions, Check>;

const JSONL_REPAIR_CHECKS = {
  ...SAFETY_CHECKS,
  symlinks: oneOf("follow", "reject"),
  lock,
  retryMs: milliseconds,
  signal,
} satisfies Record<keyof JsonlRepairOptions, Check>;

const JSONL_APPEND_CHECKS = {
  ...JSONL_REPAIR_CHECKS,
  require: guarantees,
  durability: WRITE_CHECKS.durability,
  parents: boolean,
  replacer,
  sortKeys: boolean,
  onLossy: JSON_WRITE_CHECKS.onLossy,
} satisfies Record<keyof JsonlAppendOptions, Check>;

/**
 * `never` where TypeScript can tell that a value has no JSON form, or would be
 * written without what it holds: above all a promise that was not awaited.
 */
export type JsonWritable<T> = 0 extends 1 & T ? unknown
  : [
    Exclude<
      Extract<
        T,
        | bigint
        | symbol
        | ((...args: never[]) => unknown)
        | (abstract new (...args: never[]) => unknown)
        | PromiseLike<unknown>
        | ReadonlyMap<unknown, unknown>
        | ReadonlySet<unknown>
      >,
      // It says itself how it is written.
      { toJSON(...args: never[]): unknown }
    >,
  ] extends [never] ? unknown
  : never;

/** A kind of function, by the options it knows. */
export type OptionKind =
  | "bytesWrite"
  | "textWrite"
  | "jsonWrite"
  | "jsonlWrite"
  | "read"
  | "open"
  | "jsonRead"
  | "jsonlRead"
  | "jsonlAppend"
  | "jsonlRepair"
  | "jsonlCompact"
  | "move"
  | "lock"
  | "checksum"
  | "sweep"
  | "checksumWrite"
  | "tryLock"
  | "doctor"
  | "textUpdate"
  | "jsonUpdate"
  | "defaults";

const fallback: Check = () => undefined;
const records: Check = (value) =>
  typeof value === "object" && value !== null && Symbol.iterator in value
    ? undefined
    : "an array, or another iterable";

const { createNew: _jsonlNew, ...JSONL_COMPACT_CHECKS } = JSONL_WRITE_CHECKS;

const { createNew: _textNew, ...TEXT_UPDATE_CHECKS } = TEXT_WRITE_CHECKS;
const { createNew: _jsonNew, ...JSON_UPDATE_CHECKS } = JSON_WRITE_CHECKS;
const initial: Check = () => undefined;

const CHECKS: Readonly<Record<OptionKind, Readonly<Record<string, Check>>>> = {
  bytesWrite: { ...WRITE_CHECKS, ...PROGRESS_CHECKS },
  textWrite: { ...TEXT_WRITE_CHECKS, ...PROGRESS_CHECKS },
  jsonWrite: JSON_WRITE_CHECKS,
  jsonlWrite: JSONL_WRITE_CHECKS,
  read: { ...READ_CHECKS, fallback },
  open: READ_CHECKS,
  jsonRead: { ...JSON_READ_CHECKS, fallback },
  jsonlRead: { ...JSONL_READ_CHECKS, fallback: records },
  checksum: CHECKSUM_CHECKS,
  sweep: SWEEP_CHECKS,
  checksumWrite: CHECKSUM_WRITE_CHECKS,
  lock: ACQUIRE_CHECKS,
  tryLock: SAFETY_CHECKS,
  doctor: DOCTOR_CHECKS,
  jsonlAppend: JSONL_APPEND_CHECKS,
  jsonlRepair: JSONL_REPAIR_CHECKS,
  jsonlCompact: {
    ...JSONL_COMPACT_CHECKS,
    symlinks: JSONL_APPEND_CHECKS.symlinks,
    reviver: callback,
    onError: JSONL_READ_CHECKS.onError,
    maxLineBytes: JSONL_READ_CHECKS.maxLineBytes,
  },
  move: MOVE_CHECKS,
  textUpdate: { ...TEXT_UPDATE_CHECKS, initial },
  jsonUpdate: { ...JSON_UPDATE_CHECKS, reviver: callback, initial },
  defaults: { ...JSONL_READ_CHECKS, ...JSON_READ_CHECKS, ...JSON_WRITE_CHECKS },
};

/** Whether this kind of function knows an option of that name. */
export function knowsOption(kind: OptionKind, name: string): boolean {
  return Object.hasOwn(CHECKS[kind], name);
}

/**
 * The caller's options, each read once, so that they cannot change after their
 * check. Throws a `TypeError` unless every one is known to this kind of
 * function and has a fitting value.
 */
export function checkOptions<Options extends object>(
  kind: OptionKind,
  options: Options,
): Options {
  // Anything else would lose what it inherits, or be something passed by mistake.
  if (!isPlainObject(options)) {
    throw new TypeError(
      `Options must be a plain object: received ${describe(options)}${
        hintForOptions(options)
      }`,
    );
  }
  const checked = { ...options };
  const checks = CHECKS[kind];
  for (const [name, value] of Object.entries(checked)) {
    if (!knowsOption(kind, name)) {
      const known = Object.keys(checks);
      const hint = hintFor(name, known);
      throw new TypeError(
        `Unknown option "${name}": ${
          hint === undefined ? "" : `${hint}; `
        }the options here are ${known.join(", ")}`,
      );
    }
    if (value === undefined) continue;
    const expected = checks[name]?.(value);
    if (expected !== undefined) {
      throw new TypeError(
        `Option "${name}" must be ${expected}: received ${describe(value)}`,
      );
    }
  }
  return checked;
}
