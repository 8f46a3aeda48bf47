/**
 * Runs one public operation on a simulated machine, and looks at the machine
 * after every system call: alive, and as a crash would leave it then. Any of
 * the calls can be made to fail.
 *
 * @module
 */

import { currentPort, substitutePort } from "../../_runtime/current.ts";
import type { WriteOptions, WriteReceipt } from "../../mod.ts";
import { AtomicError, DurabilityError } from "../../errors.ts";
import { FileClaim, type Legal, Violation } from "./claims.ts";
import type { CrashBounds } from "./crash.ts";
import {
  describeCall,
  type Fault,
  MachinePort,
  type Observer,
  type SimulatedCall,
} from "./machine_port.ts";
import {
  type Expected,
  expected,
  expectedRead,
  type Form,
  prepare,
  type Situation,
} from "./operations.ts";
import type { Machine } from "./posix.ts";
import type { Tally } from "./report.ts";
import {
  lookAfterCrash,
  lookAlive,
  lookAtTheEnd,
  type Scene,
  withParents,
} from "./scene.ts";
import { liveView, lookUp, pathsIn, type View } from "./view.ts";

/** An operation, and what happens to it. */
export interface Run {
  readonly form: Form;
  readonly situation: Situation;
  readonly options: WriteOptions;
  /** What one write call takes at the most. */
  readonly writeBytes: number;
  /** Before which call its signal is aborted. */
  readonly abortAt?: number;
  /** What becomes of the call with this index. */
  readonly fault?: (call: SimulatedCall, index: number) => Fault | undefined;
}

/** A violation, with what led there. */
export interface Finding {
  readonly run: string;
  readonly message: string;
  readonly trace: readonly string[];
}

export interface RunResult {
  /** The calls that were made. */
  readonly calls: readonly SimulatedCall[];
  readonly finding: Finding | undefined;
}

/** What a run is called. */
export function nameOf({ form, situation, options, writeBytes }: Run): string {
  const words = Object.entries(options).map(([name, value]) =>
    `${name}: ${JSON.stringify(value)}`
  );
  const short = writeBytes === Infinity ? [] : [`writes of ${writeBytes}`];
  return [form.name, situation.name, ...words, ...short].join(", ");
}

/** Runs it. States are counted in `tally`. */
export async function crashRun(
  run: Run,
  tally: Tally,
  bounds: CrashBounds,
): Promise<RunResult> {
  const { form, situation, options, writeBytes } = run;
  const { machine, writer } = prepare(situation);
  machine.limits.writeBytes = writeBytes;
  const expectation = expectationOf(run);
  const scene = sceneOf(run, machine, expectation.target);
  const [claim] = scene.claims;
  const calls: SimulatedCall[] = [];
  const trace: string[] = [];
  const injected: { code: string; call: SimulatedCall }[] = [];
  const gone = new Set<unknown>();
  const controller = new AbortController();
  let violation: Violation | undefined;
  let seen = "";
  const look = () => {
    lookAlive(scene);
    const state = `${machine.disk.revision} ${claim?.key}`;
    if (state === seen) return;
    seen = state;
    lookAfterCrash(scene, tally, bounds);
  };
  const observer: Observer = {
    before(call) {
      if (call.args.some((argument) => gone.has(argument))) {
        violation ??= new Violation("a name is used that is somebody else's");
      }
      if (calls.length > MOST_CALLS) throw new Violation("it does not end");
      if (run.abortAt === calls.length) {
        trace.push("its signal is aborted");
        controller.abort(ABORTED);
      }
      const fault = run.fault?.(call, calls.length);
      calls.push(call);
      if (fault !== undefined) injected.push({ code: fault.code, call });
      return fault;
    },
    after(call, outcome) {
      trace.push(`${describeCall(call)} = ${outcome}`);
      if (["rename", "unlink"].includes(call.name) && outcome === "ok") {
        gone.add(call.args[0]);
      }
      // Not thrown here: the library would take it for a failed call.
      violation ??= caught(look);
    },
  };
  const port = new MachinePort(writer, observer);
  const given = run.abortAt === undefined
    ? options
    : { ...options, signal: controller.signal };
  const settled = await onPort(port, () => form.write(situation.path, given));
  violation ??= caught(() => {
    if (claim !== undefined && run.abortAt !== undefined) {
      checkAborted(run.abortAt, calls, claim, settled);
    } else if (claim !== undefined) {
      const view = liveView(machine);
      checkOutcome(run, claim, view, settled, injected, options);
    }
    seen = "";
    look();
    lookAtTheEnd(scene, leftovers(settled, injected));
  });
  tally.runs++;
  const finding = violation && {
    run: nameOf(run),
    message: violation.message,
    trace: [...trace, `settled: ${told(settled)}`],
  };
  return { calls, finding };
}

function expectationOf(
  { form, situation, options, writeBytes }: Run,
): Expected {
  if (form.reads) return expectedRead(situation);
  const expectation = expected(situation, options);
  // What is refused with EPERM is refused after the bytes are written.
  const isReached = "resolves" in expectation || expectation.code === "EPERM";
  return isReached && writeBytes === 0
    ? { code: "SHORT_WRITE", target: expectation.target }
    : expectation;
}

type Settled = { readonly receipt: WriteReceipt | undefined } | {
  readonly error: unknown;
};

function told(settled: Settled): string {
  if ("error" in settled) return String(settled.error);
  return `resolved ${JSON.stringify(settled.receipt)}`;
}

/** The violation that `body` ends in. */
export function caught(body: () => void): Violation | undefined {
  try {
    body();
    return undefined;
  } catch (error) {
    if (error instanceof Violation) return error;
    throw error;
  }
}

/** Runs `body` on the port. */
export async function onPort<T>(
  port: MachinePort,
  body: () => Promise<T>,
): Promise<{ readonly receipt: T } | { readonly error: unknown }> {
  const before = currentPort();
  substitutePort(port);
  try {
    return { receipt: await body() };
  } catch (error) {
    return { error };
  } finally {
    substitutePort(before);
  }
}

function sceneOf(
  run: Run,
  machine: Machine,
  target: string,
): Scene {
  const { form, situation, options } = run;
  const { mode, uid } = kept(run, target);
  // Whose owner a user cannot keep gets another mode as well; and what fails to
  // be kept is told in the receipt.
  const isKept = situation.uid === 0 && run.fault === undefined;
  const legal: Legal = {
    text: form.text,
    mode: options.mode ?? (isKept ? mode : undefined),
    owner: options.owner ?? (isKept ? { uid, gid: uid } : undefined),
  };
  const survives = (options.durability ?? "full") !== "none";
  const view = liveView(machine);
  return {
    operation: nameOf(run),
    machine,
    claims: [new FileClaim(target, [legal], survives, view)],
    innocents: new Map(Object.entries(situation.innocents)),
    paths: new Set([...pathsIn(view), ...withParents(target)]),
    isSecret: options.mode === 0o600,
  };
}

/** The receipt says what of the replaced file was lost, and nothing else. */
function checkKept(
  run: Run,
  { path }: FileClaim,
  view: View,
  { notPreserved, created }: WriteReceipt,
): void {
  const { situation, options } = run;
  const isReplaced = path === situation.target;
  const old = isReplaced ? situation.old : undefined;
  const found = lookUp(view, path)?.metadata;
  const { mode, uid } = kept(run, path);
  const lost: string[] = [];
  const isKept = old !== undefined && options.preserve !== false;
  if (isKept && options.owner === undefined) {
    if (found?.uid !== uid || found.gid !== uid) lost.push("owner");
  }
  if (isKept && options.mode === undefined && found?.mode !== mode) {
    lost.push("mode");
  }
  if (isReplaced && situation.hasOtherName) lost.push("links");
  if (lost.join() !== notPreserved.join()) {
    throw new Violation(
      `lost is "${lost.join()}", and the receipt says "${notPreserved.join()}"`,
    );
  }
  const isCreated = isReplaced && old === undefined;
  if (created !== isCreated) {
    throw new Violation(`the receipt says that created is ${created}`);
  }
}

/** Far more than any operation makes. */
export const MOST_CALLS = 1000;

const ABORTED = new Error("aborted by the test");

/** Before the commit an abort is heeded; after it, it is ignored. */
function checkAborted(
  abortAt: number,
  calls: readonly SimulatedCall[],
  claim: FileClaim,
  settled: Settled,
): void {
  const commit = calls.findIndex(({ name, args: [, to] }) =>
    (name === "rename" || name === "link") && to === claim.path
  );
  const isAborted = "error" in settled && settled.error === ABORTED;
  if (commit !== -1 && commit < abortAt) {
    if (isAborted) throw new Violation("aborted after its commit");
  } else if (commit !== abortAt && !isAborted) {
    throw new Violation(`the abort is not heeded: ${told(settled)}`);
  }
  if (isAborted && claim.replacements > 0) {
    throw new Violation("it was aborted, and yet has come into place");
  }
}

/** The mode and the owner that the new file has where nothing keeps them from it. */
function kept(
  { situation, options: { preserve } }: Run,
  target: string,
): { mode: number; uid: number } {
  const { old, uid } = situation;
  return preserve === false || old === undefined || target !== situation.target
    ? { mode: 0o644, uid }
    : old;
}

/** Which class tells a failure before the commit; others are an AtomicError. */
function classOf({ code, syscall }: AtomicError): string {
  if (code === "EBUSY" && syscall === "rename") return "TargetBusyError";
  return CLASSES[code] ?? "AtomicError";
}

const CLASSES: Readonly<Record<string, string>> = {
  EDQUOT: "NoSpaceError",
  EEXIST: "AlreadyExistsError",
  ENOENT: "NotFoundError",
  ENOSPC: "NoSpaceError",
  EXDEV: "CrossDeviceError",
  UNSUPPORTED_ENVIRONMENT: "UnsupportedEnvironmentError",
};

function checkOutcome(
  run: Run,
  claim: FileClaim,
  view: View,
  settled: Settled,
  injected: readonly { code: string; call: SimulatedCall }[],
  options: WriteOptions,
): void {
  const { form } = run;
  const expectation = expectationOf(run);
  if ("receipt" in settled) {
    const { receipt } = settled;
    if (form.changes === "nothing") {
      if (claim.replacements > 0) {
        throw new Violation(
          "it is to change nothing, and has changed the file",
        );
      }
      return;
    }
    if (receipt === undefined || !("resolves" in expectation)) {
      throw new Violation(
        `it should be refused: ${JSON.stringify(expectation)}`,
      );
    }
    const { durability = "full" } = options;
    if (
      receipt.path !== claim.path ||
      receipt.fileSynced !== (durability !== "none") ||
      receipt.directorySynced !== (durability === "full") ||
      receipt.bytes !== form.text.length
    ) {
      throw new Violation(`the receipt is wrong: ${JSON.stringify(receipt)}`);
    }
    claim.promise([form.text], durability === "full");
    checkKept(run, claim, view, receipt);
    return;
  }
  const { error } = settled;
  if (!(error instanceof AtomicError)) {
    throw new Violation(`no AtomicError: ${told(settled)}`);
  }
  const { code, committed } = error;
  const codes = injected.map(({ code }) => code);
  if (injected.length === 0) {
    const isRefusal = "code" in expectation && expectation.code === code;
    if (!isRefusal) throw new Violation(`it should resolve: ${error}`);
  } else if (
    !codes.includes(code) && !EQUIVALENT.includes(code) &&
    !("code" in expectation && expectation.code === code)
  ) {
    throw new Violation(
      `failed with ${code}, where ${codes.join(", ")} was injected: ${error}`,
    );
  }
  const isInPlace = claim.replacements > 0;
  if (committed === false && isInPlace || committed === true && !isInPlace) {
    throw new Violation(
      `committed is ${committed}, and the new content is ${
        isInPlace ? "" : "not "
      }in place: ${error}`,
    );
  }
  const isAmbiguous =
    (error.syscall === "rename" || error.syscall === "link") &&
    (code === "EIO" || injected.some(({ call: { name } }) => name === "lstat"));
  if (committed === "unknown" && !isAmbiguous) {
    throw new Violation(`committed is unknown for no reason: ${error}`);
  }
  const expectedClass = classOf(error);
  if (committed !== true && error.name !== expectedClass) {
    throw new Violation(
      `${code} should be a ${expectedClass}, and is a ${error.name}`,
    );
  }
  if (committed === true && !(error instanceof DurabilityError)) {
    throw new Violation(`a failure after the commit is no ${error.name}`);
  }
  if (isInPlace) claim.promise([form.text], false);
}

/** What the library makes of other codes. */
const EQUIVALENT = ["UNSUPPORTED_ENVIRONMENT", "SHORT_WRITE"];

/** Temporary files that may stay: where removing them failed, and the error says so. */
export function leftovers(
  settled: object,
  injected: readonly { code: string; call: SimulatedCall }[],
): string[] {
  const message = "error" in settled ? String(settled.error) : "";
  return injected.flatMap(({ call: { name, args: [path] } }) =>
    name === "unlink" && typeof path === "string" && message.includes(path)
      ? [path]
      : []
  );
}
