/**
 * The errors of the library. All extend {@linkcode AtomicError}, so that one
 * `catch` can ask the question that matters after a failed write: which content
 * is in the file now?
 *
 * Malformed arguments (an empty path, an unknown option, text that is not a
 * string) are a `TypeError` or `RangeError`, and an aborted call rejects with
 * the signal's own reason.
 *
 * @example Telling the old content from the new after a failure
 * ```ts
 * import { AtomicError } from "@aj/atomic/errors";
 * import { writeTextAtomic } from "@aj/atomic/text";
 *
 * try {
 *   await writeTextAtomic("/no-such-directory/notes.txt", "hello", {
 *     parents: false,
 *   });
 * } catch (error) {
 *   if (!(error instanceof AtomicError)) throw error;
 *   console.error(error.message);
 *   if (error.committed === false) console.error("The old content is intact");
 * }
 * ```
 *
 * @module
 */

/**
 * The codes of this library, and those of the system that are met most. An
 * {@linkcode AtomicError} may have any other that the system gives.
 */
export type AtomicErrorCode =
  | "BROKEN"
  | "BUSY"
  | "CHANGED"
  | "CHECKSUM_CHANGED"
  | "CHECKSUM_MISMATCH"
  | "CHECKSUM_MISSING"
  | "CLOSED"
  | "FOREIGN_CHECKSUM"
  | "HAS_CHECKSUM"
  | "LOCK_LOST"
  | "LOCK_TIMEOUT"
  | "NOT_A_FILE"
  | "NOT_A_LOCK"
  | "NOT_JSONL"
  | "PARSE"
  | "PENDING"
  | "PERMISSION_SCOPE"
  | "REPLACED"
  | "SAME_FILE"
  | "SERIALIZATION"
  | "SHORT_WRITE"
  | "SUPERSEDED"
  | "TOO_LARGE"
  | "TORN"
  | "UNSUPPORTED_ENVIRONMENT"
  | "EACCES"
  | "EBUSY"
  | "EDQUOT"
  | "EEXIST"
  | "EFBIG"
  | "EILSEQ"
  | "EIO"
  | "EISDIR"
  | "ELOOP"
  | "EMFILE"
  | "EMLINK"
  | "ENAMETOOLONG"
  | "ENFILE"
  | "ENOENT"
  | "ENOSPC"
  | "ENOTDIR"
  | "EPERM"
  | "EROFS"
  | "ESTALE"
  | "EXDEV";

/** What an {@linkcode AtomicError} is made from. */
export interface AtomicErrorOptions {
  /** See {@linkcode AtomicError.code}. */
  code: string;
  /** See {@linkcode AtomicError.path}. */
  path: string;
  /** See {@linkcode AtomicError.operation}. */
  operation: string;
  /** See {@linkcode AtomicError.syscall}. */
  syscall?: string | undefined;
  /**
   * See {@linkcode AtomicError.committed}.
   *
   * @default {false}
   */
  committed?: boolean | "unknown" | undefined;
  /** What the runtime threw. */
  cause?: unknown;
}

/** A read or a write that failed. The subclasses name the cases worth handling apart. */
export class AtomicError extends Error {
  /** The name of the class. */
  override name = "AtomicError";
  /** A stable string: the errno name (`"EACCES"`) where the system gave one. */
  readonly code: AtomicErrorCode | (string & Record<never, never>);
  /** The path that the caller named, made absolute. */
  readonly path: string;
  /** The function that was called, as in `"writeJsonAtomic"`. */
  readonly operation: string;
  /** The system call that failed, where one did. */
  readonly syscall: string | undefined;
  /**
   * Which content is in the file.
   *
   * - `false`: the old one; the file is untouched.
   * - `true`: the new one, but a power cut may still bring the old one back.
   * - `"unknown"`: either, and whole: the rename failed in a way that does not
   *   tell whether it happened. Of an append: the old one, and perhaps a part of
   *   the new records, which could not be taken back.
   *
   * Of a move it tells whether the file has its new name.
   */
  readonly committed: boolean | "unknown";

  /**
   * Makes the error.
   *
   * @param message What was attempted, why it failed, what to do.
   * @param options The fields.
   */
  constructor(message: string, options: AtomicErrorOptions) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = options.code;
    this.path = options.path;
    this.operation = options.operation;
    this.syscall = options.syscall;
    this.committed = options.committed ?? false;
  }
}

/** The file to read, or with `parents: false` the directory to write in, does not exist (`"ENOENT"`). */
export class NotFoundError extends AtomicError {
  /** The name of the class. */
  override name = "NotFoundError";
}

/** The runtime or the file system lacks what the call needs (`"UNSUPPORTED_ENVIRONMENT"`). */
export class UnsupportedEnvironmentError extends AtomicError {
  /** The name of the class. */
  override name = "UnsupportedEnvironmentError";
}

/**
 * Deno's permissions do not cover what the call needs (`"PERMISSION_SCOPE"`).
 * The message names the flags to add and why. Nothing was made.
 */
export class PermissionScopeError extends AtomicError {
  /** The name of the class. */
  override name = "PermissionScopeError";
}

/** The temporary file and the target, or the two names of a move, are on different file systems (`"EXDEV"`). */
export class CrossDeviceError extends AtomicError {
  /** The name of the class. */
  override name = "CrossDeviceError";
}

/** The target cannot be replaced because it is in use, as a bind-mounted single file is (`"EBUSY"`). */
export class TargetBusyError extends AtomicError {
  /** The name of the class. */
  override name = "TargetBusyError";
}

/** The target exists, and `createNew` was asked for, or a move without `overwrite` (`"EEXIST"`). */
export class AlreadyExistsError extends AtomicError {
  /** The name of the class. */
  override name = "AlreadyExistsError";
}

/** The disk is full, or a quota is used up (`"ENOSPC"`, `"EDQUOT"`). */
export class NoSpaceError extends AtomicError {
  /** The name of the class. */
  override name = "NoSpaceError";
}

/** The value cannot be written in this format without loss (`"SERIALIZATION"`). Nothing was touched. */
export class SerializationError extends AtomicError {
  /** The name of the class. */
  override name = "SerializationError";
}

/** Where in a file a {@linkcode ParseError} points. */
export interface ParsePosition {
  /** Counted from 1. */
  line: number;
  /** In characters (UTF-16 code units), counted from 1. */
  column: number;
  /** Counted from 0, from the start of the file. */
  byteOffset: number;
}

/** The file's content is not what its format allows (`"PARSE"`). */
export class ParseError extends AtomicError implements ParsePosition {
  /** The name of the class. */
  override name = "ParseError";
  /** The line of the first offending character, counted from 1. */
  readonly line: number;
  /** Its column in UTF-16 code units, counted from 1. */
  readonly column: number;
  /** Its offset in bytes from the start of the file. */
  readonly byteOffset: number;

  /**
   * Makes the error.
   *
   * @param message What was found, and where.
   * @param options The fields of {@linkcode AtomicError} and the position.
   */
  constructor(message: string, options: AtomicErrorOptions & ParsePosition) {
    super(message, options);
    this.line = options.line;
    this.column = options.column;
    this.byteOffset = options.byteOffset;
  }
}

/** What a {@linkcode TornLineError} is made from. */
export interface TornLineErrorOptions extends AtomicErrorOptions {
  /** See {@linkcode TornLineError.byteOffset}. */
  byteOffset: number;
}

/**
 * The file to append to ends in a line without a newline that is no whole
 * record, as a crash in the middle of an append leaves it (`"TORN"`). Nothing
 * was written: `repairJsonl` cuts the line.
 */
export class TornLineError extends AtomicError {
  /** The name of the class. */
  override name = "TornLineError";
  /** Where the line begins, in bytes from the start of the file. */
  readonly byteOffset: number;

  /**
   * Makes the error.
   *
   * @param message What was found, and where.
   * @param options Its fields.
   */
  constructor(message: string, options: TornLineErrorOptions) {
    super(message, options);
    this.byteOffset = options.byteOffset;
  }
}

/**
 * The new content is in place and visible, but the directory could not be
 * synced: after a power cut the old content may be back (`committed: true`).
 */
export class DurabilityError extends AtomicError {
  /** The name of the class. */
  override name = "DurabilityError";
}

/** A process that may hold a lock. */
export interface LockCandidate {
  /** Its process, as it calls itself: another container's may be the same. */
  readonly pid: number;
  /** When it asked for the lock, not when it got it. */
  readonly since: Date;
}

/** What a {@linkcode LockTimeoutError} is made from. */
export interface LockTimeoutErrorOptions extends AtomicErrorOptions {
  /** See {@linkcode LockTimeoutError.candidates}. */
  candidates: readonly LockCandidate[];
}

/** A lock that was not to be had in time. Nothing was written. */
export class LockTimeoutError extends AtomicError {
  /** The name of the class. */
  override name = "LockTimeoutError";
  /** The processes that hold it, wait for it, or did so and were killed. */
  readonly candidates: readonly LockCandidate[];

  /**
   * Makes the error.
   *
   * @param message What was attempted, and who may hold the lock.
   * @param options Its fields.
   */
  constructor(message: string, options: LockTimeoutErrorOptions) {
    super(message, options);
    this.candidates = options.candidates;
  }
}

/**
 * A lock that was lost while it was held (`"LOCK_LOST"`): somebody removed it by
 * hand, or the kernel freed it, which it does when the process closes another
 * descriptor of the lock file, as watchers do on Deno. Read the file again, and
 * make the change again. `committed` is `false` where the file is as it was, and
 * `"unknown"` where an append or a repair was under way.
 */
export class LockLostError extends AtomicError {
  /** The name of the class. */
  override name = "LockLostError";
}

/** What a {@linkcode ChecksumMismatchError} is made from. */
export interface ChecksumMismatchErrorOptions extends AtomicErrorOptions {
  /** See {@linkcode ChecksumMismatchError.expected}. */
  expected: readonly string[];
  /** See {@linkcode ChecksumMismatchError.actual}. */
  actual: string;
}

/** The content of a file is not what its checksum says (`"CHECKSUM_MISMATCH"`): it was damaged, or changed by something else than this library. */
export class ChecksumMismatchError extends AtomicError {
  /** The name of the class. */
  override name = "ChecksumMismatchError";
  /** The digests that its sidecar names, in hexadecimal digits: that of the content, and that of the one before. */
  readonly expected: readonly string[];
  /** The digest of the content. */
  readonly actual: string;

  /**
   * Makes the error.
   *
   * @param message What was attempted, and what does not fit.
   * @param options Its fields.
   */
  constructor(message: string, options: ChecksumMismatchErrorOptions) {
    super(message, options);
    this.expected = options.expected;
    this.actual = options.actual;
  }
}

/** The file has no checksum beside it (`"CHECKSUM_MISSING"`). */
export class ChecksumMissingError extends AtomicError {
  /** The name of the class. */
  override name = "ChecksumMissingError";
}
