import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { runAsync, runSync } from "../_drive.ts";
import { FILESYSTEMS } from "../_filesystems.ts";
import { type Mount, mountOf, parseMounts } from "../_mounts.ts";
import { lookAround } from "../_surroundings.ts";
import {
  type Guarantee,
  type GuaranteeLevel,
  type GuaranteeReport,
  inspectGuarantees,
  inspectGuaranteesSync,
  openAtomicWriter,
  UnsupportedEnvironmentError,
  updateTextAtomic,
  verifyChecksum,
  writeChecksum,
  writeChecksumSync,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { type Pretended, pretending, rootMount } from "./pretended.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

// Also where the tests run compiled.
const root = new URL(
  import.meta.url.endsWith(".js") ? "../../" : "../",
  import.meta.url,
);

/** Both forms, which must say the same. */
async function inspectOn(
  port: FaultPort,
  path: string,
): Promise<GuaranteeReport> {
  return await onPort(port, async () => {
    const report = inspectGuaranteesSync(path);
    assert.deepEqual(await inspectGuarantees(path), report);
    return report;
  });
}

function inspectPretended(pretended: Pretended): Promise<GuaranteeReport> {
  return inScratch((directory) => inspectOn(pretending(pretended), directory));
}

function levels(report: GuaranteeReport): Record<Guarantee, GuaranteeLevel> {
  const { guarantees } = report;
  return {
    atomicVisibility: guarantees.atomicVisibility.level,
    crashDurability: guarantees.crashDurability.level,
    writerExclusion: guarantees.writerExclusion.level,
    integrityDetection: guarantees.integrityDetection.level,
    metadataPreservation: guarantees.metadataPreservation.level,
    crossDeviceSafety: guarantees.crossDeviceSafety.level,
  };
}

for (const row of FILESYSTEMS) {
  const [name] = row.names;

  test(`${name}: what the table says of it is what a report says`, async () => {
    for (const type of row.names) {
      for (const magic of row.magic) {
        if (row.class === "overlay") continue;
        const report = await inspectPretended({
          type: magic,
          mounts: rootMount(type),
        });
        assert.equal(report.environment.filesystem, type);
        assert.equal(report.environment.filesystemClass, row.class);
        assert.equal(report.environment.mountPoint, "/");
        assert.deepEqual(levels(report), {
          ...row.levels,
          crossDeviceSafety: "guaranteed",
        });
        const { evidence } = report.guarantees.crashDurability;
        assert.match(evidence, new RegExp(`type ${type} from /proc`));
        assert.ok(evidence.includes(row.note));
      }
    }
  });

  test(`${name}: the table names its source, and guarantees only what a lab shows`, () => {
    const sources = row.source.split(", ");
    for (const source of sources) {
      if (source.startsWith("https://")) continue;
      assert.ok(existsSync(new URL(source, root)), source);
    }
    assert.ok(sources.some((source) => source.startsWith("https://")));
    const guaranteed = Object.values(row.levels).includes("guaranteed");
    const isShown = row.source.includes("tests/lab/");
    if (guaranteed) assert.ok(isShown, name);
    const isRemote = ["network", "object-store"].includes(row.class);
    assert.equal(row.lacks.includes("lock"), isRemote);
  });
}

test("the table of the documentation is that of the code", () => {
  const text = readFileSync(new URL("docs/guarantees.md", root), "utf8");
  const rows = text.split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
    .filter((cells) => cells.length === 9)
    .slice(2);
  assert.deepEqual(
    rows,
    FILESYSTEMS.map((row) => [
      row.names.join(", "),
      row.class,
      row.levels.atomicVisibility,
      row.levels.crashDurability,
      row.levels.writerExclusion,
      row.levels.integrityDetection,
      row.levels.metadataPreservation,
      row.lacks.join(", ") || "-",
      row.source.split(", ").map((source) =>
        source.startsWith("https://") ? `<${source}>` : `\`${source}\``
      ).join(", "),
    ]),
  );
});

test("every type that has something guaranteed is mounted by the lab", () => {
  const lab = readFileSync(
    new URL("tests/lab/guarantees.lab.ts", root),
    "utf8",
  );
  for (const { names: [name], levels } of FILESYSTEMS) {
    const isGuaranteed = Object.values(levels).includes("guaranteed");
    if (isGuaranteed) assert.ok(lab.includes(`"${name}"`), name);
  }
});

test("no two types of the table have a name in common", () => {
  const names = FILESYSTEMS.flatMap((row) => row.names);
  assert.equal(new Set(names).size, names.length);
});

test("without the list of mounts ext2, ext3 and ext4 are one, and the level is the lowest of theirs", async () => {
  const report = await inspectPretended({ type: 0xef53 });
  assert.equal(report.environment.filesystem, "ext2, ext3 or ext4");
  assert.equal(report.environment.filesystemClass, "disk");
  assert.equal(report.environment.weakeningOptions, undefined);
  const found = levels(report);
  assert.equal(found.atomicVisibility, "guaranteed");
  assert.equal(found.crashDurability, "best-effort");
  assert.deepEqual(report.environment.evidence, [
    "/proc/self/mountinfo could not be read (ENOENT)",
    "type ext2, ext3 or ext4 from statfs",
  ]);
});

test("without the list of mounts nothing is durable for certain, since what weakens it cannot be seen", async () => {
  const report = await inspectPretended({ type: 0x58465342 });
  const { crashDurability } = report.guarantees;
  assert.equal(crashDurability.level, "best-effort");
  assert.match(crashDurability.evidence, /could not be looked for/);
});

test("a type that nobody knows is unknown, and named", async () => {
  const report = await inspectPretended({
    type: 0x1234,
    mounts: rootMount("newfs"),
  });
  assert.equal(report.environment.filesystem, "newfs");
  assert.equal(report.environment.filesystemClass, "unknown");
  assert.equal(levels(report).atomicVisibility, "unknown");
  const unlisted = await inspectPretended({ type: 0x1234 });
  assert.equal(unlisted.environment.filesystem, "unknown");
  assert.match(unlisted.summary(), /type 0x1234 from statfs is not known/);
});

test("a daemon that nobody knows is FUSE, best-effort; without the list of mounts it may be an object store", async () => {
  const listed = await inspectPretended({
    type: 0x65735546,
    mounts: rootMount("fuse.mine"),
  });
  assert.equal(listed.environment.filesystemClass, "fuse");
  assert.equal(levels(listed).crashDurability, "best-effort");
  const unlisted = await inspectPretended({ type: 0x65735546 });
  assert.equal(unlisted.environment.filesystemClass, "unknown");
  assert.equal(levels(unlisted).atomicVisibility, "not-promised");
});

test("a list of mounts that contradicts statfs is not believed", async () => {
  const report = await inspectPretended({
    type: 0x6969,
    mounts: rootMount("ext4"),
  });
  assert.equal(report.environment.filesystem, "nfs");
  assert.equal(report.environment.mountPoint, undefined);
  assert.match(report.summary(), /has type ext4, which does not fit/);
});

test("mount options that turn barriers off, sync nothing, or forbid writing take levels away", async () => {
  for (
    const [type, magic, option, guarantee, level] of [
      ["ext4", 0xef53, "nobarrier", "crashDurability", "not-promised"],
      ["ext4", 0xef53, "barrier=0", "crashDurability", "not-promised"],
      [
        "f2fs",
        0xf2f52010,
        "fsync_mode=nobarrier",
        "crashDurability",
        "not-promised",
      ],
      ["btrfs", 0x9123683e, "nodatacow", "integrityDetection", "not-promised"],
      ["btrfs", 0x9123683e, "nodatasum", "integrityDetection", "not-promised"],
      ["xfs", 0x58465342, "ro", "atomicVisibility", "unsupported"],
    ] as const
  ) {
    const report = await inspectPretended({
      type: magic,
      mounts: rootMount(type, `rw,a=b,${option},c`),
    });
    assert.deepEqual(report.environment.weakeningOptions, [option]);
    const finding = report.guarantees[guarantee];
    assert.equal(finding.level, level, option);
    assert.match(finding.evidence, new RegExp(`mounted with ${option}: `));
  }
  const plain = await inspectPretended({
    type: 0xef53,
    mounts: rootMount("ext4", "rw,barrier=1,errors=remount-ro,nobarriers"),
  });
  assert.deepEqual(plain.environment.weakeningOptions, []);
  assert.equal(levels(plain).crashDurability, "guaranteed");
});

const OVERLAY = 0x794c7630;

/** As an overlay and the kernel escape it, one after the other. */
function upperOption(upper: string): string {
  const at = upper.replaceAll(" ", "\\040").replaceAll(",", "\\134\\054");
  return `lowerdir=/l,upperdir=${at}`;
}

/** An overlay over all, whose upper layer is in a directory that is on another mount. */
function overlay(
  upper: string,
  { type = "ext4", options = "", over = "" } = {},
): string {
  const point = upper.replaceAll(" ", "\\040");
  return rootMount("overlay", `rw,${upperOption(upper)}${options}`) +
    `2 1 8:2 / ${point} rw - ${type} /dev/b rw${over}\n`;
}

/** An overlay at a directory, whose upper layer is another directory. */
function inOverlay<T>(
  body: (
    upper: string,
    inspected: (mounts: string) => Promise<GuaranteeReport>,
  ) => Promise<T>,
): Promise<T> {
  return inScratch(async (directory) => {
    const upper = join(directory, "an upper, layer");
    mkdirSync(upper);
    return await body(upper, async (mounts) => {
      const port = pretending({ mounts }).intercept(
        ({ name, args: [path] }) =>
          name === "statfs"
            ? {
              result: {
                type: path === upper ? 0xef53 : OVERLAY,
                freeBytes: 1,
              },
            }
            : undefined,
      );
      return await inspectOn(port, directory);
    });
  });
}

test("an overlay holds what its upper layer does", () =>
  inOverlay(async (upper, inspected) => {
    const report = await inspected(overlay(upper));
    assert.equal(report.environment.filesystem, "overlay");
    assert.equal(report.environment.filesystemClass, "overlay");
    assert.equal(report.environment.upper, "ext4");
    assert.equal(levels(report).crashDurability, "guaranteed");
    assert.match(
      report.guarantees.crashDurability.evidence,
      /its upper layer ".*an upper, layer" is on ext4/,
    );
  }));

test("an overlay that is volatile is not durable, in the words of old kernels and new", () =>
  inOverlay(async (upper, inspected) => {
    for (const option of ["volatile", "fsync=volatile"]) {
      const report = await inspected(
        overlay(upper, { options: `,${option}` }),
      );
      assert.equal(levels(report).crashDurability, "not-promised");
      assert.equal(levels(report).atomicVisibility, "guaranteed");
      assert.deepEqual(report.environment.weakeningOptions, [option]);
    }
  }));

test("what weakens the upper layer weakens the overlay", () =>
  inOverlay(async (upper, inspected) => {
    const report = await inspected(overlay(upper, { over: ",nobarrier" }));
    assert.equal(levels(report).crashDurability, "not-promised");
  }));

test("an overlay whose upper layer cannot be seen is unknown, and says so", () =>
  inOverlay(async (upper) => {
    for (
      const mounts of [
        overlay(`${upper}/missing`),
        overlay("relative"),
        // What the path leads to here is the overlay itself.
        rootMount("overlay", `rw,${upperOption(upper)}`),
      ]
    ) {
      const port = pretending({ type: OVERLAY, mounts });
      const report = await inspectOn(port, upper);
      assert.equal(report.environment.upper, undefined);
      assert.equal(levels(report).atomicVisibility, "unknown");
      assert.equal(levels(report).crashDurability, "unknown");
      assert.match(report.summary(), /cannot be seen from here/);
    }
  }));

test("an overlay without an upper layer can only be read", async () => {
  const report = await inspectPretended({
    type: OVERLAY,
    mounts: rootMount("overlay", "ro,lowerdir=/l"),
  });
  assert.equal(levels(report).atomicVisibility, "unsupported");
});

function pointOf(list: string, path: string): string | undefined {
  const mount: Mount | undefined = mountOf(parseMounts(list), path);
  return mount && `${mount.type} at ${mount.point}`;
}

test("the mount of a path is the one on the way to it, not one that is hidden, nor one whose name only begins alike", () => {
  const list = [
    "1 1 0:1 / / rw - rootfs none rw",
    "10 1 8:1 / / rw,noatime shared:1 - ext4 /dev/a rw",
    "11 10 8:2 / /mnt rw master:1 propagate_from:2 - xfs /dev/b rw",
    "12 10 8:3 / /mnt2 rw - btrfs /dev/c rw",
    "13 11 8:4 /sub /mnt/a\\040b\\134c rw - ext3 /dev/d rw",
    "14 11 8:5 / /mnt/deep/er rw - vfat /dev/e rw",
    "15 10 0:9 / /twice rw - tmpfs one rw",
    "16 15 0:10 / /twice rw - ramfs two rw",
    "17 10 0:11 / /same rw - tmpfs one rw",
    "18 10 0:12 / /same rw - ramfs two rw",
    "20 10 8:6 / /cover/in rw - ext2 /dev/f rw",
    "21 10 0:13 / /cover rw - tmpfs three rw",
    "a line that is none",
    "",
  ].join("\n");
  for (
    const [path, point] of [
      ["/", "ext4 at /"],
      ["/home/f", "ext4 at /"],
      ["/mnt", "xfs at /mnt"],
      ["/mnt/f", "xfs at /mnt"],
      ["/mnt2/f", "btrfs at /mnt2"],
      ["/mnt3", "ext4 at /"],
      ["/mnt/a b\\c/f", "ext3 at /mnt/a b\\c"],
      ["/mnt/deep/er/f", "vfat at /mnt/deep/er"],
      ["/mnt/deep/erer", "xfs at /mnt"],
      ["/twice/f", "ramfs at /twice"],
      ["/same/f", "ramfs at /same"],
      // What was mounted at /cover later hides what was below it.
      ["/cover/in/f", "tmpfs at /cover"],
    ] as const
  ) {
    assert.equal(pointOf(list, path), point, path);
  }
  // In a root directory that is no mount.
  assert.equal(pointOf("5 4 8:1 / /data rw - xfs /dev/a rw", "/f"), undefined);
  assert.equal(
    pointOf("5 4 8:1 / /data rw - xfs /dev/a rw", "/data/f"),
    "xfs at /data",
  );
});

test("on macOS nothing is guaranteed but what the library does itself; on Bun content stays in the drive's cache", async () => {
  for (const runtime of ["Node", "Deno", "Bun"] as const) {
    for (
      const [type, filesystem] of [
        [26, "apfs"],
        [17, "hfs"],
        [99, "unknown"],
      ] as const
    ) {
      const port = pretending({ type });
      port.platform = "darwin";
      port.runtime = runtime;
      const report = await inScratch((path) => inspectOn(port, path));
      assert.equal(report.environment.filesystem, filesystem);
      const { atomicVisibility, crashDurability } = levels(report);
      const isKnown = filesystem !== "unknown";
      assert.equal(atomicVisibility, isKnown ? "best-effort" : "unknown");
      if (runtime === "Bun") {
        assert.equal(crashDurability, "not-promised");
        assert.match(
          report.environment.fsync,
          /fsync\(2\).*cache of the drive/,
        );
      } else {
        assert.equal(crashDurability, isKnown ? "best-effort" : "unknown");
        assert.match(report.environment.fsync, /F_FULLFSYNC/);
      }
      assert.match(report.guarantees.writerExclusion.evidence, /tested/);
      assert.ok(!port.names.includes("read"));
    }
  }
});

test("on Windows all is best-effort and untested, and a share is a network mount", async () => {
  const port = pretending({ type: 0xef53 });
  port.platform = "windows";
  port.windows = true;
  const local = await inScratch((path) => inspectOn(port, path));
  assert.equal(local.environment.filesystem, "unknown");
  assert.deepEqual(levels(local), {
    atomicVisibility: "best-effort",
    crashDurability: "best-effort",
    writerExclusion: "best-effort",
    integrityDetection: "not-promised",
    metadataPreservation: "unsupported",
    crossDeviceSafety: "guaranteed",
  });
  assert.match(
    local.guarantees.atomicVisibility.evidence,
    /nothing is tested on windows/,
  );
  const shared = runSync(port, lookAround(port, "\\\\server\\share\\d"));
  assert.equal(shared.candidates[0]?.class, "network");
  for (const path of ["C:\\d", "\\\\?\\C:\\d", "\\\\.\\d"]) {
    const around = await runAsync(port, lookAround(port, path));
    assert.deepEqual(around.candidates, []);
  }
});

test("what is not permitted is not tried: the level is unknown, and the evidence names the flag", async () => {
  for (
    const [state, flag] of [
      ["missing", "add --allow-sys=statfs"],
      ["denied", "add --allow-sys=statfs (and take away the --deny-sys that"],
    ] as const
  ) {
    const port = pretending({ type: 0xef53, mounts: rootMount("ext4") });
    port.permission = (access, path) =>
      access === "statfs" || path.startsWith("/proc") ? state : "granted";
    const report = await inScratch((path) => inspectOn(port, path));
    const { level, evidence } = report.guarantees.crashDurability;
    assert.equal(level, "unknown");
    assert.ok(evidence.includes(flag), evidence);
    assert.match(evidence, /Deno shows it with --allow-all alone/);
    assert.equal(levels(report).crossDeviceSafety, "guaranteed");
    assert.ok(!port.names.includes("statfs"));
    assert.ok(!port.names.includes("open"));
  }
  const port = pretending({ type: 0xef53 });
  port.permission = () => "missing";
  const report = await inScratch((path) => inspectOn(port, path));
  assert.match(
    report.guarantees.atomicVisibility.evidence,
    /add --allow-sys=statfs --allow-read=/,
  );
  assert.deepEqual(port.calls, []);
});

test("a permission to read all of the disk is not one to see the mounts, which Deno refuses then", async () => {
  const report = await inspectPretended({
    type: 0xef53,
    mountsFail: "NotCapable",
  });
  const [evidence] = report.environment.evidence;
  assert.equal(
    evidence,
    "not permitted to look at /proc/self/mountinfo: Deno shows it with --allow-all alone",
  );
});

test("a statfs that fails leaves all unknown, and the error is told", async () => {
  const port = pretending({}).fail("statfs", "EACCES");
  const report = await inScratch((path) => inspectOn(port, path));
  assert.equal(levels(report).atomicVisibility, "unknown");
  assert.match(report.summary(), /statfs failed with EACCES/);
});

test("the list of mounts is enough where statfs fails", async () => {
  const port = pretending({ mounts: rootMount("xfs") }).fail("statfs", "EIO");
  const report = await inScratch((path) => inspectOn(port, path));
  assert.equal(report.environment.filesystem, "xfs");
  assert.equal(levels(report).crashDurability, "guaranteed");
  // But not where there is no way to the directory.
  const lost = pretending({ mounts: rootMount("xfs") }).fail("statfs", "ELOOP");
  const unknown = await inScratch((path) => inspectOn(lost, path));
  assert.equal(levels(unknown).crashDurability, "unknown");
});

test("an ext4 without a journal, or whose journal cannot be looked at, is told", async () => {
  const told = async (journal: string) => {
    const mounts = rootMount("ext4");
    const port = pretending({ type: 0xef53, mounts, journal });
    return (await inScratch((path) => inspectOn(port, path))).guarantees
      .crashDurability;
  };
  assert.equal((await told("17")).level, "guaranteed");
  const without = await told("<none>");
  assert.equal(without.level, "best-effort");
  assert.match(without.evidence, /made without a journal/);
  const unknown = await told("?");
  assert.equal(unknown.level, "best-effort");
  assert.match(unknown.evidence, /could not be looked at/);
  const ext4 = { type: 0xef53, mounts: rootMount("ext4") };
  for (const hidden of [/^\/sys\/dev/, /journal_task$/]) {
    const refusing = pretending(ext4);
    refusing.permission = (_access, path) =>
      hidden.test(path) ? "missing" : "granted";
    const failing = new FaultPort(pretending(ext4)).intercept((call) =>
      hidden.test(`${call.args[0]}`) ? { code: "EACCES" } : undefined
    );
    failing.platform = "linux";
    for (const port of [refusing, failing]) {
      const report = await inScratch((path) => inspectOn(port, path));
      assert.equal(levels(report).crashDurability, "best-effort");
    }
  }
});

test("a source named - does not hide the options behind it, nor an error its end", () => {
  const [mount] = parseMounts("1 0 0:1 / / rw - overlay - rw,volatile\n");
  assert.deepEqual(mount?.options, ["rw", "rw", "volatile"]);
  assert.equal(mount.device, "0:1");
});

test("a path that does not exist is looked at in the nearest directory above it, and through links", () =>
  inScratch(async (directory) => {
    const real = join(directory, "real");
    mkdirSync(real);
    writeFileSync(join(real, "f"), "");
    symlinkSync(real, join(directory, "link"));
    symlinkSync("real/made/later", join(directory, "dangling"));
    symlinkSync("loop", join(directory, "loop"));
    for (
      const [path, inspected] of [
        [real, real],
        [`${real}/`, real],
        [join(real, "f"), real],
        [join(real, "new"), real],
        [join(directory, "a", "b", "c"), directory],
        [join(directory, "link"), real],
        [join(directory, "link", "f"), real],
        [join(directory, "link", "new", "f"), real],
        [join(directory, "dangling"), real],
        // A file is no directory.
        [join(real, "f", "g"), real],
      ] as const
    ) {
      const port = pretending({ type: 0xef53 });
      const report = await inspectOn(port, path);
      assert.equal(report.inspected, inspected, path);
      assert.equal(report.path, path);
    }
    await inspectOn(pretending({ type: 0xef53 }), join(directory, "loop", "f"));
  }));

test("a single file that is mounted cannot be replaced", () =>
  inScratch(async (directory) => {
    const file = join(directory, "f");
    writeFileSync(file, "");
    const mounts = rootMount("ext4") +
      `2 1 8:1 /elsewhere ${file} rw - ext4 source rw\n`;
    const port = pretending({ type: 0xef53, mounts });
    const report = await inspectOn(port, file);
    assert.equal(levels(report).atomicVisibility, "unsupported");
    assert.match(
      report.guarantees.atomicVisibility.evidence,
      /mount its directory instead/,
    );
    const beside = await inspectOn(port, join(directory, "g"));
    assert.equal(levels(beside).atomicVisibility, "guaranteed");
  }));

test("without a SQLite nobody is excluded, and SQLite is looked for only where that matters", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = pretending({ type: 0xef53, mounts: rootMount("ext4") });
    let looks = 0;
    port.hasSqlite = () => {
      looks++;
      return false;
    };
    const report = await inspectOn(port, directory);
    assert.equal(levels(report).writerExclusion, "unsupported");
    assert.equal(levels(report).atomicVisibility, "guaranteed");
    assert.match(
      report.guarantees.writerExclusion.evidence,
      /has no SQLite here, which a lock is made with/,
    );
    looks = 0;
    await onPort(port, async () => {
      await writeTextAtomic(path, "new", { require: ["atomicVisibility"] });
      assert.equal(looks, 0);
      const error = await rejection(
        writeTextAtomic(path, "newer", { require: ["writerExclusion"] }),
      );
      assert.ok(error instanceof UnsupportedEnvironmentError);
      assert.match(error.message, /writerExclusion is required, .* no SQLite/);
    });
    assert.equal(readFileSync(path, "utf8"), "new\n");
  }));

test("a report is plain data, with a summary for people", async () => {
  const report = await inspectPretended({
    type: 0x6969,
    mounts: rootMount("nfs4"),
  });
  const { path, inspected, environment, guarantees } = report;
  const data = { path, inspected, environment, guarantees };
  assert.deepEqual(structuredClone({ ...report }), data);
  const parsed = JSON.parse(JSON.stringify(report));
  assert.deepEqual(parsed.guarantees, guarantees);
  const summary = report.summary();
  for (const words of ["nfs4", path, "best-effort", "writerExclusion"]) {
    assert.ok(summary.includes(words), words);
  }
});

test("inspection makes no call that changes anything", async () => {
  const port = pretending({ type: 0xef53, mounts: rootMount("ext4") });
  await inScratch((path) => inspectOn(port, join(path, "a", "b")));
  const looking = ["close", "lstat", "open", "read", "realpath", "statfs"];
  assert.deepEqual([...new Set(port.names)].toSorted(), looking);
});

test("inspection looks each time", () =>
  inScratch(async (directory) => {
    const port = pretending({ type: 0xef53 });
    await inspectOn(port, directory);
    const before = port.names.filter((name) => name === "statfs").length;
    await inspectOn(port, directory);
    const after = port.names.filter((name) => name === "statfs").length;
    assert.equal(after, 2 * before);
  }));

test("a malformed path is a TypeError; the current directory is a place", async () => {
  assert.throws(() => inspectGuaranteesSync(""), TypeError);
  await assert.rejects(inspectGuarantees("a\0b"), TypeError);
  assert.equal(typeof inspectGuaranteesSync(".").inspected, "string");
});

test("a file with a checksum of its own needs none of its file system", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "x");
    const before = await inspectGuarantees(path);
    assert.notEqual(before.guarantees.integrityDetection.level, "guaranteed");
    await writeTextAtomic(path, "x", {
      checksum: true,
      require: ["integrityDetection"],
    });
    const { guarantees } = await inspectGuarantees(path);
    assert.equal(guarantees.integrityDetection.level, "guaranteed");
    assert.match(guarantees.integrityDetection.evidence, /f\.sha256" is kept/);
  }));

test("what is said of the damage of a file and what is insisted on agree", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const require: Guarantee[] = ["integrityDetection"];
    const isRefused = async (body: () => unknown) => {
      const error = await (async () => await body())()
        .then(() => undefined, (error: unknown) => error);
      if (error === undefined) return false;
      assert.ok(error instanceof UnsupportedEnvironmentError, String(error));
      return true;
    };
    const keeping: Readonly<Record<string, () => unknown>> = {
      writeTextAtomic: () => writeTextAtomic(path, "a", { require }),
      writeTextAtomicSync: () => writeTextAtomicSync(path, "b", { require }),
      "under a lock": () => writeTextAtomic(path, "c", { require, lock: true }),
      "from a source": () => writeTextAtomic(path, ["d"], { require }),
      updateTextAtomic: () => updateTextAtomic(path, () => "e", { require }),
      openAtomicWriter: async () => {
        await (await openAtomicWriter(path, { require })).commit();
      },
    };
    await writeTextAtomic(path, "x");
    for (const [name, write] of Object.entries(keeping)) {
      assert.ok(await isRefused(write), name);
    }
    assert.ok(!await isRefused(() => writeChecksum(path, { require })));
    assert.ok(!await isRefused(() => writeChecksumSync(path, { require })));
    const { guarantees } = await inspectGuarantees(path);
    assert.equal(guarantees.integrityDetection.level, "guaranteed");
    for (const [name, write] of Object.entries(keeping)) {
      assert.ok(!await isRefused(write), name);
      assert.ok(await verifyChecksum(path), name);
    }
    // It would be removed.
    assert.ok(
      await isRefused(() =>
        writeTextAtomic(path, "f", { require, checksum: false })
      ),
    );
    // That of another file is none of this one.
    assert.ok(
      await isRefused(() => writeTextAtomic(`${path}2`, "f", { require })),
    );
  }));

test("a checksum that is insisted on, and given up before it is a write's turn, is missed", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const require: Guarantee[] = ["integrityDetection"];
    const later: Readonly<Record<string, () => Promise<unknown>>> = {
      writeTextAtomic: () => writeTextAtomic(path, "b", { require }),
      "from a source": () => writeTextAtomic(path, ["b"], { require }),
      updateTextAtomic: () => updateTextAtomic(path, () => "b", { require }),
      "which changes nothing": () =>
        updateTextAtomic(path, () => "a\n", { require }),
    };
    for (const [name, write] of Object.entries(later)) {
      await writeTextAtomic(path, "x", { checksum: true });
      const first = writeTextAtomic(path, "a", { checksum: false });
      const error = await rejection(write());
      assert.ok(error instanceof UnsupportedEnvironmentError, name);
      await first;
      assert.deepEqual(readdirSync(directory), ["f"], name);
      assert.equal(readFileSync(path, "utf8"), "a\n", name);
    }
    await writeTextAtomic(path, "x", { checksum: true });
    const writer = await openAtomicWriter(path, { require });
    await writeTextAtomic(path, "a", { checksum: false });
    const error = await rejection(writer.commit());
    assert.ok(error instanceof UnsupportedEnvironmentError);
    assert.deepEqual(readdirSync(directory), ["f"]);
  }));

test("a write looks for a kept checksum no more often for what it does not insist on", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "x", { checksum: true });
    const lookups = async (require: readonly Guarantee[]) => {
      const port = pretending({ type: 0xef53, mounts: rootMount("ext4") });
      await onPort(port, () => writeTextAtomic(path, "y", { require }));
      return port.calls.filter(({ name, args: [asked] }) =>
        name === "access" && asked === `${path}.sha256`
      ).length;
    };
    const usual = await lookups([]);
    assert.equal(await lookups(["crossDeviceSafety"]), usual);
    assert.ok(await lookups(["integrityDetection"]) > usual);
  }));

test("a checksum that may not be looked at is not counted, and no reason to fail", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "x", { checksum: true });
    const level = async (port: FaultPort) =>
      levels(await inspectOn(port, path)).integrityDetection;
    const ext4 = { type: 0xef53, mounts: rootMount("ext4") };
    assert.equal(await level(pretending(ext4)), "guaranteed");
    const failing = pretending(ext4).intercept(({ name, args: [opened] }) =>
      name === "open" && opened === `${path}.sha256`
        ? { code: "EIO" }
        : undefined
    );
    assert.equal(await level(failing), "not-promised");
    const refused = pretending(ext4);
    refused.permission = (_access, asked) =>
      asked === directory ? "missing" : "granted";
    assert.notEqual(await level(refused), "guaranteed");
  }));
