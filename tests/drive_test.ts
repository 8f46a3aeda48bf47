import assert from "node:assert/strict";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { writeBytesAtomic, writeTextAtomic } from "../mod.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { inScratch } from "./scratch.ts";

/** A clock that stands still unless a call is said to take time. */
function quietPort(
  durations: Readonly<Record<string, number>> = {},
): FaultPort {
  const port = new FaultPort();
  let now = 1000;
  port.now = () => now;
  return port.intercept(({ name }) => {
    now += durations[name] ?? 0;
    return undefined;
  });
}

function offThread(port: FaultPort): string[] {
  return port.calls.filter(({ form }) => form === "async")
    .map(({ name }) => name);
}

test("a small write leaves the event loop's thread only to sync", () =>
  inScratch(async (directory) => {
    const port = quietPort();
    await onPort(port, () => writeTextAtomic(join(directory, "f"), "new"));
    assert.deepEqual(offThread(port), ["fsync", "fsync"]);
  }));

test("writing much, and freeing much, is done off the event loop's thread", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = quietPort();
    await onPort(port, () => writeBytesAtomic(path, new Uint8Array(200_000)));
    assert.deepEqual(offThread(port), ["write", "fsync", "fsync"]);
    port.calls.length = 0;
    truncateSync(path, 1_000_000_000);
    await onPort(port, () => writeTextAtomic(path, "small"));
    assert.deepEqual(offThread(port), ["fsync", "rename", "fsync"]);
    port.calls.length = 0;
    port.fail("fsync", "EIO");
    await onPort(
      port,
      () => assert.rejects(writeBytesAtomic(path, new Uint8Array(200_000))),
    );
    assert.deepEqual(offThread(port), ["write", "fsync", "unlink"]);
  }));

test("after a slow inline call, calls are made off the thread for 100 ms", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const port = quietPort({ realpath: 0.6 });
    await onPort(port, () => writeTextAtomic(path, "new"));
    // Where it goes is found out at once, for it decides its order, and whether
    // a checksum is there, which takes a lock.
    const found = port.calls.slice(0, 4);
    const rest = port.calls.slice(4);
    assert.ok(found.every(({ form }) => form === "sync"));
    // All but create: a thread that is still to create the file when the process
    // exits would leave it behind.
    assert.ok(
      rest.every(({ name, form }) =>
        (form === "async") !== (name === "create")
      ),
    );
    port.calls.length = 0;
    const slowAt = port.now();
    port.now = () => slowAt + 101;
    await onPort(port, () => writeTextAtomic(path, "new"));
    assert.deepEqual(offThread(port), ["fsync", "fsync"]);
  }));

test("once inline calls have held the event loop for long, what may leave it does", () =>
  inScratch(async (directory) => {
    const port = quietPort({ create: 0.5 });
    await onPort(port, async () => {
      const writes = Array.from(
        { length: 20 },
        (_, index) => writeTextAtomic(join(directory, `f${index}`), "new"),
      );
      const opened = port.calls.filter(({ name }) => name === "open");
      assert.deepEqual(
        opened.slice(0, 5).map(({ form }) => form),
        ["sync", "sync", "sync", "async", "async"],
      );
      await Promise.all(writes);
    });
  }));
