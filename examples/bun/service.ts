/**
 * An HTTP service that keeps named JSON values in one file. What it has
 * acknowledged is there after a kill, and after a power cut.
 *
 * ```sh
 * bun service.ts data/state.json 8080 # without a port, any that is free
 * curl -X PUT -d '{"colour": "red"}' http://127.0.0.1:8080/items/door
 * curl http://127.0.0.1:8080/items/door
 * ```
 *
 * One process may serve a file: each keeps the whole state, and would undo the
 * changes of another.
 */

import { readJson, writeTextAtomic } from "@aj/atomic";

interface State {
  readonly revision: number;
  readonly items: Readonly<Record<string, unknown>>;
}

const KEY = /^[\w.-]{1,100}$/;
const MOST_BODY_BYTES = 100_000;
/** Of a value. */
const MOST_DEPTH = 64;
/** Of the whole state, as every change writes all of it. */
const MOST_STATE_LENGTH = 10_000_000;
const GRACE_MS = 3000;

const [path, portText = process.env.PORT ?? "0"] = process.argv.slice(2);
const port = Number(portText);
if (!path || !Number.isInteger(port) || port < 0 || port > 65535) {
  console.error("Usage: bun service.ts STATE_FILE [PORT]");
  process.exit(2);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** By levels: a recursive walk of a deep value would overflow, as `JSON.stringify` does. */
function isTooDeep(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; depth <= MOST_DEPTH && level.length > 0; depth++) {
    level = level.flatMap((entry) =>
      typeof entry === "object" && entry !== null ? Object.values(entry) : []
    );
  }
  return level.length > 0;
}

function isState(value: unknown): value is State {
  return isObject(value) && Number.isSafeInteger(value.revision) &&
    Number(value.revision) >= 0 && isObject(value.items) &&
    !Object.values(value.items).some(isTooDeep);
}

async function load(file: string): Promise<State> {
  try {
    const state = await readJson<unknown>(file, {
      fallback: { revision: 0, items: {} },
    });
    if (isState(state)) return state;
    // Served, it would be overwritten by the first change.
    throw new Error("this is not a state of this service, and is left alone");
  } catch (error) {
    console.error(`${file}: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}

// Changes are made to the newest state at once, so that none of several that
// come together is lost. Readers get the durable one: nobody sees what a crash
// may still undo, and everybody his own change once it is acknowledged.
let newest = await load(path);
let durable = newest;

/** Resolves to whether there was room for the change. */
async function put(
  file: string,
  key: string,
  value: unknown,
): Promise<boolean> {
  const state: State = {
    revision: newest.revision + 1,
    items: { ...newest.items, [key]: value },
  };
  // Before it is the newest: all later states have this one's changes in them,
  // and with one that cannot be written none of them could.
  const text = JSON.stringify(state);
  if (text.length > MOST_STATE_LENGTH) return false;
  newest = state;
  // Every write has the whole state, with all earlier changes in it. So a write
  // that is superseded by a newer one loses nothing, and a hundred requests at
  // once are acknowledged after a few writes. If it fails, as on a full disk,
  // the change stays in the newest state and comes with the next write that
  // succeeds: taken back, it could still come with a later one already begun.
  await writeTextAtomic(file, text);
  // Superseded writes resolve after the one that took their place.
  if (state.revision > durable.revision) durable = state;
  return true;
}

function refuse(status: number, error: string): Response {
  return Response.json({ error }, { status });
}

function isKnown(key: string): boolean {
  // Not `in`: nobody has put "constructor".
  return Object.hasOwn(durable.items, key);
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  maxRequestBodySize: MOST_BODY_BYTES,
  routes: {
    "/items": {
      GET: () => Response.json(durable.items),
    },
    "/items/:key": {
      GET({ params: { key } }) {
        if (!isKnown(key)) return refuse(404, `There is no item "${key}"`);
        return Response.json(durable.items[key]);
      },
      async PUT(request) {
        const { key } = request.params;
        if (!KEY.test(key)) {
          return refuse(
            400,
            "A key is 1 to 100 letters, digits, dots, dashes and underscores",
          );
        }
        let value: unknown;
        try {
          value = await request.json();
        } catch {
          return refuse(400, "The body must be JSON");
        }
        if (isTooDeep(value)) {
          return refuse(400, `A value may be nested ${MOST_DEPTH} deep`);
        }
        if (!await put(path, key, value)) {
          return refuse(507, "There is no room: put something shorter");
        }
        return new Response(null, { status: 204 });
      },
    },
  },
  fetch: ({ method, url }) =>
    refuse(
      404,
      `There is no ${method} ${
        new URL(url).pathname
      }: try GET /items, or GET and PUT /items/KEY`,
    ),
  // Nobody can promise more: the change may be in the file, or come into it
  // with the next one. To send it again is harmless.
  error(error) {
    console.error(error);
    return refuse(500, "The change may not have been kept: send it again");
  },
});
console.log(`listening on ${server.url}`);

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // Answers what has been asked, then ends by itself; at a second signal at once.
  process.once(signal, () => {
    void server.stop();
    // A request that is never sent to its end would keep it for ever.
    setTimeout(() => void server.stop(true), GRACE_MS).unref();
  });
}
