/**
 * A million records from an async generator, written and read back; or, to
 * compare, nothing but their JSON. Prints by how much the process grew at most.
 *
 * @module
 */

import { readJsonl, writeJsonlAtomic } from "../../mod.ts";

interface Process {
  memoryUsage(): { rss: number };
}

const { Deno, process } = globalThis as {
  Deno?: { readonly args: readonly string[]; memoryUsage(): { rss: number } };
  process?: Process & { readonly argv: readonly string[] };
};
const [path = "", mode = ""] = Deno?.args ?? process?.argv.slice(2) ?? [];
const resident = (): number => (Deno ?? process)?.memoryUsage().rss ?? 0;

const RECORDS = 1_000_000;

function record(id: number): object {
  return { id, name: `record ${id}`, tags: ["a", "b"], value: id / 3 };
}

async function* records(): AsyncGenerator<object, void, undefined> {
  for (let id = 0; id < RECORDS; id++) {
    if (id % 50_000 === 0) look();
    yield record(id);
  }
}

let most = 0;
function look(): void {
  most = Math.max(most, resident());
}

const start = resident();
let count = 0;
let sum = 0;
if (mode === "json only") {
  for await (const value of records()) {
    const back: { id: number } = JSON.parse(JSON.stringify(value));
    sum += back.id;
    count++;
  }
} else {
  await writeJsonlAtomic(path, records());
  look();
  for await (const { id } of readJsonl<{ id: number }>(path)) {
    if (id % 50_000 === 0) look();
    sum += id;
    count++;
  }
}
look();
const grownMiB = Math.round((most - start) / 1024 / 1024);
console.log(JSON.stringify({ count, sum, grownMiB }));
