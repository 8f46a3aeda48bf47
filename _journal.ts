/**
 * Whether an ext4 has its journal, which can be left out when it is made, and of
 * which the list of mounts says nothing.
 *
 * @module
 */

import { nameOf } from "./_path.ts";
import { call, closing, type Protocol, SystemCallError } from "./_protocol.ts";
import type { Host } from "./_runtime/port.ts";

/** `device` is its numbers, as in `"8:1"`; `undefined` where it cannot be found out. */
export function* hasJournal(
  host: Host,
  device: string,
): Protocol<boolean | undefined> {
  const link = `/sys/dev/block/${device}`;
  // Asked for instead, Deno might ask the user.
  if (host.permission("read", link) !== "granted") return undefined;
  try {
    const name = nameOf(host, yield* call("realpath", link));
    const path = `/sys/fs/ext4/${name}/journal_task`;
    if (host.permission("read", path) !== "granted") return undefined;
    const file = yield* call("open", path);
    // The number of the process that writes it.
    const buffer = new Uint8Array(32);
    const length = yield* closing(file, () => call("read", file, buffer));
    const text = new TextDecoder().decode(buffer.subarray(0, length));
    return /^\d+\s*$/.test(text) ? true : /none/.test(text) ? false : undefined;
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return undefined;
  }
}
