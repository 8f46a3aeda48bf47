/**
 * How long Deno takes to start and end a script that imports an entry of the
 * library, beside an empty script, and beside what else a script may import.
 * All in one run, turn by turn, so that what disturbs one disturbs the others.
 *
 * ```sh
 * npm run bench:startup
 * ```
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { median, table } from "./report.ts";

const ROUNDS = 40;

function inRepository(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

// Not the script that npm puts before it: it is a process of its own.
const DENO = [
  "node_modules/@deno/linux-x64-glibc/deno",
  "node_modules/.bin/deno",
].map(inRepository).find(existsSync) ?? "deno";

const exported: Record<string, string> = JSON.parse(
  readFileSync(inRepository("deno.json"), "utf8"),
).exports;

/** The scripts, by what is measured. */
const scripts = new Map([
  ["empty script", ""],
  ...Object.entries(exported).map(([entry, source]) =>
    [
      entry.replace(".", "@aj/atomic"),
      `import "file://${inRepository(source)}";`,
    ] as const
  ),
  [
    "@aj/atomic, and one write",
    `import { writeJsonAtomicSync } from "file://${inRepository("mod.ts")}";
     writeJsonAtomicSync("data/document.json", { a: 1 }, { durability: "none" });`,
  ],
  ["node:path", `import "node:path";`],
  ["node:fs", `import "node:fs";`],
]);

const folder = mkdtempSync(join(tmpdir(), "atomic-startup-"));
try {
  const timings = new Map<string, number[]>();
  mkdirSync(join(folder, "data"));
  const files = Array.from(scripts, ([name, code], index) => {
    const file = join(folder, `${index}.ts`);
    writeFileSync(file, code);
    timings.set(name, []);
    return { name, file };
  });
  // Round 0 fills the caches of Deno and of the system.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const { name, file } of files) {
      const start = performance.now();
      execFileSync(DENO, [
        "run",
        "--no-prompt",
        "--no-config",
        "--allow-read=data",
        "--allow-write=data",
        file,
      ], {
        cwd: folder,
        env: {
          ...process.env,
          DENO_DIR: join(folder, "deno"),
          DENO_NO_UPDATE_CHECK: "1",
        },
      });
      if (round > 0) timings.get(name)?.push(performance.now() - start);
    }
  }
  const rows = Array.from(timings, ([name, times]) => ({
    name,
    time: median(times),
  }));
  const empty = rows[0]?.time ?? NaN;
  console.log(
    table(
      ["Deno starts and ends", "median, ms", "more than empty, ms", "ratio"],
      rows.map(({ name, time }) => [
        name,
        time.toFixed(1),
        (time - empty).toFixed(1),
        (time / empty).toFixed(2),
      ]),
    ),
  );
  console.log(`${ROUNDS} rounds`);
} finally {
  rmSync(folder, { recursive: true });
}
