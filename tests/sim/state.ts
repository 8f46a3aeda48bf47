/**
 * States as texts, the same for the same.
 *
 * @module
 */

import type { Disk } from "./disk.ts";
import type { Machine } from "./posix.ts";

/** All that is on the machine, as a text. */
export function machineKey({ root, inodes, processes }: Machine): string {
  const parts: string[] = [];
  // Those that have lost their name too, as long as somebody has them open.
  const open = [...inodes.values()].filter(({ opened }) => opened > 0);
  const seen = new Set([
    root,
    ...open.sort((one, other) => one.ino - other.ino),
  ]);
  for (const inode of seen) {
    const { id, ino, mode, uid, gid, nlink, bytes } = inode;
    parts.push(id, `${ino},${mode},${uid},${gid},${nlink}`, bytes.join());
    for (const [path, { exclusive, shared }] of inode.locks) {
      if (exclusive !== undefined) {
        parts.push(`locked ${path} by ${exclusive.name}`);
      }
      for (const { name } of shared) parts.push(`shared ${path} by ${name}`);
    }
    for (const [name, child] of [...inode.entries].sort(byName)) {
      parts.push(name, child.id);
      seen.add(child);
    }
  }
  for (const { name, descriptors } of processes) {
    parts.push(name);
    for (const { path, inode, offset } of descriptors) {
      parts.push(`${path}=${inode.id}@${offset}`);
    }
  }
  return parts.join(" ");
}

function byName([one]: [string, unknown], [other]: [string, unknown]): number {
  return one < other ? -1 : 1;
}

/** All that is on the disk, and is still to come there. */
export function diskKey(disk: Disk): string {
  const parts: string[] = [];
  for (const [id, node] of disk.nodes) {
    parts.push(id, node.bytes.join());
    for (const write of node.pendingWrites) {
      parts.push(
        "length" in write
          ? `cut ${write.length}`
          : `${write.offset}:${write.bytes.join()}`,
      );
    }
    for (const { mode, uid, gid } of [node.metadata, ...node.pendingMetadata]) {
      parts.push(`${mode},${uid},${gid}`);
    }
  }
  for (const [id, names] of disk.entries) {
    parts.push(id);
    for (const [name, node] of names) parts.push(`${name}=${node}`);
  }
  for (const changes of disk.pending) {
    for (const { directory, name, node } of changes) {
      parts.push(`${directory}/${name}=${node}`);
    }
    parts.push(";");
  }
  return parts.join(" ");
}
