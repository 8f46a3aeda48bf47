import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  mustWaitForPermit,
  type Permit,
  permit,
  permitAtOnce,
} from "../_lock_permits.ts";
import { acquireLock } from "../lock.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

const MOST = 256;

/** A realm all of whose permits are taken. */
function fullPort(): { port: FaultPort; taken: Permit[] } {
  const port = new FaultPort();
  assert.equal(mustWaitForPermit(port), false);
  const taken = Array.from({ length: MOST }, () => permitAtOnce(port));
  assert.equal(mustWaitForPermit(port), true);
  return { port, taken };
}

test("who finds no permit for a lock gets the next that is given back, in the order of the calls", async () => {
  const { port, taken } = fullPort();
  const order: number[] = [];
  const waiting = [1, 2].map(async (number) => {
    const own = await permit(port, Infinity, undefined);
    order.push(number);
    return own;
  });
  for (const giveBack of taken.splice(0, 2)) giveBack();
  for (const own of await Promise.all(waiting)) own?.();
  assert.deepEqual(order, [1, 2]);
  // Given back twice, it counts once.
  const [first] = taken;
  first?.();
  first?.();
  const owns = Array.from({ length: 3 }, () => permitAtOnce(port));
  assert.equal(mustWaitForPermit(port), true);
  for (const own of owns) own();
});

test("the wait for a permit ends with its time, and with its signal", async () => {
  const { port } = fullPort();
  assert.equal(await permit(port, 1, undefined), undefined);
  const reason = new Error("no longer wanted");
  const controller = new AbortController();
  const waiting = rejection(permit(port, Infinity, controller.signal));
  controller.abort(reason);
  assert.equal(await waiting, reason);
  // Nobody is left who would be let in.
  assert.equal(await permit(port, 1, undefined), undefined);
});

test("where no permit is given back for long, who holds them may be waiting for one more", async () => {
  const { port } = fullPort();
  const own = await permit(port, Infinity, undefined);
  assert.ok(own !== undefined);
});

test("a lock that is asked for briefly needs no permit; the wait for one is ended by the signal", () =>
  inScratch(async (directory) => {
    const { port } = fullPort();
    const path = join(directory, "f");
    const brief = await onPort(
      port,
      () => acquireLock(path, { timeoutMs: 50 }),
    );
    await brief.release();
    const controller = new AbortController();
    const reason = new Error("no longer wanted");
    const waiting = onPort(
      port,
      () => rejection(acquireLock(path, { signal: controller.signal })),
    );
    controller.abort(reason);
    assert.equal(await waiting, reason);
    assert.deepEqual(readdirSync(directory), []);
  }));
