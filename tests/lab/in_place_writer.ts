/**
 * A writer of the kind that the library replaces, for the controls: `PATH`
 * writes documents in place, over and over, as a rule until it is killed.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import process from "node:process";
import { document } from "./document.ts";

const [path = ""] = process.argv.slice(2);

/** Far more than it takes to be seen. */
const WRITES = 200_000;

for (let index = 0; index < WRITES; index++) {
  writeFileSync(path, document(`in-place-${index}`, (index % 20) * 10_000));
  // A sign of life.
  if (index % 10_000 === 0) console.log(index);
}
