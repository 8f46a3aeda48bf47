/**
 * Finds out what the table in `docs/comparison.md` says, cell by cell, on the
 * real packages. With `COMPARISON=write` the table is written, not checked.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { after, describe, test } from "node:test";
import { onBench } from "./bench.ts";
import { type Row, ROWS } from "./rows.ts";
import { formatTable, parseTable, section, withSection } from "./table.ts";
import { type Writer, WRITERS } from "./writers.ts";

const DOCUMENT = new URL("../../docs/comparison.md", import.meta.url);
const README = new URL("../../README.md", import.meta.url);
const WRITES_TABLE = process.env["COMPARISON"] === "write";

/** What is true of a writer, said for each runtime where they differ. */
async function truth({ name, runtimes }: Writer, row: Row): Promise<string> {
  const byAnswer = new Map<string, string[]>();
  for (const runtime of runtimes) {
    const answer = await onBench(name, runtime, row.find);
    const agreeing = byAnswer.get(answer) ?? [];
    byAnswer.set(answer, [...agreeing, runtime.name]);
  }
  const answers = [...byAnswer];
  return answers.length === 1
    ? answers[0]?.[0] ?? ""
    : answers.map(([answer, on]) => `${answer} (${on.join(", ")})`).join("; ");
}

function cell(writer: Writer, row: Row, answer: string): string {
  const note = row.notes?.[writer.name];
  return note === undefined ? answer : `${answer} [^${note}]`;
}

// Under 077 whoever forgets the mode of a file of mode 0600 would be right by chance.
process.umask(0o022);

const head = ["", ...WRITERS.map(({ name }) => `\`${name}\``)];
const methods = formatTable([
  ["row", "how it is tested"],
  ...ROWS.map(({ title, method }) => [title, method]),
]);

const found = new Map<string, string>();
const document = readFileSync(DOCUMENT, "utf8");
const table = parseTable(section(document, "table"));

// Two at a time: most of them wait for processes, and so for the disk.
describe("comparison", { concurrency: 2 }, () => {
  for (const row of ROWS) {
    for (const [index, writer] of WRITERS.entries()) {
      const name = `${writer.name}: ${row.title}`;
      test(name, async () => {
        const actual = cell(writer, row, await truth(writer, row));
        found.set(name, actual);
        if (WRITES_TABLE) return;
        const cells = table.find(([title]) => title === row.title);
        assert.equal(actual, cells?.[index + 1]);
      });
    }
  }
});

/** The rows of the README, out of those of the document. */
function headlines(rows: readonly (readonly string[])[]): string {
  const titles = ROWS.filter(({ isHeadline }) => isHeadline)
    .map(({ title }) => title);
  return formatTable([
    head,
    ...rows.filter(([title = ""]) => titles.includes(title))
      .map((row) => row.map((text) => text.replace(/ \[\^\w+\]/, ""))),
  ]);
}

if (WRITES_TABLE) {
  after(() => {
    const rows = ROWS.map((row) => [
      row.title,
      ...WRITERS.map(({ name }) =>
        found.get(`${name}: ${row.title}`) ?? "not found out"
      ),
    ]);
    const readme = readFileSync(README, "utf8");
    writeFileSync(README, withSection(readme, "comparison", headlines(rows)));
    writeFileSync(
      DOCUMENT,
      withSection(
        withSection(document, "table", formatTable([head, ...rows])),
        "methods",
        methods,
      ),
    );
  });
} else {
  test("the table has these rows and columns, and tells how each is tested", () => {
    assert.deepEqual(table[0], head);
    assert.deepEqual(
      table.slice(1).map(([title]) => title),
      ROWS.map(({ title }) => title),
    );
    assert.equal(section(document, "methods"), methods);
  });

  test("the README shows some of these rows, with the same cells", () => {
    const readme = readFileSync(README, "utf8");
    assert.equal(section(readme, "comparison"), headlines(table));
  });

  test("the versions in the document are those that are installed", () => {
    const unwrapped = document.replaceAll("\n", " ");
    for (const peer of ["write-file-atomic", "atomically", "steno"]) {
      assert.ok(unwrapped.includes(`${peer} ${versionOf(peer)}`), peer);
    }
  });
}

function versionOf(peer: string): string {
  const manifest = new URL(
    `./node_modules/${peer}/package.json`,
    import.meta.url,
  );
  const { version }: { version: string } = JSON.parse(
    readFileSync(manifest, "utf8"),
  );
  return version;
}
