/**
 * What a user of npm gets: the packed tarball, installed in a new folder,
 * loaded by every runtime and compiled by old and new compilers. The tarball
 * that `deno pack` makes is loaded as well, since JSR builds its npm packages
 * in the same way.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inScratch } from "../scratch.ts";
import {
  BUN,
  cloneInto,
  command,
  DENO,
  inRepository,
  nodeIn,
  tryCommand,
} from "./command.ts";

const manifest = JSON.parse(readFileSync(inRepository("package.json"), "utf8"));

const PROGRAMS = inRepository("tests/consumers/programs");
const TSC = inRepository("node_modules/typescript/bin/tsc");

/** A folder with the package installed, for each way of packing it. */
interface Installed {
  readonly npm: string;
  readonly deno: string;
}

let installed: Installed;
let scratch: string;
const { promise: tested, resolve: endOfTests } = Promise.withResolvers<void>();
let cleaned: Promise<void>;

before(async () => {
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  cleaned = inScratch(async (directory) => {
    scratch = directory;
    const clone = join(directory, "clone");
    cloneInto(clone);
    symlinkSync(inRepository("node_modules"), join(clone, "node_modules"));
    const npm = await install(directory, "npm", await npmPack(clone));
    const deno = await install(directory, "deno", await denoPack(clone));
    await compilePrograms(npm);
    for (const name of ["every_function.js", "by_require.cjs"]) {
      copyFileSync(join(npm, name), join(deno, name));
    }
    installed = { npm, deno };
    resolve();
    await tested;
  });
  await Promise.race([ready, cleaned]);
});

after(async () => {
  endOfTests();
  await cleaned;
});

async function npmPack(clone: string): Promise<string> {
  const words = ["npm", "pack", "--json", "--pack-destination", scratch];
  const stdout = await command(words, { cwd: clone });
  // The build that runs before it may print lines of its own.
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf("[\n")));
  return join(scratch, packed.filename);
}

async function denoPack(clone: string): Promise<string> {
  const tarball = join(scratch, "deno-pack.tgz");
  await command([DENO, "pack", "--output", tarball], {
    cwd: clone,
    env: { DENO_NO_PACKAGE_JSON: "1" },
  });
  return tarball;
}

async function install(
  directory: string,
  name: string,
  tarball: string,
): Promise<string> {
  const folder = join(directory, name);
  mkdirSync(folder);
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ private: true, type: "module" }),
  );
  await command(["npm", "install", "--offline", "--no-audit", tarball], {
    cwd: folder,
  });
  return folder;
}

/** To JavaScript, for the releases of Node that run nothing else. */
async function compilePrograms(folder: string): Promise<void> {
  cpSync(PROGRAMS, folder, { recursive: true });
  writeTsconfig(folder, {
    module: "nodenext",
    types: [],
    lib: ["es2022", "dom", "esnext.disposable"],
    noEmit: false,
    declaration: false,
  });
  await command([process.execPath, TSC, "-p", "."], { cwd: folder });
}

function writeTsconfig(
  folder: string,
  compilerOptions: Readonly<Record<string, unknown>>,
): void {
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        skipLibCheck: false,
        target: "es2022",
        noEmit: true,
        ...compilerOptions,
      },
      include: ["*.ts", "*.cts"],
    }),
  );
}

/** A copy of an installed folder, so that no test sees what another one did. */
function copyOf(folder: string): string {
  const copy = mkdtempSync(join(scratch, "copy-"));
  cpSync(folder, copy, { recursive: true, verbatimSymlinks: true });
  mkdirSync(join(copy, "data"));
  return copy;
}

test("the tarball holds the compiled modules with their types, and nothing to run at installation", () => {
  const folder = join(installed.npm, "node_modules/@aj/atomic");
  const found = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length));
  const modules = [".", "_runtime"].flatMap((of) =>
    readdirSync(inRepository(of))
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join("/dist", of, name.slice(0, -".ts".length)))
  );
  assert.deepEqual(
    found.toSorted(),
    [
      "/CHANGELOG.md",
      "/LICENSE",
      "/README.md",
      "/package.json",
      ...modules.flatMap((module) => [`${module}.js`, `${module}.d.ts`]),
    ].toSorted(),
  );
  const packed = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  assert.equal(packed.sideEffects, false);
  assert.deepEqual(packed.engines, manifest.engines);
  for (const script of ["preinstall", "install", "postinstall"]) {
    assert.equal(packed.scripts?.[script], undefined);
  }
});

interface Loader {
  readonly name: string;
  readonly run: readonly string[];
  /** Whether it knows `require` of an ES module. */
  readonly requires: boolean;
}

const scope = ["--no-prompt", "--allow-read=data", "--allow-write=data"];
const nodes = [
  ["Node 22.13", nodeIn("tests/floors/node_modules/node-dist-floor")],
  ["Node 22", nodeIn("tests/runtimes/node_modules/node22")],
  ["Node 24", nodeIn("tests/runtimes/node_modules/node24")],
  ["Node 26", nodeIn("tests/runtimes/node_modules/node26")],
] as const;
const floors = "tests/floors/node_modules";
const LOADERS: readonly Loader[] = [
  ...nodes.map(([name, path]) => ({ name, run: [path], requires: true })),
  { name: "Bun", run: [BUN], requires: true },
  {
    name: "Bun 1.3",
    run: [inRepository(`${floors}/bun-floor/bin/bun`)],
    requires: true,
  },
  {
    name: "Deno, with read and write on ./data alone,",
    run: [DENO, "run", ...scope],
    requires: false,
  },
  {
    name: "Deno 2.5, with read and write on ./data alone,",
    run: [inRepository(`${floors}/deno-floor/deno`), "run", ...scope],
    requires: false,
  },
];

for (const packer of ["npm", "deno"] as const) {
  for (const { name, run, requires } of LOADERS) {
    test(`${packer} pack: ${name} runs every function`, async () => {
      const folder = copyOf(installed[packer]);
      await command([...run, "every_function.js"], { cwd: folder });
      assert.ok(readdirSync(join(folder, "data/every-function")).length > 0);
    });
    if (!requires) continue;
    test(`${packer} pack: ${name} requires it`, async () => {
      const folder = copyOf(installed[packer]);
      await command([...run, "by_require.cjs"], { cwd: folder });
      assert.deepEqual(readdirSync(join(folder, "data")), ["by-require.txt"]);
    });
  }
}

for (const [name, node] of nodes.slice(1)) {
  test(`npm pack: Jest on ${name} runs it, in a context with errors of its own`, async () => {
    const folder = copyOf(installed.npm);
    const jest = inRepository("tests/consumers/node_modules/jest/bin/jest.js");
    const { code, stderr } = await tryCommand(
      [node, "--experimental-vm-modules", jest, "--rootDir", folder],
      { cwd: folder },
    );
    assert.match(stderr, /^Tests: +4 passed, 4 total$/m);
    assert.equal(code, 0);
  });
}

test("`bun add` installs the tarball, and Bun runs TypeScript that imports it", async () => {
  const folder = mkdtempSync(join(scratch, "bun-"));
  mkdirSync(join(folder, "data"));
  cpSync(PROGRAMS, folder, { recursive: true });
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ private: true }),
  );
  const version: string = manifest.version;
  await command([BUN, "add", join(scratch, `aj-atomic-${version}.tgz`)], {
    cwd: folder,
  });
  await command([BUN, "every_function.ts"], { cwd: folder });
});

const entries = Object.keys(manifest.exports)
  .filter((entry) => entry !== "./package.json");

/** Prints the names that each of the modules has, and fails if loading them has an effect. */
function namesOf(modules: readonly string[]): string {
  return `const before = Object.getOwnPropertyNames(globalThis).join();
for (const module of ${JSON.stringify(modules)}) {
  console.log(Object.keys(await import(module)).join());
}
const after = Object.getOwnPropertyNames(globalThis).join();
if (after !== before) throw new Error(after);
// What Node itself has under way by then are other things.
const active = process.getActiveResourcesInfo()
  .filter((name) => /Timeout|Immediate|Worker|Server/.test(name));
if (active.length > 0) throw new Error(active.join());
`;
}

test("every entry is loaded by its name, without an effect, and has the names that it has in the checkout", async () => {
  const folder = copyOf(installed.npm);
  writeFileSync(
    join(folder, "entries.js"),
    namesOf(entries.map((entry) => entry.replace(".", "@aj/atomic"))),
  );
  const sources: Readonly<Record<string, string>> = JSON.parse(
    readFileSync(inRepository("deno.json"), "utf8"),
  ).exports;
  writeFileSync(
    join(folder, "sources.js"),
    namesOf(
      entries.map((entry) => `file://${inRepository(sources[entry] ?? "")}`),
    ),
  );
  const node = nodeIn("tests/runtimes/node_modules/node24");
  const fromSources = await command([node, "sources.js"], { cwd: folder });
  assert.equal(fromSources.trimEnd().split("\n").length, entries.length);
  for (const [, path] of nodes) {
    assert.equal(
      await command([path, "entries.js"], { cwd: folder }),
      fromSources,
    );
  }
});

test("package.json is exported too", async () => {
  const folder = copyOf(installed.npm);
  writeFileSync(
    join(folder, "manifest.js"),
    `import manifest from "@aj/atomic/package.json" with { type: "json" };
if (manifest.version !== "${manifest.version}") throw manifest;
`,
  );
  const [[, oldest]] = nodes;
  await command([oldest, "manifest.js"], { cwd: folder });
});

interface Compiler {
  readonly name: string;
  readonly path: string;
  /** The newest types of Node that it can read. */
  readonly nodeTypes: string;
  /** Whether it has types for `require` of an ES module. */
  readonly requires: boolean;
}

const ours = "tests/consumers/node_modules";
const COMPILERS: readonly Compiler[] = [
  {
    name: "TypeScript 5.4",
    path: inRepository(`${ours}/typescript54/bin/tsc`),
    nodeTypes: inRepository(`${ours}/types-node24`),
    requires: false,
  },
  {
    name: "TypeScript 5.9",
    path: inRepository(`${ours}/typescript59/bin/tsc`),
    nodeTypes: inRepository("node_modules/@types/node"),
    requires: true,
  },
  {
    name: "TypeScript 7",
    path: TSC,
    nodeTypes: inRepository("node_modules/@types/node"),
    requires: true,
  },
];

for (const { name, path, nodeTypes, requires } of COMPILERS) {
  for (const resolution of ["nodenext", "bundler"]) {
    for (const withNode of [true, false]) {
      const types = withNode
        ? "with the types of Node and no others"
        : "without the types of Node";
      test(`${name}, ${resolution}, ${types}: every function and type compiles, declarations checked`, async () => {
        const folder = copyOf(installed.npm);
        const program = resolution === "nodenext" && requires
          ? ["every_function.ts", "by_require.cts"]
          : ["every_function.ts"];
        writeTsconfig(folder, {
          module: resolution === "nodenext" ? "nodenext" : "esnext",
          moduleResolution: resolution,
          lib: withNode ? ["es2022"] : ["es2022", "dom", "esnext.disposable"],
          types: withNode ? ["node"] : [],
        });
        const config = join(folder, "tsconfig.json");
        const parsed = JSON.parse(readFileSync(config, "utf8"));
        writeFileSync(
          config,
          JSON.stringify({ ...parsed, include: undefined, files: program }),
        );
        if (withNode) {
          mkdirSync(join(folder, "node_modules/@types"));
          symlinkSync(nodeTypes, join(folder, "node_modules/@types/node"));
        }
        await command([process.execPath, path, "-p", "."], { cwd: folder });
      });
    }
  }
}
