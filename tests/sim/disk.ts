/**
 * What of a file system has reached the disk. Everything else is in the page
 * cache: a crash may lose any of it.
 *
 * - The bytes and the metadata of a file become durable by a sync of that file.
 * - The entries of a directory become durable by a sync of that directory.
 * - A sync that fails loses what it was to write: the cache keeps it, marked
 *   clean, and no later sync writes it.
 *
 * @module
 */

export interface Metadata {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** What was done to the content of a file and is not synced. */
export type PendingWrite =
  | { readonly offset: number; readonly bytes: Uint8Array }
  | { readonly length: number };

/** A file, a directory or a link as the disk knows it. */
export interface DiskNode {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Where a link leads. */
  readonly text: string;
  bytes: Uint8Array;
  metadata: Metadata;
  pendingWrites: PendingWrite[];
  /** One change after the other. */
  pendingMetadata: Metadata[];
}

/** A name in a directory that got another meaning, or none. */
export interface EntryChange {
  readonly directory: string;
  readonly name: string;
  readonly node: string | undefined;
}

/** Changes that happen together or not at all. */
export type PendingChange = readonly EntryChange[];

export type Entries = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** The disk: what is durable, and what is still to become so. Nodes go by names that are never used again. */
export class Disk {
  readonly nodes: Map<string, DiskNode> = new Map();
  readonly entries: Map<string, Map<string, string>> = new Map();
  pending: PendingChange[] = [];
  /** Another number after every change. */
  revision = 0;

  /** A node that no directory names yet. */
  create(
    id: string,
    kind: DiskNode["kind"],
    metadata: Metadata,
    text = "",
  ): void {
    this.revision++;
    this.nodes.set(id, {
      kind,
      text,
      bytes: new Uint8Array(),
      metadata,
      pendingWrites: [],
      pendingMetadata: [],
    });
    if (kind === "directory") this.entries.set(id, new Map());
  }

  write(id: string, offset: number, bytes: Uint8Array): void {
    this.revision++;
    this.#node(id).pendingWrites.push({ offset, bytes: bytes.slice() });
  }

  truncate(id: string, length: number): void {
    this.revision++;
    this.#node(id).pendingWrites.push({ length });
  }

  change(id: string, metadata: Metadata): void {
    this.revision++;
    this.#node(id).pendingMetadata.push(metadata);
  }

  /** Within one directory they are one change; of two, one may come without the other. */
  rename(changes: readonly EntryChange[]): void {
    this.revision++;
    const directories = new Set(changes.map(({ directory }) => directory));
    if (directories.size === 1) this.pending.push(changes);
    else this.pending.push(...changes.map((change) => [change]));
  }

  syncFile(id: string): void {
    this.revision++;
    const node = this.#node(id);
    for (const write of node.pendingWrites) {
      node.bytes = performed(node.bytes, write);
    }
    node.pendingWrites = [];
    node.metadata = node.pendingMetadata.at(-1) ?? node.metadata;
    node.pendingMetadata = [];
  }

  syncDirectory(id: string): void {
    this.revision++;
    const isSynced = (change: PendingChange) =>
      change.some(({ directory }) => directory === id);
    apply(this.entries, this.pending.filter(isSynced));
    this.pending = this.pending.filter((change) => !isSynced(change));
    this.syncFile(id);
  }

  /** After a failed sync: nobody will write it any more. */
  forget(id: string): void {
    this.revision++;
    const node = this.#node(id);
    node.pendingWrites = [];
    node.pendingMetadata = [];
    this.pending = this.pending.filter((change) =>
      !change.some(({ directory }) => directory === id)
    );
  }

  #node(id: string): DiskNode {
    const node = this.nodes.get(id);
    if (node === undefined) throw new Error(`No node ${id}`);
    return node;
  }
}

/** The content once the write has come through. */
export function performed(
  content: Uint8Array,
  write: PendingWrite,
): Uint8Array {
  return "length" in write
    ? content.slice(0, write.length)
    : written(content, write.offset, write.bytes);
}

/** The content with `bytes` at `offset`, zeros in between. */
export function written(
  content: Uint8Array,
  offset: number,
  bytes: Uint8Array,
): Uint8Array {
  const length = Math.max(content.length, offset + bytes.length);
  const result = new Uint8Array(length);
  result.set(content);
  result.set(bytes, offset);
  return result;
}

/** Carries out changes, in order. */
export function apply(
  entries: Map<string, Map<string, string>>,
  changes: readonly PendingChange[],
): void {
  for (const { directory, name, node } of changes.flat()) {
    let names = entries.get(directory);
    if (names === undefined) entries.set(directory, names = new Map());
    if (node === undefined) names.delete(name);
    else names.set(name, node);
  }
}
