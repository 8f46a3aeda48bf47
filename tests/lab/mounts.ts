/**
 * Real file systems for a test, unmounted however it ends.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inScratch } from "../scratch.ts";

/** What is mounted in one test. */
export class Mounts {
  readonly directory: string;
  readonly #points: string[] = [];

  constructor(directory: string) {
    this.directory = directory;
  }

  /** A new directory. */
  made(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Mounts at a new directory, which it returns. */
  mount(name: string, ...args: readonly string[]): string {
    return this.mountOn(this.made(name), ...args);
  }

  /** Mounts at what is there. */
  mountOn(point: string, ...args: readonly string[]): string {
    execFileSync("mount", [...args, point], { stdio: "pipe" });
    this.#points.push(point);
    return point;
  }

  /** Starts a FUSE daemon at a new directory, which it returns. */
  fuse(name: string, command: string, ...args: readonly string[]): string {
    const point = this.made(name);
    execFileSync(command, [...args, point], { stdio: "pipe" });
    this.#points.push(point);
    return point;
  }

  /** A new file system of that type, on a loop device. */
  disk(name: string, type: string, options = "defaults"): string {
    const image = join(this.directory, `${name}.image`);
    writeFileSync(image, "");
    // The least that xfs takes.
    truncateSync(image, 320 * 1024 * 1024);
    execFileSync(`mkfs.${type}`, ["-q", image], { stdio: "pipe" });
    return this.mount(name, "-t", type, "-o", `loop,${options}`, image);
  }

  /** An overlay whose upper layer is in `upper`. */
  overlay(name: string, upper: string, options = "index=off"): string {
    for (const layer of ["lower", "upper", "work"]) {
      mkdirSync(join(upper, layer), { recursive: true });
    }
    const escaped = upper.replaceAll(",", "\\,");
    const layers = ["lower", "upper", "work"].map((layer) =>
      `${layer}dir=${join(escaped, layer)}`
    );
    const all = [...layers, options].join(",");
    return this.mount(name, "-t", "overlay", "-o", all, "overlay");
  }

  unmountAll(): void {
    for (const point of this.#points.reverse()) {
      // A program that had to be killed may still hold it for a moment.
      execFileSync("umount", ["--lazy", point], { stdio: "pipe" });
    }
  }
}

/** Runs `body` with mounts of its own. */
export function withMounts<T>(
  body: (mounts: Mounts) => Promise<T>,
): Promise<T> {
  return inScratch(async (directory) => {
    const mounts = new Mounts(directory);
    try {
      return await body(mounts);
    } finally {
      mounts.unmountAll();
    }
  });
}
