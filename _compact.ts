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
import type {
  CompactReceipt,
  JsonlCompactOptions,
  WriteReceipt,
} from "./_options.ts";
import { enterUpdate, enterUpdateSync, type UpdatePlace } from "./_order.ts";
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
import { lockedUnlessForbidden, refuseUnreadable } from "./_update.ts";
import {
  compareOpened,
  type OpenedToRead,
  openVerified,
} from "./_verified_read.ts";
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
      const count = { read: 0, written: 0 };
      const records = readOld<T>(compaction, old, count);
      try {
        const source = change(records);
        if (!isSource(source)) throw wrongSource(source);
        const chunks = chunksOf(source, request.signal);
        const begun = { ...request, lock: false, isKept: false };
        const write = await StreamWrite.begin(port, begun);
        const kept = readToItsEnd(port, request, old, chunks, count);
        await appendEach(write, kept, compaction);
        const appended = Promise.resolve();
        const receipt = await write.commitAs(appended, request, own.write);
        return compactReceipt(receipt, old, count);
      } finally {
        // Or it would go on reading what has the descriptor by then.
        await records.return();
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
      const { path } = runSync(port, locateTarget(port, request));
      const turn = enterUpdateSync(port, path, request.durability);
      try {
        const old = runSync(port, openOld(port, request));
        const count = { read: 0, written: 0 };
        const records = readOldSync<T>(compaction, old, count);
        try {
          const source = change(records);
          if (!isIterable(source)) throw wrongSource(source);
          const kept = readToItsEndSync(port, request, old, source, count);
          const receipt = turn.write(() =>
            writeEachSync(port, request, kept, compaction, turn)
          );
          return compactReceipt(receipt, old, count);
        } finally {
          records.return();
          runSync(port, closeOld(old));
        }
      } finally {
        turn.leave();
      }
    }, true);
  } catch (error) {
    throw explain(port, attempt, error);
  }
}

function compactReceipt(
  receipt: WriteReceipt,
  { cutBytes }: Old,
  { read, written }: Count,
): CompactReceipt {
  return { ...receipt, recordsRead: read, recordsWritten: written, cutBytes };
}

/** The file as it was. */
interface Old {
  /** `undefined` where there was none. */
  readonly opened: OpenedToRead | undefined;
  /** Where a torn line begins, or the file ends. */
  readonly end: number;
  readonly cutBytes: number;
  /** Whether all of its records were read, and so compared with its checksum. */
  isRead: boolean;
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
    refuseUnreadable(error);
    if (!failedWith(error, "ENOENT")) throw error;
    return { opened: undefined, end: 0, cutBytes: 0, isRead: true };
  }
  const { file, size, sidecar } = opened;
  try {
    // Nothing is appended to a file with a checksum, so nothing is torn.
    if (sidecar !== undefined) {
      return { opened, end: size, cutBytes: 0, isRead: false };
    }
    const { end } = yield* inspectTail(file, size, signal);
    return { opened, end, cutBytes: size - end, isRead: false };
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
  written: number;
}

/** The records to keep; and then, where the function has not read all of the old ones, the rest is compared with the checksum. */
async function* readToItsEnd(
  port: Port,
  request: WriteRequest,
  old: Old,
  chunks: AsyncIterable<unknown>,
  count: Count,
): AsyncGenerator<unknown, void, undefined> {
  for await (const chunk of chunks) {
    count.written++;
    yield chunk;
  }
  await runAsync(port, compareUnread(port, old, request));
}

/** The same, blocking. */
function* readToItsEndSync(
  port: Port,
  request: WriteRequest,
  old: Old,
  source: Iterable<unknown>,
  count: Count,
): Generator<unknown, void, undefined> {
  for (const chunk of source) {
    count.written++;
    yield chunk;
  }
  runSync(port, compareUnread(port, old, request));
}

function* compareUnread(
  port: Port,
  { opened, isRead }: Old,
  request: WriteRequest,
): Protocol<void> {
  if (opened?.sidecar === undefined || isRead) return;
  const { file, sidecar } = opened;
  yield* compareOpened(port, { file, sidecar }, request);
}

async function* readOld<T>(
  { port, attempt, options }: Compaction,
  old: Old,
  count: Count,
): AsyncGenerator<T, void, undefined> {
  const { opened, end } = old;
  if (opened === undefined) return;
  const parser = new LineParser<T>(attempt, options);
  for await (const record of recordsOf(port, opened, end, parser)) {
    count.read++;
    yield record;
  }
  old.isRead = true;
}

function* readOldSync<T>(
  { port, attempt, options }: Compaction,
  old: Old,
  count: Count,
): Generator<T, void, undefined> {
  const { opened, end } = old;
  if (opened === undefined) return;
  const parser = new LineParser<T>(attempt, options);
  for (const record of recordsOfSync(port, opened, end, parser)) {
    count.read++;
    yield record;
  }
  old.isRead = true;
}

function wrongSource(received: unknown): TypeError {
  return new TypeError(
    `The function of a compaction must return the records to keep, as an array, a generator or a stream: received ${
      describe(received)
    }`,
  );
}
