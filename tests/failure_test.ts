import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
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
import { NOT_CAPABLE, type SystemCalls } from "../_runtime/port.ts";
import {
  AlreadyExistsError,
  appendJsonl,
  AtomicError,
  CrossDeviceError,
  DurabilityError,
  moveAtomic,
  NoSpaceError,
  NotFoundError,
  ParseError,
  PermissionScopeError,
  readTextSync,
  repairJsonl,
  SerializationError,
  sweepTemporaries,
  TargetBusyError,
  UnsupportedEnvironmentError,
  writeJsonlAtomic,
  type WriteOptions,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

interface Case {
  readonly call: keyof SystemCalls;
  readonly code: string;
  readonly failed: new (...args: never[]) => AtomicError;
  readonly message: RegExp;
  readonly committed?: boolean | "unknown";
  readonly options?: WriteOptions;
  readonly expectedCode?: string;
}

const createNew = { createNew: true };

const CASES: readonly Case[] = [
  {
    call: "create",
    code: "ENOSPC",
    failed: NoSpaceError,
    message: /no space is left/,
  },
  {
    call: "write",
    code: "EDQUOT",
    failed: NoSpaceError,
    message: /quota is used up/,
  },
  {
    call: "fsync",
    code: "ENOSPC",
    failed: NoSpaceError,
    message: /no space is left/,
  },
  ...["ERR_ACCESS_DENIED", "EINVAL", "ENOSYS", "ENOTSUP"].map((code) => ({
    call: "fsync" as const,
    code,
    failed: UnsupportedEnvironmentError,
    expectedCode: "UNSUPPORTED_ENVIRONMENT",
    message: /nothing can be synced here .*durability: "none"/,
  })),
  {
    call: "create",
    code: "ERR_ACCESS_DENIED",
    failed: PermissionScopeError,
    expectedCode: "PERMISSION_SCOPE",
    message: /Node's permissions do not cover it: add --allow-fs-write=\//,
  },
  {
    call: "realpath",
    code: "ERR_ACCESS_DENIED",
    failed: PermissionScopeError,
    expectedCode: "PERMISSION_SCOPE",
    message: /Node's permissions do not cover it: add --allow-fs-read=\//,
  },
  {
    call: "create",
    code: "EACCES",
    failed: AtomicError,
    message: /may not write in its directory/,
  },
  {
    call: "create",
    code: "EROFS",
    failed: AtomicError,
    message: /mounted read-only/,
  },
  {
    call: "write",
    code: "EFBIG",
    failed: AtomicError,
    message: /write failed: EFBIG: injected/,
  },
  {
    call: "rename",
    code: "EBUSY",
    failed: TargetBusyError,
    message: /mount its directory instead/,
  },
  {
    call: "rename",
    code: "EXDEV",
    failed: CrossDeviceError,
    message: /different file systems/,
  },
  {
    call: "rename",
    code: "EACCES",
    failed: AtomicError,
    message: /may not write/,
  },
  {
    call: "rename",
    code: "EIO",
    failed: AtomicError,
    message: /whether the new content is in place is unknown: read the file/,
    committed: "unknown",
  },
  {
    call: "rename",
    code: "ETIMEDOUT",
    failed: AtomicError,
    message: /unknown/,
    committed: "unknown",
  },
  {
    call: "link",
    code: "EPERM",
    failed: UnsupportedEnvironmentError,
    message: /needs hard links/,
    options: createNew,
    expectedCode: "UNSUPPORTED_ENVIRONMENT",
  },
  {
    call: "link",
    code: "EEXIST",
    failed: AlreadyExistsError,
    message: /it exists/,
    options: createNew,
  },
  {
    call: "link",
    code: "EIO",
    failed: AtomicError,
    message: /unknown/,
    options: createNew,
    committed: "unknown",
  },
  {
    call: "unlink",
    code: "EIO",
    failed: DurabilityError,
    message: /the new content is in place, but unlink failed/,
    options: createNew,
    committed: true,
  },
  {
    call: "open",
    code: "EACCES",
    failed: AtomicError,
    message: /may not read its directory/,
  },
  {
    call: "create",
    code: "ENOENT",
    failed: NotFoundError,
    message: /was removed meanwhile, or takes no new files/,
  },
  {
    call: "realpath",
    code: "ENAMETOOLONG",
    failed: AtomicError,
    message: /longer than/,
  },
];

for (const form of FORMS) {
  for (
    const { call, code, failed, message, committed, options, expectedCode }
      of CASES
  ) {
    test(`${form.name}: ${call} failing with ${code} is a ${failed.name} that says what to do`, () =>
      inScratch(async (directory) => {
        const path = join(directory, "f");
        const port = new FaultPort().fail(call, code);
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new", options)),
        );
        assert.ok(error instanceof failed);
        assert.equal(error.name, failed.name);
        assert.equal(error.constructor, failed);
        assert.equal(error.code, expectedCode ?? code);
        assert.equal(error.path, path);
        assert.equal(
          error.operation,
          form.name === "sync" ? "writeTextAtomicSync" : "writeTextAtomic",
        );
        assert.equal(error.syscall, call);
        assert.equal(error.committed, committed ?? false);
        assert.ok(error.cause instanceof Error);
        assert.ok(error.message.startsWith(`Cannot write "${path}": `));
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /\.$/);
        assert.equal(existsSync(path), committed === true);
        if (call !== "unlink") assert.deepEqual(leftovers(directory), []);
      }));
  }

  test(`${form.name}: a directory and a pipe are told before anything is made`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "d"));
      // Not /dev/null: the control of this test does replace it.
      execFileSync("mkfifo", [join(directory, "pipe")]);
      for (
        const [path, code] of [
          [join(directory, "d"), "EISDIR"],
          [join(directory, "pipe"), "NOT_A_FILE"],
          [join(directory, "d", "."), "EISDIR"],
          [join(directory, "d", ".."), "EISDIR"],
        ] as const
      ) {
        const port = new FaultPort();
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new")),
        );
        assert.ok(error instanceof AtomicError, path);
        assert.equal(error.code, code);
        assert.ok(!port.names.includes("create"));
      }
    }));

  test(`${form.name}: the permission errors of Deno name the flag for the call that was refused`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (
        const [call, flags] of [
          ["lstat", `--allow-read=${directory} --allow-write=${directory}`],
          ["create", `--allow-read=${directory} --allow-write=${directory}`],
          ["open", `--allow-read=${directory} --allow-write=${directory}`],
          ["rename", `--allow-read=${directory} --allow-write=${directory}`],
        ] as const
      ) {
        const port = new FaultPort().fail(call, NOT_CAPABLE);
        port.permission = () => "missing";
        const error = await onPort(
          port,
          () => rejection(form.writeText(path, "new")),
        );
        assert.ok(error instanceof PermissionScopeError);
        assert.equal(error.code, "PERMISSION_SCOPE");
        assert.ok(error.message.endsWith(`add ${flags}`), error.message);
        assert.deepEqual(leftovers(directory), []);
      }
    }));

  test(`${form.name}: a real path outside Deno's scope is not used`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort().intercept(({ name }) =>
        name === "realpath" ? { result: "/elsewhere" } : undefined
      );
      port.permission = (_access, path) =>
        path === "/elsewhere" ? "missing" : "granted";
      const receipt = await onPort(
        port,
        () => form.writeText(join(directory, "f"), "new"),
      );
      assert.equal(receipt.path, join(directory, "f"));
    }));

  test(`${form.name}: having no free descriptor is waited out, but not for ever`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      for (const call of ["open", "create"] as const) {
        const port = new FaultPort().fail(call, "EMFILE", 3);
        await onPort(port, () => form.writeText(path, "new"));
        assert.equal(port.names.filter((name) => name === "sleep").length, 3);
      }
      const port = new FaultPort().fail("create", "ENFILE");
      const error = await onPort(
        port,
        () => rejection(form.writeText(path, "new", { retryMs: 20 })),
      );
      assert.ok(error instanceof AtomicError);
      assert.equal(error.code, "ENFILE");
      assert.ok(port.names.includes("sleep"));
      const never = new FaultPort().fail("open", "EMFILE");
      await onPort(
        never,
        () => rejection(form.writeText(path, "new", { retryMs: 0 })),
      );
      assert.ok(!never.names.includes("sleep"));
      assert.equal(readFileSync(path, "utf8"), "new\n");
    }));

  test(`${form.name}: a rename that is refused is retried on Windows alone`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "d"));
      const path = join(directory, "d", "f");
      const posix = new FaultPort().fail("rename", "EACCES", 2);
      await onPort(posix, () => rejection(form.writeText(path, "new")));
      assert.ok(!posix.names.includes("sleep"));
      const windows = new FaultPort().fail("rename", "EPERM", 2);
      windows.windows = true;
      const receipt = await onPort(windows, () => form.writeText(path, "new"));
      assert.equal(
        windows.names.filter((name) => name === "sleep").length,
        2,
      );
      assert.equal(receipt.directorySynced, false);
      assert.equal(receipt.fileSynced, true);
      assert.ok(!windows.names.includes("fchmod"));
      assert.equal(readFileSync(join(directory, "d\\f"), "utf8"), "new\n");
    }));

  test(`${form.name}: reading tells a missing file from one that may not be read`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const missing = await rejection(form.readText(path));
      assert.ok(missing instanceof NotFoundError);
      assert.equal(
        missing.message,
        `Cannot read "${path}": it does not exist (ENOENT)`,
      );
      writeFileSync(path, "text");
      for (
        const [code, failed, message] of [
          ["EACCES", AtomicError, /may not read it/],
          ["EIO", AtomicError, /device reported an error/],
          [
            NOT_CAPABLE,
            PermissionScopeError,
            /Deno may not read it: add --allow-read=/,
          ],
        ] as const
      ) {
        const port = new FaultPort().fail("open", code);
        port.permission = () => "missing";
        const error = await onPort(port, () => rejection(form.readText(path)));
        assert.ok(error instanceof failed);
        assert.match(error.message, message);
      }
      const directoryError = await rejection(form.readText(directory));
      assert.ok(directoryError instanceof AtomicError);
      assert.equal(directoryError.code, "EISDIR");
    }));
}

test("every error class says its own name and is an AtomicError and an Error", () => {
  const options = { code: "X", path: "/f", operation: "writeTextAtomic" };
  for (
    const failed of [
      AtomicError,
      NotFoundError,
      UnsupportedEnvironmentError,
      PermissionScopeError,
      CrossDeviceError,
      TargetBusyError,
      AlreadyExistsError,
      NoSpaceError,
      SerializationError,
      DurabilityError,
    ]
  ) {
    const error = new failed("Cannot do it", options);
    assert.ok(error instanceof AtomicError && error instanceof Error);
    assert.equal(error.name, failed.name);
    assert.equal(String(error), `${failed.name}: Cannot do it`);
    assert.equal(error.committed, false);
    assert.equal(error.syscall, undefined);
    assert.ok(!("cause" in error));
  }
  const parse = new ParseError("Cannot read it", {
    ...options,
    line: 1,
    column: 2,
    byteOffset: 3,
    cause: "why",
  });
  assert.equal(parse.name, "ParseError");
  assert.deepEqual([parse.line, parse.column, parse.byteOffset], [1, 2, 3]);
  assert.equal(parse.cause, "why");
});

test("what a caller's own code throws is passed on as it is", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await writeTextAtomic(path, "{}");
    const { readJsonSync } = await import("../mod.ts");
    const own = new RangeError("mine");
    const reviver = () => {
      throw own;
    };
    assert.throws(
      () => readJsonSync(path, { reviver }),
      (error) => error === own,
    );
    assert.equal(readTextSync(path), "{}\n");
  }));

test("where realpath finds no free descriptor the links are followed without, in call order and without holding the event loop", () =>
  inScratch(async (directory) => {
    const real = join(directory, "real");
    mkdirSync(join(real, "deep"), { recursive: true });
    symlinkSync("real", join(directory, "link"));
    symlinkSync(join(directory, "link", ".", "..", "real"), join(real, "way"));
    const path = join(directory, "link", "way", "deep", "f");
    // As on Bun, where it takes one.
    const port = new FaultPort().fail("realpath", "EMFILE", 1);
    await onPort(port, async () => {
      const older = writeTextAtomic(path, "older");
      const newer = writeTextAtomic(path, "newer");
      assert.equal((await older).path, join(real, "deep", "f"));
      await newer;
      assert.equal(readFileSync(path, "utf8"), "newer\n");
    });
    const never = new FaultPort().fail("realpath", "ENFILE");
    await onPort(never, async () => {
      const older = writeTextAtomic(path, "older");
      writeTextAtomicSync(path, "newest");
      await older;
    });
    assert.equal(readFileSync(path, "utf8"), "newest\n");
    for (const { names } of [port, never]) {
      assert.ok(!names.includes("sleep"), names.join());
    }
    symlinkSync("loop", join(directory, "loop"));
    await onPort(
      never,
      () =>
        assert.rejects(writeTextAtomic(join(directory, "loop", "f"), "x"), {
          code: "ELOOP",
        }),
    );
  }));

test("what Deno's permissions refuse is told with the flags that each kind of call needs", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f.jsonl");
    await writeJsonlAtomic(path, [1]);
    const refusing = (syscall: keyof SystemCalls) => {
      const port = new FaultPort().fail(syscall, NOT_CAPABLE);
      port.permission = () => "missing";
      return port;
    };
    const flags = `--allow-read=${directory} --allow-write=${directory}`;
    const calls = [
      [refusing("readdir"), () => sweepTemporaries(directory)],
      [refusing("link"), () => moveAtomic(path, `${path}2`)],
      [refusing("openAppend"), () => appendJsonl(path, [2], { lock: false })],
      [refusing("openAppend"), () => repairJsonl(path, { lock: false })],
    ] as const;
    for (const [port, call] of calls) {
      const error = await onPort<unknown>(port, () => rejection(call()));
      assert.ok(error instanceof PermissionScopeError);
      assert.ok(error.message.includes(flags), error.message);
    }
    const missing = join(directory, "new", "f");
    const port = new FaultPort().intercept(({ name, args: [opened] }) =>
      name === "open" && opened === directory
        ? { code: NOT_CAPABLE }
        : undefined
    );
    port.permission = () => "missing";
    const error = await onPort(
      port,
      () => rejection(writeTextAtomic(missing, "x")),
    );
    assert.ok(error instanceof PermissionScopeError);
    assert.match(error.message, /to make it durably Deno must be allowed/);
  }));

test("a repair whose sync fails says what it has done", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f.jsonl");
    writeFileSync(path, '{"a":1}\n{"b"');
    const port = new FaultPort().fail("fsync", "EIO", 1);
    const error = await onPort(port, () => rejection(repairJsonl(path)));
    assert.ok(error instanceof DurabilityError);
    assert.match(error.message, /it is repaired, but fsync failed/);
  }));

test("each code that this library gives of its own is one that an editor offers", () => {
  // Of the compiled tests the types are here too.
  const offered = readFileSync("errors.ts", "utf8")
    .match(/type AtomicErrorCode =[^;]*;/)?.[0] ?? "";
  const given = readdirSync(".")
    .filter((name) => name.endsWith(".ts"))
    .flatMap((name) => [
      ...readFileSync(name, "utf8").matchAll(/Refusal\(\s*("[A-Z_]+")/g),
    ])
    .map(([, code = ""]) => code);
  assert.ok(given.length > 40);
  // Caught before a caller sees it.
  const missing = given.filter((code) =>
    code !== '"PROBE"' && !offered.includes(code)
  );
  assert.deepEqual(missing, []);
});

test("where Deno forbids a file by name, and allows its directory, the flag to take away is named", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = new FaultPort().intercept(({ name, args: [subject] }) =>
      name === "lstat" && subject === path ? { code: NOT_CAPABLE } : undefined
    );
    for (const state of ["denied", "missing"] as const) {
      port.permission = (access, place) =>
        place === path && access === "read" ? state : "granted";
      const error = await onPort(
        port,
        () => rejection(writeTextAtomic(path, "new")),
      );
      assert.ok(error instanceof PermissionScopeError);
      const way = state === "denied"
        ? `take away the --deny-read that covers "${path}"`
        : `allow "${path}" too, or name the directory without links`;
      assert.ok(error.message.endsWith(`not just the file: ${way}`));
    }
    assert.deepEqual(readdirSync(directory), []);
  }));
