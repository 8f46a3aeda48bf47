/**
 * What each type of file system is known to hold, and how it is known. A level
 * is `guaranteed` only where the kernel's documentation says so and a test of
 * this repository runs on it; what is documented and not tested is
 * `best-effort`.
 *
 * @module
 */

import type { Guarantee } from "./_options.ts";

/**
 * How far a guarantee holds.
 *
 * - `"guaranteed"`: the kernel's documentation says so, and a test of this
 *   library runs on it.
 * - `"best-effort"`: it should hold, and nothing here shows it.
 * - `"not-promised"`: it is known not to hold always.
 * - `"unsupported"`: what it needs is missing, and the call fails.
 * - `"unknown"`: it could not be found out.
 */
export type GuaranteeLevel =
  | "guaranteed"
  | "best-effort"
  | "not-promised"
  | "unsupported"
  | "unknown";

/**
 * A kind of file system: on a device of this machine, in its memory, layered
 * over others, on a server or on a disk of several machines (`"network"`), in an
 * object store, made by a daemon (FUSE), or shared by the host of a virtual
 * machine.
 */
export type FilesystemClass =
  | "disk"
  | "memory"
  | "overlay"
  | "network"
  | "object-store"
  | "fuse"
  | "host-share"
  | "unknown";

/** What depends on the file system. */
export type Levels = Readonly<
  Record<Exclude<Guarantee, "crossDeviceSafety">, GuaranteeLevel>
>;

/** What a call asks of a file system. */
export type Need = "rename" | "lock";

/** A type of file system. */
export interface Filesystem {
  /** As `/proc/self/mountinfo` spells it, the usual spelling first. */
  readonly names: readonly [string, ...string[]];
  /** What `statfs` reports on Linux. */
  readonly magic: readonly number[];
  /** What `statfs` reports on macOS, where Apple calls it reserved. */
  readonly darwinType?: number;
  readonly class: FilesystemClass;
  readonly levels: Levels;
  /** What it is known not to do. */
  readonly lacks: readonly Need[];
  /** Why, in words. */
  readonly note: string;
  /** Where that is from: an address, or a file of this repository. */
  readonly source: string;
}

/** Of every daemon, and of virtiofs. */
const FUSE = 0x65735546;

const LAB = "tests/lab/guarantees.lab.ts";
const KERNEL = "https://docs.kernel.org/filesystems";

const JOURNALED: Levels = {
  atomicVisibility: "guaranteed",
  crashDurability: "guaranteed",
  writerExclusion: "guaranteed",
  integrityDetection: "not-promised",
  metadataPreservation: "best-effort",
};

const UNTESTED: Levels = {
  ...JOURNALED,
  atomicVisibility: "best-effort",
  crashDurability: "best-effort",
  writerExclusion: "best-effort",
};

const MEMORY: Levels = { ...JOURNALED, crashDurability: "not-promised" };

/** A server that others use too. */
const REMOTE: Levels = { ...UNTESTED, writerExclusion: "not-promised" };

const COPIES: Levels = {
  ...REMOTE,
  atomicVisibility: "not-promised",
  crashDurability: "not-promised",
  metadataPreservation: "not-promised",
};

/** No owner, no mode, no hard link: locks and `createNew` need these. */
const NO_LINKS: Levels = {
  ...UNTESTED,
  writerExclusion: "unsupported",
  metadataPreservation: "unsupported",
};

const READ_ONLY: Levels = {
  atomicVisibility: "unsupported",
  crashDurability: "unsupported",
  writerExclusion: "unsupported",
  integrityDetection: "not-promised",
  metadataPreservation: "unsupported",
};

const CHECKSUMMED = { integrityDetection: "best-effort" } as const;

/** Where nothing is known. */
export const UNKNOWN: Levels = {
  atomicVisibility: "unknown",
  crashDurability: "unknown",
  writerExclusion: "unknown",
  integrityDetection: "not-promised",
  metadataPreservation: "unknown",
};

/** The types that are known. */
export const FILESYSTEMS: readonly Filesystem[] = [
  {
    names: ["ext2"],
    magic: [0xef53],
    class: "disk",
    levels: { ...JOURNALED, crashDurability: "best-effort" },
    lacks: [],
    note:
      "it has no journal: a power cut leaves a check to be made, which may lose a name",
    source: `${KERNEL}/ext2.html, ${LAB}`,
  },
  {
    names: ["ext3"],
    magic: [0xef53],
    class: "disk",
    levels: { ...JOURNALED, crashDurability: "best-effort" },
    lacks: [],
    note: "older kernels mount it without barriers",
    source: `${KERNEL}/ext3.html, ${LAB}`,
  },
  {
    names: ["ext4"],
    magic: [0xef53],
    class: "disk",
    levels: JOURNALED,
    lacks: [],
    note:
      "its journal keeps a synced rename; one that is made without is looked for",
    source: `${KERNEL}/ext4/journal.html, ${LAB}`,
  },
  {
    names: ["xfs"],
    magic: [0x58465342],
    class: "disk",
    levels: JOURNALED,
    lacks: [],
    note: "its journal keeps a synced rename",
    source: `${KERNEL}/xfs/xfs-delayed-logging-design.html, ${LAB}`,
  },
  {
    names: ["btrfs"],
    magic: [0x9123683e],
    class: "disk",
    levels: { ...JOURNALED, ...CHECKSUMMED },
    lacks: [],
    note: "it checks its own blocks when they are read",
    source:
      `https://btrfs.readthedocs.io/en/latest/ch-mount-options.html, ${LAB}`,
  },
  {
    names: ["zfs"],
    magic: [0x2fc12fc1],
    class: "disk",
    levels: { ...UNTESTED, ...CHECKSUMMED },
    lacks: [],
    note: "not tested here, and its property sync=disabled cannot be seen",
    source:
      "https://openzfs.github.io/openzfs-docs/man/master/7/zfsprops.7.html",
  },
  {
    names: ["f2fs"],
    magic: [0xf2f52010],
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source: `${KERNEL}/f2fs.html`,
  },
  {
    names: ["bcachefs"],
    magic: [0xca451a4e],
    class: "disk",
    levels: { ...UNTESTED, ...CHECKSUMMED },
    lacks: [],
    note: "not tested here",
    source: "https://bcachefs.org/bcachefs-principles-of-operation.pdf",
  },
  {
    names: ["tmpfs", "devtmpfs"],
    magic: [0x01021994],
    class: "memory",
    levels: MEMORY,
    lacks: [],
    note: "it is memory: no content survives a power cut",
    source: `${KERNEL}/tmpfs.html, ${LAB}`,
  },
  {
    names: ["ramfs"],
    magic: [0x858458f6],
    class: "memory",
    levels: MEMORY,
    lacks: [],
    note: "it is memory: no content survives a power cut",
    source: `${KERNEL}/ramfs-rootfs-initramfs.html, ${LAB}`,
  },
  {
    names: ["overlay", "overlayfs"],
    magic: [0x794c7630],
    class: "overlay",
    levels: UNKNOWN,
    lacks: [],
    note: "it holds what its upper layer does",
    source: `${KERNEL}/overlayfs.html, ${LAB}`,
  },
  {
    names: ["nfs", "nfs4"],
    magic: [0x6969],
    darwinType: 2,
    class: "network",
    levels: REMOTE,
    lacks: ["rename", "lock"],
    note:
      "a lost answer leaves open whether a rename was done, another machine may see the old file for a while, and what is durable is the server's choice",
    source: "https://man7.org/linux/man-pages/man5/nfs.5.html",
  },
  {
    names: ["cifs", "smb3"],
    magic: [0xff534d42, 0xfe534d42],
    class: "network",
    levels: REMOTE,
    lacks: ["rename", "lock"],
    note:
      "a file that somebody has open may not be replaced, and what is durable is the server's choice",
    source: "https://man7.org/linux/man-pages/man8/mount.cifs.8.html",
  },
  {
    names: ["smbfs"],
    magic: [0x517b],
    class: "network",
    levels: REMOTE,
    lacks: ["rename", "lock"],
    note:
      "a file that somebody has open may not be replaced, and what is durable is the server's choice",
    source: "https://man7.org/linux/man-pages/man2/statfs.2.html",
  },
  {
    names: ["afs"],
    // That of OpenAFS, and that of the kernel's own.
    magic: [0x5346414f, 0x6b414653],
    class: "network",
    levels: REMOTE,
    lacks: ["rename", "lock"],
    note: "what is written reaches the server when the file is closed",
    source: `${KERNEL}/afs.html`,
  },
  {
    names: ["ceph"],
    magic: [0x00c36400],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note: "its servers keep one view for all; not tested here",
    source: "https://docs.ceph.com/en/latest/cephfs/posix/",
  },
  {
    names: ["fuse.ceph-fuse", "fuse.ceph"],
    magic: [FUSE],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note: "its servers keep one view for all; not tested here",
    source: "https://docs.ceph.com/en/latest/cephfs/posix/",
  },
  {
    names: ["fuse.glusterfs"],
    magic: [FUSE],
    class: "network",
    levels: REMOTE,
    lacks: ["rename", "lock"],
    note:
      "a rename is several steps on several servers, which another machine may see",
    source: "https://github.com/gluster/glusterfs/issues/902",
  },
  {
    names: ["lustre"],
    magic: [0x0bd00bd0],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "whether a lock holds on other machines is a mount option; not tested here",
    source: "https://doc.lustre.org/lustre_manual.xhtml",
  },
  {
    names: ["gpfs"],
    magic: [0x47504653],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note: "its machines keep one view for all; not tested here",
    source: "https://www.ibm.com/docs/en/storage-scale",
  },
  {
    names: ["beegfs", "fhgfs"],
    magic: [0x19830326],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "a lock holds on one machine unless tuneUseGlobalFileLocks says otherwise; not tested here",
    source:
      "https://github.com/ThinkParQ/beegfs/blob/master/client_module/build/dist/etc/beegfs-client.conf",
  },
  {
    names: ["ocfs2"],
    magic: [0x7461636f],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "a disk of several machines, among which a lock may not hold; not tested here",
    source: `${KERNEL}/ocfs2.html`,
  },
  {
    names: ["gfs2"],
    magic: [0x01161970],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "a disk of several machines, among which a lock may not hold; not tested here",
    source: `${KERNEL}/gfs2/index.html`,
  },
  {
    names: ["fuse.mfs"],
    magic: [FUSE],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "MooseFS or LizardFS, whose master keeps one view for all; not tested here",
    source: "https://moosefs.com/manpages/mfsmount",
  },
  {
    names: ["fuse.juicefs"],
    magic: [FUSE],
    class: "network",
    levels: REMOTE,
    lacks: ["lock"],
    note:
      "a rename is a transaction of its database; another machine may see the old file for a while, and content may be uploaded later than a sync says",
    source: "https://juicefs.com/docs/cloud/reference/posix_compatibility",
  },
  {
    names: ["fuse.sshfs"],
    magic: [FUSE],
    class: "network",
    levels: COPIES,
    lacks: ["rename", "lock"],
    note: "where the server cannot rename over a file, that is removed first",
    source: "https://man7.org/linux/man-pages/man1/sshfs.1.html",
  },
  {
    names: [
      "fuse.s3fs",
      "fuse.gcsfuse",
      "fuse.goofys",
      "fuse.geesefs",
      "fuse.mountpoint-s3",
      "fuse.blobfuse",
      "fuse.blobfuse2",
      "fuse.rclone",
    ],
    magic: [FUSE],
    class: "object-store",
    levels: COPIES,
    lacks: ["rename", "lock"],
    note: "a rename is a copy and a removal",
    source: "https://github.com/s3fs-fuse/s3fs-fuse#limitations",
  },
  {
    names: ["fuse", "fuseblk"],
    magic: [FUSE],
    class: "fuse",
    levels: UNTESTED,
    lacks: [],
    note:
      "what a sync does is its daemon's choice: one that has none for it makes the kernel report success",
    source: `${KERNEL}/fuse/fuse.html`,
  },
  {
    names: ["virtiofs"],
    magic: [FUSE],
    class: "host-share",
    levels: UNTESTED,
    lacks: [],
    note: "what is atomic and durable is the host's choice",
    source: `${KERNEL}/virtiofs.html`,
  },
  {
    names: ["9p", "drvfs"],
    magic: [0x01021997],
    class: "host-share",
    levels: UNTESTED,
    lacks: [],
    note: "what is atomic and durable is the host's choice",
    source: `${KERNEL}/9p.html`,
  },
  {
    names: ["vboxsf"],
    magic: [0x786f4256],
    class: "host-share",
    levels: NO_LINKS,
    lacks: [],
    note: "what is atomic and durable is the host's choice",
    source: "https://docs.oracle.com/en/virtualization/virtualbox/",
  },
  {
    names: ["vfat", "msdos"],
    magic: [0x4d44],
    class: "disk",
    levels: { ...NO_LINKS, crashDurability: "not-promised" },
    lacks: [],
    note: "it has no journal: a power cut during a rename may lose both names",
    source: `${KERNEL}/vfat.html`,
  },
  {
    names: ["exfat"],
    magic: [0x2011bab0],
    class: "disk",
    levels: { ...NO_LINKS, crashDurability: "not-promised" },
    lacks: [],
    note: "it has no journal: a power cut during a rename may lose both names",
    source:
      "https://learn.microsoft.com/en-us/windows/win32/fileio/exfat-specification",
  },
  {
    names: ["ntfs3"],
    magic: [0x7366746e],
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source: `${KERNEL}/ntfs3.html`,
  },
  {
    names: ["ntfs"],
    magic: [0x5346544e],
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source: "https://man7.org/linux/man-pages/man2/statfs.2.html",
  },
  {
    names: ["apfs"],
    magic: [],
    darwinType: 26,
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source:
      "https://developer.apple.com/support/downloads/Apple-File-System-Reference.pdf",
  },
  {
    names: ["hfs"],
    magic: [0x4244],
    darwinType: 17,
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source: `${KERNEL}/hfs.html`,
  },
  {
    names: ["hfsplus"],
    magic: [0x482b],
    class: "disk",
    levels: UNTESTED,
    lacks: [],
    note: "not tested here",
    source: `${KERNEL}/hfsplus.html`,
  },
  {
    names: ["squashfs"],
    magic: [0x73717368],
    class: "disk",
    levels: READ_ONLY,
    lacks: [],
    note: "it can only be read",
    source: `${KERNEL}/squashfs.html`,
  },
  {
    names: ["erofs"],
    magic: [0xe0f5e1e2],
    class: "disk",
    levels: READ_ONLY,
    lacks: [],
    note: "it can only be read",
    source: `${KERNEL}/erofs.html`,
  },
  {
    names: ["iso9660"],
    magic: [0x9660],
    class: "disk",
    levels: READ_ONLY,
    lacks: [],
    note: "it can only be read",
    source: `${KERNEL}/isofs.html`,
  },
];

/** The type that a mount names. A daemon that is not known is one of many. */
export function filesystemNamed(name: string): Filesystem | undefined {
  const known = FILESYSTEMS.find(({ names }) => names.includes(name));
  if (known !== undefined || !name.startsWith("fuse")) return known;
  return FILESYSTEMS.find(({ names }) => names.includes("fuse"));
}

/** The types that `statfs` may mean by a number. */
export function filesystemsOf(
  platform: string,
  type: number,
): readonly Filesystem[] {
  if (platform === "darwin") {
    return FILESYSTEMS.filter(({ darwinType }) => darwinType === type);
  }
  return platform === "linux"
    ? FILESYSTEMS.filter(({ magic }) => magic.includes(type))
    : [];
}

const ORDER: readonly GuaranteeLevel[] = [
  "guaranteed",
  "best-effort",
  "unknown",
  "not-promised",
  "unsupported",
];

/** The lower of two levels. */
export function lower(
  one: GuaranteeLevel,
  other: GuaranteeLevel,
): GuaranteeLevel {
  return ORDER.indexOf(one) > ORDER.indexOf(other) ? one : other;
}
