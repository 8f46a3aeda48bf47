/**
 * A writer of the kind that the library replaces, for the controls: `PATH`
 * writes documents in place, over and over, until it is killed.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { document } from "./document.ts";

const [path = ""] = process.argv.slice(2);

// Should the lab die before it kills this program, it must end by itself.
const end = performance.now() + 60_000;
for (let index = 0; performance.now() < end; index++) {
  writeFileSync(path, document(`in-place-${index}`, (index % 20) * 10_000));
}
