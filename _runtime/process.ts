/**
 * Other processes, as the runtime sees them.
 *
 * @module
 */

/** Whether a process of that number runs. */
export function isAlive(pid: number): boolean {
  try {
    // Signal 0 is not sent: only asked whether it could be.
    globalThis.process.kill(pid, 0);
    return true;
  } catch (error) {
    const code = error instanceof Error && "code" in error
      ? error.code
      : undefined;
    return code !== "ESRCH";
  }
}
