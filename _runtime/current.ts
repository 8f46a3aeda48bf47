/**
 * The choice of the port, made once, on first use: importing the library does
 * nothing.
 *
 * @module
 */

import { UnsupportedEnvironmentError } from "../errors.ts";
import { denoPort } from "./deno.ts";
import { nodePort } from "./node.ts";
import type { Port } from "./port.ts";

let port: Port | undefined;

/** The port of this runtime, or the one a test put in its place. */
export function currentPort(): Port {
  return port ??= choose();
}

/** For tests: makes every function of the library use this port. */
export function substitutePort(substitute: Port | undefined): void {
  port = substitute;
}

function choose(): Port {
  // Deno first, and before `process` is named: on Deno the mere reading of
  // that global loads its Node compatibility layer.
  if ("Deno" in globalThis) return denoPort();
  if (typeof globalThis.process?.getBuiltinModule === "function") {
    return nodePort();
  }
  throw new UnsupportedEnvironmentError(
    "Cannot use @aj/atomic here: this is neither Deno, nor Bun, nor Node 22.13 or newer",
    { code: "UNSUPPORTED_ENVIRONMENT", path: "", operation: "start" },
  );
}
