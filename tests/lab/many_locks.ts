/**
 * Takes the locks of many files at once: `DIRECTORY FILES`. Prints how many
 * updates, appends and locks were made.
 *
 * @module
 */

import { join } from "node:path";
import process from "node:process";
import { appendJsonl, updateJsonAtomic, withLock } from "../../mod.ts";

const [directory = "", files] = process.argv.slice(2);
const each = <T>(name: string, act: (path: string) => Promise<T>) =>
  Promise.all(
    Array.from(
      { length: Number(files) },
      (_, index) => act(join(directory, `${name}${index}`)),
    ),
  );

const updated = await each(
  "update",
  (path) => updateJsonAtomic(path, (count) => count + 1, { initial: 0 }),
);
console.log(`${updated.length} updated`);
const appended = await each("append", (path) => appendJsonl(path, [1]));
console.log(`${appended.length} appended`);
const locked = await each(
  "lock",
  (path) => withLock(path, (lock) => updateJsonAtomic(path, () => 1, { lock })),
);
console.log(`${locked.length} locked`);
