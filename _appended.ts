/**
 * What this realm knows of the files that it has appended to.
 *
 * @module
 */

import type { FileStatus, Port } from "./_runtime/port.ts";

/** Which file, and where. */
export interface Place {
  readonly path: string;
  readonly status: FileStatus;
}

/** That its place in its directory is on the disk; that the last records are not, or are; that there may be a hole in it. */
export type Knowledge = "placed" | "synced" | "unsynced" | "broken";

export interface Known {
  /** Where that was. */
  readonly path: string;
  /** That it had at least. */
  readonly size: number;
  readonly knowledge: Knowledge;
}

const knownByPort = new WeakMap<Port, Map<string, Known>>();
/** Bounds the memory: of so many, the oldest are forgotten. */
const MOST_KNOWN = 10_000;

function knownFiles(port: Port): Map<string, Known> {
  let known = knownByPort.get(port);
  if (known === undefined) knownByPort.set(port, known = new Map());
  return known;
}

/** By whatever name. Of another file nothing is known: one that was made after the old one was removed may have the same number, but is shorter. */
export function knownOf(port: Port, { status }: Place): Known | undefined {
  const known = knownFiles(port).get(keyOf(status));
  return known !== undefined && known.size <= status.size ? known : undefined;
}

/** At this name: it may have been moved since. */
export function isPlaced(port: Port, end: Place): boolean {
  const known = knownOf(port, end);
  return known?.knowledge === "placed" && known.path === end.path;
}

/** Forgets that the place of the file there is on the disk: it gets another name, and may come back. */
export function forgetPlace(port: Port, path: string): void {
  const files = knownFiles(port);
  for (const [key, known] of files) {
    if (known.path !== path || known.knowledge !== "placed") continue;
    files.set(key, { ...known, knowledge: "synced" });
  }
}

export function note(
  port: Port,
  { path, status }: Place,
  knowledge: Knowledge,
): void {
  const known = knownFiles(port);
  // Again, so that it counts as the newest.
  const key = keyOf(status);
  known.delete(key);
  known.set(key, { path, size: status.size, knowledge });
  const [oldest] = known.keys();
  if (known.size > MOST_KNOWN && oldest !== undefined) known.delete(oldest);
}

function keyOf({ dev, ino, birthMs }: FileStatus): string {
  return `${dev}:${ino}:${birthMs}`;
}
