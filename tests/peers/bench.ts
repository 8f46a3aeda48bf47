/**
 * A place where one writer is tried out.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { document } from "../lab/document.ts";
import { type Finished, run } from "../lab/run.ts";
import { cachesIn, DENO, type Runtime } from "../lab/runtimes.ts";
import { type LoggedCall, parseLog } from "../lab/strace_log.ts";
import { inScratch } from "../scratch.ts";
import type { Manner, Outcome } from "./write.ts";
import type { WriterName } from "./writers.ts";

/** What is found in the file before a writer replaces it. */
export const OLD: string = document("old", 4096);

export interface Writing {
  readonly path?: string;
  readonly manner?: Manner;
  readonly label?: string;
  readonly lengths?: readonly number[];
  /** A command that runs another one. */
  readonly under?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** On Deno, whatever the writer runs on, which may read and write this, and read the packages. */
  readonly allowed?: string;
}

export interface Written extends Finished {
  readonly outcomes: readonly Outcome[];
}

export interface Traced extends Written {
  readonly log: string;
  readonly calls: readonly LoggedCall[];
}

export class Bench {
  /** Touched by nobody but the writers. */
  readonly directory: string;
  /** The file that is written where a row does not say otherwise. */
  readonly target: string;
  readonly #outside: string;
  readonly #writer: WriterName;
  readonly #runtime: Runtime;

  constructor(outside: string, writer: WriterName, runtime: Runtime) {
    this.#outside = outside;
    this.#writer = writer;
    this.#runtime = runtime;
    this.directory = join(outside, "under-test");
    this.target = join(this.directory, "f");
    mkdirSync(this.directory);
    this.reset();
  }

  /** Leaves the old content in the target, and nothing else. */
  reset(): void {
    for (const name of readdirSync(this.directory)) {
      rmSync(join(this.directory, name), { recursive: true });
    }
    writeFileSync(this.target, OLD);
  }

  /** Runs the writer, however it ends. */
  async attempt(
    {
      path = this.target,
      manner = "in turn",
      label = "new",
      lengths = [1000],
      under = [],
      env = {},
      signal,
      allowed,
    }: Writing = {},
  ): Promise<Written> {
    const runtime = allowed !== undefined ? DENO : this.#runtime;
    const command = runtime.command(
      allowed ?? this.directory,
      "../peers/write.ts",
      this.#writer,
      manner,
      path,
      label,
      ...lengths.map(String),
    );
    const finished = await run(
      [
        ...under,
        ...(allowed !== undefined ? readingPackages(command) : command),
      ],
      {
        env: { ...cachesIn(join(this.#outside, "deno")), ...env },
        ...(signal !== undefined ? { signal } : {}),
      },
    );
    const outcomes = finished.stdout.split("\n").filter((line) => line !== "")
      .map((line): Outcome => JSON.parse(line));
    return { ...finished, outcomes };
  }

  /** Runs the writer, which must come to its end. */
  async write(writing: Writing = {}): Promise<Written> {
    const written = await this.attempt(writing);
    assert.equal(written.code, 0, written.stderr);
    assert.ok(written.outcomes.length > 0);
    return written;
  }

  /** Runs the writer under strace, with further options for that. */
  async trace(
    writing: Writing = {},
    options: readonly string[] = [],
  ): Promise<Traced> {
    // Deno fills its caches, and syncs and renames there, before anything is looked at.
    if (this.#runtime === DENO) await this.write();
    this.reset();
    const log = join(this.#outside, "log");
    const { under = [] } = writing;
    const written = await this.attempt({
      ...writing,
      under: [
        "strace",
        "-f",
        "-y",
        "-e",
        "trace=%file,%desc",
        "-o",
        log,
        ...options,
        ...under,
      ],
    });
    const text = readFileSync(log, "utf8");
    return { ...written, log: text, calls: parseLog(text) };
  }

  /** The names in the directory besides the target's. */
  leftovers(): string[] {
    return readdirSync(this.directory).filter((name) =>
      join(this.directory, name) !== this.target
    );
  }

  content(): string {
    return readFileSync(this.target, "utf8");
  }
}

function readingPackages(command: readonly string[]): string[] {
  const packages = fileURLToPath(new URL("./node_modules", import.meta.url));
  return command.flatMap((argument) => {
    if (argument === "run") return [argument, "--node-modules-dir=manual"];
    return argument.startsWith("--allow-read=")
      ? [`${argument},${packages}`]
      : [argument];
  });
}

/** Runs `body` on a new bench, and removes it. */
export function onBench<T>(
  writer: WriterName,
  runtime: Runtime,
  body: (bench: Bench) => Promise<T>,
): Promise<T> {
  return inScratch((outside) => body(new Bench(outside, writer, runtime)));
}
