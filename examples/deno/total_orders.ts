/**
 * Adds up the orders of `data/orders.jsonl` by customer, in batches, to run
 * from a timer. It may be killed at any moment: run again, it goes on where it
 * was, and every order is counted once. A last line that is still being written
 * is left for the next run. The log may only grow.
 *
 * ```sh
 * cd examples/deno
 * deno task order # appends an order; any number of times
 * deno task total # adds up those that are new
 * ```
 */

import {
  type ParseError,
  readJson,
  readJsonl,
  writeJsonAtomic,
} from "jsr:@aj/atomic";

interface Order {
  customer: string;
  cents: number;
}

/** The place and the totals are in one file: in two, a kill between their writes would count a batch twice, or never. */
interface Checkpoint {
  /** So many orders are in the totals. */
  counted: number;
  cents: Record<string, number>;
}

const ORDERS = "./data/orders.jsonl";
const CHECKPOINT = "./data/totals.json";
const BATCH = 50;

function isOrder(value: unknown): value is Order {
  return typeof value === "object" && value !== null && "customer" in value &&
    typeof value.customer === "string" && "cents" in value &&
    Number.isSafeInteger(value.cents);
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(1);
}

const { counted: start, ...before } = await readJson<Checkpoint>(CHECKPOINT, {
  fallback: { counted: 0, cents: {} },
});
console.log(`going on after ${start} orders`);
const cents = new Map(Object.entries(before.cents));
let counted = start;
let saved = start;

async function save(): Promise<void> {
  await writeJsonAtomic(CHECKPOINT, {
    counted,
    cents: Object.fromEntries(cents),
  });
  saved = counted;
  // After the write: what is said to be counted stays counted.
  console.log(`counted ${counted} orders`);
}

/** Lines that are not JSON. */
const broken: ParseError[] = [];
const orders = readJsonl<unknown>(ORDERS, {
  fallback: [],
  onError: (error) => broken.push(error),
});
let found = 0;
for await (const order of orders) {
  const [torn] = broken;
  // An order follows, so nobody is still writing that line.
  if (torn !== undefined) fail(torn.message);
  if (++found <= start) continue;
  if (!isOrder(order)) {
    fail(`${ORDERS}: order ${found} is malformed: ${JSON.stringify(order)}`);
  }
  cents.set(order.customer, (cents.get(order.customer) ?? 0) + order.cents);
  counted++;
  if (counted - saved === BATCH) await save();
}
const [last, ...more] = broken;
// Orders that were counted were whole: only a new one may be torn.
if (last !== undefined && (more.length > 0 || found < start)) {
  fail(last.message);
}
if (found < start) {
  fail(`${ORDERS} has ${found} orders, but ${start} are counted`);
}
if (counted > saved) await save();
console.log(`all ${counted} orders are counted`);
if (last !== undefined) console.log(`line ${last.line} is no order yet`);
