import assert from "node:assert/strict";

/** The error a promise is rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  const settled = await promise.then(
    () => ({ error: undefined }),
    (error: unknown) => ({ error }),
  );
  assert.notEqual(settled.error, undefined, "it was not rejected");
  return settled.error;
}
