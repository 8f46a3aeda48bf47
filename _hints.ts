/**
 * What somebody may have meant who passes what is not known here: names that
 * other libraries have for it, and misspelt ones.
 *
 * @module
 */

/** Options of other libraries, and what to do here in their place. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  chown: "use owner: { uid, gid }",
  encoding: "text is always UTF-8, and bytes are written with writeBytesAtomic",
  eol: "lines are written as the text has them",
  finalEOL: "use trailingNewline",
  flag:
    "a write replaces the whole file, createNew: true refuses one that is there, and appendJsonl appends",
  fsync: 'use durability: "full", "ordered" or "none"',
  gid: "use owner: { uid, gid }",
  overwrite: "a write replaces what is there, unless createNew is true",
  recursive: "missing directories are made, unless parents is false",
  retries: "use retryMs",
  space: "use indent",
  spaces: "use indent",
  timeout: "use retryMs, lock: { timeoutMs }, or a signal",
  uid: "use owner: { uid, gid }",
};

/** What to do about an option that is not known, if that can be told. */
export function hintFor(
  name: string,
  known: readonly string[],
): string | undefined {
  const isKnown = (other: string) => known.includes(other);
  const elsewhere = Object.entries(ELSEWHERE).find(([other, what]) =>
    other.toLowerCase() === name.toLowerCase() &&
    // What is advised must be known.
    [...what.matchAll(/use (\w+)/g)].every(([, option = ""]) => isKnown(option))
  );
  if (elsewhere !== undefined) return elsewhere[1];
  const most = Math.min(2, Math.floor(name.length / 3));
  const [nearest] = known
    .map((other) => ({ other, edits: editsBetween(name, other) }))
    .filter(({ edits }) => edits <= most)
    .toSorted((one, two) => one.edits - two.edits);
  return nearest && `did you mean "${nearest.other}"?`;
}

/** How many letters differ, are missing or are too many, whatever their case. */
function editsBetween(one: string, other: string): number {
  const from = one.toLowerCase();
  const to = other.toLowerCase();
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [index, letter] of [...from].entries()) {
    const next = [index + 1];
    for (const [place, wanted] of [...to].entries()) {
      next.push(Math.min(
        (row[place] ?? 0) + Number(letter !== wanted),
        (row[place + 1] ?? 0) + 1,
        (next[place] ?? 0) + 1,
      ));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}

/** What to do about options that are none, if that can be told. */
export function hintForOptions(value: unknown): string {
  if (typeof value === "function") {
    return "; no callback is called: the promise tells the end";
  }
  const isEncoding = typeof value === "string" &&
    /^(?:utf-?8|utf-?16le|ucs-?2|ascii|latin1|binary|base64(?:url)?|hex)$/i
      .test(value);
  return isEncoding ? `; ${ELSEWHERE.encoding}` : "";
}
