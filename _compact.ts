/**
 * A file of JSON lines that is written anew from what is in it: read and written
 * as streams, under its lock, so that no append comes in between.
 *
 * @module
 */

import { hasChecksum } from "./_checksum_choice.ts";
import type { WriteRequest } from "./_core.ts";
import { describe } from "./_describe.ts";
import { runAsync, runSync } from "./_drive.ts";
import { explain } from "./_failure.ts";
import { LineParser, recordsOf, recordsOfSync } from "./_jsonl_read.ts";
import { inspectTail } from "./_jsonl_tail.ts";
import type { CompactReceipt, JsonlCompactOptions } from "./_options.ts";
import { enterUpdate, refusePending, type UpdatePlace } from "./_order.ts";
import {
  attempt as attemptTo,
  call,
  failedWith,
  type Protocol,
} from "./_protocol.ts";
import type { Port } from "./_runtime/port.ts";
import { chunksOf, isIterable, isSource, type Source } from "./_source.ts";
import { StreamWrite } from "./_stream_write.ts";
import { locateTarget } from "./_target.ts";
import { underLockAlone, underLockAloneSync } from "./_under_lock.ts";
import { lockedUnlessForbidden } from "./_update.ts";
import { type OpenedToRead, openVerified } from "./_verified_read.ts";
import {
  appendEach,
  locateNow,
  type SourceWrite,
  writeEachSync,
} from "./_write.ts";

/** A compaction that is ready for its first system call. */
export interface Compaction extends SourceWrite<unknown> {
  readonly options: JsonlCompactOptions;
}

/** Writes the file anew, with what `change` makes of its records. */
export async function compact<T>(
  compaction: Compaction,
  change: (records: AsyncIterable<T>) => Source<unknown>,
): Promise<CompactReceipt> {
  const { port, attempt, request } = compaction;
  let place: UpdatePlace | undefined;
  try {
    const { path } = locateNow(port, request);
    const own = place = enterUpdate(port, path, request);
    const locked = lockedUnlessForbidden(port, request);
    return await underLockAlone(port, attempt, locked, async (request) => {
      const old = await own.read(() => runAsync(port, openOld(port, request)));
      try {
        const count = { read: 0 };
        const source = change(readOld<T>(compaction, old, count));
        if (!isSource(source)) throw wrongSource(source);
        const begun = { ...request, lock: false, isKept: false };
        const write = await StreamWrite.begin(port, begun);
        const chunks = chunksOf(source, request.signal);
        const recordsWritten = await appendEach(write, chunks, compaction);
        const appended = Promise.resolve();
        const receipt = await write.commitAs(appended, request, own.write);
        const { cutBytes } = old;
        return {
          ...receipt,
          recordsRead: count.read,
          recordsWritten,
          cutBytes,
        };
      } finally {
        await runAsync(port, closeOld(old));
      }
    }, own.letPass);
  } catch (error) {
    throw explain(port, attempt, error);
  } finally {
    place?.leave();
  }
}

/** The same, blocking. */
export function compactSync<T>(
  compaction: Compaction,
  change: (records: Iterable<T>) => Iterable<unknown>,
): CompactReceipt {
  const { port, attempt, request } = compaction;
  try {
    const locked = lockedUnlessForbidden(port, request);
    return underLockAloneSync(port, attempt, locked, (request) => {
      refusePending(port, runSync(port, locateTarget(port, request)).path);
      const old = runSync(port, openOld(port, request));
      try {
        const count = { read: 0 };
        const source = change(readOldSync<T>(compaction, old, count));
        if (!isIterable(source)) throw wrongSource(source);
        const { receipt, records: recordsWritten } = writeEachSync(
          port,
          request,
          source,
          compaction,
        );
        const { cutBytes } = old;
        return {
          ...receipt,
          recordsRead: count.read,
          recordsWritten,
          cutBytes,
        };
      } finally {
        runSync(port, closeOld(old));
      }
    }, true);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

/** The file as it was. */
interface Old {
  /** `undefined` where there was none. */
  readonly opened: OpenedToRead | undefined;
  /** Where a torn line begins, or the file ends. */
  readonly end: number;
  readonly cutBytes: number;
}

function* openOld(port: Port, request: WriteRequest): Protocol<Old> {
  const { path, retryMs, signal } = request;
  // What is damaged would be written anew, and called good.
  const checksum = request.wanted !== false &&
    (yield* hasChecksum(port, path, request));
  let opened: OpenedToRead;
  try {
    opened = yield* openVerified(port, path, {
      checksum,
      maxBytes: Infinity,
      capacity: Infinity,
      retryMs,
      signal,
    });
  } catch (error) {
    if (!failedWith(error, "ENOENT")) throw error;
    return { opened: undefined, end: 0, cutBytes: 0 };
  }
  const { file, size, sidecar } = opened;
  try {
    // Nothing is appended to a file with a checksum, so nothing is torn.
    if (sidecar !== undefined) return { opened, end: size, cutBytes: 0 };
    const { kind, offset } = yield* inspectTail(file, size, signal);
    const end = kind === "torn" ? offset : size;
    return { opened, end, cutBytes: size - end };
  } catch (error) {
    yield* attemptTo(call("close", file));
    throw error;
  }
}

/** Once there is something new in its place, so that this frees it, and not the rename. */
function* closeOld({ opened }: Old): Protocol<void> {
  if (opened !== undefined) yield* attemptTo(call("close", opened.file));
}

interface Count {
  read: number;
}

async function* readOld<T>(
  { port, attempt, options }: Compaction,
  { opened, end }: Old,
  count: Count,
): AsyncGenerator<T, void, undefined> {
  if (opened === undefined) return;
  const parser = new LineParser<T>(attempt, options);
  for await (const record of recordsOf(port, opened, end, parser)) {
    count.read++;
    yield record;
  }
}

function* readOldSync<T>(
  { port, attempt, options }: Compaction,
  { opened, end }: Old,
  count: Count,
): Generator<T, void, undefined> {
  if (opened === undefined) return;
  const parser = new LineParser<T>(attempt, options);
  for (const record of recordsOfSync(port, opened, end, parser)) {
    count.read++;
    yield record;
  }
}

function wrongSource(received: unknown): TypeError {
  return new TypeError(
    `The function of a compaction must return the records to keep, as an array, a generator or a stream: received ${
      describe(received)
    }`,
  );
}
