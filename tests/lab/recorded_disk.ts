/**
 * A disk whose power can be cut at any moment, afterwards: it keeps what is
 * written to it in the order in which the kernel does that, and can be made
 * again as it was after any of these writes.
 *
 * It is a server of the NBD protocol, as which `nbdfuse` shows it to the kernel
 * as a file, for a loop device. What it answers to is what its client sends:
 * <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";

/** What the kernel asks of a disk, but for reading. */
type Entry =
  | {
    readonly name: "write";
    readonly offset: number;
    readonly data: Buffer;
    /** Whether it must last once it is answered. */
    readonly isForced: boolean;
  }
  | { readonly name: "flush" };

const OPTION_MAGIC = 0x49484156454f5054n; // "IHAVEOPT"
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC = 0x67446698;

const OPTION = { abort: 2, go: 7 } as const;
const OPTION_REPLY = { done: 1, info: 3, unsupported: 0x80000001 } as const;
const COMMAND = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;

/** That there are flags, flushes and forced writes. */
const TRANSMISSION_FLAGS = 0b1101;
const FORCED = 1;
const INVALID = 22;

export class RecordedDisk {
  readonly #base: string;
  readonly #content: Buffer;
  readonly #log: Entry[] = [];
  readonly #server: Server;

  /** Begins as the file `base` is. */
  constructor(base: string) {
    this.#base = base;
    this.#content = readFileSync(base);
    this.#server = createServer((socket) => {
      this.#serve(socket).catch((error) => socket.destroy(error));
    });
  }

  /** How much the kernel has asked of it. */
  get position(): number {
    return this.#log.length;
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject).listen(path, resolve);
    });
  }

  close(): void {
    this.#server.close();
  }

  /**
   * Makes the disk as a power cut leaves it at that position. Of what was
   * written since the last flush, and not forced, `isKept` says what has come to
   * last.
   */
  cutAt(position: number, path: string, isKept: () => boolean): void {
    // Its holes stay holes.
    execFileSync("cp", ["--sparse=auto", this.#base, path]);
    const log = this.#log.slice(0, position);
    const flushed = log.findLastIndex(({ name }) => name === "flush");
    const file = openSync(path, "r+");
    try {
      for (const [index, entry] of log.entries()) {
        if (entry.name === "flush") continue;
        if (index < flushed || entry.isForced || isKept()) {
          writeSync(file, entry.data, 0, entry.data.length, entry.offset);
        }
      }
    } finally {
      closeSync(file);
    }
  }

  async #serve(socket: Socket): Promise<void> {
    const take = taker(socket);
    const greeting = Buffer.alloc(18);
    greeting.write("NBDMAGICIHAVEOPT");
    // Options are answered one by one, and no zeros follow them.
    greeting.writeUInt16BE(0b11, 16);
    socket.write(greeting);
    await take(4);
    if (await this.#agree(socket, take)) await this.#answer(socket, take);
    socket.end();
  }

  /** Whether the client goes on to the disk. */
  async #agree(socket: Socket, take: Take): Promise<boolean> {
    for (;;) {
      const header = await take(16);
      assert.equal(header.readBigUInt64BE(), OPTION_MAGIC);
      const option = header.readUInt32BE(8);
      await take(header.readUInt32BE(12));
      const reply = (type: number, data = Buffer.alloc(0)) => {
        const head = Buffer.alloc(20);
        head.writeBigUInt64BE(OPTION_REPLY_MAGIC);
        head.writeUInt32BE(option, 8);
        head.writeUInt32BE(type, 12);
        head.writeUInt32BE(data.length, 16);
        socket.write(Buffer.concat([head, data]));
      };
      if (option === OPTION.go) {
        const info = Buffer.alloc(12);
        info.writeBigUInt64BE(BigInt(this.#content.length), 2);
        info.writeUInt16BE(TRANSMISSION_FLAGS, 10);
        reply(OPTION_REPLY.info, info);
        reply(OPTION_REPLY.done);
        return true;
      }
      reply(
        option === OPTION.abort ? OPTION_REPLY.done : OPTION_REPLY.unsupported,
      );
      if (option === OPTION.abort) return false;
    }
  }

  async #answer(socket: Socket, take: Take): Promise<void> {
    for (;;) {
      const request = await take(28);
      assert.equal(request.readUInt32BE(), REQUEST_MAGIC);
      const flags = request.readUInt16BE(4);
      const command = request.readUInt16BE(6);
      const offset = Number(request.readBigUInt64BE(16));
      const length = request.readUInt32BE(24);
      if (command === COMMAND.disconnect) return;
      const reply = Buffer.alloc(16);
      reply.writeUInt32BE(REPLY_MAGIC);
      request.copy(reply, 8, 8, 16);
      let read = Buffer.alloc(0);
      if (command === COMMAND.read) {
        // A copy: it may be written to before it is sent.
        read = Buffer.from(this.#content.subarray(offset, offset + length));
      } else if (command === COMMAND.write) {
        const data = await take(length);
        data.copy(this.#content, offset);
        const isForced = (flags & FORCED) !== 0;
        this.#log.push({ name: "write", offset, data, isForced });
      } else if (command === COMMAND.flush) {
        this.#log.push({ name: "flush" });
      } else {
        reply.writeUInt32BE(INVALID, 4);
      }
      socket.write(Buffer.concat([reply, read]));
    }
  }
}

/** Gives the next bytes of a connection. */
type Take = (length: number) => Promise<Buffer>;

function taker(socket: Socket): Take {
  const chunks = socket[Symbol.asyncIterator]();
  let rest = Buffer.alloc(0);
  return async (length) => {
    const parts = [rest];
    let held = rest.length;
    while (held < length) {
      const { value, done } = await chunks.next();
      if (done) throw new Error("The client has left in the middle");
      parts.push(value);
      held += value.length;
    }
    const all = Buffer.concat(parts);
    rest = all.subarray(length);
    return all.subarray(0, length);
  };
}
