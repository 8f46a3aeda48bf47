import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { withDefaults } from "../defaults.ts";
import {
  AtomicError,
  DurabilityError,
  LockTimeoutError,
  ParseError,
  SerializationError,
} from "../errors.ts";
import {
  updateJsonAtomic,
  updateJsonAtomicSync,
  writeJsonAtomic,
} from "../json.ts";
import { acquireLock, isLocked, withLock } from "../lock.ts";
import {
  type Durability,
  type TextUpdateOptions,
  updateTextAtomic,
  updateTextAtomicSync,
} from "../text.ts";
import { FaultPort, onPort } from "./fault_port.ts";
import { rejection } from "./rejection.ts";
import { inScratch } from "./scratch.ts";

interface Count {
  readonly count: number;
}

/** Both forms under one signature. */
const FORMS = [
  { name: "async", updateJson: updateJsonAtomic, updateText: updateTextAtomic },
  {
    name: "sync",
    updateJson: <T>(
      path: string,
      change: (current: T) => T,
      options: { initial: T; lock?: boolean },
    ) =>
      new Promise<ReturnType<typeof updateJsonAtomicSync<T>>>((resolve) =>
        resolve(updateJsonAtomicSync(path, change, options))
      ),
    updateText: (
      path: string,
      change: (current: string) => string,
      options: TextUpdateOptions & { initial: string },
    ) =>
      new Promise<ReturnType<typeof updateTextAtomicSync>>((resolve) =>
        resolve(updateTextAtomicSync(path, change, options))
      ),
  },
] as const;

function renamesTo(port: FaultPort, path: string): boolean {
  return port.calls.some(({ name, args: [, to] }) =>
    name === "rename" && to === path
  );
}

for (const form of FORMS) {
  test(`${form.name}: an update of text writes what the function returns, with a newline only where it is asked for`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const add = (text: string) => `${text}x`;
      const options = { initial: "" };
      await form.updateText(path, add, options);
      assert.equal(readFileSync(path, "utf8"), "x");
      await form.updateText(path, add, { ...options, trailingNewline: true });
      assert.equal(readFileSync(path, "utf8"), "xx\n");
      const { changed } = await form.updateText(path, (text) => text, options);
      assert.equal(changed, false);
    }));

  test(`${form.name}: an update gets what is there, or initial, and tells what it has written`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "count.json");
      const increment = ({ count }: Count) => ({ count: count + 1 });
      const options = { initial: { count: 0 } };
      const first = await form.updateJson(path, increment, options);
      assert.deepEqual(first.value, { count: 1 });
      assert.equal(first.changed, true);
      assert.equal(first.receipt?.created, true);
      assert.equal(first.receipt.directorySynced, true);
      const second = await form.updateJson(path, increment, options);
      assert.deepEqual(second.value, { count: 2 });
      assert.equal(second.receipt?.created, false);
      assert.deepEqual(JSON.parse(readFileSync(path, "utf8")), { count: 2 });
      const text = join(directory, "notes.txt");
      const append = (current: string) => `${current}more\n`;
      await form.updateText(text, append, { initial: "" });
      await form.updateText(text, append, { initial: "" });
      assert.equal(readFileSync(text, "utf8"), "more\nmore\n");
      assert.deepEqual(
        readdirSync(directory).toSorted(),
        ["count.json", "notes.txt"],
      );
    }));

  test(`${form.name}: what is unchanged is not written, and the result says so`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "same\n");
      const port = new FaultPort();
      const result = await onPort(
        port,
        () => form.updateText(path, (text) => text, { initial: "" }),
      );
      assert.deepEqual(result, {
        value: "same\n",
        changed: false,
        receipt: undefined,
      });
      assert.ok(!renamesTo(port, path));
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: what is unchanged is synced, with its checksum and its place, or not where none is asked for`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "made", "f");
      const checksum = `${path}.sha256`;
      const same = (text: string) => text;
      const content = { initial: "content\n", durability: "none" } as const;
      const first = { ...content, checksum: true };
      await form.updateText(path, same, first);
      const synced = async (durability: Durability) => {
        const port = new FaultPort();
        const options = { initial: "", durability };
        const { changed } = await onPort(
          port,
          () => form.updateText(path, same, options),
        );
        assert.equal(changed, false);
        assert.ok(!renamesTo(port, path));
        const opened = port.calls.filter(({ name }) => name === "open")
          .map(({ args: [path] }) => path);
        const syncs = port.names.filter((name) => name === "fsync").length;
        return { opened: opened.slice(-syncs || Infinity), syncs };
      };
      const files = [path, checksum];
      assert.equal((await synced("none")).syncs, 0);
      assert.deepEqual(await synced("ordered"), { opened: files, syncs: 2 });
      assert.deepEqual(await synced("full"), {
        opened: [...files, join(directory, "made")],
        syncs: 3,
      });
    }));

  test(`${form.name}: an update that is made again after its sync has failed is written`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      const pay = () => "paid\n";
      let syncs = 0;
      const port = new FaultPort().intercept(({ name }) =>
        name === "fsync" && ++syncs === 2 ? { code: "EIO" } : undefined
      );
      await onPort(port, async () => {
        const options = { initial: "" };
        const error = await rejection(form.updateText(path, pay, options));
        assert.ok(error instanceof DurabilityError);
        assert.equal(readFileSync(path, "utf8"), "paid\n");
        const again = await form.updateText(path, pay, options);
        assert.equal(again.changed, true);
        assert.equal(again.receipt?.directorySynced, true);
        // Of what comes later in that directory nothing is known either.
        assert.equal((await form.updateText(path, pay, options)).changed, true);
      });
    }));

  test(`${form.name}: where the sync of what is unchanged fails, it is written`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "same\n");
      const port = new FaultPort().fail("fsync", "EIO", 1);
      const { changed } = await onPort(
        port,
        () => form.updateText(path, (text) => text, { initial: "" }),
      );
      assert.equal(changed, true);
      assert.equal(readFileSync(path, "utf8"), "same\n");
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));

  test(`${form.name}: an update that changes the mode alone is written`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "same\n");
      chmodSync(path, 0o644);
      const options = { initial: "", mode: 0o600 };
      const same = (text: string) => text;
      assert.equal((await form.updateText(path, same, options)).changed, true);
      assert.equal(statSync(path).mode & 0o7777, 0o600);
      assert.equal((await form.updateText(path, same, options)).changed, false);
    }));

  test(`${form.name}: a function that throws leaves the file and the lock as they were`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "1\n");
      const reason = new RangeError("from the function");
      const thrown = form.updateJson<number>(path, () => {
        throw reason;
      }, { initial: 0 });
      assert.equal(await rejection(thrown), reason);
      const lossy = await rejection(
        form.updateJson<unknown>(path, () => () => {}, { initial: 0 }),
      );
      assert.ok(lossy instanceof SerializationError);
      writeFileSync(path, "{");
      const broken = await rejection(
        form.updateJson<number>(path, (count) => count + 1, { initial: 0 }),
      );
      assert.ok(broken instanceof ParseError);
      assert.equal(readFileSync(path, "utf8"), "{");
      assert.equal(await isLocked(path), false);
      assert.deepEqual(readdirSync(directory), ["f"]);
    }));
}

test("a hundred updates at once all land, in the order of their calls", () =>
  inScratch(async (directory) => {
    const path = join(directory, "list.json");
    await Promise.all(
      Array.from(
        { length: 100 },
        (_, index) =>
          updateJsonAtomic<number[]>(path, async (list) => {
            await Promise.resolve();
            return [...list, index];
          }, { initial: [], durability: "none" }),
      ),
    );
    assert.deepEqual(
      JSON.parse(readFileSync(path, "utf8")),
      Array.from({ length: 100 }, (_, index) => index),
    );
    assert.deepEqual(readdirSync(directory), ["list.json"]);
  }));

test("without initial the function gets undefined where there is no file", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const seen: unknown[] = [];
    await updateJsonAtomic<number>(path, (current) => {
      seen.push(current);
      return 1;
    });
    updateTextAtomicSync(join(directory, "g"), (current) => {
      seen.push(current);
      return "x";
    });
    assert.deepEqual(seen, [undefined, undefined]);
  }));

test("inside withLock an update takes the held lock; one without waits for itself and says so", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await withLock(path, async (lock) => {
      const { value } = await updateJsonAtomic(path, (n: number) => n + 1, {
        initial: 0,
        lock,
      });
      assert.equal(value, 1);
      const nested = await rejection(
        updateJsonAtomic(path, (n: number) => n + 1, {
          initial: 0,
          lock: { timeoutMs: 5 },
        }),
      );
      assert.ok(nested instanceof LockTimeoutError);
      assert.match(nested.message, /this very realm holds it/);
      assert.throws(
        () => updateJsonAtomicSync(path, (n: number) => n, { initial: 0 }),
        LockTimeoutError,
      );
      // Whoever wants no lock gets none.
      await updateJsonAtomic(path, () => 7, { lock: false });
    });
    assert.equal(readFileSync(path, "utf8"), "7\n");
  }));

test("another realm's update is waited for", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const theirs = await onPort(new FaultPort(), () => acquireLock(path));
    const mine = onPort(
      new FaultPort(),
      () => updateJsonAtomic(path, (n: number) => n + 1, { initial: 0 }),
    );
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok(!existsSync(path));
    await theirs.release();
    assert.equal((await mine).value, 1);
  }));

test("what is no function, and a promise where there can be none, is a TypeError", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    await assert.rejects(
      updateJsonAtomic(path, 5 as unknown as () => number),
      /^TypeError: The update must be a function .*: received .*5/,
    );
    assert.throws(
      () => updateJsonAtomicSync(path, () => Promise.resolve(1)),
      /^TypeError: The function of updateJsonAtomicSync must return the new content/,
    );
    const wrong = { createNew: true } as unknown as { initial: number };
    await assert.rejects(updateJsonAtomic(path, () => 1, wrong), TypeError);
    assert.deepEqual(readdirSync(directory), []);
  }));

test("withDefaults binds updates too", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const quick = withDefaults({ durability: "none", indent: 0 });
    const first = await quick.updateJsonAtomic(
      path,
      (list: number[]) => [...list, 1],
      { initial: [] },
    );
    assert.equal(first.receipt?.fileSynced, false);
    const second = quick.updateJsonAtomicSync<number[]>(
      path,
      (list = []) => [...list, 2],
    );
    assert.equal(second.receipt?.fileSynced, false);
    assert.equal(readFileSync(path, "utf8"), "[1,2]\n");
    await quick.updateTextAtomic(path, () => "text");
    const same = quick.updateTextAtomicSync(path, (text) => text, {
      initial: "",
    });
    assert.equal(same.changed, false);
  }));

test("updates that are handed one lock exclude each other, and wait for what is written under it", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
    await withLock(path, async (lock) => {
      const increment = async (count: number) => {
        await turn();
        return count + 1;
      };
      const options = { initial: 0, lock };
      await Promise.all(
        Array.from(
          { length: 10 },
          () => updateJsonAtomic(path, increment, options),
        ),
      );
      const written = writeJsonAtomic(path, 100, { lock });
      const { value } = await updateJsonAtomic(path, increment, options);
      assert.equal(value, 101);
      await written;
      const slow = updateJsonAtomic(path, increment, options);
      assert.throws(
        () => updateJsonAtomicSync(path, (n: number) => n, options),
        /what is done under the same lock/,
      );
      await slow;
      updateJsonAtomicSync(path, (count: number) => count + 1, options);
    });
    assert.equal(readFileSync(path, "utf8"), "103\n");
  }));

test("an update reads and writes the file whose lock it has, where its link is turned meanwhile", () =>
  inScratch(async (directory) => {
    const link = join(directory, "link");
    const [one, other] = [join(directory, "one"), join(directory, "other")];
    for (const path of [one, other]) writeFileSync(path, "0\n");
    symlinkSync(one, link);
    const theirs = await acquireLock(one);
    const increment = () =>
      updateJsonAtomic(link, (count: number) => count + 1, { initial: 0 });
    const first = increment();
    unlinkSync(link);
    symlinkSync(other, link);
    const second = increment();
    await theirs.release();
    await Promise.all([first, second]);
    assert.equal(readFileSync(one, "utf8"), "1\n");
    assert.equal(readFileSync(other, "utf8"), "1\n");
    await assert.rejects(
      updateJsonAtomic(link, () => 1, { symlinks: "replace" }),
      TypeError,
    );
  }));

test("a function that hangs is left where the signal is aborted, and the lock is free", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const controller = new AbortController();
    const { signal } = controller;
    const hanging = updateTextAtomic(path, () => {
      setTimeout(() => controller.abort("enough"), 0);
      return new Promise<string>(() => {});
    }, { signal });
    await assert.rejects(hanging, (error) => error === "enough");
    assert.equal(await isLocked(path), false);
    const done = await updateTextAtomic(path, () => "x", {
      signal: new AbortController().signal,
    });
    assert.equal(done.changed, true);
  }));

test("an update that is aborted while its function fails is rejected once, and by nothing else", () =>
  inScratch(async (directory) => {
    const path = join(directory, "f");
    const reason = new Error("enough");
    for (const isAbortedFirst of [true, false]) {
      const controller = new AbortController();
      const { signal } = controller;
      let isCalled = false;
      const port = new FaultPort().intercept(({ name }) => {
        if (isAbortedFirst && name === "open") controller.abort(reason);
        return undefined;
      });
      writeFileSync(path, "0");
      const updated = onPort(
        port,
        () =>
          updateJsonAtomic<number>(path, () => {
            isCalled = true;
            controller.abort(reason);
            return Promise.reject(new Error("from the function"));
          }, { initial: 0, signal }),
      );
      assert.equal(await rejection(updated), reason);
      assert.equal(isCalled, !isAbortedFirst);
      assert.equal(await isLocked(path), false);
    }
  }));

for (const form of FORMS) {
  test(`${form.name}: of a file that may not be read an update says so, and not of its directory`, () =>
    inScratch(async (directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "secret");
      const port = new FaultPort().intercept(({ name, args: [file] }) =>
        name === "open" && file === path ? { code: "EACCES" } : undefined
      );
      const error = await onPort(
        port,
        () => rejection(form.updateText(path, () => "new", { initial: "" })),
      );
      assert.ok(error instanceof AtomicError, String(error));
      assert.equal(error.code, "EACCES");
      assert.match(error.message, /may not read it, and can only change what/);
      assert.equal(readFileSync(path, "utf8"), "secret");
    }));
}
