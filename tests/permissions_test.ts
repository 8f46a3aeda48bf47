import assert from "node:assert/strict";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { WriteReceipt } from "../mod.ts";
import { fixture, runOnDeno } from "./child.ts";
import { inScratch } from "./scratch.ts";

interface Printed {
  readonly result?: WriteReceipt;
  readonly error?: {
    readonly name: string;
    readonly message: string;
    readonly code: string;
    readonly committed: boolean;
  };
}

async function onDeno(
  flags: readonly string[],
  name: string,
  given: readonly unknown[],
  poisonProcess = false,
): Promise<Printed> {
  const task = JSON.stringify({ name, arguments: given, poisonProcess });
  const outcome = await runOnDeno(flags, fixture("write"), task);
  assert.equal(outcome.ended, 0, outcome.stderr);
  assert.equal(outcome.stderr, "");
  return JSON.parse(outcome.stdout);
}

function scope(read: string, write: string = read): string[] {
  return [`--allow-read=${read}`, `--allow-write=${write}`];
}

for (const suffix of ["", "Sync"]) {
  const name = `writeTextAtomic${suffix}`;

  test(`${name} on Deno needs read and write on the directory and nothing else`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "a", "f");
      const first = await onDeno(scope(directory), name, [path, "one"]);
      assert.deepEqual(first.result, {
        path,
        bytes: 4,
        fileSynced: true,
        directorySynced: true,
        created: true,
        superseded: false,
        notPreserved: [],
      });
      for (
        const options of [
          { mode: 0o640 },
          { durability: "none" },
          { symlinks: "reject" },
          { owner: { uid: 0, gid: 0 } },
        ]
      ) {
        const { error } = await onDeno(scope(directory), name, [
          path,
          "two",
          options,
        ]);
        if ("owner" in options && error?.code === "EPERM") continue;
        assert.equal(error, undefined);
      }
      const createNew = await onDeno(scope(directory), name, [
        join(directory, "new"),
        "three",
        { createNew: true },
      ]);
      assert.equal(createNew.result?.created, true);
      assert.equal(readFileSync(path, "utf8"), "two\n");
    }));

  test(`${name} on Deno reads neither node: modules nor globalThis.process`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const { result, error } = await onDeno(
        scope(directory),
        name,
        [path, "new"],
        true,
      );
      assert.equal(error, undefined);
      assert.equal(result?.path, path);
      assert.equal(readFileSync(path, "utf8"), "new\n");
    }));

  test(`${name} on Deno with write alone names the read flag, and makes nothing`, () =>
    inScratch(async (directory) => {
      writeFileSync(join(directory, "f"), "old");
      const { error } = await onDeno([`--allow-write=${directory}`], name, [
        join(directory, "f"),
        "new",
      ]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.equal(error?.code, "PERMISSION_SCOPE");
      assert.equal(error?.committed, false);
      assert.ok(error?.message.includes(`add --allow-read=${directory}`));
      assert.ok(!error?.message.includes("--allow-write"));
      assert.deepEqual(readdirSync(directory), ["f"]);
      assert.equal(readFileSync(join(directory, "f"), "utf8"), "old");
    }));

  test(`${name} on Deno with read alone names the write flag, and makes nothing`, () =>
    inScratch(async (directory) => {
      const { error } = await onDeno([`--allow-read=${directory}`], name, [
        join(directory, "f"),
        "new",
      ]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.ok(error?.message.includes(`add --allow-write=${directory}`));
      assert.ok(!error?.message.includes("--allow-read"));
      assert.deepEqual(readdirSync(directory), []);
    }));

  test(`${name} on Deno with the scope of just the file names the directory, and why`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const { error } = await onDeno(scope(path), name, [path, "new"]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.ok(
        error?.message.includes(
          `add --allow-read=${directory} --allow-write=${directory}`,
        ),
      );
      assert.match(error?.message ?? "", /made beside the old one/);
      assert.deepEqual(readdirSync(directory), ["f"]);
      assert.equal(readFileSync(path, "utf8"), "old");
    }));

  test(`${name} on Deno with a directory that does not exist yet names both ways out, and makes nothing`, () =>
    inScratch(async (directory) => {
      const data = join(directory, "data");
      const path = join(data, "f");
      const { error } = await onDeno(scope(data), name, [path, "new"]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.match(error?.message ?? "", /make the directory first/);
      assert.ok(error?.message.includes(`--allow-read=${directory}`));
      assert.deepEqual(readdirSync(directory), []);

      const widened = await onDeno(
        [...scope(data), `--allow-read=${directory}`],
        name,
        [path, "new"],
      );
      assert.equal(widened.result?.path, path);
    }));

  test(`${name} on Deno makes its own directory where nothing need survive a power cut`, () =>
    inScratch(async (directory) => {
      const data = join(directory, "data");
      const path = join(data, "f");
      const { error } = await onDeno(scope(data), name, [
        path,
        "new",
        { durability: "ordered" },
      ]);
      assert.equal(error, undefined);
      assert.equal(readFileSync(path, "utf8"), "new\n");
    }));

  test(`${name} on Deno tells of a --deny flag that no --allow flag overrides`, () =>
    inScratch(async (directory) => {
      const { error } = await onDeno(
        [...scope(directory), `--deny-write=${directory}`],
        name,
        [join(directory, "f"), "new"],
      );
      assert.equal(error?.name, "PermissionScopeError");
      assert.match(error?.message ?? "", /take away the --deny-write/);
    }));

  test(`${name} on Deno works where the scope is spelled through a link`, () =>
    inScratch(async (directory) => {
      mkdirSync(join(directory, "real"));
      const link = join(directory, "link");
      symlinkSync("real", link);
      const { result, error } = await onDeno(scope(link), name, [
        join(link, "f"),
        "new",
      ]);
      assert.equal(error, undefined);
      assert.equal(result?.path, join(link, "f"));
      assert.equal(readFileSync(join(directory, "real", "f"), "utf8"), "new\n");
    }));

  test(`${name} on Deno does not follow a link out of its scope`, () =>
    inScratch(async (directory) => {
      const data = join(directory, "data");
      const outside = join(directory, "outside");
      mkdirSync(data);
      mkdirSync(outside);
      writeFileSync(join(outside, "victim"), "old");
      symlinkSync("../outside/victim", join(data, "f"));
      const { error } = await onDeno(scope(data), name, [
        join(data, "f"),
        "new",
      ]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.ok(error?.message.includes(outside));
      assert.equal(readFileSync(join(outside, "victim"), "utf8"), "old");
    }));
}

for (const name of ["readText", "readTextSync"]) {
  test(`${name} on Deno needs read on the file and nothing else`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "text");
      const allowed = await onDeno([`--allow-read=${path}`], name, [path]);
      assert.equal(allowed.result, "text");
      const elsewhere = `--allow-read=${join(directory, "elsewhere")}`;
      const { error } = await onDeno([elsewhere], name, [path]);
      assert.equal(error?.name, "PermissionScopeError");
      assert.ok(error?.message.includes(`add --allow-read=${path}`));
    }));
}

for (const suffix of ["", "Sync"]) {
  test(`a checksum${suffix} that Deno may not look for is not missing, and no write makes it wrong`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const write = `writeTextAtomic${suffix}`;
      await onDeno(scope(directory), write, [path, "old", { checksum: true }]);
      const checksum = true;
      for (
        const [name, ...given] of [
          [`readText${suffix}`, path, { checksum }],
          [`verifyChecksum${suffix}`, path],
          [`readChecksum${suffix}`, path, { algorithm: "sha256" }],
        ] as const
      ) {
        const { error } = await onDeno([`--allow-read=${path}`], name, given);
        assert.equal(error?.name, "PermissionScopeError");
        assert.match(error.message, new RegExp(`${path}\\.sha\\d+"`));
        assert.ok(error.message.endsWith(`add --allow-read=${directory}`));
      }
      const denied = `${path}.sha256`;
      const { error } = await onDeno(
        [...scope(directory), `--deny-read=${denied}`],
        write,
        [path, "new"],
      );
      assert.equal(error?.name, "PermissionScopeError");
      assert.ok(
        error.message.includes(`--allow-read=${denied} (and take away`),
      );
      assert.equal(readFileSync(path, "utf8"), "old\n");
      const plain = [path, "new", { durability: "none" }];
      const narrow = [`--allow-read=${path}`, `--allow-write=${directory}`];
      const missing = await onDeno(narrow, write, plain);
      assert.equal(missing.error?.name, "PermissionScopeError");
      assert.ok(missing.error.message.endsWith(`--allow-read=${directory}`));
      assert.equal(readFileSync(path, "utf8"), "old\n");
    }));
}

for (const suffix of ["", "Sync"]) {
  test(`moveAtomic${suffix} on Deno needs read and write on both directories, and names what is missing`, () =>
    inScratch(async (directory) => {
      const [a, b] = [join(directory, "a"), join(directory, "b")];
      mkdirSync(a);
      mkdirSync(b);
      const [from, to] = [join(a, "f"), join(b, "g")];
      writeFileSync(from, "content");
      const name = `moveAtomic${suffix}`;
      const refused = await onDeno(scope(a), name, [from, to]);
      assert.equal(refused.error?.name, "PermissionScopeError");
      assert.equal(refused.error.committed, false);
      const message = refused.error.message;
      assert.ok(message.includes(`--allow-read=${b} --allow-write=${b}`));
      assert.ok(!message.includes(`--allow-read=${a}`));
      assert.equal(readFileSync(from, "utf8"), "content");
      const both = scope(`${a},${b}`);
      const moved = await onDeno(both, name, [from, to, { lock: true }]);
      assert.equal(moved.error, undefined);
      assert.equal(readFileSync(to, "utf8"), "content");
      assert.deepEqual(readdirSync(a), []);
    }));

  test(`appendJsonl${suffix} on Deno needs read and write on the directory, and names what is missing`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const name = `appendJsonl${suffix}`;
      for (const records of [[1], [2]]) {
        const done = await onDeno(scope(directory), name, [path, records]);
        assert.equal(done.error, undefined);
      }
      assert.equal(readFileSync(path, "utf8"), "1\n2\n");
      const refused = await onDeno(scope(path), name, [path, [3]]);
      assert.equal(refused.error?.name, "PermissionScopeError");
      assert.ok(refused.error.message.includes(`--allow-read=${directory} `));
      assert.equal(readFileSync(path, "utf8"), "1\n2\n");
      writeFileSync(path, "1\n{");
      const repair = `repairJsonl${suffix}`;
      await onDeno(scope(directory), repair, [path]);
      assert.equal(readFileSync(path, "utf8"), "1\n");
    }));
}
