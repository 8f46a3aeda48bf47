/**
 * Moves, appends and repairs on a simulated machine: looked at after every
 * system call, alive and as a crash would leave it then, with each call failing
 * where that is asked for.
 *
 * @module
 */

import { DurabilityError } from "../../errors.ts";
import {
  appendJsonl,
  appendJsonlSync,
  AtomicError,
  moveAtomic,
  moveAtomicSync,
  repairJsonl,
  repairJsonlSync,
} from "../../mod.ts";
import { type Claim, Violation } from "./claims.ts";
import type { CrashBounds, CrashModel } from "./crash.ts";
import {
  caught,
  leftovers,
  MOST_CALLS,
  onPort,
  type Run,
  type RunResult,
} from "./crash_run.ts";
import { LOCK_ENTRIES } from "./lock_scenarios.ts";
import {
  describeCall,
  MachinePort,
  type Observer,
  shown,
  type SimulatedCall,
} from "./machine_port.ts";
import { AppendClaim, MoveClaim, type Source } from "./name_claims.ts";
import { Machine, type Process } from "./posix.ts";
import type { Tally } from "./report.ts";
import {
  lookAfterCrash,
  lookAlive,
  lookAtTheEnd,
  type Scene,
  withParents,
} from "./scene.ts";
import { liveView, lookUp, pathsIn } from "./view.ts";

/** What is done, and what is claimed of it. */
export interface Operation {
  readonly name: string;
  /** Whether it is also made to fail: those under a lock make too many calls. */
  readonly fails: boolean;
  /** Whether nothing is claimed any more once this call has failed. */
  isBeyond?(failed: SimulatedCall): boolean;
  /** The same machine each time. */
  build(): Staged;
}

interface Staged {
  readonly machine: Machine;
  readonly claim: Claim;
  readonly paths: readonly string[];
  /** Does it, and tells the claim; throws a {@linkcode Violation} where the outcome is wrong. */
  perform(): Promise<unknown>;
}

/** Runs an operation; states are counted in `tally`. */
export async function runOperation(
  operation: Operation,
  tally: Tally,
  bounds: CrashBounds,
  fault?: Run["fault"],
): Promise<RunResult> {
  const { machine, claim, paths, perform } = operation.build();
  machine.fleeting = LOCK_ENTRIES;
  const scene: Scene<Claim> = {
    operation: operation.name,
    machine,
    claims: [claim],
    innocents: new Map(),
    paths: new Set([
      ...pathsIn(liveView(machine)),
      ...paths.flatMap(withParents),
    ]),
    passing: /\/\.[fg]\.lock/,
    isSecret: false,
  };
  const calls: SimulatedCall[] = [];
  const trace: string[] = [];
  const injected: { code: string; call: SimulatedCall }[] = [];
  let violation: Violation | undefined;
  let seen = "";
  let isBeyond = false;
  const look = () => {
    if (isBeyond) return;
    lookAlive(scene);
    const state = `${machine.disk.revision} ${claim.key}`;
    if (state === seen) return;
    seen = state;
    lookAfterCrash(scene, tally, bounds);
  };
  const observer: Observer = {
    before(call) {
      if (calls.length > MOST_CALLS) throw new Violation("it does not end");
      const injectedFault = fault?.(call, calls.length);
      calls.push(call);
      if (injectedFault !== undefined) {
        injected.push({ code: injectedFault.code, call });
        isBeyond ||= operation.isBeyond?.(call) === true;
      }
      return injectedFault;
    },
    after(call, outcome) {
      trace.push(`${describeCall(call)} = ${outcome}`);
      violation ??= caught(look);
    },
  };
  const process = machine.start("process", 100);
  const settled = await onPort(new MachinePort(process, observer), perform);
  violation ??= caught(() => {
    if ("error" in settled) {
      const { error } = settled;
      if (error instanceof Violation) throw error;
      if (!(error instanceof AtomicError) || injected.length === 0) {
        throw new Violation(`it fails: ${error}`);
      }
    }
    look();
    lookAtTheEnd(scene, leftovers(settled, injected));
  });
  tally.runs++;
  const finding = violation && {
    run: operation.name,
    message: violation.message,
    trace,
  };
  return { calls, finding };
}

const encoder = new TextEncoder();

function put(root: Process, path: string, text: string): void {
  const file = root.create(path, 0o644);
  root.write(file, encoder.encode(text));
  root.close(file);
}

function textAt(machine: Machine, path: string): string | undefined {
  const node = lookUp(liveView(machine), path);
  return node && new TextDecoder().decode(node.bytes);
}

/** As a promise, which a throw rejects. */
function promised<T>(body: () => T): Promise<T> {
  return new Promise((resolve) => resolve(body()));
}

const SOURCE: Source = { path: "/d/f", text: "moved" };

interface MovePlan {
  readonly isSync: boolean;
  readonly to: "/d/g" | "/e/g" | "/e/new/g";
  readonly overwrite: boolean;
  /** Whether there is something to replace. */
  readonly isTaken: boolean;
  /** Whether what is moved is on the disk by then. */
  readonly isSynced: boolean;
  readonly durability: "full" | "ordered" | "none";
  readonly lock: boolean;
}

function moveOperation(plan: MovePlan): Operation {
  const { isSync, to, overwrite, isTaken, isSynced, durability, lock } = plan;
  const words = [
    isSync ? "moveAtomicSync" : "moveAtomic",
    `to ${to}`,
    ...(overwrite ? ["overwrite"] : []),
    ...(isTaken ? ["taken"] : []),
    ...(isSynced ? [] : ["unsynced"]),
    ...(durability === "full" ? [] : [durability]),
    ...(lock ? ["lock"] : []),
  ];
  return {
    name: words.join(", "),
    fails: !lock,
    // Of a rename between two directories half is lost with one of them.
    isBeyond: ({ name, args: [file] }) =>
      overwrite && to !== "/d/g" && name === "fsync" &&
      !shown(file).includes(SOURCE.path),
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      root.mkdir("/e");
      if (isTaken) put(root, to, "old");
      if (isSynced) put(root, SOURCE.path, SOURCE.text);
      else root.close(root.create(SOURCE.path, 0o644));
      machine.syncAll();
      if (!isSynced) {
        const file = root.open(SOURCE.path, { append: true });
        root.write(file, encoder.encode(SOURCE.text));
        root.close(file);
      }
      machine.processes.shift();
      const old = isTaken ? "old" : undefined;
      // A rename between directories is one step on disks that keep an order.
      const isOneStep = !overwrite || to === "/d/g";
      const models: CrashModel[] = durability === "none"
        ? []
        : isOneStep
        ? ["any", "ordered"]
        : ["ordered"];
      const claim = new MoveClaim(to, [SOURCE], old, { models, isSynced });
      const options = { overwrite, durability, lock, retryMs: 1 };
      return {
        machine,
        claim,
        paths: [to],
        async perform() {
          const repeated = async (): Promise<void> => {
            const receipt = isSync
              ? await promised(() => moveAtomicSync(SOURCE.path, to, options))
              : await moveAtomic(SOURCE.path, to, options);
            if (receipt.replaced) throw new Violation("it replaces itself");
            claim.promise(SOURCE, durability === "full");
          };
          try {
            const receipt = isSync
              ? await promised(() => moveAtomicSync(SOURCE.path, to, options))
              : await moveAtomic(SOURCE.path, to, options);
            if (isTaken && !overwrite) {
              throw new Violation(`${to} is taken, and yet it resolves`);
            }
            if (
              receipt.replaced !== isTaken || receipt.to !== to ||
              receipt.fileSynced !== (durability !== "none") ||
              receipt.directorySynced !== (durability === "full")
            ) {
              throw new Violation(`a receipt: ${JSON.stringify(receipt)}`);
            }
            claim.promise(SOURCE, durability === "full");
          } catch (error) {
            if (!(error instanceof AtomicError)) throw error;
            const isThere = textAt(machine, to) === SOURCE.text;
            const { committed } = error;
            if (
              (committed === true) !== isThere && committed !== "unknown"
            ) {
              throw new Violation(`committed is ${committed}: ${error}`);
            }
            if (committed === "unknown" && error.code !== "EIO") {
              throw new Violation(`committed is unknown for no reason`);
            }
            const isRefused = error.code === "EEXIST" && isTaken && !overwrite;
            const isAtBoth = committed === true &&
              textAt(machine, SOURCE.path) !== undefined;
            if (isAtBoth) return await repeated();
            if (!isRefused) throw error;
            if (textAt(machine, to) !== "old") {
              throw new Violation(`${to} is replaced`);
            }
          }
        },
      };
    },
  };
}

const LINES = ['{"a":1}\n', '"two"\n'];
const RECORDS = [{ a: 1 }, "two"];
const AGAIN = ["[3]\n"];

interface AppendPlan {
  readonly isSync: boolean;
  readonly old: string | undefined;
  readonly durability: "full" | "none";
  readonly writeBytes: number;
  readonly lock: boolean;
  /** Whether whoever made the file has not synced its directory. */
  readonly isUnplaced?: true;
}

function appendOperation(plan: AppendPlan): Operation {
  const { isSync, old, durability, writeBytes, lock, isUnplaced } = plan;
  const words = [
    isSync ? "appendJsonlSync" : "appendJsonl",
    old === undefined ? "a new file" : `to ${JSON.stringify(old)}`,
    ...(durability === "full" ? [] : [durability]),
    ...(writeBytes === Infinity ? [] : [`writes of ${writeBytes}`]),
    ...(isUnplaced ? ["unplaced"] : []),
    ...(lock ? ["lock"] : []),
  ];
  const append = (records: readonly unknown[]) => {
    const options = { durability, lock, retryMs: 1 };
    return isSync
      ? promised(() => appendJsonlSync("/d/f", records, options))
      : appendJsonl("/d/f", records, options);
  };
  return {
    name: words.join(", "),
    fails: !lock,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      if (isUnplaced) machine.syncAll();
      if (old !== undefined) put(root, "/d/f", old);
      if (isUnplaced) {
        const file = root.open("/d/f");
        root.fsync(file);
        root.close(file);
      } else {
        machine.syncAll();
      }
      machine.processes.shift();
      machine.limits.writeBytes = writeBytes;
      const isOneWrite = writeBytes === Infinity;
      const isTerminated = old?.endsWith("\n") ?? true;
      const claim = new AppendClaim("/d/f", old, {
        isPlaced: !isUnplaced,
        isClaimed: durability !== "none" || old !== undefined,
        models: isOneWrite && isTerminated && durability === "full"
          ? ["any", "ordered"]
          : ["ordered"],
      });
      /** Whether an append could not be taken back, so that none may follow. */
      let isBroken = false;
      const appendAs = async (
        records: readonly unknown[],
        lines: readonly string[],
      ) => {
        const before = textAt(machine, "/d/f");
        const [first = "", ...rest] = lines;
        const isWhole = before !== undefined && before !== "" &&
          !before.endsWith("\n");
        const pieces = isWhole ? ["\n", first, ...rest] : lines;
        claim.begin(pieces);
        const after = `${before ?? ""}${pieces.join("")}`;
        try {
          const receipt = await append(records);
          const { offset, bytes, created } = receipt;
          if (
            textAt(machine, "/d/f") !== after || isBroken ||
            offset + bytes !== after.length ||
            created !== (before === undefined) ||
            receipt.directorySynced !== (durability === "full") ||
            receipt.fileSynced !== (durability === "full")
          ) {
            throw new Violation(`a receipt: ${JSON.stringify(receipt)}`);
          }
          claim.promise(pieces, durability === "full");
          return undefined;
        } catch (error) {
          if (!(error instanceof AtomicError)) throw error;
          const { committed } = error;
          const now = textAt(machine, "/d/f");
          if (
            committed === false && now !== before ||
            committed === true &&
              (now !== after || !(error instanceof DurabilityError))
          ) {
            throw new Violation(`committed is ${committed}: ${error}`);
          }
          // It is there, and may be lost.
          if (now === after) claim.promise(pieces, false);
          const isMade = before === undefined && now !== undefined;
          const isKept = committed === "unknown" && before !== undefined;
          // That of the directory.
          const isUnsure = committed === true && error.syscall === "fsync";
          if (isKept || isMade || isUnsure) isBroken = true;
          return error;
        }
      };
      return {
        machine,
        claim,
        paths: ["/d/f"],
        async perform() {
          const failed = await appendAs(RECORDS, LINES);
          // What failed must leave no hole for what follows.
          const next = await appendAs([[3]], AGAIN);
          if (failed ?? next) throw failed ?? next;
        },
      };
    },
  };
}

function repairOperation(isSync: boolean, torn: string): Operation {
  const kept = '{"a":1}\n';
  const isWhole = torn === "[2]";
  const name = isSync ? "repairJsonlSync" : "repairJsonl";
  const after = isWhole ? `${kept}${torn}\n` : kept;
  return {
    name: `${name} of ${JSON.stringify(torn)}`,
    fails: true,
    build() {
      const machine = new Machine();
      const root = machine.start("setup", 1);
      root.mkdir("/d");
      put(root, "/d/f", `${kept}${torn}`);
      machine.syncAll();
      machine.processes.shift();
      const claim = new AppendClaim("/d/f", kept, {
        isPlaced: true,
        isClaimed: true,
        models: ["any", "ordered"],
      });
      claim.begin([`${torn}\n`]);
      const options = { lock: false, retryMs: 1 };
      return {
        machine,
        claim,
        paths: ["/d/f"],
        async perform() {
          const report = isSync
            ? await promised(() => repairJsonlSync("/d/f", options))
            : await repairJsonl("/d/f", options);
          if (
            textAt(machine, "/d/f") !== after || report.offset !== 8 ||
            report.completed !== isWhole ||
            report.cutBytes !== (isWhole ? 0 : torn.length)
          ) {
            throw new Violation(`a report: ${JSON.stringify(report)}`);
          }
          claim.promise(isWhole ? [`${torn}\n`] : [], true);
        },
      };
    },
  };
}

const BOTH = [true, false];

export const OPERATIONS: readonly Operation[] = BOTH.flatMap((isSync) => [
  ...(["/d/g", "/e/g", "/e/new/g"] as const).flatMap((to) =>
    BOTH.flatMap((overwrite) =>
      BOTH.flatMap((isTaken) =>
        BOTH.flatMap((isSynced) =>
          (["full", "ordered", "none"] as const).flatMap((durability) => {
            if (isTaken && to === "/e/new/g") return [];
            const plan = { isSync, to, overwrite, isTaken, isSynced };
            return [moveOperation({ ...plan, durability, lock: false })];
          })
        )
      )
    )
  ),
  moveOperation({
    isSync,
    to: "/e/g",
    overwrite: true,
    isTaken: true,
    isSynced: false,
    durability: "full",
    lock: true,
  }),
  ...[undefined, "", '{"a":0}\n', '{"a":0}'].flatMap((old) =>
    [Infinity, 8].flatMap((writeBytes) =>
      (["full", "none"] as const).map((durability) =>
        appendOperation({ isSync, old, durability, writeBytes, lock: false })
      )
    )
  ),
  appendOperation({
    isSync,
    old: '{"a":0}\n',
    durability: "full",
    writeBytes: Infinity,
    lock: true,
  }),
  appendOperation({
    isSync,
    old: '{"a":0}\n',
    durability: "full",
    writeBytes: Infinity,
    lock: false,
    isUnplaced: true,
  }),
  ...['{"b', "[2]", "12"].map((torn) => repairOperation(isSync, torn)),
]);
