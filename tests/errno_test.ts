import assert from "node:assert/strict";
import { test } from "node:test";
import { errnoName } from "../_runtime/errno.ts";

test("an error that has a number alone gets the name that its system gives it", () => {
  assert.equal(errnoName("linux", 122), "EDQUOT");
  assert.equal(errnoName("linux", 38), "ENOSYS");
  assert.equal(errnoName("linux", 9999), undefined);
  assert.equal(errnoName("darwin", 28), "ENOSPC");
  assert.equal(errnoName("darwin", 69), "EDQUOT");
  // Another error there than on Linux.
  assert.equal(errnoName("darwin", 122), undefined);
  assert.equal(errnoName("win32", 2), undefined);
});
