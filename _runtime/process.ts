/**
 * This process and others, as the runtime sees them.
 *
 * @module
 */

import { isError } from "./errno.ts";

/** Whether a process of that number runs. */
export function isAlive(pid: number): boolean {
  try {
    // Signal 0 is not sent: only asked whether it could be.
    globalThis.process.kill(pid, 0);
    return true;
  } catch (error) {
    const code = isError(error) && "code" in error ? error.code : undefined;
    return code !== "ESRCH";
  }
}

/**
 * When the runtime began on this thread. Of two clocks, of which one was set
 * meanwhile and the other stood still while the machine slept, the earlier: what
 * came after the start must not look older than it.
 */
export function threadStartedAt(): number {
  return Math.min(performance.timeOrigin, Date.now() - performance.now());
}
