/**
 * A simulated machine with somebody who looks at it after every system call,
 * alive and as a crash would leave it just now.
 *
 * @module
 */

import {
  checkInnocent,
  type Claim,
  type FileClaim,
  Violation,
} from "./claims.ts";
import {
  CRASH_MODELS,
  type CrashBounds,
  crashImages,
  isSampled,
} from "./crash.ts";
import type { Machine } from "./posix.ts";
import type { Tally } from "./report.ts";
import {
  crashView,
  liveView,
  lookUp,
  pathsIn,
  type View,
  written,
} from "./view.ts";

/** What is looked at. */
export interface Scene<C extends Claim = FileClaim> {
  /** What is done there: the same disk counts once for each. */
  readonly operation: string;
  readonly machine: Machine;
  readonly claims: readonly C[];
  /** Other files, by path, with what they hold. */
  readonly innocents: ReadonlyMap<string, string>;
  /** All paths that there may be, but for temporary files beside the targets. */
  readonly paths: ReadonlySet<string>;
  /** Other paths that there may be for a while. */
  readonly passing?: RegExp | undefined;
  /** Of what nothing ever changes that a look at it tells. */
  readonly unchanging?: ReadonlySet<string> | undefined;
  /** Names in a directory of which nobody who reads it takes notice. */
  readonly ignored?: RegExp | undefined;
  /** Those that may stay although nobody was killed. */
  readonly staying?: RegExp | undefined;
  /** Whether nobody but the owner may at any time read what is written. */
  readonly isSecret: boolean;
  /** Looks for whatever else must hold, alive and after a crash; throws a {@linkcode Violation}. */
  readonly check?: (view: View) => void;
}

export const TEMPORARY: RegExp =
  /^\..*\.\d+\.[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[\da-f]{4}-[\da-f]{12}(?:\.\d+)?\.tmp$/;

/** Looks at the living machine. */
export function lookAlive(scene: Scene<Claim>): void {
  const view = liveView(scene.machine);
  for (const claim of scene.claims) claim.observe(view);
  checkSurroundings(scene, view);
}

/** Looks at what a crash would leave now. */
export function lookAfterCrash(
  { machine: { disk }, ...scene }: Scene<Claim>,
  tally: Tally,
  bounds: CrashBounds,
): void {
  // Nothing is claimed of what a crash leaves.
  if (scene.claims.length === 0) return;
  for (const model of CRASH_MODELS) {
    if (isSampled(disk, model, bounds)) tally.isSampled = true;
    for (const image of crashImages(disk, model, bounds)) {
      const view = crashView(image);
      try {
        for (const claim of scene.claims) claim.checkCrash(view, model);
        checkSurroundings(scene, view);
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        throw new Violation(
          `${error.message}\nthe disk then (${model}):\n${drawn(view)}`,
        );
      }
      tally.image(model, `${scene.operation}\n${written(view)}`);
    }
  }
}

/** What is left once everything has come to its end: no temporary files, but for those that were told; what passes, only where somebody was killed. */
export function lookAtTheEnd(
  scene: Scene<Claim>,
  told: readonly string[],
  isKilled = false,
): void {
  for (const path of pathsIn(liveView(scene.machine))) {
    const isLeft = (isKilled ? scene.passing : scene.staying)?.test(path);
    if (!scene.paths.has(path) && !told.includes(path) && !isLeft) {
      throw new Violation(`${path} is left`);
    }
  }
  for (const { name, descriptors } of scene.machine.processes) {
    for (const { path } of descriptors) {
      throw new Violation(`${name} has not closed ${path}`);
    }
  }
}

function checkSurroundings(
  { claims, innocents, paths, passing, isSecret, check }: Omit<
    Scene<Claim>,
    "machine"
  >,
  view: View,
): void {
  check?.(view);
  for (const [path, text] of innocents) checkInnocent(view, path, text);
  for (const path of pathsIn(view)) {
    if (paths.has(path) || passing?.test(path)) continue;
    const [directory, name] = split(path);
    // Who we are, on Deno, only a file of ours can tell.
    const isAllowed = TEMPORARY.test(name) && (name.startsWith(".owner.") ||
      claims.some((claim) => split(claim.path)[0] === directory));
    if (!isAllowed) throw new Violation(`${path} is no business of a write`);
    const node = lookUp(view, path);
    const mode = node?.metadata.mode ?? 0;
    if (isSecret && (mode & 0o077) !== 0 && (node?.bytes.length ?? 0) > 0) {
      throw new Violation(
        `others may read ${path}: mode 0o${mode.toString(8)}`,
      );
    }
  }
}

/** A path, and those of the directories that it is in. */
export function withParents(path: string): string[] {
  const parts = path.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 2).join("/"));
}

function split(path: string): [directory: string, name: string] {
  const end = path.lastIndexOf("/");
  return [path.slice(0, end), path.slice(end + 1)];
}

/** A file system as a person reads it. */
export function drawn(view: View): string {
  const lines: string[] = [];
  const visit = (id: string, path: string) => {
    const { kind, bytes, text, metadata: { mode } } = view.node(id);
    if (kind === "directory") {
      const names = view.names(id);
      for (const name of names) {
        visit(view.child(id, name) ?? "", `${path}/${name}`);
      }
      if (names.length === 0) lines.push(`  ${path}/ (empty)`);
      return;
    }
    const content = kind === "symlink"
      ? `-> ${text}`
      : `${JSON.stringify(new TextDecoder().decode(bytes))}, 0o${
        mode.toString(8)
      }`;
    lines.push(`  ${path} ${content}`);
  };
  visit("/", "");
  return lines.join("\n");
}
