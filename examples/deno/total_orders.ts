/**
 * Adds up the orders of `data/orders.jsonl` by customer, in batches, to run
 * from a timer. It may be killed at any moment: run again, it goes on where it
 * was, and every order is counted once.
 *
 * ```sh
 * cd examples/deno
 * deno task order # appends an order; any number of times
 * deno task total # adds up those that are new
 * ```
 */

import { readJson, readJsonl, writeJsonAtomic } from "jsr:@aj/atomic";

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

let index = 0;
for await (const order of readJsonl<Order>(ORDERS, { fallback: [] })) {
  if (index++ < start) continue;
  cents.set(order.customer, (cents.get(order.customer) ?? 0) + order.cents);
  counted++;
  if (counted - saved === BATCH) await save();
}
if (counted > saved) await save();
console.log(`all ${counted} orders are counted`);
