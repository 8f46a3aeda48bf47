/**
 * Runs commands, and the program `writer.ts` on the runtimes.
 *
 * @module
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { inScratch } from "../scratch.ts";
import { cachesIn, type Runtime } from "./runtimes.ts";
import { Silence } from "./silence.ts";
import type { Outcome } from "./writer.ts";

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Kills the command, and what it started. */
  readonly signal?: AbortSignal;
}

export interface Finished {
  /** `null` if it was killed. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export function run(
  command: readonly string[],
  { env = {}, signal }: RunOptions = {},
): Promise<Finished> {
  const [file = "", ...args] = command;
  const child = spawn(file, args, {
    // A group of its own: a kill must reach what strace and unshare started.
    detached: true,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const kill = () => {
    if (child.pid !== undefined && child.exitCode === null) {
      process.kill(-child.pid, "SIGKILL");
    }
  };
  const silence = new Silence(kill);
  signal?.addEventListener("abort", kill);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => {
    stdout += chunk;
    silence.broken();
  });
  child.stderr.setEncoding("utf8").on("data", (chunk) => {
    stderr += chunk;
    silence.broken();
  });
  return new Promise<Finished>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  }).finally(() => {
    silence.end();
    signal?.removeEventListener("abort", kill);
  });
}

/** What the writer shall do. */
export interface Writing {
  readonly form: "sync" | "async" | "alternating";
  readonly path: string;
  readonly label: string;
  /** Of the payloads of the documents; the files are a little longer. */
  readonly lengths: readonly number[];
  /** A command that runs another one: strace or unshare, with their options. */
  readonly under?: readonly string[];
}

/** A place for one test: the directory under test, and beside it what else the test needs. */
export interface Lab {
  /** Empty, and touched by nobody but the writers. */
  readonly directory: string;
  /** Around the directory under test. */
  readonly outside: string;
  /** Runs the writer, and tells what became of each of its writes. */
  write(runtime: Runtime, writing: Writing): Promise<Outcome[]>;
}

/** Runs `body` in a lab, and removes it. */
export function inLab<T>(body: (lab: Lab) => Promise<T>): Promise<T> {
  return inScratch((outside) => {
    const directory = join(outside, "under-test");
    mkdirSync(directory);
    const env = cachesIn(join(outside, "deno"));
    return body({
      directory,
      outside,
      async write(runtime, { form, path, label, lengths, under = [] }) {
        const command = runtime.command(
          directory,
          "./writer.ts",
          form,
          path,
          label,
          ...lengths.map(String),
        );
        const { code, stdout, stderr } = await run([...under, ...command], {
          env,
        });
        assert.equal(code, 0, `${runtime.name}: ${stderr}`);
        const outcomes = stdout.trimEnd().split("\n")
          .map((line): Outcome => JSON.parse(line));
        assert.equal(outcomes.length, lengths.length);
        return outcomes;
      },
    });
  });
}
