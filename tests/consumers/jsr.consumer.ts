/**
 * What a user of JSR gets: published by the real `deno publish`, imported in a
 * new folder by the real Deno.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { inScratch } from "../scratch.ts";
import {
  cloneInto,
  command,
  DENO,
  inRepository,
  tryCommand,
} from "./command.ts";
import { type Registry, startRegistry } from "./jsr_registry.ts";

const { exports, version } = JSON.parse(
  readFileSync(inRepository("deno.json"), "utf8"),
);
const entries = Object.keys(exports);
const documents = ["README.md", "docs/recipes.md", "docs/locks.md"];

const scope = ["--allow-read=./data", "--allow-write=./data"];

let registry: Registry;
let env: Record<string, string>;
let publishing: string;

const { promise: tested, resolve: endOfTests } = Promise.withResolvers<void>();
let cleaned: Promise<void>;

before(async () => {
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  cleaned = inScratch(async (directory) => {
    await using started = await startRegistry(directory);
    registry = started;
    env = { JSR_URL: registry.url, DENO_DIR: join(directory, "deno") };
    const clone = join(directory, "clone");
    cloneInto(clone);
    publishing = await command(
      [DENO, "publish", "--no-provenance", "--token", "x"],
      // Else the tools of development would be fetched first.
      { cwd: clone, env: { ...env, DENO_NO_PACKAGE_JSON: "1" } },
    );
    resolve();
    await tested;
  });
  await Promise.race([ready, cleaned]);
});

after(async () => {
  endOfTests();
  await cleaned;
});

/** Runs `body` in a new folder that has an empty `data`, and nothing else. */
function asUser<T>(body: (folder: string) => Promise<T>): Promise<T> {
  return inScratch((folder) => {
    mkdirSync(join(folder, "data"));
    return body(folder);
  });
}

interface Block {
  readonly name: string;
  readonly code: string;
}

/** The blocks of the documents that import the library. */
const blocks: readonly Block[] = documents.flatMap((document) =>
  Array.from(
    readFileSync(inRepository(document), "utf8")
      .matchAll(/^```ts\n([\s\S]*?)^```$/gm),
    ([, code = ""], index) => ({
      name: `${document}, block ${index + 1},`,
      code,
    }),
  ).filter(({ code }) => code.includes('"jsr:@aj/atomic'))
);

/** The first block of the README: the one that everybody tries. */
const firstBlock = blocks[0]?.code ?? "";

test("what is published is the modules, the manifest, the README, the changelog and the licence", () => {
  const published = registry.versions.get(`@aj/atomic/${version}`);
  assert.ok(published !== undefined, publishing);
  const modules = [".", "_runtime"].flatMap((folder) =>
    readdirSync(inRepository(folder))
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join("/", folder, name))
  );
  const others = ["CHANGELOG.md", "LICENSE", "README.md", "deno.json"];
  assert.deepEqual(
    [...published.files.keys()].toSorted(),
    [...modules, ...others.map((name) => `/${name}`)].toSorted(),
  );
});

for (const { name, code } of blocks) {
  test(`${name} runs verbatim, type-checked, with read and write on ./data alone`, () =>
    asUser(async (folder) => {
      writeFileSync(join(folder, "main.ts"), code);
      await command(
        [DENO, "run", "--check", "--no-prompt", ...scope, "main.ts"],
        { cwd: folder, env },
      );
    }));
}

test("control: without the permission to write the same block is refused, and names the flag", () =>
  asUser(async (folder) => {
    writeFileSync(join(folder, "main.ts"), firstBlock);
    const { code, stderr } = await tryCommand(
      [DENO, "run", "--no-prompt", "--allow-read=./data", "main.ts"],
      { cwd: folder, env },
    );
    assert.notEqual(code, 0);
    assert.match(stderr, /PermissionScopeError.*--allow-write/s);
    assert.deepEqual(readdirSync(join(folder, "data")), []);
  }));

test("the blocks pass as documentation tests in a folder that has the documents alone", () =>
  asUser(async (folder) => {
    for (const document of documents) {
      copyFileSync(inRepository(document), join(folder, basename(document)));
    }
    const stdout = await command(
      [
        DENO,
        "test",
        "--doc",
        "--no-prompt",
        ...scope,
        ...documents.map((path) => basename(path)),
      ],
      { cwd: folder, env },
    );
    assert.match(stdout, new RegExp(`ok \\| ${blocks.length} passed`));
  }));

test("a range of versions, `deno add` and an import map entry find it", () =>
  asUser(async (folder) => {
    const range = `jsr:@aj/atomic@^${version}`;
    const run = [DENO, "run", "--check", "--no-prompt", ...scope];
    writeFileSync(
      join(folder, "range.ts"),
      firstBlock.replace("jsr:@aj/atomic", range),
    );
    await command([...run, "range.ts"], { cwd: folder, env });
    await command([DENO, "add", "jsr:@aj/atomic"], { cwd: folder, env });
    writeFileSync(
      join(folder, "added.ts"),
      firstBlock.replace("jsr:@aj/atomic", "@aj/atomic"),
    );
    await command([...run, "added.ts"], { cwd: folder, env });
    const written = readFileSync(join(folder, "data/visits.json"), "utf8");
    assert.deepEqual(JSON.parse(written), { visits: 2 });
  }));

test("every entry is imported, and has the names that it has in the checkout", () =>
  asUser(async (folder) => {
    const program = (specifier: (entry: string) => string) =>
      entries.map((entry, index) =>
        `import * as e${index} from "${specifier(entry)}";\n` +
        `console.log(${JSON.stringify(entry)}, Object.keys(e${index}).join());`
      ).join("\n");
    const run = (file: string) =>
      command([DENO, "run", "--check", "--no-prompt", file], {
        cwd: folder,
        env,
      });
    writeFileSync(
      join(folder, "registry.ts"),
      program((entry) => entry.replace(".", "jsr:@aj/atomic")),
    );
    writeFileSync(
      join(folder, "checkout.ts"),
      program((entry) => `file://${inRepository(exports[entry])}`),
    );
    const imported = await run("registry.ts");
    assert.equal(imported.trimEnd().split("\n").length, entries.length);
    assert.equal(imported, await run("checkout.ts"));
  }));

test("no other package is fetched, and no module of Node loaded", () =>
  asUser(async (folder) => {
    writeFileSync(
      join(folder, "main.ts"),
      entries.map((entry) =>
        `import "${entry.replace(".", "jsr:@aj/atomic")}";`
      ).join("\n"),
    );
    const stdout = await command([DENO, "info", "--json", "main.ts"], {
      cwd: folder,
      env,
    });
    const { modules, npmPackages } = JSON.parse(stdout);
    assert.deepEqual(npmPackages, {});
    for (const { kind, specifier, dependencies = [] } of modules) {
      const loaded = dependencies.filter(isLoaded);
      for (const { specifier: of } of loaded) {
        assert.doesNotMatch(of, /^node:/, `${specifier} loads ${of}`);
      }
      // Named by _runtime/node.ts for its types.
      if (kind === "node") continue;
      assert.ok(
        specifier === `file://${join(folder, "main.ts")}` ||
          specifier.startsWith(`${registry.url}@aj/atomic/${version}/`),
        specifier,
      );
    }
  }));

test("what JSR scores: documentation of every entry and every name, no slow types, a README with an example", async () => {
  const paths = Object.values<string>(exports);
  const stdout = await command([DENO, "doc", "--json", ...paths], {
    cwd: inRepository("."),
  });
  const { nodes } = JSON.parse(stdout);
  assert.equal(Object.keys(nodes).length, paths.length);
  for (
    const [module, { module_doc: doc }] of Object.entries<Documented>(nodes)
  ) {
    assert.ok((doc?.doc ?? "") !== "", `${module} has no description`);
  }
  await command([DENO, "doc", "--lint", ...paths], {
    cwd: inRepository("."),
  });
  // Slow types would have been an error of `deno publish`, which was not told to allow them.
  assert.notEqual(firstBlock, "");
});

interface Dependency {
  readonly specifier: string;
  readonly code?: unknown;
}

/** Not for its types alone. */
function isLoaded({ code }: Dependency): boolean {
  return code !== undefined;
}

interface Documented {
  readonly module_doc?: { readonly doc?: string };
}
