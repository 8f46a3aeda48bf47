import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  hashFile,
  openAtomicWriter,
  openSnapshot,
  readJsonl,
  readText,
  writeTextAtomic,
} from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch, leftovers } from "./scratch.ts";
import { FORMS } from "./twins.ts";

for (const form of FORMS) {
  test(`${form.name}: a signal aborted before the call touches nothing`, () =>
    inScratch(async (directory) => {
      const port = new FaultPort();
      const reason = new Error("enough");
      const error = await onPort(port, () =>
        rejection(
          form.writeText(join(directory, "a", "f"), "new", {
            signal: AbortSignal.abort(reason),
          }),
        ));
      assert.equal(error, reason);
      assert.deepEqual(port.calls, []);
    }));

  test(`${form.name}: aborted at any call before the rename it leaves the target and no trace, after it it is done`, () =>
    inScratch(async (directory) => {
      for (let index = 0;; index++) {
        const path = join(directory, `${index}`, "f");
        const controller = new AbortController();
        const reason = new Error(`at call ${index}`);
        const port = new FaultPort().abortAt(index, controller, reason);
        const outcome = await onPort(
          port,
          () =>
            form.writeText(path, "new", { signal: controller.signal })
              .catch((error: unknown) => error),
        );
        const rename = port.names.indexOf("rename");
        if (rename === -1) {
          assert.equal(outcome, reason, `call ${index}`);
          assert.throws(() => readFileSync(path), { code: "ENOENT" });
        } else {
          assert.ok(index >= rename);
          assert.equal(readFileSync(path, "utf8"), "new\n");
        }
        const opened = port.names.filter((name) =>
          name === "open" || name === "create"
        );
        const closed = port.names.filter((name) => name === "close");
        assert.equal(closed.length, opened.length, `handles at call ${index}`);
        if (port.names.includes("create")) {
          assert.deepEqual(leftovers(join(directory, `${index}`)), []);
        }
        if (index >= port.calls.length) break;
      }
    }));

  test(`${form.name}: a write of much is aborted between its calls`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      const controller = new AbortController();
      const port = new FaultPort().shortenWrites(10).intercept(() => undefined);
      let writes = 0;
      const aborting = new FaultPort(port).intercept(({ name }) => {
        if (name === "write" && ++writes === 3) controller.abort("enough");
        return undefined;
      });
      const error = await onPort(aborting, () =>
        rejection(
          form.writeBytes(path, new Uint8Array(1000), {
            signal: controller.signal,
          }),
        ));
      assert.equal(error, "enough");
      assert.equal(writes, 3);
      assert.equal(readFileSync(path, "utf8"), "old");
      assert.deepEqual(leftovers(directory), []);
    }));

  test(`${form.name}: a read is aborted between its calls`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "text");
      const controller = new AbortController();
      const port = new FaultPort().intercept(({ name }) => {
        if (name === "fstat") controller.abort("enough");
        return undefined;
      });
      const error = await onPort(
        port,
        () => rejection(form.readText(path, { signal: controller.signal })),
      );
      assert.equal(error, "enough");
      assert.deepEqual(port.names, ["open", "fstat", "close"]);
    }));

  test(`${form.name}: waiting for a free descriptor is aborted`, () =>
    inScratch(async (directory) => {
      const controller = new AbortController();
      const port = new FaultPort().fail("open", "EMFILE").intercept(
        ({ name }) => {
          if (name === "sleep") controller.abort("enough");
          return undefined;
        },
      );
      const error = await onPort(port, () =>
        rejection(
          form.writeText(join(directory, "f"), "new", {
            signal: controller.signal,
          }),
        ));
      assert.equal(error, "enough");
    }));
}

/** Older ones open a pipe on the thread of the event loop, which then stands still. */
const MINOR = /^2\.(\d+)\./.exec(
  Reflect.get(globalThis, "Deno")?.version?.deno ?? "",
)?.[1];
const skip = Number(MINOR ?? 9) < 9;

test(
  "a read of a pipe that nobody writes to is aborted, and closes it once somebody does",
  { skip },
  () =>
    inScratch(async (directory) => {
      const pipe = join(directory, "pipe");
      execFileSync("mkfifo", [pipe]);
      const reads: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
        readText: (signal) => readText(pipe, { signal }),
        readJsonl: (signal) =>
          readJsonl(pipe, { signal })[Symbol.asyncIterator]().next(),
        openSnapshot: (signal) => openSnapshot(pipe, { signal }),
        hashFile: (signal) => hashFile(pipe, { signal }),
      };
      for (const [name, read] of Object.entries(reads)) {
        for (const isOpened of [false, true]) {
          // Those read at positions, which a pipe has not.
          const isAtPositions = ["openSnapshot", "hashFile"].includes(name);
          if (isOpened && isAtPositions) continue;
          const controller = new AbortController();
          const port = new FaultPort();
          let reason: unknown;
          const aborted = onPort(
            port,
            async () => reason = await rejection(read(controller.signal)),
          );
          const writer = isOpened ? openSync(pipe, "w") : undefined;
          if (isOpened) await until(() => port.names.includes("read"));
          controller.abort(name);
          for (let turn = 0; turn < 1000 && reason === undefined; turn++) {
            await new Promise((resolve) => setTimeout(resolve));
          }
          const isSettled = reason === name;
          // It would keep a thread for ever.
          closeSync(writer ?? openSync(pipe, "w"));
          assert.ok(isSettled, name);
          await aborted;
          await until(() =>
            port.names.includes("open") && port.names.includes("close")
          );
        }
      }
    }),
);

test("a file that is opened while its read is aborted is closed", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    writeFileSync(path, "1\n");
    const reads: ((signal: AbortSignal) => Promise<unknown>)[] = [
      (signal) => openSnapshot(path, { signal }),
      (signal) => readJsonl(path, { signal })[Symbol.asyncIterator]().next(),
    ];
    for (const read of reads) {
      const controller = new AbortController();
      // After the last look at the signal.
      const port = new FaultPort().intercept(({ name }) => {
        if (name === "fstat") controller.abort("enough");
        return undefined;
      });
      const error = await onPort(
        port,
        () => rejection(read(controller.signal)),
      );
      assert.equal(error, "enough");
      await until(() => port.names.includes("close"));
    }
  }));

test("a writer that has nothing to do when its signal is aborted leaves no temporary file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const controller = new AbortController();
    const { signal } = controller;
    const writer = await openAtomicWriter(path, { signal });
    await writer.write("some");
    assert.equal(leftovers(directory).length, 1);
    controller.abort("enough");
    await until(() => leftovers(directory).length === 0);
    assert.equal(await rejection(writer.write("more")), "enough");
    assert.equal(await rejection(writer.commit()), "enough");
    // Of one that is committed the signal has nothing to say.
    const later = new AbortController();
    const done = await openAtomicWriter(path, { signal: later.signal });
    await done.commit();
    later.abort("enough");
    const { bytes } = await done.commit();
    assert.equal(bytes, 0);
  }));

test("a signal has one listener, however many writes wait, and none when they are done", () =>
  inScratch(async (directory) => {
    for (const isAborted of [false, true]) {
      const controller = new AbortController();
      const { signal } = controller;
      const listeners = new Set<unknown>();
      const add = signal.addEventListener.bind(signal);
      const remove = signal.removeEventListener.bind(signal);
      signal.addEventListener = (type: string, listener: unknown) => {
        listeners.add(listener);
        add(type, listener as () => void);
      };
      signal.removeEventListener = (type: string, listener: unknown) => {
        listeners.delete(listener);
        remove(type, listener as () => void);
      };
      const writes = Array.from(
        { length: 300 },
        (_, index) =>
          writeTextAtomic(join(directory, `f${index % 3}`), `${index}`, {
            signal,
            mode: 0o600 + index % 2,
          }).then(() => "written", (reason: unknown) => reason),
      );
      assert.equal(listeners.size, 1);
      if (isAborted) controller.abort("enough");
      const outcomes = new Set(await Promise.all(writes));
      assert.deepEqual([...outcomes], isAborted ? ["enough"] : ["written"]);
      assert.equal(listeners.size, 0);
    }
    assert.deepEqual(leftovers(directory), []);
  }));

async function until(isSo: () => boolean): Promise<void> {
  for (let turn = 0; !isSo(); turn++) {
    assert.ok(turn < 5000, "it never comes to that");
    await new Promise((resolve) => setTimeout(resolve));
  }
}
