/**
 * Tables in Markdown, as `deno fmt` leaves them.
 *
 * @module
 */

/** The lines of a table, the first row being its head. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const [head = [], ...body] = rows;
  const widths = head.map((_, column) =>
    Math.max(3, ...rows.map((row) => row[column]?.length ?? 0))
  );
  const line = (cells: readonly string[]) =>
    `| ${
      widths.map((width, i) => (cells[i] ?? "").padEnd(width)).join(" | ")
    } |`;
  return [line(head), line(widths.map((width) => "-".repeat(width)))]
    .concat(body.map(line)).join("\n");
}

/** The cells of a table, the rule below its head left out. */
export function parseTable(text: string): string[][] {
  return text.split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()))
    .filter((cells) => !cells.every((cell) => /^-+$/.test(cell)));
}

function marker(name: string, end: "begin" | "end"): string {
  return `<!-- ${name}: ${end} -->`;
}

function bounds(document: string, name: string): [number, number] {
  const begin = document.indexOf(marker(name, "begin"));
  const end = document.indexOf(marker(name, "end"));
  if (begin === -1 || end < begin) {
    throw new Error(`There is no section "${name}"`);
  }
  return [begin + marker(name, "begin").length, end];
}

/** What stands between the two markers of that name. */
export function section(document: string, name: string): string {
  return document.slice(...bounds(document, name)).trim();
}

/** The document with `text` between the two markers of that name. */
export function withSection(
  document: string,
  name: string,
  text: string,
): string {
  const [begin, end] = bounds(document, name);
  return `${document.slice(0, begin)}\n\n${text}\n\n${document.slice(end)}`;
}
