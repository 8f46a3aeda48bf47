/**
 * Tells a failure in the caller's terms: which class, which content is in the
 * file now, what to do. The one place where an {@linkcode AtomicError} is made
 * from what a protocol threw.
 *
 * @module
 */

import {
  AlreadyExistsError,
  AtomicError,
  type AtomicErrorOptions,
  ChecksumMismatchError,
  ChecksumMissingError,
  CrossDeviceError,
  DurabilityError,
  LockLostError,
  LockTimeoutError,
  NoSpaceError,
  NotFoundError,
  PermissionScopeError,
  TargetBusyError,
  UnsupportedEnvironmentError,
} from "./errors.ts";
import { LockTimeout } from "./_lock.ts";
import { directoryOf, withoutDots } from "./_path.ts";
import { ProtocolError, Refusal, SystemCallError } from "./_protocol.ts";
import { Mismatch } from "./_verified_read.ts";
import { type Host, NO_SQLITE, NOT_CAPABLE } from "./_runtime/port.ts";

/** The call that failed, as its caller made it. */
export interface Attempt {
  /** The name of the public function. */
  readonly operation: string;
  readonly access: "read" | "write" | "lock" | "sweep";
  /** Absolute. */
  readonly path: string;
}

type ErrorClass = new (
  message: string,
  options: AtomicErrorOptions,
) => AtomicError;

/** What is thrown at the caller; what is no failure of the system (an abort's reason) stays as it is. */
export function explain(
  host: Host,
  attempt: Attempt,
  error: unknown,
): unknown {
  if (!(error instanceof ProtocolError)) return error;
  const { access, path } = attempt;
  const leftover = error.leftover === undefined
    ? ""
    : `; the temporary file "${error.leftover}" could not be removed`;
  const message = (reason: string) =>
    `Cannot ${access} "${path}": ${reason}${leftover}`;
  if (error instanceof LockTimeout) {
    const found = error.candidates.map(({ pid, since }) => ({
      pid,
      since: new Date(since),
    }));
    return new LockTimeoutError(message(error.message), {
      ...attempt,
      code: error.code,
      candidates: found,
    });
  }
  if (error instanceof Mismatch) {
    const { code, actual, sidecar: { digest, previous } } = error;
    const expected = [digest, ...previous];
    return new ChecksumMismatchError(message(error.message), {
      ...attempt,
      code,
      actual,
      expected,
    });
  }
  if (error instanceof Refusal) {
    const { code } = error;
    const refused = REFUSALS[code] ?? AtomicError;
    const cause = error.cause === undefined ? {} : { cause: error.cause };
    return new refused(message(error.message), { ...attempt, code, ...cause });
  }
  if (!(error instanceof SystemCallError)) return error;
  const { syscall, committed, cause } = error;
  const [failed, code, reason] = diagnose(host, attempt, error);
  const unknown = committed === "unknown"
    ? "; whether the new content is in place is unknown: read the file"
    : "";
  return new failed(message(`${reason}${unknown}`), {
    ...attempt,
    code,
    syscall,
    committed,
    cause,
  });
}

const REFUSALS: Readonly<Record<string, ErrorClass>> = {
  CHECKSUM_MISSING: ChecksumMissingError,
  EEXIST: AlreadyExistsError,
  ENOENT: NotFoundError,
  LOCK_LOST: LockLostError,
  UNSUPPORTED_ENVIRONMENT: UnsupportedEnvironmentError,
};

function diagnose(
  host: Host,
  attempt: Attempt,
  error: SystemCallError,
): [ErrorClass, code: string, reason: string] {
  const { syscall, code = "UNKNOWN" } = error;
  if (code === NOT_CAPABLE) {
    return [
      PermissionScopeError,
      "PERMISSION_SCOPE",
      scopeReason(host, attempt, error),
    ];
  }
  if (error.committed === true) {
    return [
      DurabilityError,
      code,
      `the new content is in place, but ${syscall} failed (${code}), so a power cut may bring the old content back`,
    ];
  }
  if (code === NO_SQLITE) {
    return [
      UnsupportedEnvironmentError,
      "UNSUPPORTED_ENVIRONMENT",
      "a lock needs the SQLite that is built into Deno 2.2, Node 22.13 and every Bun, which this runtime lacks",
    ];
  }
  if (syscall === "link") {
    if (code === "EEXIST") {
      return [
        AlreadyExistsError,
        code,
        "it exists, and createNew asks for a new file",
      ];
    }
    if (NO_HARD_LINKS.includes(code)) {
      return [
        UnsupportedEnvironmentError,
        "UNSUPPORTED_ENVIRONMENT",
        `createNew needs hard links, which the file system does not make (${code}): write without createNew, or to another file system`,
      ];
    }
  }
  if (syscall === "rename" && code === "EBUSY") {
    return [
      TargetBusyError,
      code,
      "it is in use and cannot be replaced, as a single file that is bind-mounted into a container: mount its directory instead (EBUSY)",
    ];
  }
  if (syscall === "open" && code === "EACCES" && attempt.access === "write") {
    return [
      AtomicError,
      code,
      'this process may not read its directory, which it must to sync it: grant read permission on the directory, or write with durability: "ordered" (EACCES)',
    ];
  }
  if (syscall === "create" && code === "ENOENT") {
    return [
      NotFoundError,
      code,
      "its directory was removed meanwhile, or takes no new files (ENOENT)",
    ];
  }
  const known = REASONS[code];
  if (known !== undefined) {
    const [failed, reason] = known;
    const access = ["read", "sweep"].includes(attempt.access)
      ? "read"
      : "write";
    return [failed, code, `${reason[access]} (${code})`];
  }
  const detail = error.cause instanceof Error
    ? error.cause.message
    : String(error.cause);
  return [AtomicError, code, `${syscall} failed: ${detail}`];
}

const NO_HARD_LINKS = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"];

type Reason = Readonly<Record<"read" | "write", string>>;

function both(reason: string): Reason {
  return { read: reason, write: reason };
}

const FULL = both(
  "no space is left on the device; the file is as it was: free some space and try again",
);

const REASONS: Readonly<Record<string, [ErrorClass, Reason]>> = {
  ENOENT: [NotFoundError, {
    read: "it does not exist",
    write:
      "its directory does not exist, or is a link to nowhere: make it first, or write with parents: true",
  }],
  ENOSPC: [NoSpaceError, FULL],
  EDQUOT: [
    NoSpaceError,
    both(
      "the disk quota is used up; the file is as it was: free some space and try again",
    ),
  ],
  EXDEV: [
    CrossDeviceError,
    both(
      "its directory and the file are on different file systems: write to the directory that holds the file",
    ),
  ],
  EACCES: [AtomicError, {
    read: "this process may not read it",
    write:
      "this process may not write in its directory, where the new file is made beside the old one: grant write and search permission on the directory",
  }],
  EROFS: [
    AtomicError,
    both(
      "the file system is mounted read-only: write to another one, or have it mounted for writing",
    ),
  ],
  ENOTDIR: [
    AtomicError,
    both("a part of the path before the last is not a directory"),
  ],
  EISDIR: [AtomicError, both("it is a directory: name a file inside it")],
  ENAMETOOLONG: [
    AtomicError,
    both("its name or its path is longer than the file system allows"),
  ],
  ELOOP: [AtomicError, both("too many symbolic links lead to it")],
  EMFILE: [
    AtomicError,
    both(
      "no file descriptor was free in this process within retryMs: raise its limit, or open fewer files at once",
    ),
  ],
  ENFILE: [
    AtomicError,
    both("no file descriptor was free on this machine within retryMs"),
  ],
  EILSEQ: [
    AtomicError,
    both("the way to it leads through a name with bytes that are no UTF-8"),
  ],
  EIO: [
    AtomicError,
    both("the device reported an error; its content may be damaged"),
  ],
};

/** Names the flags that are missing, and why they are needed. */
function scopeReason(
  host: Host,
  { access, path }: Attempt,
  error: SystemCallError,
): string {
  if (access === "read") {
    return `Deno may not read it: add ${flags(host, ["read"], path)}`;
  }
  if (access === "sweep") {
    return `Deno must be allowed to read and write it: add ${
      flags(host, ["read", "write"], path)
    }`;
  }
  const { syscall, args: [refused] } = error;
  const directory = directoryOf(host, path);
  if (
    syscall === "open" && typeof refused === "string" &&
    refused !== directory && directory.startsWith(refused)
  ) {
    return `its directory does not exist, and to make it durably Deno must be allowed to read and sync "${refused}": make the directory first, or add ${
      flags(host, ["read"], refused)
    }, or write with durability: "ordered"`;
  }
  const scope = typeof refused === "string" && syscall !== "open" &&
      syscall !== "mkdir"
    ? withoutDots(host, directoryOf(host, refused))
    : directory;
  return `the new file is made beside the old one and renamed, so Deno must be allowed to read and write the directory "${scope}", not just the file: add ${
    flags(host, ["read", "write"], scope)
  }`;
}

function flags(
  host: Host,
  accesses: readonly ("read" | "write")[],
  path: string,
): string {
  return accesses.flatMap((access) => {
    const state = host.permission(access, path);
    if (state === "granted") return [];
    const unlessDenied = state === "denied"
      ? ` (and take away the --deny-${access} that covers it)`
      : "";
    return [`--allow-${access}=${path}${unlessDenied}`];
  }).join(" ");
}
