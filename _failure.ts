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
  TornLineError,
  UnsupportedEnvironmentError,
} from "./errors.ts";
import { TornLine } from "./_jsonl_tail.ts";
import { NO_HARD_LINKS } from "./_claim.ts";
import { LockTimeout } from "./_lock.ts";
import { directoryOf, withoutDots } from "./_path.ts";
import { ProtocolError, Refusal, SystemCallError } from "./_protocol.ts";
import { Mismatch } from "./_verified_read.ts";
import { type Host, NO_SQLITE, NOT_CAPABLE } from "./_runtime/port.ts";
import { isError } from "./_runtime/errno.ts";

/** The call that failed, as its caller made it. */
export interface Attempt {
  /** The name of the public function. */
  readonly operation: string;
  readonly access:
    | "read"
    | "write"
    | "examine"
    | "lock"
    | "sweep"
    | "move"
    | "append"
    | "repair";
  /** Absolute. */
  readonly path: string;
  /** The other path of a move. */
  readonly to?: string;
}

/** The beginning of a message: what was attempted. */
const ATTEMPTED: Readonly<Record<Attempt["access"], string>> = {
  read: "Cannot read",
  write: "Cannot write",
  examine: "Cannot examine",
  lock: "Cannot lock",
  sweep: "Cannot sweep",
  move: "Cannot move",
  append: "Cannot append to",
  repair: "Cannot repair",
};

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
  const { to, ...fields } = attempt;
  const { access, path } = fields;
  const leftover = error.leftover === undefined
    ? ""
    : `; the temporary file "${error.leftover}" could not be removed`;
  const whereTo = to === undefined ? "" : ` to "${to}"`;
  const message = (reason: string) =>
    `${ATTEMPTED[access]} "${path}"${whereTo}: ${reason}${leftover}`;
  const { committed } = error;
  const unknown = committed === "unknown" ? unknownOf(attempt, error) : "";
  if (error instanceof LockTimeout) {
    const found = error.candidates.map(({ pid, since }) => ({
      pid,
      since: new Date(since),
    }));
    return new LockTimeoutError(message(error.message), {
      ...fields,
      code: error.code,
      candidates: found,
    });
  }
  if (error instanceof Mismatch) {
    const { code, actual, sidecar: { digest, previous } } = error;
    const expected = [digest, ...previous];
    return new ChecksumMismatchError(message(error.message), {
      ...fields,
      code,
      actual,
      expected,
    });
  }
  if (error instanceof TornLine) {
    const { code, byteOffset } = error;
    return new TornLineError(message(error.message), {
      ...fields,
      code,
      byteOffset,
    });
  }
  if (error instanceof Refusal) {
    const { code } = error;
    const refused = REFUSALS[code] ?? AtomicError;
    const cause = error.cause === undefined ? {} : { cause: error.cause };
    return new refused(message(`${error.message}${unknown}`), {
      ...fields,
      code,
      committed,
      ...cause,
    });
  }
  if (!(error instanceof SystemCallError)) return error;
  const { syscall, cause } = error;
  const [failed, code, reason] = diagnose(host, attempt, error);
  return new failed(message(`${reason}${unknown}`), {
    ...fields,
    code,
    syscall,
    committed,
    cause,
  });
}

function unknownOf({ access }: Attempt, error: ProtocolError): string {
  if (access === "move") {
    return "; whether it has the new name is unknown: look for it under both";
  }
  const isReplacing = error instanceof SystemCallError &&
    (error.syscall === "rename" || error.syscall === "link");
  if (error instanceof Refusal && error.code === "REPLACED") return "";
  if (error instanceof Refusal && error.code === "LOCK_LOST") {
    return "; whether what was done stays is unknown";
  }
  if (access === "append" && !isReplacing) {
    return "; what it wrote could not be taken back, and a part may stay: nothing but a full rewrite, as by writeJsonlAtomic, may follow";
  }
  return "; whether the new content is in place is unknown: read the file";
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
    return committedReason(attempt, error, code);
  }
  if (syscall === "fsync" && NO_FSYNC.includes(code)) {
    return [
      UnsupportedEnvironmentError,
      "UNSUPPORTED_ENVIRONMENT",
      `nothing can be synced here (${code}), on Node because of --permission, else because of the file system: run without it, or on another one, or write with durability: "none", which a power cut may undo`,
    ];
  }
  if (code === NODE_DENIES) {
    const flag = NODE_READS.includes(syscall) ? "read" : "write";
    return [
      PermissionScopeError,
      "PERMISSION_SCOPE",
      `Node's permissions do not cover it: add --allow-fs-${flag}=${
        directoryOf(host, attempt.path)
      }`,
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
    if (NO_HARD_LINKS.includes(code) && attempt.access === "move") {
      return [
        UnsupportedEnvironmentError,
        "UNSUPPORTED_ENVIRONMENT",
        `a move that must not overwrite needs a hard link, which the file system does not make, or not of a file of another user (${code}): move with overwrite: true`,
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
  if (syscall === "rename" && code === "ENOENT" && attempt.access === "write") {
    return [
      NotFoundError,
      code,
      "its temporary file, or its directory, was removed by somebody else (ENOENT)",
    ];
  }
  const [subject] = error.args;
  const mayNot = syscall === "unlink" && code === "EPERM" && !host.windows;
  if (mayNot && attempt.access !== "move") {
    return [
      AtomicError,
      code,
      `"${subject}" may not be removed: it is another user's in a sticky directory, or immutable (EPERM); have it removed`,
    ];
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
  if (syscall === "readdir" && code === "ENOTDIR") {
    return [
      AtomicError,
      code,
      "it is not a directory: name the one that the files are in (ENOTDIR)",
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
  const other = OTHER_REASONS[attempt.access]?.[code];
  if (other !== undefined) {
    return [known?.[0] ?? AtomicError, code, `${other} (${code})`];
  }
  if (known !== undefined) {
    const [failed, reason] = known;
    const access = ["read", "sweep"].includes(attempt.access)
      ? "read"
      : "write";
    return [failed, code, `${reason[access]} (${code})`];
  }
  const detail = isError(error.cause)
    ? error.cause.message
    : String(error.cause);
  return [AtomicError, code, `${syscall} failed: ${detail}`];
}

/** The code of what Node's `--permission` refuses. */
const NODE_DENIES = "ERR_ACCESS_DENIED";

const NODE_READS: readonly string[] = [
  "access",
  "lstat",
  "open",
  "readdir",
  "readlink",
  "realpath",
  "statfs",
];

/** What an fsync fails with where there is none. */
const NO_FSYNC: readonly string[] = [
  NODE_DENIES,
  "EINVAL",
  "ENOSYS",
  "ENOTSUP",
  "EOPNOTSUPP",
];

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

/** Where what is done is none of the two above. */
const OTHER_REASONS: Partial<
  Record<Attempt["access"], Readonly<Record<string, string>>>
> = {
  move: {
    ENOENT:
      "it does not exist, or the directory of its new name does not: make that first, or move with parents: true",
    EXDEV:
      "the two names are on different file systems, and a file that is copied is there in parts meanwhile: write the new file with writeBytesAtomic, then remove the old one",
    EACCES:
      'this process may not write in both directories, or not read the file, which it must to sync it: grant these permissions, or move with durability: "none"',
    EPERM:
      "this process may not take it, or what it would replace, out of its directory",
  },
  append: {
    ENOENT:
      "its directory does not exist: make it first, or append with parents: true",
    EDQUOT: "the disk quota is used up: free some space and try again",
    ENOSPC: "no space is left on the device: free some space and try again",
    EACCES:
      "this process may not read and write it, nor perhaps its directory, where it is locked",
  },
  repair: {
    ENOENT: "it does not exist",
    EACCES:
      "this process may not read and write it, nor perhaps its directory, where it is locked",
  },
};

/** What is done, and what is not. */
function committedReason(
  { access, operation, path }: Attempt,
  { syscall, args: [subject] }: SystemCallError,
  code: string,
): [ErrorClass, code: string, reason: string] {
  const failed = `${syscall} failed (${code})`;
  switch (access) {
    case "move":
      if (syscall === "unlink" && subject !== path) {
        return [
          AtomicError,
          code,
          `it has its new name, but "${subject}", the checksum of the old one, could not be removed (${code}): remove it`,
        ];
      }
      return syscall === "unlink" || syscall === "lstat"
        ? [
          AtomicError,
          code,
          `it has its new name, but "${path}" could not be removed (${code}) and is still another name of it: remove it`,
        ]
        : [
          DurabilityError,
          code,
          `it has its new name, but ${failed}, so a power cut may bring it back to the old one, or leave both`,
        ];
    case "append":
      return [
        DurabilityError,
        code,
        `the records are in the file, but ${failed}, so a power cut may take them away`,
      ];
    case "repair":
      return [
        DurabilityError,
        code,
        `it is repaired, but ${failed}, so a power cut may undo that`,
      ];
    default:
      if (isOfChecksum(operation) && syscall !== "fsync") {
        return [AtomicError, code, `its checksum is in place, but ${failed}`];
      }
      return [
        DurabilityError,
        code,
        `the new content is in place, but ${failed}, so a power cut may bring the old content back`,
      ];
  }
}

/** Names the flags that are missing, and why they are needed. */
function scopeReason(
  host: Host,
  attempt: Attempt,
  error: SystemCallError,
): string {
  const { access, path, to } = attempt;
  const { syscall, args: [refused] } = error;
  if (syscall === "access" && typeof refused === "string") {
    const isDenied = host.permission("read", refused) === "denied";
    const place = isDenied ? refused : directoryOf(host, refused);
    if (isDenied || access === "read") {
      return `its checksum would be "${refused}", so Deno must be allowed to look there: ${
        wayOut(host, ["read"], place, refused)
      }`;
    }
  }
  if (access === "read") {
    return `Deno may not read it: ${wayOut(host, ["read"], path, refused)}`;
  }
  if (access === "sweep") {
    return `Deno must be allowed to read and write it: ${
      wayOut(host, ["read", "write"], path, refused)
    }`;
  }
  if (access === "examine" && refused === path) {
    return `Deno must be allowed to read and write it, or the directory that it is in, if it is no directory itself: ${
      wayOut(host, ["read", "write"], path, refused)
    }`;
  }
  const directory = directoryOf(host, path);
  if (access === "move" || access === "append" || access === "repair") {
    const places = new Set(
      [path, to ?? path].map((name) => directoryOf(host, name)),
    );
    const why = access === "move"
      ? "a move takes a name from one directory and makes one in another"
      : "the file is locked beside it, and may have to be made";
    return `${why}, so Deno must be allowed to read and write ${
      [...places].map((place) => `"${place}"`).join(" and ")
    }: ${wayOut(host, ["read", "write"], [...places], refused)}`;
  }
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
  return `${
    placeReason(attempt)
  }, so Deno must be allowed to read and write the directory "${scope}", not just the file: ${
    wayOut(host, ["read", "write"], scope, refused)
  }`;
}

function isOfChecksum(operation: string): boolean {
  return operation.startsWith("writeChecksum");
}

/** Why what stands beside the file matters. */
function placeReason({ access, operation }: Attempt): string {
  if (access === "lock") return "its lock is a file beside it";
  return isOfChecksum(operation)
    ? "its checksum and its lock are files beside it"
    : "the new file is made beside the old one and renamed";
}

/** The flags to add at those places; or, where what was refused is forbidden by name, that to take away. */
function wayOut(
  host: Host,
  accesses: readonly ("read" | "write")[],
  places: string | readonly string[],
  refused: unknown,
): string {
  const missing = [places].flat()
    .map((place) => flags(host, accesses, place))
    .filter((text) => text !== "").join(" ");
  if (missing !== "") return `add ${missing}`;
  const path = String(refused);
  const denied = accesses.filter((access) =>
    host.permission(access, path) === "denied"
  );
  return denied.length === 0
    ? `allow "${path}" too, or name the directory without links`
    : denied.map((access) =>
      `take away the --deny-${access} that covers "${path}"`
    ).join(" and ");
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
