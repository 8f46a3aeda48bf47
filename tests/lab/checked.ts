/**
 * Writes a file with a checksum, or verifies it again and again: `write PATH
 * TIMES`, `write-apart PATH TIMES`, `verify PATH UNTIL`. The second writes the
 * checksum after the file, as a program without this library would. The third
 * stops when the file UNTIL is there.
 *
 * @module
 */

import { existsSync, writeFileSync } from "node:fs";
import {
  AtomicError,
  ChecksumMismatchError,
  hashFile,
  verifyChecksum,
  writeTextAtomic,
} from "../../mod.ts";

const args = "Deno" in globalThis
  ? Deno.args
  : globalThis.process.argv.slice(2);
const [role, path = "", last = ""] = args;

if (role === "verify") {
  let verified = 0;
  let mismatches = 0;
  let others = 0;
  while (!existsSync(last)) {
    try {
      await verifyChecksum(path);
      verified++;
    } catch (error) {
      if (error instanceof ChecksumMismatchError) mismatches++;
      // Written apart, the checksum itself is torn now and then.
      else if (!(error instanceof AtomicError)) throw error;
      else others++;
    }
  }
  console.log(JSON.stringify({ verified, mismatches, others }));
} else {
  for (let time = 0; time < Number(last); time++) {
    const text = `${role} ${time} `.repeat(1000 + time);
    if (role === "write") {
      await writeTextAtomic(path, text);
    } else {
      writeFileSync(path, text);
      writeFileSync(`${path}.sha256`, `${await hashFile(path)}  f\n`);
    }
  }
}
