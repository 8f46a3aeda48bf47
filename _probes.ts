/**
 * What writes and locks need of a directory, tried out there one by one. What is
 * made for it has the names of temporary files, and is removed.
 *
 * @module
 */

import { claimants, type LockPlace, lockPlace } from "./_claim.ts";
import { acquire, type HeldLock, release } from "./_lock.ts";
import { joinPath } from "./_path.ts";
import {
  attempt,
  blockingCall,
  call,
  closing,
  failedWith,
  type Protocol,
  Refusal,
} from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { isSame } from "./_target.ts";
import { createTemporary, removeTemporary } from "./_temporary.ts";

/** Tries one thing; returns what it found in words, and throws where it is not as it must be. */
export interface Probe {
  readonly name: string;
  readonly try: (port: Port, directory: string) => Protocol<string>;
}

/** All of them. Where the first fails, the others cannot be tried. */
export const PROBES: readonly [Probe, ...Probe[]] = [
  { name: "exclusive create", try: createsExclusively },
  { name: "write", try: takesBytes },
  { name: "fsync of a file", try: syncsFile },
  { name: "fsync of the directory", try: syncsDirectory },
  { name: "rename over an open file", try: renamesOverOpen },
  { name: "hard link", try: links },
  { name: "lock", try: locks },
  { name: "long names", try: takesLongNames },
];

const OLD = new TextEncoder().encode("old");
const NEW = new TextEncoder().encode("new");

function wrong(words: string): Refusal {
  return new Refusal("PROBE", words);
}

/** Gives `body` the path of a new file with these bytes, and removes what is there afterwards. */
function* withFile<T>(
  port: Port,
  directory: string,
  bytes: Uint8Array,
  body: (path: string) => Protocol<T>,
  name = "doctor",
): Protocol<T> {
  const file = yield* createTemporary(port, directory, name, 0o600);
  try {
    yield* closing(file, function* () {
      for (let at = 0; at < bytes.length;) {
        const taken = yield* blockingCall("write", file, bytes.subarray(at));
        if (taken === 0) throw wrong("the system takes no more bytes");
        at += taken;
      }
    });
    return yield* body(file.path);
  } finally {
    yield* removeTemporary(file.path, bytes.length);
  }
}

function* readAll(path: string): Protocol<string> {
  const file = yield* call("open", path);
  return yield* closing(file, function* () {
    const buffer = new Uint8Array(64);
    const length = yield* call("read", file, buffer);
    return new TextDecoder().decode(buffer.subarray(0, length));
  });
}

function* createsExclusively(port: Port, directory: string): Protocol<string> {
  return yield* withFile(port, directory, OLD.subarray(0, 0), function* (path) {
    try {
      yield* call("close", yield* call("create", path, 0o600));
    } catch (error) {
      if (failedWith(error, "EEXIST")) return "a name that is taken is refused";
      throw error;
    }
    throw wrong("a name that is taken was created once more");
  });
}

const SIZE = 64 * 1024;

function* takesBytes(port: Port, directory: string): Protocol<string> {
  return yield* withFile(
    port,
    directory,
    new Uint8Array(SIZE),
    function* (path) {
      const { size } = yield* call("lstat", path);
      if (size === SIZE) return `${SIZE} bytes`;
      throw wrong(`of ${SIZE} bytes written the file has ${size}`);
    },
  );
}

function* syncsFile(port: Port, directory: string): Protocol<string> {
  const file = yield* createTemporary(port, directory, "doctor", 0o600);
  try {
    yield* closing(file, function* () {
      yield* call("write", file, NEW);
      yield* blockingCall("fsync", file);
    });
    return "no error";
  } finally {
    yield* removeTemporary(file.path, NEW.length);
  }
}

function* syncsDirectory(port: Port, directory: string): Protocol<string> {
  if (port.windows) return "directories are not synced on Windows";
  const handle = yield* call("open", directory);
  yield* closing(handle, () => blockingCall("fsync", handle));
  return "no error";
}

function* renamesOverOpen(port: Port, directory: string): Protocol<string> {
  return yield* withFile(
    port,
    directory,
    OLD,
    (target) =>
      withFile(port, directory, NEW, function* (path) {
        const open = yield* call("open", target);
        return yield* closing(open, function* () {
          yield* call("rename", path, target);
          const now = yield* readAll(target);
          const buffer = new Uint8Array(OLD.length);
          const length = yield* call("read", open, buffer);
          const before = new TextDecoder().decode(buffer.subarray(0, length));
          if (before === "old" && now === "new") {
            return "whoever had the old file open still reads it";
          }
          throw wrong(
            `the old file reads as "${before}" after the rename, the new one as "${now}"`,
          );
        });
      }),
  );
}

function* links(port: Port, directory: string): Protocol<string> {
  return yield* withFile(
    port,
    directory,
    OLD,
    (path) =>
      withFile(port, directory, NEW, function* (taken) {
        if (yield* isLinked(path, taken)) {
          throw wrong("a name that is taken was given to another file");
        }
        yield* call("unlink", taken);
        yield* call("link", path, taken);
        const { nlink } = yield* call("lstat", path);
        if (nlink !== 2) throw wrong(`a file with two names counts ${nlink}`);
        return "a second name, and none that is taken";
      }),
  );
}

function* isLinked(from: string, to: string): Protocol<boolean> {
  try {
    yield* call("link", from, to);
    return true;
  } catch (error) {
    if (failedWith(error, "EEXIST")) return false;
    throw error;
  }
}

function* locks(port: Port, directory: string): Protocol<string> {
  // Short, or the names of its links would be cut.
  const name = `doctor.${port.randomUUID().slice(0, 18)}`;
  const place = lockPlace(port, joinPath(port, directory, name));
  const patience = () => ({
    deadline: port.now(),
    retryMs: 1000,
    signal: undefined,
  });
  try {
    const held = yield* acquire(port, place, patience());
    if (held === undefined) {
      throw wrong("a lock that nobody holds was not given");
    }
    try {
      const second = yield* acquire(port, place, patience());
      if (second !== undefined) {
        yield* release(port, second);
        throw wrong("two held one lock at once");
      }
      return yield* excludesElsewhere(place, held);
    } finally {
      yield* release(port, held);
    }
  } catch (error) {
    // No other process knows its name, so nobody else ever removes these.
    yield* attempt(removeLock(port, place));
    throw error;
  }
}

/** In one process, SQLite excludes a second holder whatever the kernel does. */
function* excludesElsewhere(
  { lockFile }: LockPlace,
  { claim }: HeldLock,
): Protocol<string> {
  const tried = yield* blockingCall("lockElsewhere", lockFile);
  if (tried === "held") return "who holds it excludes a second process";
  if (tried === "free") {
    throw wrong("a second process got the lock while it was held");
  }
  const own = yield* call("lstat", lockFile);
  const other = yield* call("lstat", claim.heldPath);
  if (own.nlink < 2 || !isSame(own, other)) {
    throw wrong("two names of a file do not look like one file");
  }
  return "two names of a file look like one, and who holds it excludes a second; another process, which could not be started here (on Deno: --allow-run), was not asked";
}

function* removeLock(port: Port, place: LockPlace): Protocol<void> {
  for (const { path } of yield* claimants(port, place)) {
    yield* attempt(call("unlink", path));
  }
  yield* attempt(call("unlink", place.lockFile));
  yield* attempt(call("rmdir", place.path));
}

/** On the usual file systems, and on eCryptfs. */
const LENGTHS = [255, 143];

function* takesLongNames(port: Port, directory: string): Protocol<string> {
  for (const length of LENGTHS) {
    const name = "n".repeat(length);
    try {
      return yield* withFile(port, directory, NEW, function* () {
        return `names of ${length} bytes`;
      }, name);
    } catch (error) {
      if (!failedWith(error, "ENAMETOOLONG")) throw error;
    }
  }
  throw wrong(`names of ${LENGTHS.at(-1)} bytes are refused`);
}
