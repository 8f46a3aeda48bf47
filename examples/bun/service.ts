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

import { readJson, writeJsonAtomic } from "@aj/atomic";

interface State {
  readonly revision: number;
  readonly items: Readonly<Record<string, unknown>>;
}

const KEY = /^[\w.-]{1,100}$/;
const MOST_BODY_BYTES = 100_000;

const [path, portText = process.env.PORT ?? "0"] = process.argv.slice(2);
const port = Number(portText);
if (path === undefined || !Number.isInteger(port) || port < 0 || port > 65535) {
  console.error("Usage: bun service.ts STATE_FILE [PORT]");
  process.exit(2);
}

// Changes are made to the newest state at once, so that none of several that
// come together is lost. Readers get the durable one: nobody sees what a crash
// may still undo, and everybody his own change once it is acknowledged.
let newest = await readJson<State>(path, {
  fallback: { revision: 0, items: {} },
});
let durable = newest;

async function put(file: string, key: string, value: unknown): Promise<void> {
  const state: State = {
    revision: newest.revision + 1,
    items: { ...newest.items, [key]: value },
  };
  newest = state;
  // Every write has the whole state, with all earlier changes in it. So a write
  // that is superseded by a newer one loses nothing, and a hundred requests at
  // once are acknowledged after a few writes.
  await writeJsonAtomic(file, state);
  // Superseded writes resolve after the one that took their place.
  if (state.revision > durable.revision) durable = state;
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
        await put(path, key, value);
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
  // The change stays in the newest state, and comes with the next write.
  error(error) {
    console.error(error);
    return refuse(500, "The change may not have been kept: send it again");
  },
});
console.log(`listening on ${server.url}`);

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // Answers what has been asked, then ends by itself.
  process.once(signal, () => server.stop());
}
