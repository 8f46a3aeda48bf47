import assert from "node:assert/strict";
import { mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkDemand, demandOf } from "../_demand.ts";
import { runSync } from "../_drive.ts";
import { currentPort } from "../_runtime/current.ts";
import {
  acquireLock,
  type Guarantee,
  inspectLock,
  isLocked,
  openAtomicWriter,
  type Safety,
  tryAcquireLock,
  tryAcquireLockSync,
  UnsupportedEnvironmentError,
  updateJsonAtomic,
  updateJsonAtomicSync,
  updateTextAtomic,
  withDefaults,
  withLock,
  writeBytesAtomic,
  writeJsonAtomic,
  writeJsonlAtomic,
  writeJsonlAtomicSync,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { fixture, runOnDeno } from "./child.ts";
import { type FaultPort, onPort } from "./fault_port.ts";
import { type Pretended, pretending, rootMount } from "./pretended.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

const NFS = { type: 0x6969 };
const CEPH = { type: 0x00c36400 };
const TMPFS = { type: 0x01021994 };
const EXT4 = { type: 0xef53, mounts: rootMount("ext4") };

/** A port that looks unasked, as those of Node and Bun do. */
function looking(pretended: Pretended): FaultPort {
  const port = pretending(pretended);
  port.looksUnasked = ["rename", "lock"];
  return port;
}

function looks(port: FaultPort): number {
  return port.names.filter((name) => name === "statfs").length;
}

/** What makes something, or removes it. */
const CHANGES = ["create", "mkdir", "link", "rename", "unlink", "openDatabase"];

function changes(port: FaultPort): string[] {
  return port.names.filter((name) => CHANGES.includes(name));
}

interface Options {
  readonly safety?: Safety;
  readonly require?: readonly Guarantee[];
}

type Call = (path: string, options: Options) => unknown;

async function* chunks(): AsyncGenerator<string> {
  yield "a";
}

const WRITES: Readonly<Record<string, Call>> = {
  writeTextAtomic: (path, options) => writeTextAtomic(path, "a", options),
  writeTextAtomicSync: (path, options) =>
    writeTextAtomicSync(path, "a", options),
  "writeTextAtomic from a source": (path, options) =>
    writeTextAtomic(path, chunks(), options),
  "writeTextAtomicSync from an iterable": (path, options) =>
    writeTextAtomicSync(path, ["a"], options),
  writeJsonAtomic: (path, options) => writeJsonAtomic(path, 1, options),
  writeBytesAtomic: (path, options) =>
    writeBytesAtomic(path, new Uint8Array(1), options),
  writeJsonlAtomic: (path, options) => writeJsonlAtomic(path, [1], options),
  writeJsonlAtomicSync: (path, options) =>
    writeJsonlAtomicSync(path, [1], options),
  openAtomicWriter: async (path, options) => {
    await (await openAtomicWriter(path, options)).commit();
  },
  "withDefaults(options).writeText": (path, options) =>
    withDefaults(options).writeTextAtomic(path, "a"),
};

const LOCKING: Readonly<Record<string, Call>> = {
  "writeTextAtomic with a lock": (path, options) =>
    writeTextAtomic(path, "a", { ...options, lock: true }),
  "writeTextAtomicSync with a lock": (path, options) =>
    writeTextAtomicSync(path, "a", { ...options, lock: { timeoutMs: 1000 } }),
  "writeTextAtomic from a source with a lock": (path, options) =>
    writeTextAtomic(path, chunks(), { ...options, lock: true }),
  "openAtomicWriter with a lock": async (path, options) => {
    const given = { ...options, lock: true };
    await (await openAtomicWriter(path, given)).commit();
  },
  updateJsonAtomic: (path, options) =>
    updateJsonAtomic(path, () => 1, { ...options, initial: 0 }),
  updateJsonAtomicSync: (path, options) =>
    updateJsonAtomicSync(path, () => 1, { ...options, initial: 0 }),
  updateTextAtomic: (path, options) =>
    updateTextAtomic(path, () => "a", { ...options, initial: "" }),
};

const LOCKS: Readonly<
  Record<string, (path: string, options: { safety?: Safety }) => unknown>
> = {
  acquireLock: async (path, options) => {
    await (await acquireLock(path, options)).release();
  },
  withLock: (path, options) => withLock(path, () => {}, options),
  tryAcquireLock: async (path, options) => {
    await (await tryAcquireLock(path, options))?.release();
  },
  tryAcquireLockSync: async (path, options) => {
    await tryAcquireLockSync(path, options)?.release();
  },
  isLocked,
  inspectLock,
};

async function outcome(
  port: FaultPort,
  body: () => unknown,
): Promise<unknown> {
  return await onPort(port, () => rejection((async () => await body())()));
}

for (const [name, call] of Object.entries({ ...WRITES, ...LOCKING })) {
  test(`${name} on a network mount is an error before anything is made`, () =>
    inScratch(async (directory) => {
      for (const path of [join(directory, "f"), join(directory, "a/b/f")]) {
        const port = looking(NFS);
        const error = await outcome(port, () => call(path, {}));
        assert.ok(error instanceof UnsupportedEnvironmentError);
        assert.equal(error.code, "UNSUPPORTED_ENVIRONMENT");
        assert.equal(error.committed, false);
        assert.equal(error.path, path);
        assert.ok(
          error.message.startsWith(
            `Cannot write "${path}": a rename is not known to be atomic and durable`,
          ),
          error.message,
        );
        assert.match(error.message, /which is on nfs: a lost answer leaves/);
        assert.match(error.message, /safety: "warn" or "best-effort"$/);
        assert.deepEqual(changes(port), []);
      }
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${name} with require is an error before anything is made where that is not guaranteed`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a/b/f");
      const port = pretending(TMPFS);
      const require = ["atomicVisibility", "crashDurability"] as const;
      const error = await outcome(port, () => call(path, { require }));
      assert.ok(error instanceof UnsupportedEnvironmentError);
      assert.ok(
        error.message.startsWith(
          `Cannot write "${path}": crashDurability is required, and in "${directory}" it is not-promised: `,
        ),
        error.message,
      );
      assert.deepEqual(changes(port), []);
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${name} proceeds where it is accepted, where nothing is known, and in memory`, () =>
    inScratch(async (directory) => {
      for (
        const [index, [pretended, options]] of ([
          [NFS, { safety: "best-effort" }],
          [NFS, { safety: "warn" }],
          [{ type: 0x1234 }, {}],
          [{ type: 0x1234 }, { safety: "strict" }],
          [TMPFS, {}],
          [EXT4, { require: ["atomicVisibility", "crashDurability"] }],
        ] as const).entries()
      ) {
        const own = join(directory, String(index));
        const port = looking(pretended);
        await onPort(port, () => call(join(own, "f"), options));
        assert.deepEqual(readdirSync(own), ["f"]);
        const isWarned = "safety" in options && options.safety === "warn";
        assert.equal(port.warnings.length, isWarned ? 1 : 0);
      }
    }));
}

for (const [name, call] of Object.entries({ ...LOCKS, ...LOCKING })) {
  test(`${name} where a rename is trusted and a lock is not is an error before anything is made`, () =>
    inScratch(async (directory) => {
      const port = looking(CEPH);
      const path = join(directory, "a", "f");
      const error = await outcome(port, () => call(path, {}));
      assert.ok(error instanceof UnsupportedEnvironmentError);
      assert.match(
        error.message,
        /: a lock is not known to exclude anybody in/,
      );
      assert.deepEqual(changes(port), []);
      await onPort(port, () => call(path, { safety: "best-effort" }));
    }));
}

test("a write where a rename is trusted needs no lock, nor one that is held already", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await onPort(looking(CEPH), async () => {
      await writeTextAtomic(path, "a");
      await withLock(
        path,
        async (lock) => {
          await writeTextAtomic(path, "b", { lock });
          writeTextAtomicSync(path, "c", { lock });
          await updateTextAtomic(path, () => "d", { lock });
        },
        { safety: "best-effort" },
      );
    });
  }));

test("where a link is does not matter, where it leads does", () =>
  inScratch(async (directory) => {
    const remote = join(directory, "remote");
    const local = join(directory, "local");
    for (const path of [remote, local]) mkdirSync(path);
    symlinkSync("../local/f", join(remote, "link"));
    symlinkSync("../remote/f", join(local, "link"));
    const port = looking({}).intercept(({ name, args: [path] }) =>
      name === "statfs"
        ? { result: { type: path === remote ? NFS.type : 1, freeBytes: 1 } }
        : undefined
    );
    await onPort(port, async () => {
      await writeTextAtomic(join(remote, "link"), "a");
      writeTextAtomicSync(join(remote, "link"), "b");
      assert.throws(
        () => writeTextAtomicSync(join(local, "link"), "b"),
        UnsupportedEnvironmentError,
      );
      await assert.rejects(
        writeTextAtomic(join(local, "link"), "b"),
        UnsupportedEnvironmentError,
      );
    });
    assert.deepEqual(readdirSync(remote), ["link"]);
  }));

test("a warning comes once for each directory", () =>
  inScratch(async (directory) => {
    const port = looking(NFS);
    const safety = "warn";
    for (const name of ["a", "b"]) mkdirSync(join(directory, name));
    await onPort(port, async () => {
      for (const path of ["a/f", "a/g", "b/f", "a/f"]) {
        await writeTextAtomic(join(directory, path), "a", { safety });
        writeTextAtomicSync(join(directory, path), "b", { safety });
      }
    });
    assert.equal(port.warnings.length, 2);
    const [first] = port.warnings;
    assert.ok(first?.startsWith("@aj/atomic: a rename is not known"));
    assert.ok(first?.includes(join(directory, "a")));
  }));

test("a directory is looked at once, by however many writes, and by each realm", () =>
  inScratch(async (directory) => {
    const port = looking(EXT4);
    const write = (name: string) =>
      writeTextAtomic(join(directory, name), "a", { durability: "none" });
    await onPort(port, async () => {
      for (const name of ["f", "g", "f"]) await write(name);
      writeTextAtomicSync(join(directory, "f"), "a");
    });
    assert.equal(looks(port), 1);
    const other = looking(EXT4);
    await onPort(other, () => write("f"));
    assert.equal(looks(other), 1);
    // The list of mounts is read for `require` alone, and then once.
    assert.ok(!port.names.includes("read"));
    const require: Guarantee[] = ["crashDurability"];
    await onPort(port, async () => {
      for (const name of ["f", "g"]) {
        await writeTextAtomic(join(directory, name), "a", { require });
      }
      await write("f");
    });
    assert.equal(looks(port), 2);
  }));

test("of very many directories the oldest are forgotten, and what failed is looked at again", () => {
  const port = looking(EXT4);
  const demand = demandOf(["rename"], {});
  const check = (directory: string) =>
    runSync(port, checkDemand(port, demand, directory));
  check("/first");
  check("/first");
  assert.equal(looks(port), 1);
  for (let index = 0; index < 1000; index++) check(`/${index}`);
  check("/999");
  assert.equal(looks(port), 1001);
  check("/first");
  assert.equal(looks(port), 1002);
  const failing = looking({}).fail("statfs", "EIO");
  for (let time = 0; time < 3; time++) {
    runSync(failing, checkDemand(failing, demand, "/"));
  }
  assert.equal(looks(failing), 3);
});

test("a daemon's mount is told from others by the list of mounts", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const type = 0x65735546;
    for (
      const [mounts, isRefused] of [
        [rootMount("fuse.s3fs"), true],
        [rootMount("fuse.sshfs"), true],
        [rootMount("fuse.glusterfs"), true],
        [rootMount("fuse.juicefs"), false],
        [rootMount("fuse.mine"), false],
        [rootMount("virtiofs"), false],
      ] as const
    ) {
      const port = looking({ type, mounts });
      const write = onPort(port, () => writeTextAtomic(path, "a"));
      if (isRefused) {
        await assert.rejects(write, UnsupportedEnvironmentError);
      } else {
        await write;
      }
    }
    // Which it is, is not known.
    await onPort(looking({ type }), () => writeTextAtomic(path, "a"));
  }));

test("a lock on what several machines share is refused, a write without one is not", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const FUSE = 0x65735546;
    const shared: readonly (readonly [name: string, type: number])[] = [
      ["ceph", 0x00c36400],
      ["fuse.ceph-fuse", FUSE],
      ["lustre", 0x0bd00bd0],
      ["gpfs", 0x47504653],
      ["beegfs", 0x19830326],
      ["ocfs2", 0x7461636f],
      ["gfs2", 0x01161970],
      ["fuse.mfs", FUSE],
      ["fuse.juicefs", FUSE],
    ];
    for (const [name, type] of shared) {
      const port = looking({ type, mounts: rootMount(name) });
      await onPort(port, () => writeTextAtomic(path, "a"));
      await assert.rejects(
        onPort(port, () => withLock(path, () => {})),
        UnsupportedEnvironmentError,
        name,
      );
    }
  }));

test("without being asked Deno looks for locks alone, Node and Bun always", () => {
  const isDeno = "Deno" in globalThis;
  const { looksUnasked, runtime } = currentPort();
  assert.equal(runtime === "Deno", isDeno);
  assert.deepEqual(looksUnasked, isDeno ? ["lock"] : ["rename", "lock"]);
});

test("where nothing is looked at unasked, a caller who names an option asks", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = pretending(NFS);
    await onPort(port, async () => {
      await writeTextAtomic(path, "a");
      assert.equal(looks(port), 0);
      for (const options of [{ safety: "strict" }, { require: [] }] as const) {
        await assert.rejects(
          writeTextAtomic(path, "b", options),
          UnsupportedEnvironmentError,
        );
      }
      await writeTextAtomic(path, "b", { safety: "best-effort" });
    });
  }));

test("what is required and unknown is an error that says how to find out", () =>
  inScratch(async (directory) => {
    const port = pretending(EXT4);
    port.permission = (access, path) =>
      access === "statfs" || path.startsWith("/proc") ? "missing" : "granted";
    const write = () =>
      writeTextAtomic(join(directory, "f"), "a", {
        require: ["atomicVisibility"],
      });
    const error = await onPort(port, () => rejection(write()));
    assert.ok(error instanceof UnsupportedEnvironmentError);
    assert.match(error.message, /it is unknown: .*add --allow-sys=statfs/);
    // The list of mounts is enough.
    port.permission = (access) => access === "statfs" ? "missing" : "granted";
    await onPort(port, write);
  }));

test("what the library does itself may be required anywhere", () =>
  inScratch(async (directory) => {
    await onPort(
      pretending({}),
      () =>
        writeTextAtomic(join(directory, "f"), "a", {
          require: ["crossDeviceSafety"],
        }),
    );
  }));

test("an unknown guarantee or safety is a TypeError that shows the known ones", () =>
  inScratch(async (directory) => {
    const write = writeTextAtomic as (...args: unknown[]) => Promise<unknown>;
    for (
      const [options, message] of [
        [
          { require: ["durability"] },
          /"require" must be an array of "atomicVisibility", "crashDurability", .*, without the string "durability": /,
        ],
        [{ require: "crashDurability" }, /"require" must be an array/],
        [{ require: [, "crashDurability"] }, /, without undefined: /],
        [
          { safety: "best_effort" },
          /"safety" must be "strict" or "warn" or "best-effort"/,
        ],
      ] as const
    ) {
      const error = await rejection(write(join(directory, "f"), "a", options));
      assert.ok(error instanceof TypeError);
      assert.match(error.message, message);
    }
    assert.deepEqual(readdirSync(directory), []);
  }));

test("on Deno, require without the permission to look names its flag; naming safety does not need it", () =>
  inScratch(async (directory) => {
    const run = async (flags: readonly string[], options: Options) => {
      const task = JSON.stringify({
        name: "writeTextAtomic",
        arguments: [join(directory, "f"), "a", options],
      });
      const { stdout, stderr } = await runOnDeno(
        [`--allow-read=${directory}`, `--allow-write=${directory}`, ...flags],
        fixture("write"),
        task,
      );
      assert.equal(stderr, "");
      return JSON.parse(stdout);
    };
    const require: Guarantee[] = ["atomicVisibility"];
    const { error } = await run([], { require });
    assert.equal(error.name, "UnsupportedEnvironmentError");
    assert.match(error.message, /it is unknown: .*add --allow-sys=statfs/);
    assert.deepEqual(readdirSync(directory), []);
    const { result } = await run([], { safety: "strict" });
    assert.equal(result.created, true);
    // What there is on this machine is not known here, but it is looked at.
    const looked = await run(["--allow-sys=statfs"], {
      require: ["integrityDetection"],
    });
    assert.match(looked.error.message, /type .* from statfs/);
  }));

test("what is refused is looked at again: another mount may be there", () =>
  inScratch(async (directory) => {
    const write = () =>
      writeTextAtomic(join(directory, "f"), "a", {
        require: ["crashDurability"],
      });
    const mounted = { type: 0x01021994, mounts: rootMount("tmpfs") };
    const port = pretending(mounted);
    const error = await onPort(port, () => rejection(write()));
    assert.ok(error instanceof UnsupportedEnvironmentError);
    mounted.type = 0xef53;
    mounted.mounts = rootMount("ext4");
    await onPort(port, write);
  }));
