/**
 * Files with a checksum: after every system call, alive and as a crash would
 * leave it then, whatever the file holds must be named by each of its sidecars.
 * On every disk that a crash may leave, a second write goes the same way.
 *
 * @module
 */

import { currentPort, substitutePort } from "../../_runtime/current.ts";
import {
  moveAtomic,
  openAtomicWriter,
  updateTextAtomic,
  writeBytesAtomicSync,
  writeChecksum,
  type WriteOptions,
  type WriteReceipt,
  writeTextAtomic,
  writeTextAtomicSync,
} from "../../mod.ts";
import { FileClaim, Violation } from "./claims.ts";
import type { CrashBounds } from "./crash.ts";
import type { Finding } from "./crash_run.ts";
import { LOCK_ENTRIES } from "./lock_scenarios.ts";
import {
  describeCall,
  type Fault,
  MachinePort,
  type Observer,
  type SimulatedCall,
  simulatedHash,
} from "./machine_port.ts";
import { Machine, type Process } from "./posix.ts";
import type { Tally } from "./report.ts";
import { lookAfterCrash, lookAlive, type Scene } from "./scene.ts";
import { liveView, lookUp, pathsIn, type View, written } from "./view.ts";

const PATH = "/d/f";
/** What is moved. */
const OTHER = "/d/g";
const encoder = new TextEncoder();

const ALGORITHMS = ["sha512", "sha256", "sha1"] as const;
type Algorithm = (typeof ALGORITHMS)[number];

function digestOf(algorithm: Algorithm, bytes: Uint8Array): string {
  const hash = simulatedHash(algorithm);
  hash.update(bytes);
  return hash.digest();
}

/** What a file is found with. */
interface Found {
  readonly name: string;
  readonly text?: string;
  /** Of this text, and of what it calls previous. */
  readonly sidecar?: readonly [Algorithm, ...texts: string[]];
}

const FOUND: readonly Found[] = [
  { name: "no file" },
  { name: "a file without a checksum", text: "old\n" },
  {
    name: "a file with a checksum",
    text: "old\n",
    sidecar: ["sha256", "old\n"],
  },
  {
    name: "a file that a crash has left behind its checksum",
    text: "old\n",
    sidecar: ["sha256", "lost\n", "old\n"],
  },
  {
    name: "a file with a checksum of another algorithm",
    text: "old\n",
    sidecar: ["sha512", "old\n"],
  },
  { name: "a checksum without a file", sidecar: ["sha256", "lost\n"] },
];

/** A way to write. */
export interface ChecksumForm {
  readonly name: string;
  /** Whether there may be no checksum meanwhile, although there was one. */
  readonly removes?: true;
  /** What the file holds then; without it, what it held. */
  readonly text?: string;
  /** Whether what a crash leaves of its locks is looked at too: in one form, for there are many states. */
  readonly leavesLocks?: true;
  /** What else there is. */
  prepare?(root: Process): void;
  write(options: WriteOptions): Promise<unknown>;
}

export const CHECKSUM_FORMS: ChecksumForm[] = [
  {
    name: "writeTextAtomic, checksum: true",
    text: "new\n",
    write: (options) =>
      writeTextAtomic(PATH, "new", { ...options, checksum: true }),
  },
  {
    name: "writeTextAtomic, as it is",
    text: "new\n",
    write: (options) => writeTextAtomic(PATH, "new", options),
  },
  {
    name: "writeTextAtomicSync",
    text: "new\n",
    write: (options) =>
      new Promise((resolve) =>
        resolve(writeTextAtomicSync(PATH, "new", options))
      ),
  },
  {
    name: "writeBytesAtomicSync of an iterable, checksum: sha512",
    text: "new\n",
    write: (options) =>
      new Promise((resolve) =>
        resolve(
          writeBytesAtomicSync(PATH, [encoder.encode("new\n")], {
            ...options,
            checksum: "sha512",
          }),
        )
      ),
  },
  {
    name: "openAtomicWriter",
    text: "new\n",
    async write(options) {
      const writer = await openAtomicWriter(PATH, options);
      await writer.write(encoder.encode("new\n"));
      return await writer.commit();
    },
  },
  {
    name: "updateTextAtomic, checksum: true",
    leavesLocks: true,
    text: "new\n",
    write: ({ createNew: _, ...options }) =>
      updateTextAtomic(PATH, () => "new\n", {
        ...options,
        checksum: true,
        initial: "",
      }),
  },
  {
    name: "writeTextAtomic, checksum: false",
    text: "new\n",
    removes: true,
    write: (options) =>
      writeTextAtomic(PATH, "new", { ...options, checksum: false }),
  },
  {
    name: "writeChecksum",
    write: ({ createNew: _, ...options }) =>
      writeChecksum(PATH, options as object),
  },
];

for (const hasChecksum of [true, false]) {
  CHECKSUM_FORMS.push({
    name: `moveAtomic, ${hasChecksum ? "with a checksum" : "without one"}`,
    text: "new\n",
    prepare(root) {
      const bytes = encoder.encode("new\n");
      put(root, OTHER, bytes);
      if (!hasChecksum) return;
      const text = `${digestOf("sha256", bytes)}  g\n# id=0\n`;
      put(root, `${OTHER}.sha256`, encoder.encode(text));
    },
    write: ({ createNew: _, durability }) =>
      moveAtomic(OTHER, PATH, { durability, overwrite: true }),
  });
}

/** What comes after a crash. */
const SECOND: ChecksumForm = {
  name: "writeTextAtomic",
  text: "second\n",
  write: (options) => writeTextAtomic(PATH, "second", options),
};

function put(process: Process, path: string, bytes: Uint8Array): void {
  const file = process.create(path, 0o644);
  process.write(file, bytes);
  process.close(file);
}

function machineWith(
  { text, sidecar }: Found,
  { prepare }: ChecksumForm,
): Machine {
  const machine = new Machine();
  const root = machine.start("setup", 1);
  root.mkdir("/d");
  prepare?.(root);
  if (text !== undefined) put(root, PATH, encoder.encode(text));
  if (sidecar !== undefined) {
    const [algorithm, ...texts] = sidecar;
    const [digest, ...previous] = texts.map((text) =>
      digestOf(algorithm, encoder.encode(text))
    );
    const lines = [
      `${digest}  f`,
      ...previous.map((one) => `# previous=${one}`),
      "# id=0",
      "",
    ];
    put(root, `${PATH}.${algorithm}`, encoder.encode(lines.join("\n")));
  }
  machine.syncAll();
  machine.processes.shift();
  return machine;
}

/** A machine that has found this on its disk. */
function machineAfter(view: View): Machine {
  const machine = new Machine();
  const root = machine.start("setup", 1);
  for (const path of pathsIn(view)) {
    const node = lookUp(view, path);
    if (node?.kind === "directory") root.mkdir(path);
    else if (node !== undefined) put(root, path, node.bytes);
  }
  machine.syncAll();
  machine.processes.shift();
  return machine;
}

/** Whether the file is named by its checksums; whether it has any is returned. */
function checkFits(view: View, path = PATH): boolean {
  const file = lookUp(view, path);
  let isChecked = false;
  for (const algorithm of ALGORITHMS) {
    const sidecar = lookUp(view, `${path}.${algorithm}`);
    if (sidecar === undefined) continue;
    isChecked = true;
    const text = new TextDecoder().decode(sidecar.bytes);
    const isWhole = /^[0-9a-f]+ {2}[fg]\n(?:# previous=[0-9a-f]+\n)*# id=.+\n$/
      .test(text);
    if (!isWhole) throw new Violation(`a sidecar is torn: ${text}`);
    if (
      file !== undefined && !text.includes(digestOf(algorithm, file.bytes))
    ) {
      const content = new TextDecoder().decode(file.bytes);
      throw new Violation(
        `the file holds ${
          JSON.stringify(content)
        }, and its ${algorithm} says\n${text}`,
      );
    }
  }
  return isChecked;
}

interface Trip {
  readonly name: string;
  readonly machine: Machine;
  readonly form: ChecksumForm;
  readonly options: WriteOptions;
  /** Whether what a crash leaves of the locks is not looked at. */
  readonly forgetsLocks: boolean;
  readonly fault?: (call: SimulatedCall, index: number) => Fault | undefined;
}

interface TripResult {
  readonly calls: readonly SimulatedCall[];
  readonly finding: Finding | undefined;
  /** What a crash may have left. */
  readonly disks: readonly View[];
}

async function travel(
  { name, machine, form, options, forgetsLocks, fault }: Trip,
  tally: Tally,
  bounds: CrashBounds,
): Promise<TripResult> {
  const disks = new Map<string, View>();
  if (forgetsLocks) machine.fleeting = LOCK_ENTRIES;
  let isCrashed = false;
  const initial = liveView(machine);
  const wasChecked = checkFits(initial);
  const legal = form.text === undefined ? [] : [{ text: form.text }];
  const scene: Scene = {
    operation: name,
    machine,
    claims: [new FileClaim(PATH, legal, true, initial)],
    innocents: new Map(),
    paths: new Set([...pathsIn(initial), PATH]),
    passing: /^\/d\/(?:\.[fg]\.lock|[fg]\.sha)/,
    isSecret: false,
    check(view) {
      checkFits(view, OTHER);
      if (!checkFits(view) && wasChecked && !form.removes) {
        throw new Violation("its checksum is gone");
      }
      if (isCrashed) disks.set(written(view), view);
    },
  };
  const [claim] = scene.claims;
  const calls: SimulatedCall[] = [];
  const trace: string[] = [];
  let violation: Violation | undefined;
  let seen = -1;
  const look = () => {
    if (machine.disk.revision === seen) return;
    seen = machine.disk.revision;
    try {
      lookAlive(scene);
      isCrashed = true;
      lookAfterCrash(scene, tally, bounds);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      violation ??= error;
    } finally {
      isCrashed = false;
    }
  };
  const observer: Observer = {
    before(call) {
      const injected = fault?.(call, calls.length);
      calls.push(call);
      return injected;
    },
    after(call, outcome) {
      trace.push(`${describeCall(call)} = ${outcome}`);
      look();
    },
  };
  const writer = machine.start("writer", 100);
  const before = currentPort();
  substitutePort(new MachinePort(writer, observer));
  let error: unknown;
  try {
    const receipt = await form.write(options);
    seen = -1;
    if (form.text !== undefined && claim !== undefined && isReceipt(receipt)) {
      claim.promise([form.text], receipt.directorySynced);
      look();
    }
    checkReceipt(form, machine, receipt);
  } catch (thrown) {
    error = thrown;
    if (thrown instanceof Violation) violation ??= thrown;
  } finally {
    substitutePort(before);
  }
  if (error !== undefined && fault === undefined && !isExpected(error)) {
    violation ??= new Violation(`it should resolve: ${error}`);
  }
  tally.runs++;
  const finding = violation && {
    run: name,
    message: violation.message,
    trace: [...trace, `settled: ${error ?? "resolved"}`],
  };
  return { calls, finding, disks: [...disks.values()] };
}

function isReceipt(value: unknown): value is WriteReceipt {
  return typeof value === "object" && value !== null &&
    "directorySynced" in value;
}

/** Where nothing failed, the newest checksum is that of the file, and the receipt's. */
function checkReceipt(
  form: ChecksumForm,
  machine: Machine,
  receipt: unknown,
): void {
  const view = liveView(machine);
  const isChecked = checkFits(view);
  if (form.removes && isChecked) {
    throw new Violation("it is to have no checksum any more");
  }
  const isMove = form.prepare !== undefined;
  if (isMove || !isReceipt(receipt) || form.text === undefined) return;
  if ((receipt.digest !== undefined) !== isChecked) {
    throw new Violation(`the receipt says ${receipt.digest}`);
  }
}

/** A checksum of nothing, and another file where a new one is asked for. */
function isExpected(error: unknown): boolean {
  return error instanceof Error && "code" in error &&
    (error.code === "ENOENT" || error.code === "EEXIST");
}

/** Every crash of one form, and of a second write after each of them. */
export async function checksumRuns(
  form: ChecksumForm,
  tally: Tally,
  bounds: CrashBounds,
  isShort: boolean,
): Promise<Finding | undefined> {
  for (const found of FOUND) {
    for (
      const options of isShort
        ? [{}]
        : [{}, { durability: "ordered" }, { createNew: true }] as const
    ) {
      const name = `${form.name}, ${found.name}, ${JSON.stringify(options)}`;
      const machine = machineWith(found, form);
      const forgetsLocks = isShort || form.leavesLocks !== true;
      const trip = { name, machine, form, options, forgetsLocks };
      const { finding, disks, calls } = await travel(trip, tally, bounds);
      if (finding !== undefined) return finding;
      for (const disk of disks) {
        const { finding } = await travel(
          {
            name: `${name}; a crash; ${SECOND.name}`,
            machine: machineAfter(disk),
            form: SECOND,
            options: {},
            forgetsLocks,
          },
          tally,
          bounds,
        );
        if (finding !== undefined) return finding;
      }
      for (const [index, call] of isShort ? [] : calls.entries()) {
        if (call.name === "sleep") continue;
        const code = call.name.includes("atabase") || call.name === "execute"
          ? "SQLITE_IOERR"
          : "EIO";
        for (const isForEver of [false, true]) {
          const { finding } = await travel(
            {
              ...trip,
              name: `${name}; call ${index}, ${call.name}, fails`,
              machine: machineWith(found, form),
              fault: (other, now) =>
                other.name !== "sleep" &&
                  (now === index || isForEver && now > index)
                  ? { code, isDone: false }
                  : undefined,
            },
            tally,
            bounds,
          );
          if (finding !== undefined) return finding;
        }
      }
    }
  }
  return undefined;
}
