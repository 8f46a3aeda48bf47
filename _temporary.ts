/**
 * Temporary files: their names, and the record of those in flight, which are
 * removed when the process exits normally before their write has ended.
 *
 * No signal is handled and nothing is hooked before the first write, so a kill,
 * SIGINT or a crash leaves the temporary file behind.
 *
 * @module
 */

import type { Host, Port } from "./_runtime/port.ts";

/** The longest name on the usual file systems, and on eCryptfs, in bytes. */
const NAME_LIMITS = [143, 255];

/**
 * A name nobody else uses, beside the target: `.<target>.<pid>.<uuid>.tmp`. The
 * uuid makes it unique, since containers share pids. The target's part is cut
 * where the whole would be longer than a name may be.
 */
export function temporaryName(host: Host, target: string): string {
  const unique = `.${host.pid}.${host.randomUUID()}.tmp`;
  const encoder = new TextEncoder();
  const length = encoder.encode(target).length;
  const limit = NAME_LIMITS.find((limit) => length <= limit) ?? length;
  const room = new Uint8Array(limit - 1 - unique.length);
  const { read } = encoder.encodeInto(target, room);
  return `.${target.slice(0, read)}${unique}`;
}

const inFlight = new Map<string, Port>();
const hooked = new WeakSet<Host>();

/** Records a temporary file, for its removal should the process exit now. */
export function trackTemporary(port: Port, path: string): void {
  if (!hooked.has(port)) {
    hooked.add(port);
    port.onExit(() => removeTemporaries(port));
  }
  inFlight.set(path, port);
}

/** Ends the record: the file is gone, or its name was never ours. */
export function untrackTemporary(path: string): void {
  inFlight.delete(path);
}

function removeTemporaries(port: Port): void {
  for (const [path, owner] of inFlight) {
    if (owner !== port) continue;
    try {
      port.sync.unlink(path);
    } catch {
      // It was never created or is renamed by now, and an exit handler has
      // nobody to tell about anything else.
    }
  }
}
