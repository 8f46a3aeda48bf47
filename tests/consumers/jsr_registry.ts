/**
 * A small JSR registry on the loopback interface: it takes what `deno publish`
 * sends, and serves it to every `jsr:` import of a Deno that is pointed at it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import {
  createServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";

/** What was published of one version. */
interface Version {
  readonly exports: Readonly<Record<string, string>>;
  /** The files, by path below the package, as `/mod.ts`. */
  readonly files: ReadonlyMap<string, Uint8Array>;
}

export interface Registry extends AsyncDisposable {
  /** For the environment variable `JSR_URL`. */
  readonly url: string;
  /** What was published, by `@scope/name/version`. */
  readonly versions: ReadonlyMap<string, Version>;
}

/** Starts a registry that unpacks what it is sent below `directory`. */
export async function startRegistry(directory: string): Promise<Registry> {
  const versions = new Map<string, Version>();
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.writeHead(500).end(String(error));
    });
  });

  async function answer(request: IncomingMessage, response: ServerResponse) {
    const { pathname } = new URL(request.url ?? "/", "http://registry");
    if (pathname.startsWith("/api/")) return await api(request, response);
    const [, scope = "", name = "", ...rest] = pathname.split("/");
    const packageName = `${scope}/${name}`;
    const asked = rest.join("/");
    if (asked === "meta.json") {
      const found = [...versions.keys()]
        .filter((key) => key.startsWith(`${packageName}/`))
        .map((key) => [key.slice(packageName.length + 1), {}]);
      return json(response, found.length > 0 ? 200 : 404, {
        versions: Object.fromEntries(found),
      });
    }
    const ofVersion = /^(\d[^/]*)_meta\.json$/.exec(asked);
    if (ofVersion !== null) {
      const version = versions.get(`${packageName}/${ofVersion[1]}`);
      if (version === undefined) return json(response, 404, {});
      return json(response, 200, {
        exports: version.exports,
        manifest: Object.fromEntries(
          Array.from(version.files, ([path, bytes]) => [path, {
            size: bytes.length,
            checksum: `sha256-${
              createHash("sha256").update(bytes).digest("hex")
            }`,
          }]),
        ),
      });
    }
    const [number = "", ...path] = rest;
    const file = versions.get(`${packageName}/${number}`)
      ?.files.get(`/${path.join("/")}`);
    if (file === undefined) return json(response, 404, {});
    response.writeHead(200, { "content-type": "application/typescript" })
      .end(file);
  }

  /** The three requests that `deno publish` makes. */
  async function api(request: IncomingMessage, response: ServerResponse) {
    const place =
      /^\/api\/scopes\/([^/]+)\/packages\/([^/]+)(?:\/versions\/([^/?]+))?/
        .exec(request.url ?? "");
    if (place === null) return json(response, 404, { code: "notFound" });
    const [, scope, name, version] = place;
    const key = `@${scope}/${name}/${version}`;
    if (version === undefined) return json(response, 200, {});
    if (request.method !== "POST") {
      return versions.has(key)
        ? json(response, 200, {})
        : json(response, 404, { code: "packageVersionNotFound" });
    }
    versions.set(key, unpack(await buffer(request), directory));
    json(response, 200, { id: randomUUID(), status: "success", error: null });
  }

  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return {
    url: `http://127.0.0.1:${address.port}/`,
    versions,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" })
    .end(JSON.stringify(body));
}

function unpack(archive: Uint8Array, directory: string): Version {
  const folder = join(directory, randomUUID());
  mkdirSync(folder);
  execFileSync("tar", ["--extract", "--gzip", "--directory", folder], {
    input: archive,
  });
  const files = new Map<string, Uint8Array>();
  for (
    const entry of readdirSync(folder, { recursive: true, withFileTypes: true })
  ) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(folder.length), readFileSync(path));
  }
  const config = readFileSync(join(folder, "deno.json"), "utf8");
  const { exports } = JSON.parse(config);
  return { exports, files };
}
