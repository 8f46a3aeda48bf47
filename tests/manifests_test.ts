import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL(
  import.meta.url.endsWith(".js") ? "../../" : "../",
  import.meta.url,
);

function read(name: string): string {
  return readFileSync(new URL(name, root), "utf8");
}

const deno = JSON.parse(read("deno.json"));
const jsr = JSON.parse(read("jsr.json"));
const npm = JSON.parse(read("package.json"));

test("deno.json, jsr.json and package.json name the same package, version and licence", () => {
  for (const field of ["name", "version", "license"]) {
    assert.equal(jsr[field], deno[field], field);
    assert.equal(npm[field], deno[field], field);
  }
});

test("jsr.json says nothing but what deno.json says", () => {
  for (const [field, value] of Object.entries(jsr)) {
    assert.deepEqual(value, deno[field], field);
  }
  assert.deepEqual(Object.keys(jsr), [
    "name",
    "version",
    "license",
    "exports",
    "publish",
  ]);
});

test("package.json exports what deno.json exports, each with its types", () => {
  const { "./package.json": itself, ...exported } = npm.exports;
  assert.equal(itself, "./package.json");
  assert.deepEqual(
    exported,
    Object.fromEntries(
      Object.entries<string>(deno.exports).map(([name, source]) => {
        const built = source.replace("./", "./dist/").replace(/\.ts$/, "");
        return [name, { types: `${built}.d.ts`, default: `${built}.js` }];
      }),
    ),
  );
});

test("every public module is exported, and what is exported exists", () => {
  const modules = readdirSync(root)
    .filter((name) => name.endsWith(".ts") && !name.startsWith("_"))
    .map((name) => `./${name}`);
  assert.deepEqual(
    Object.values<string>(deno.exports).toSorted(),
    modules.toSorted(),
  );
});

test("the package has no dependency at run time and no install script", () => {
  for (
    const field of ["dependencies", "peerDependencies", "optionalDependencies"]
  ) {
    assert.deepEqual(npm[field] ?? {}, {}, field);
  }
  for (const script of ["preinstall", "install", "postinstall", "prepare"]) {
    assert.equal(npm.scripts?.[script], undefined, script);
  }
  assert.equal(npm.sideEffects, false);
});

test("the newest entry of the changelog is this version, and the floors in package.json are those the floors run", () => {
  const [, newest] = /^## \[?(\d+\.\d+\.\d+)/m.exec(read("CHANGELOG.md")) ?? [];
  assert.equal(newest, deno.version);
  const floors = JSON.parse(read("tests/floors/package.json"));
  const { optionalDependencies: pinned } = floors;
  assert.ok(pinned["bun-floor"].endsWith(npm.engines.bun.replace(">=", "@")));
  assert.ok(pinned["deno-floor"].endsWith(npm.engines.deno.replace(">=", "@")));
  assert.ok(
    pinned["node-dist-floor"].endsWith(npm.engines.node.replace(">=", "@")),
  );
});

test("the lockfiles record no download addresses", () => {
  for (
    const name of [
      "package-lock.json",
      "tests/runtimes/package-lock.json",
      "tests/floors/package-lock.json",
      "tests/consumers/package-lock.json",
      "tests/peers/package-lock.json",
      "examples/bun/package-lock.json",
    ]
  ) {
    assert.ok(existsSync(new URL(name, root)));
    assert.doesNotMatch(read(name), /"resolved": "http/);
  }
});
