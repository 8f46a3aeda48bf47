/**
 * Programs that run beside a test, which watches what they print, and kills
 * them.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { Silence } from "./silence.ts";

export class Program {
  stdout = "";
  stderr = "";
  /** The exit code; `null` if it was killed. */
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;
  #hasEnded = false;
  /** Called whenever there is something new to look at. */
  #look: () => void = () => {};

  constructor(
    command: readonly string[],
    env: Readonly<Record<string, string>>,
  ) {
    const [file = "", ...args] = command;
    const child = spawn(file, args, {
      // A group of its own: a kill must reach what a task started.
      detached: true,
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child = child;
    // It may have ended before it has read all.
    child.stdin.on("error", () => {});
    const silence = new Silence(() => this.signal("SIGKILL"));
    child.stdout.setEncoding("utf8").on("data", (chunk) => {
      this.stdout += chunk;
      silence.broken();
      this.#look();
    });
    child.stderr.setEncoding("utf8").on("data", (chunk) => {
      this.stderr += chunk;
      silence.broken();
    });
    this.ended = new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    }).finally(() => {
      silence.end();
      this.#hasEnded = true;
      this.#look();
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits until it has printed so, or has ended. */
  async printed(pattern: RegExp): Promise<RegExpExecArray | null> {
    for (;;) {
      const match = pattern.exec(this.stdout);
      if (match !== null || this.#hasEnded) return match;
      await new Promise<void>((resolve) => this.#look = resolve);
    }
  }

  /** Sends it a line. */
  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Tells it that there are no more lines. */
  sayNoMore(): void {
    this.#child.stdin?.end();
  }

  /** Sends a signal to it, and to what it started, unless it has ended. */
  signal(name: "SIGCONT" | "SIGKILL" | "SIGSTOP" | "SIGTERM"): void {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null && this.pid !== 0) {
      process.kill(-this.pid, name);
    }
  }
}
