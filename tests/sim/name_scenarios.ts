/**
 * Several processes that move files to one name.
 *
 * @module
 */

import { MET } from "../../_demand.ts";
import { locateRoute, move, type MoveRequest } from "../../_move.ts";
import { failedWith, type Protocol, Refusal } from "../../_protocol.ts";
import { Violation } from "./claims.ts";
import type { Actor, Scenario } from "./interleave.ts";
import { MoveClaim, type Source } from "./name_claims.ts";
import { Machine, type Process } from "./posix.ts";
import { withParents } from "./scene.ts";
import { liveView, lookUp, pathsIn, type View } from "./view.ts";

/** How a move fails because of another one. */
const OTHERS = ["CHANGED", "EEXIST", "ENOENT", "SAME_FILE"];

/** A move by a process of its own. */
function mover(
  process: Process,
  source: Source,
  claim: Pick<MoveClaim, "path" | "promise">,
): Actor {
  const request: MoveRequest = {
    from: source.path,
    to: claim.path,
    durability: "full",
    symlinks: "follow",
    parents: true,
    overwrite: false,
    retryMs: 0,
    signal: undefined,
    demand: MET,
    held: [],
  };
  return {
    process,
    *start(port): Protocol<unknown> {
      const route = yield* locateRoute(port, request);
      return yield* move(port, request, route, () => {});
    },
    resolved() {
      claim.promise(source, true);
    },
    rejected(error) {
      const isOthers = failedWith(error, "ENOENT") ||
        (error instanceof Refusal && OTHERS.includes(error.code));
      if (!isOthers) throw new Violation(`a move fails: ${error}`);
    },
  };
}

/** A move of each of these files, by a process each. */
function movers(
  name: string,
  paths: readonly string[],
  to: string,
): Scenario {
  return {
    name,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      root.mkdir("/e");
      const sources = [...new Set(paths)].map((path) => ({ path, text: path }));
      for (const { path, text } of sources) {
        const file = root.create(path, 0o644);
        root.write(file, new TextEncoder().encode(text));
        root.close(file);
      }
      machine.syncAll();
      machine.processes.shift();
      const claim = new MoveClaim(to, sources, undefined, {
        models: ["any", "ordered"],
        isSynced: true,
      });
      const scene = {
        operation: name,
        machine,
        claims: [claim],
        innocents: new Map<string, string>(),
        paths: new Set([...pathsIn(liveView(machine)), ...withParents(to)]),
        isSecret: false,
      };
      const actors = paths.map((path, index) =>
        mover(machine.start(`mover${index}`, 100 + index), {
          path,
          text: path,
        }, claim)
      );
      return { scene, actors };
    },
  };
}

/** One file, moved by two processes as each will: it has one name at the end, and never none. */
function ofOne(
  name: string,
  moves: readonly (readonly [from: string, to: string])[],
): Scenario {
  return {
    name,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      root.close(root.create("/d/f", 0o644));
      machine.syncAll();
      machine.processes.shift();
      const names = ["/d/f", "/d/g", "/d/h"];
      const found = (view: View) =>
        names.filter((name) => lookUp(view, name) !== undefined);
      let place = "/d/f";
      const actors = moves.map(([from, to], index): Actor => {
        const process = machine.start(`mover${index}`, 100 + index);
        const claim = { path: to, promise() {} };
        const one = mover(process, { path: from, text: "" }, claim);
        return {
          ...one,
          resolved() {
            place = to;
          },
        };
      });
      const scene = {
        operation: name,
        machine,
        claims: [],
        innocents: new Map<string, string>(),
        paths: new Set(["/d", ...names]),
        isSecret: false,
        check(view: View) {
          if (found(view).length === 0) {
            throw new Violation("it has no name any more");
          }
        },
      };
      return {
        scene,
        actors,
        ended(world) {
          const left = found(liveView(machine)).join();
          if (world.kills === 0 && left !== place) {
            throw new Violation(`it was moved to ${place}, and is ${left}`);
          }
        },
      };
    },
  };
}

export const MOVE_SCENARIOS: readonly Scenario[] = [
  ofOne("a file moved by two to two names", [
    ["/d/f", "/d/g"],
    ["/d/f", "/d/h"],
  ]),
  ofOne("a file moved there, and back", [
    ["/d/f", "/d/g"],
    ["/d/g", "/d/f"],
  ]),
  movers("two files moved to one name", ["/d/f", "/d/h"], "/e/g"),
  movers("a file moved by two", ["/d/f", "/d/f"], "/d/g"),
];
