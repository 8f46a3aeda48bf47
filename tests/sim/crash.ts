/**
 * What may be on the disk after a crash.
 *
 * - `"any"`: of the directory changes that are not synced, every subset may
 *   have come through; of the bytes, each write may be lost, whole, half, zeros
 *   or what was on the disk before; metadata as before or after any change.
 * - `"ordered"`: of the directory changes a prefix came through, in their order;
 *   of the writes of each file likewise, with a half of the one after it.
 *
 * Both are legal for POSIX; the second is what journals make of it.
 *
 * @module
 */

import {
  apply,
  type Disk,
  type DiskNode,
  type Entries,
  type Metadata,
  type PendingChange,
  type PendingWrite,
  performed,
} from "./disk.ts";

export type CrashModel = "any" | "ordered";
export const CRASH_MODELS: readonly CrashModel[] = ["any", "ordered"];

/** A node as it is found after a crash. */
export interface FoundNode {
  readonly kind: DiskNode["kind"];
  readonly text: string;
  readonly bytes: Uint8Array;
  readonly metadata: Metadata;
}

/** A disk as it is found after a crash. */
export interface DiskImage {
  readonly entries: Entries;
  node(id: string): FoundNode;
}

/** How far the legal states are enumerated. */
export interface CrashBounds {
  /** Of so many unsynced directory changes all subsets are looked at; of more, a sample. */
  readonly changes: number;
  /** So many images of one directory state are looked at; beyond, a sample. */
  readonly images: number;
  /** For the samples. */
  random(): number;
}

const STALE = 0xa5;

/** The states that a crash may leave, and whether they are all there are. */
export function* crashImages(
  disk: Disk,
  model: CrashModel,
  bounds: CrashBounds,
): Generator<DiskImage, void, undefined> {
  for (const changes of survivingChanges(disk.pending, model, bounds)) {
    const entries = new Map(
      Array.from(disk.entries, ([id, names]) => [id, new Map(names)]),
    );
    apply(entries, changes);
    const open = [...reachable(entries)].flatMap((id) => {
      const node = disk.nodes.get(id);
      if (node === undefined || !isPending(node)) return [];
      return [{ id, states: nodeStates(node, model) }];
    });
    const total = open.reduce(
      (product, { states }) => product * states.length,
      1,
    );
    const isAll = total <= bounds.images;
    for (let index = 0; index < Math.min(total, bounds.images); index++) {
      const found = new Map<string, FoundNode>();
      let rest = isAll ? index : Math.floor(bounds.random() * total);
      for (const { id, states } of open) {
        const state = states[rest % states.length];
        rest = Math.floor(rest / states.length);
        if (state !== undefined) found.set(id, state);
      }
      yield {
        entries,
        node(id) {
          const node = found.get(id) ?? disk.nodes.get(id);
          if (node === undefined) throw new Error(`No node ${id}`);
          return node;
        },
      };
    }
  }
}

/** Whether {@linkcode crashImages} would have to sample. */
export function isSampled(
  disk: Disk,
  model: CrashModel,
  bounds: CrashBounds,
): boolean {
  if (model === "any" && disk.pending.length > bounds.changes) return true;
  let total = 1;
  for (const node of disk.nodes.values()) {
    if (isPending(node)) total *= nodeStates(node, model).length;
  }
  return total > bounds.images;
}

function* survivingChanges(
  pending: readonly PendingChange[],
  model: CrashModel,
  { changes: most, random }: CrashBounds,
): Generator<readonly PendingChange[], void, undefined> {
  if (model === "ordered" || pending.length > most) {
    for (let length = 0; length <= pending.length; length++) {
      yield pending.slice(0, length);
    }
  }
  if (model === "ordered") return;
  const subset = (bits: number) =>
    pending.filter((_, index) => Math.floor(bits / 2 ** index) % 2 === 1);
  const total = 2 ** Math.min(pending.length, most);
  for (let bits = 0; bits < total; bits++) {
    yield pending.length <= most
      ? subset(bits)
      : subset(Math.floor(random() * 2 ** pending.length));
  }
}

function reachable(entries: Entries): Set<string> {
  const found = new Set(["/"]);
  // A set is iterated over what is added meanwhile as well.
  for (const id of found) {
    for (const child of entries.get(id)?.values() ?? []) found.add(child);
  }
  return found;
}

function isPending(node: DiskNode): boolean {
  return node.pendingWrites.length > 0 || node.pendingMetadata.length > 0;
}

/** What may have become of one node, each state once. */
function nodeStates(node: DiskNode, model: CrashModel): FoundNode[] {
  const { kind, text, metadata, pendingMetadata } = node;
  const metadatas = [metadata, ...pendingMetadata];
  const contents = model === "any" ? anyContents(node) : orderedContents(node);
  const distinct = new Map(contents.map((bytes) => [bytes.join(), bytes]));
  return [...distinct.values()].flatMap((bytes) =>
    metadatas.map((metadata) => ({ kind, text, bytes, metadata }))
  );
}

function anyContents({ bytes, pendingWrites }: DiskNode): Uint8Array[] {
  return pendingWrites.reduce<Uint8Array[]>(
    (contents, write) =>
      contents.flatMap((content) => [
        content,
        performed(content, write),
        ...damaged(write).map((bytes) => performed(content, bytes)),
      ]),
    [bytes],
  );
}

/** What else than nothing or all may come of a write. */
function damaged(write: PendingWrite): PendingWrite[] {
  if ("length" in write) return [];
  const { offset, bytes } = write;
  const zeros = new Uint8Array(bytes.length);
  return [
    half(write),
    { offset, bytes: zeros },
    { offset, bytes: zeros.slice().fill(STALE) },
  ];
}

function orderedContents({ bytes, pendingWrites }: DiskNode): Uint8Array[] {
  const contents = [bytes];
  let content = bytes;
  for (const write of pendingWrites) {
    contents.push(performed(content, half(write)));
    content = performed(content, write);
    contents.push(content);
  }
  return contents;
}

function half(write: PendingWrite): PendingWrite {
  if ("length" in write) return write;
  const { offset, bytes } = write;
  return { offset, bytes: bytes.subarray(0, Math.floor(bytes.length / 2)) };
}
