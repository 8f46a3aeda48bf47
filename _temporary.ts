/**
 * Temporary files: their names, and the record of those in flight, which are
 * removed when the process exits normally before their write has ended.
 *
 * No signal is handled and nothing is hooked before the first write, so a kill,
 * SIGINT or a crash leaves the temporary file behind.
 *
 * @module
 */

import { joinPath } from "./_path.ts";
import {
  callMoving,
  failedWith,
  inlineCall,
  type Protocol,
  ProtocolError,
  SystemCallError,
} from "./_protocol.ts";
import type { Host, OpenFile, Port } from "./_runtime/port.ts";

/** The longest name on the usual file systems, and on eCryptfs, in bytes. */
const NAME_LIMITS = [143, 255];

/**
 * A name nobody else uses, beside the target: `.<target>.<pid>.<uuid>.tmp`. The
 * uuid makes it unique, since containers share pids. The target's part is cut
 * where the whole would be longer than a name may be.
 */
function temporaryName(host: Host, target: string): string {
  const unique = `.${host.pid}.${host.randomUUID()}.tmp`;
  return `.${cutName(target, 1 + unique.length)}${unique}`;
}

/** As much of a name as leaves so many bytes for what is added to it. */
export function cutName(name: string, added: number): string {
  const encoder = new TextEncoder();
  const length = encoder.encode(name).length;
  const limit = NAME_LIMITS.find((limit) => length <= limit) ?? length;
  const room = new Uint8Array(limit - added);
  const { read } = encoder.encodeInto(name, room);
  return name.slice(0, read);
}

/** More taken names are no accident. */
const MOST_NAMES_TRIED = 16;

/** Creates a temporary file for `name` in `directory`, recorded until it is renamed or removed. */
export function createTemporary(
  port: Port,
  directory: string,
  name: string,
  mode: number,
): Protocol<OpenFile> {
  return createAt(
    port,
    () => joinPath(port, directory, temporaryName(port, name)),
    mode,
  );
}

/** The same, at a path that is another one each time it is asked for. */
export function* createAt(
  port: Port,
  newPath: () => string,
  mode: number,
): Protocol<OpenFile> {
  for (let tried = 1;; tried++) {
    const path = newPath();
    try {
      // Inline: a thread that is still to create it when the process exits
      // would leave it behind.
      const file = yield* inlineCall("create", path, mode);
      trackTemporary(port, path);
      return file;
    } catch (error) {
      // Somebody has put something there, a link perhaps: it is theirs, and
      // opening it could write through it.
      if (!failedWith(error, "EEXIST") || tried === MOST_NAMES_TRIED) {
        throw error;
      }
    }
  }
}

/** Removes a temporary file of `bytes` bytes, which may be gone already. */
export function* removeTemporary(path: string, bytes: number): Protocol<void> {
  try {
    yield* callMoving(bytes)("unlink", path);
  } catch (error) {
    if (error instanceof SystemCallError) error.leftover = path;
    if (!failedWith(error, "ENOENT")) throw error;
  }
  untrackTemporary(path);
}

/** Removes a temporary file because of `reason`, which is told if it stays. */
export function* removeAfterFailure(
  path: string,
  bytes: number,
  reason: unknown,
): Protocol<SystemCallError | undefined> {
  try {
    yield* removeTemporary(path, bytes);
    return undefined;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    if (reason instanceof ProtocolError) reason.leftover = path;
    return error;
  }
}

const inFlight = new Map<string, Port>();
const hooked = new WeakSet<Port>();

/** Records a temporary file. */
export function trackTemporary(port: Port, path: string): void {
  if (!hooked.has(port)) {
    hooked.add(port);
    port.onExit(() => removeAll(port));
  }
  inFlight.set(path, port);
}

/** Of a writer that holds a lock it is the name of its claim, and a number. */
const NAME =
  /^\..*\.(\d+)\.(?:\d{1,15}\.(?=.*\.\d+\.tmp$))?[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}(?:\.\d+)?\.tmp$/s;

/** The process whose temporary file it is, by its name; `undefined` where it is none. */
export function writerOf(name: string): number | undefined {
  const [, pid] = NAME.exec(name) ?? [];
  return pid === undefined ? undefined : Number(pid);
}

/** Whether a write of this realm is under way to it. */
export function isInFlight(path: string): boolean {
  return inFlight.has(path);
}

/** Ends the record of a temporary file: its name is not ours any more. */
export function untrackTemporary(path: string): void {
  inFlight.delete(path);
}

function removeAll(port: Port): void {
  for (const [path, owner] of inFlight) {
    if (owner !== port) continue;
    try {
      port.sync.unlink(path);
    } catch {
      // It is renamed by now, and an exit handler has nobody to tell about
      // anything else.
    }
  }
}
