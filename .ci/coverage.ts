/**
 * Checks how much of the library its tests run: `deno.ts` under Deno, `node.ts`
 * under Node, everything else under both.
 *
 * ```sh
 * node .ci/coverage.ts coverage/deno.lcov coverage/node.lcov
 * ```
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { relative } from "node:path";
import process from "node:process";

/** Percent of the lines. */
const REQUIRED = 95;

interface Covered {
  lines: number;
  hit: number;
}

function parse(lcov: string): Map<string, Covered> {
  const files = new Map<string, Covered>();
  let current: Covered = { lines: 0, hit: 0 };
  for (const line of readFileSync(lcov, "utf8").split("\n")) {
    const [field, value = ""] = line.split(/:(.*)/s);
    if (field === "SF") {
      current = { lines: 0, hit: 0 };
      files.set(relative(process.cwd(), value), current);
    } else if (field === "DA") {
      current.lines++;
      if (!value.endsWith(",0")) current.hit++;
    }
  }
  return files;
}

const [deno = "", node = ""] = process.argv.slice(2);
const reports = [
  { runtime: "Deno", files: parse(deno), foreign: "_runtime/node.ts" },
  { runtime: "Node", files: parse(node), foreign: "_runtime/deno.ts" },
];
let failures = 0;
for (const { runtime, files, foreign } of reports) {
  const library = [...files].filter(([file, { lines }]) =>
    !file.startsWith("tests/") && file !== foreign && lines > 0
  );
  let lines = 0;
  let hit = 0;
  for (const [file, covered] of library) {
    lines += covered.lines;
    hit += covered.hit;
    const percent = 100 * covered.hit / covered.lines;
    if (percent >= REQUIRED) continue;
    failures++;
    console.error(`${runtime}: ${file} is covered ${percent.toFixed(1)} %`);
  }
  if (library.length < 20) {
    failures++;
    console.error(`${runtime}: only ${library.length} files are in the report`);
  }
  console.log(
    `${runtime}: ${library.length} files, ${
      (100 * hit / lines).toFixed(1)
    } % of ${lines} lines`,
  );
}
if (failures > 0) process.exit(1);
