/**
 * A port on a machine whose file systems are made up.
 *
 * @module
 */

import { FaultPort } from "./fault_port.ts";

export interface Pretended {
  /** What `statfs` reports. */
  readonly type?: number;
  /** The text of `/proc/self/mountinfo`. */
  readonly mounts?: string;
  /** Why that cannot be read. */
  readonly mountsFail?: string;
  readonly freeBytes?: number;
  /** What sysfs says of who writes the journal. */
  readonly journal?: string;
}

const MOUNTS = "/proc/self/mountinfo";

/** Everything but the file systems is real. */
export function pretending(pretended: Pretended): FaultPort {
  const port = new FaultPort();
  port.platform = "linux";
  const list = { path: MOUNTS };
  let rest = new Uint8Array();
  return port.intercept(({ name, args: [subject, into] }) => {
    // As they are now: a test may mount something else.
    const { type, mounts, mountsFail = "ENOENT", freeBytes = 1e9 } = pretended;
    const { journal = "17" } = pretended;
    if (name === "statfs" && type !== undefined) {
      return { result: { type, freeBytes } };
    }
    if (name === "realpath" && `${subject}`.startsWith("/sys/dev/block/")) {
      return { result: "/sys/devices/sda1" };
    }
    const texts: Record<string, string | undefined> = {
      [MOUNTS]: mounts,
      "/sys/fs/ext4/sda1/journal_task": `${journal}\n`,
    };
    if (name === "open" && Object.hasOwn(texts, `${subject}`)) {
      const text = texts[`${subject}`];
      if (text === undefined) return { code: mountsFail };
      rest = new TextEncoder().encode(text);
      return { result: list };
    }
    if (subject !== list) return undefined;
    if (name !== "read" || !(into instanceof Uint8Array)) {
      return { result: undefined };
    }
    // In small parts, as the kernel may give them.
    const part = rest.subarray(0, 50);
    rest = rest.subarray(part.length);
    into.set(part);
    return { result: part.length };
  });
}

/** The list of mounts of a machine that has one. */
export function rootMount(type: string, options = "rw"): string {
  return `1 0 8:1 / / rw,relatime shared:1 - ${type} source ${options}\n`;
}
