/**
 * A POSIX file system in memory, as several processes see it at once: what the
 * page cache holds, over a {@linkcode Disk} that lags behind.
 *
 * Permissions, symbolic and hard links, files without a name that are still
 * open, inode numbers that are used again, locks that drop when the process
 * closes any descriptor of the file, mounts, a device that fills up, writes
 * that take a part, limits on names and descriptors.
 *
 * It imports nothing of a runtime, so that it runs in a browser as well.
 *
 * @module
 */

import { Disk, type EntryChange, type Metadata, written } from "./disk.ts";

export type Kind = "file" | "directory" | "symlink" | "other";

/** A system call that failed. */
export class PosixError extends Error {
  override name = "PosixError";
  readonly code: string;

  constructor(code: string, syscall: string, path = "") {
    super(`${code}: ${syscall} ${path}`);
    this.code = code;
  }
}

export interface Inode {
  /** Which file it is, for good. */
  readonly id: string;
  /** The number that `stat` shows: the lowest that is free, and so used again. */
  readonly ino: number;
  readonly device: number;
  readonly kind: Kind;
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  /** Of a file. */
  bytes: Uint8Array;
  /** Where a link leads. */
  readonly text: string;
  /** Of a directory. */
  readonly entries: Map<string, Inode>;
  /** How many descriptors are open. */
  opened: number;
  /** Those who have it locked; by each of its names, where names are inodes of their own to the kernel. */
  readonly locks: Map<string, FileLocks>;
}

/** Who has a file locked. */
export interface FileLocks {
  exclusive: Process | undefined;
  readonly shared: Set<Process>;
}

/** An open file. */
export interface Descriptor {
  readonly path: string;
  readonly inode: Inode;
  readonly writable: boolean;
  /** Whether all that is written goes to the end, wherever that is by then. */
  readonly appends: boolean;
  offset: number;
  isOpen: boolean;
}

/** Limits of the machine; all are far away unless a scenario brings them near. */
export interface Limits {
  /** Bytes of all files together. */
  capacity: number;
  /** What one write takes at the most; 0 makes each report that it took nothing. */
  writeBytes: number;
  /** Descriptors of one process. */
  descriptors: number;
}

const NAME_BYTES = 255;
const PATH_BYTES = 4096;
const MOST_LINKS = 40;
const STICKY = 0o1000;

/** One machine. */
export class Machine {
  readonly disk: Disk = new Disk();
  readonly limits: Limits = {
    capacity: Infinity,
    writeBytes: Infinity,
    descriptors: Infinity,
  };
  /** Whether there are other names than the first. */
  hasHardLinks = true;
  /** Whether nobody may link a file that he may neither own nor write to, as Linux has it by default. */
  protectsHardLinks = true;
  /** Whether each name of a file is an inode of its own to the kernel, as below a FUSE daemon that goes by paths. */
  locksNames = false;
  /**
   * Files of which nobody asks what a crash leaves: the disk knows nothing of
   * them, and they go by their numbers.
   */
  fleeting: RegExp | undefined;
  readonly root: Inode;
  readonly processes: Process[] = [];
  /** Another number after every change that somebody could see. */
  revision = 0;
  /** All that ever were, by their names for good. */
  readonly inodes: Map<string, Inode> = new Map();
  readonly #numbers = new Set<number>();
  #bytes = 0;

  constructor() {
    this.root = this.#make("/", "directory", {
      mode: 0o755,
      uid: 0,
      gid: 0,
    }, 1);
    this.root.nlink = 2;
  }

  /** A new process; those with the same pid are in different containers. */
  start(name: string, pid: number, uid = 0): Process {
    const process = new Process(this, name, pid, uid);
    this.processes.push(process);
    return process;
  }

  /** Waits until everything is on the disk. */
  syncAll(): void {
    for (const id of this.disk.nodes.keys()) this.disk.syncFile(id);
    for (const id of this.disk.entries.keys()) this.disk.syncDirectory(id);
  }

  /** A new inode, under the name that its maker gives it. */
  create(
    directory: Inode,
    name: string,
    id: string,
    kind: Kind,
    metadata: Metadata,
    text = "",
  ): Inode {
    const { device } = directory;
    const isFleeting = this.isFleeting(name);
    const inode = this.#make(id, kind, metadata, device, text, isFleeting);
    this.link(directory, name, inode);
    if (kind === "directory") directory.nlink++;
    return inode;
  }

  /** Another file system at a name of the root directory. */
  mount(name: string, device: number): void {
    const id = `/${name}`;
    const metadata = { mode: 0o755, uid: 0, gid: 0 };
    const mounted = this.#make(id, "directory", metadata, device);
    this.#set(this.root, name, mounted);
    this.disk.rename([{ directory: this.root.id, name, node: id }]);
  }

  link(directory: Inode, name: string, inode: Inode): void {
    this.#set(directory, name, inode);
    if (this.isFleeting(name)) return;
    this.disk.rename([{ directory: directory.id, name, node: inode.id }]);
  }

  unlink(directory: Inode, name: string): void {
    this.#remove(directory, name);
    if (this.isFleeting(name)) return;
    this.disk.rename([{ directory: directory.id, name, node: undefined }]);
  }

  rmdir(directory: Inode, name: string, inode: Inode): void {
    // Its own name for itself.
    inode.nlink--;
    directory.nlink--;
    this.unlink(directory, name);
  }

  isFleeting(name: string): boolean {
    return this.fleeting?.test(name) ?? false;
  }

  rename(from: Inode, oldName: string, to: Inode, newName: string): void {
    const inode = from.entries.get(oldName);
    if (inode === undefined || inode === to.entries.get(newName)) return;
    const changes: EntryChange[] = [
      { directory: to.id, name: newName, node: inode.id },
      { directory: from.id, name: oldName, node: undefined },
    ];
    if (to.entries.has(newName)) this.#remove(to, newName);
    this.#set(to, newName, inode);
    this.#remove(from, oldName);
    if (!this.isFleeting(newName)) this.disk.rename(changes);
  }

  change(inode: Inode, metadata: Metadata): void {
    Object.assign(inode, metadata);
    this.revision++;
    if (this.disk.nodes.has(inode.id)) this.disk.change(inode.id, metadata);
  }

  /** Takes as many bytes as there is room for. */
  write(inode: Inode, offset: number, bytes: Uint8Array): number {
    const room = this.limits.capacity - this.#bytes +
      Math.max(0, inode.bytes.length - offset);
    const taken = bytes.subarray(0, Math.min(this.limits.writeBytes, room));
    if (taken.length === 0 && bytes.length > 0) return 0;
    const before = inode.bytes.length;
    inode.bytes = written(inode.bytes, offset, taken);
    this.#bytes += inode.bytes.length - before;
    this.revision++;
    this.disk.write(inode.id, offset, taken);
    return taken.length;
  }

  truncate(inode: Inode, length: number): void {
    this.#bytes -= inode.bytes.length - length;
    this.revision++;
    inode.bytes = inode.bytes.slice(0, length);
    this.disk.truncate(inode.id, length);
  }

  /** Who has locked what is open there. */
  locksOf({ inode, path }: Pick<Descriptor, "inode" | "path">): FileLocks {
    const key = this.locksNames ? path : "";
    let locks = inode.locks.get(key);
    if (locks === undefined) {
      inode.locks.set(key, locks = { exclusive: undefined, shared: new Set() });
    }
    return locks;
  }

  /** Frees what has neither a name nor a descriptor. */
  free(inode: Inode): void {
    if (inode.nlink > 0 || inode.opened > 0) return;
    this.#numbers.delete(inode.ino);
    this.#bytes -= inode.bytes.length;
  }

  #make(
    id: string,
    kind: Kind,
    metadata: Metadata,
    device: number,
    text = "",
    isFleeting = false,
  ): Inode {
    let ino = 2;
    while (this.#numbers.has(ino)) ino++;
    this.#numbers.add(ino);
    if (!isFleeting) this.disk.create(id, kind, metadata, text);
    const inode: Inode = {
      id: isFleeting ? `#${ino}` : id,
      ino,
      device,
      kind,
      ...metadata,
      nlink: kind === "directory" ? 1 : 0,
      bytes: new Uint8Array(),
      text,
      entries: new Map(),
      opened: 0,
      locks: new Map(),
    };
    this.inodes.set(inode.id, inode);
    return inode;
  }

  #set(directory: Inode, name: string, inode: Inode): void {
    this.revision++;
    directory.entries.set(name, inode);
    inode.nlink++;
  }

  #remove(directory: Inode, name: string): void {
    this.revision++;
    const inode = directory.entries.get(name);
    if (inode === undefined) return;
    directory.entries.delete(name);
    inode.nlink--;
    this.free(inode);
  }
}

interface Place {
  readonly directory: Inode;
  readonly name: string;
  readonly inode: Inode | undefined;
}

/** A process: its system calls, and what it has open. */
export class Process {
  readonly name: string;
  readonly pid: number;
  readonly uid: number;
  readonly umask = 0o022;
  readonly descriptors: Set<Descriptor> = new Set();
  /** What it has made so far, to name what it makes next. */
  #made = 0;
  readonly #machine: Machine;

  constructor(machine: Machine, name: string, pid: number, uid: number) {
    this.#machine = machine;
    this.name = name;
    this.pid = pid;
    this.uid = uid;
  }

  create(path: string, mode: number): Descriptor {
    this.#checkDescriptors("create", path);
    const { directory, name, inode } = this.#find("create", path, false);
    if (inode !== undefined) throw new PosixError("EEXIST", "create", path);
    this.#checkAccess("create", path, directory, 0o3);
    const made = this.#make(directory, name, "file", mode & ~this.umask);
    return this.#open(path, made, true);
  }

  /** `O_WRONLY | O_CREAT | O_TRUNC`, which no protocol here may use: for controls. */
  openToOverwrite(path: string, mode: number): Descriptor {
    const { inode } = this.#find("open", path, true);
    if (inode === undefined) return this.create(path, mode);
    this.#checkDescriptors("open", path);
    this.#checkAccess("open", path, inode, 0o2);
    this.#machine.truncate(inode, 0);
    return this.#open(path, inode, true);
  }

  /** Opens what is there; to append to it if it shall be written. */
  open(
    path: string,
    { append = false }: { append?: boolean } = {},
  ): Descriptor {
    this.#checkDescriptors("open", path);
    const { inode } = this.#find("open", path, true);
    if (inode === undefined) throw new PosixError("ENOENT", "open", path);
    this.#checkAccess("open", path, inode, append ? 0o2 : 0o4);
    return this.#open(path, inode, append, append);
  }

  /** Opens what is there to read it and to append to it. */
  openAppend(path: string): Descriptor {
    this.#checkDescriptors("open", path);
    const { inode } = this.#find("open", path, true);
    if (inode === undefined) throw new PosixError("ENOENT", "open", path);
    if (inode.kind === "directory") {
      throw new PosixError("EISDIR", "open", path);
    }
    this.#checkAccess("open", path, inode, 0o6);
    return this.#open(path, inode, true, true);
  }

  read(file: Descriptor, into: Uint8Array, position?: number): number {
    this.#checkOpen("read", file);
    const { inode } = file;
    if (inode.kind === "directory") throw new PosixError("EISDIR", "read");
    const start = position ?? file.offset;
    const bytes = inode.bytes.subarray(start, start + into.length);
    into.set(bytes);
    if (position === undefined) file.offset += bytes.length;
    return bytes.length;
  }

  write(file: Descriptor, bytes: Uint8Array): number {
    this.#checkOpen("write", file);
    if (!file.writable) throw new PosixError("EBADF", "write", file.path);
    if (file.appends) file.offset = file.inode.bytes.length;
    const taken = this.#machine.write(file.inode, file.offset, bytes);
    const isRefused = taken === 0 && bytes.length > 0;
    if (isRefused && this.#machine.limits.writeBytes > 0) {
      throw new PosixError("ENOSPC", "write", file.path);
    }
    file.offset += taken;
    return taken;
  }

  truncate(file: Descriptor, length: number): void {
    this.#checkOpen("truncate", file);
    this.#machine.truncate(file.inode, length);
  }

  fstat(file: Descriptor): Inode {
    this.#checkOpen("fstat", file);
    return file.inode;
  }

  chmod(file: Descriptor, mode: number): void {
    this.#checkOpen("chmod", file);
    this.#checkOwner("chmod", file.inode);
    const { uid, gid } = file.inode;
    this.#machine.change(file.inode, { mode, uid, gid });
  }

  chown(file: Descriptor, uid: number, gid: number): void {
    this.#checkOpen("chown", file);
    const { inode } = file;
    if (this.uid !== 0 && (uid !== inode.uid || gid !== inode.gid)) {
      throw new PosixError("EPERM", "chown", file.path);
    }
    this.#machine.change(inode, { uid, gid, mode: inode.mode & ~0o6000 });
  }

  fsync(file: Descriptor): void {
    this.#checkOpen("fsync", file);
    const { inode } = file;
    if (inode.kind === "directory") this.#machine.disk.syncDirectory(inode.id);
    else this.#machine.disk.syncFile(inode.id);
  }

  /** A sync that fails: what it was to write will never be written. */
  failSync(file: Descriptor): void {
    this.#machine.disk.forget(file.inode.id);
  }

  /** Whether the file is this process's now; it stays so until it closes any descriptor of it. */
  tryLock(file: Descriptor): boolean {
    this.#checkOpen("lock", file);
    const locks = this.#machine.locksOf(file);
    if ([...locks.shared].some((other) => other !== this)) return false;
    locks.exclusive ??= this;
    return locks.exclusive === this;
  }

  /** Whether it shares the file now with whoever else does; it does so for as long. */
  tryShare(file: Descriptor): boolean {
    this.#checkOpen("lock", file);
    if (this.isLockedElsewhere(file)) return false;
    this.#machine.locksOf(file).shared.add(this);
    return true;
  }

  /** Whether another process has it locked. */
  isLockedElsewhere(file: Descriptor): boolean {
    const { exclusive } = this.#machine.locksOf(file);
    return exclusive !== undefined && exclusive !== this;
  }

  close(
    file: Descriptor,
    { keepsLocks = false }: { keepsLocks?: boolean } = {},
  ): void {
    this.#checkOpen("close", file);
    file.isOpen = false;
    this.descriptors.delete(file);
    const { inode } = file;
    inode.opened--;
    if (!keepsLocks) {
      const locks = this.#machine.locksOf(file);
      locks.shared.delete(this);
      if (locks.exclusive === this) locks.exclusive = undefined;
    }
    this.#machine.free(inode);
  }

  lstat(path: string): Inode {
    const { inode } = this.#find("lstat", path, false);
    if (inode === undefined) throw new PosixError("ENOENT", "lstat", path);
    return inode;
  }

  readlink(path: string): string {
    const inode = this.lstat(path);
    if (inode.kind !== "symlink") throw new PosixError("EINVAL", "readlink");
    return inode.text;
  }

  realpath(path: string): string {
    const names: string[] = [];
    const { inode } = this.#find("realpath", path, true, names);
    if (inode === undefined) throw new PosixError("ENOENT", "realpath", path);
    return `/${names.join("/")}`;
  }

  mkdir(path: string): void {
    const { directory, name, inode } = this.#find("mkdir", path, false);
    if (inode !== undefined) throw new PosixError("EEXIST", "mkdir", path);
    this.#checkAccess("mkdir", path, directory, 0o3);
    this.#make(directory, name, "directory", 0o777 & ~this.umask);
  }

  rmdir(path: string): void {
    const place = this.#find("rmdir", path, false);
    const { inode } = place;
    if (inode === undefined) throw new PosixError("ENOENT", "rmdir", path);
    if (inode.kind !== "directory") {
      throw new PosixError("ENOTDIR", "rmdir", path);
    }
    if (inode.entries.size > 0) {
      throw new PosixError("ENOTEMPTY", "rmdir", path);
    }
    this.#checkRemoval("rmdir", path, place);
    this.#machine.rmdir(place.directory, place.name, inode);
  }

  symlink(text: string, path: string): void {
    const { directory, name, inode } = this.#find("symlink", path, false);
    if (inode !== undefined) throw new PosixError("EEXIST", "symlink", path);
    this.#checkAccess("symlink", path, directory, 0o3);
    this.#make(directory, name, "symlink", 0o777, text);
  }

  link(from: string, to: string): void {
    const { inode } = this.#find("link", from, false);
    if (inode === undefined) throw new PosixError("ENOENT", "link", from);
    const target = this.#find("link", to, false);
    if (target.inode !== undefined) throw new PosixError("EEXIST", "link", to);
    this.#checkDevice("link", to, inode, target.directory);
    this.#checkAccess("link", to, target.directory, 0o3);
    if (inode.kind === "directory") throw new PosixError("EPERM", "link", from);
    if (!this.#machine.hasHardLinks) throw new PosixError("EPERM", "link", to);
    this.#checkLink(from, inode);
    this.#machine.link(target.directory, target.name, inode);
  }

  rename(from: string, to: string): void {
    const source = this.#find("rename", from, false);
    const target = this.#find("rename", to, false);
    const { inode } = source;
    if (inode === undefined) throw new PosixError("ENOENT", "rename", from);
    if (target.inode?.kind === "directory") {
      const isAbove = holds(target.inode, source.directory);
      throw new PosixError(isAbove ? "ENOTEMPTY" : "EISDIR", "rename", to);
    }
    this.#checkDevice("rename", to, inode, target.directory);
    this.#checkRemoval("rename", from, source);
    this.#checkRemoval("rename", to, target);
    this.#machine.rename(
      source.directory,
      source.name,
      target.directory,
      target.name,
    );
  }

  unlink(path: string): void {
    const place = this.#find("unlink", path, false);
    if (place.inode === undefined) {
      throw new PosixError("ENOENT", "unlink", path);
    }
    if (place.inode.kind === "directory") {
      throw new PosixError("EISDIR", "unlink", path);
    }
    this.#checkRemoval("unlink", path, place);
    this.#machine.unlink(place.directory, place.name);
  }

  readdir(path: string): string[] {
    const { inode } = this.#find("readdir", path, true);
    if (inode === undefined) throw new PosixError("ENOENT", "readdir", path);
    if (inode.kind !== "directory") {
      throw new PosixError("ENOTDIR", "readdir", path);
    }
    this.#checkAccess("readdir", path, inode, 0o4);
    // In any order: in this one, what differs in nothing else is one state.
    return [...inode.entries.keys()].sort();
  }

  /** What the file has that it has open by this path. */
  openedBy(path: string): Uint8Array | undefined {
    return [...this.descriptors].find((file) => file.path === path)?.inode
      .bytes;
  }

  /** A process of another user on the same machine. */
  fork(name: string, uid: number): Process {
    return new Process(this.#machine, name, this.pid, uid);
  }

  /** Ends at once, as by SIGKILL. */
  kill(): void {
    for (const file of [...this.descriptors]) this.close(file);
  }

  #make(directory: Inode, name: string, kind: Kind, mode: number, text = "") {
    const count = this.#machine.isFleeting(name) ? this.#made : ++this.#made;
    const id = `${this.name}.${count}`;
    const metadata = { mode, uid: this.uid, gid: this.uid };
    return this.#machine.create(directory, name, id, kind, metadata, text);
  }

  #open(
    path: string,
    inode: Inode,
    writable: boolean,
    appends = false,
  ): Descriptor {
    const file = { path, inode, writable, appends, offset: 0, isOpen: true };
    inode.opened++;
    this.descriptors.add(file);
    return file;
  }

  /** Walks a path; the names of the way without links are added to `names`. */
  #find(
    syscall: string,
    path: string,
    follow: boolean,
    names: string[] = [],
  ): Place {
    if (path.length > PATH_BYTES) {
      throw new PosixError("ENAMETOOLONG", syscall, path);
    }
    const rest = partsOf(path);
    const way = [this.#machine.root];
    let place: Place = {
      directory: way[0] ?? this.#machine.root,
      name: "",
      inode: way[0],
    };
    for (let links = 0; rest.length > 0;) {
      const name = rest.shift() ?? "";
      const directory = way.at(-1) ?? this.#machine.root;
      if (directory.kind !== "directory") {
        throw new PosixError("ENOTDIR", syscall, path);
      }
      if (bytesOf(name) > NAME_BYTES) {
        throw new PosixError("ENAMETOOLONG", syscall, path);
      }
      this.#checkAccess(syscall, path, directory, 0o1);
      if (name === "..") {
        if (way.length > 1) way.pop();
        names.pop();
        place = { directory, name, inode: way.at(-1) };
        continue;
      }
      const inode = directory.entries.get(name);
      place = { directory, name, inode };
      if (inode?.kind === "symlink" && (follow || rest.length > 0)) {
        if (++links > MOST_LINKS) throw new PosixError("ELOOP", syscall, path);
        rest.unshift(...partsOf(inode.text));
        if (inode.text.startsWith("/")) {
          way.length = 1;
          names.length = 0;
        }
        place = {
          directory: way.at(-1) ?? this.#machine.root,
          name: "",
          inode: way.at(-1),
        };
        continue;
      }
      if (inode === undefined) {
        if (rest.length > 0) throw new PosixError("ENOENT", syscall, path);
        break;
      }
      way.push(inode);
      names.push(name);
    }
    return place;
  }

  #checkAccess(syscall: string, path: string, inode: Inode, access: number) {
    if (this.uid === 0) return;
    const { mode, uid, gid } = inode;
    const bits = uid === this.uid
      ? mode >> 6
      : gid === this.uid
      ? mode >> 3
      : mode;
    if ((bits & access) !== access) {
      throw new PosixError("EACCES", syscall, path);
    }
  }

  /** Whether the name may be taken from its directory: in a sticky one only by the owner. */
  #checkRemoval(syscall: string, path: string, place: Place): void {
    const { directory, inode } = place;
    this.#checkAccess(syscall, path, directory, 0o3);
    const isOurs = [0, directory.uid, inode?.uid].includes(this.uid);
    if (inode !== undefined && (directory.mode & STICKY) !== 0 && !isOurs) {
      throw new PosixError("EPERM", syscall, path);
    }
  }

  #checkLink(path: string, inode: Inode): void {
    if (!this.#machine.protectsHardLinks) return;
    if (this.uid === 0 || this.uid === inode.uid) return;
    try {
      if (inode.kind === "file") this.#checkAccess("link", path, inode, 0o6);
      else throw new PosixError("EACCES", "link", path);
    } catch {
      throw new PosixError("EPERM", "link", path);
    }
  }

  #checkOwner(syscall: string, inode: Inode): void {
    if (this.uid !== 0 && this.uid !== inode.uid) {
      throw new PosixError("EPERM", syscall);
    }
  }

  #checkDevice(syscall: string, path: string, inode: Inode, to: Inode): void {
    if (inode.device !== to.device) {
      throw new PosixError("EXDEV", syscall, path);
    }
  }

  #checkDescriptors(syscall: string, path: string): void {
    if (this.descriptors.size >= this.#machine.limits.descriptors) {
      throw new PosixError("EMFILE", syscall, path);
    }
  }

  #checkOpen(syscall: string, file: Descriptor): void {
    if (!file.isOpen) throw new PosixError("EBADF", syscall, file.path);
  }
}

function bytesOf(name: string): number {
  // Three bytes a character are the most.
  return 3 * name.length <= NAME_BYTES
    ? name.length
    : new TextEncoder().encode(name).length;
}

/** Whether a directory is another one, or above it. */
function holds(directory: Inode, other: Inode): boolean {
  return directory === other ||
    [...directory.entries.values()].some((child) => holds(child, other));
}

function partsOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}
