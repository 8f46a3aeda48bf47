import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
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
