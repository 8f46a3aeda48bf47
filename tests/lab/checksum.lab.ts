/**
 * Checksums on the real system: readers beside writers on three runtimes, and
 * what the usual program says of the sidecar.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { verifyChecksum, writeTextAtomic } from "../../mod.ts";
import { Program } from "./program.ts";
import { inLab, run } from "./run.ts";
import { cachesIn, RUNTIMES } from "./runtimes.ts";

const TIMES = 150;

interface Looks {
  readonly verified: number;
  readonly mismatches: number;
  /** Other failures. */
  readonly others: number;
}

/** One writer and one reader on each runtime; what the readers have seen. */
function besideWriters(
  role: "write" | "write-apart",
): Promise<Omit<Looks, "others">> {
  return inLab(async ({ directory, outside }) => {
    const path = join(directory, "f");
    const until = join(directory, "until");
    await writeTextAtomic(path, "first", { checksum: true });
    const env = cachesIn(join(outside, "deno"));
    const start = (...args: readonly string[]) =>
      RUNTIMES.map(({ command }) =>
        new Program(command(directory, "./checked.ts", ...args), env)
      );
    const readers = start("verify", path, until);
    const writers = start(role, path, String(TIMES));
    for (const writer of writers) {
      assert.equal(await writer.ended, 0, writer.stderr);
    }
    writeFileSync(until, "");
    let verified = 0;
    let mismatches = 0;
    for (const reader of readers) {
      const code = await reader.ended;
      assert.equal(code, 0, reader.stderr);
      const looks: Looks = JSON.parse(reader.stdout);
      if (role === "write") {
        assert.ok(looks.verified > 0);
        assert.equal(looks.others, 0);
      }
      verified += looks.verified;
      mismatches += looks.mismatches;
    }
    if (role === "write") await verifyChecksum(path);
    return { verified, mismatches };
  });
}

test("beside 150 writes on each of three runtimes no reader finds a mismatch", async (t) => {
  const { verified, mismatches } = await besideWriters("write");
  t.diagnostic(`${verified} verified, ${mismatches} mismatches`);
  assert.equal(mismatches, 0);
});

test("control: where the checksum is written after the file, readers find mismatches", async (t) => {
  const { mismatches, verified } = await besideWriters("write-apart");
  t.diagnostic(`${verified} verified, ${mismatches} mismatches`);
  assert.ok(mismatches > 0);
});

test("sha256sum --strict -c reads the checksum of any name", () =>
  inLab(async ({ directory }) => {
    for (const name of ["f", "a b", "a\\b", "a\nb", "ü"]) {
      const path = join(directory, name);
      for (const algorithm of ["sha256", "sha512"] as const) {
        await writeTextAtomic(path, "one", { checksum: algorithm });
        await writeTextAtomic(path, "two");
        const command = [`${algorithm}sum`, "--strict", "-c"];
        const { code, stderr } = await run([
          "env",
          "-C",
          directory,
          ...command,
          `${name}.${algorithm}`,
        ]);
        assert.equal(code, 0, stderr);
        writeFileSync(path, "three");
        const damaged = await run([
          "env",
          "-C",
          directory,
          ...command,
          `${name}.${algorithm}`,
        ]);
        assert.equal(damaged.code, 1);
        writeFileSync(path, "two\n");
      }
    }
  }));
