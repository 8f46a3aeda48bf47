/**
 * Reads a JSON document from standard input, writes it atomically to the file
 * named as the argument, reads it back and prints the receipt.
 *
 * ```sh
 * echo '{"port": 8080}' |
 *   deno run --allow-read=data --allow-write=data save.ts data/document.json
 * ```
 */

import { readJson, writeJsonAtomic } from "jsr:@aj/atomic";

const [path] = Deno.args;
if (!path) {
  console.error("Usage: save.ts FILE < document.json");
  Deno.exit(2);
}
const document: unknown = await new Response(Deno.stdin.readable).json();
const receipt = await writeJsonAtomic(path, document);
console.log("written:", receipt);
console.log("read back:", await readJson(path));
