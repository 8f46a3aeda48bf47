/**
 * Uses the package by `require`, typed.
 *
 * @module
 */

import atomic = require("@aj/atomic");
import json = require("@aj/atomic/json");

const receipt: atomic.WriteReceipt = atomic.writeTextAtomicSync(
  "data/by-require.txt",
  "hello",
);
if (receipt.bytes !== 6) throw new Error("Expected 6 bytes");
if (json.writeJsonAtomic !== atomic.writeJsonAtomic) {
  throw new Error("Expected one module");
}
