/**
 * JSON as text, both ways, with errors that name the place: `$.a.b[3]` in a
 * value, line and column in a file.
 *
 * @module
 */

import { jsonErrorIndex } from "./_json_syntax.ts";
import { describe } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import type {
  JsonReplacer,
  JsonReviver,
  JsonWriteOptions,
} from "./_options.ts";
import { describePosition, positionIn } from "./_utf8.ts";
import { ParseError, SerializationError } from "./errors.ts";

/** The JSON text of a value, without a newline at its end. */
export function stringifyJson(
  value: unknown,
  options: JsonWriteOptions,
  attempt: Attempt,
): string {
  const { replacer, indent = 2 } = options;
  const walk = new Walk(options);
  const watched = options.sortKeys === true || options.onLossy === "error";
  try {
    const text = watched
      ? walk.stringify(value, indent)
      : typeof replacer === "object"
      ? JSON.stringify(value, [...replacer], indent)
      : JSON.stringify(value, replacer, indent);
    // Where the top level has no JSON form, the result is not a string.
    if (typeof text === "string") return text;
    throw new Unserializable("$", `${describe(value)} has no JSON form`);
  } catch (error) {
    throw serializationError(
      attempt,
      watched ? error : walk.find(value, error),
    );
  }
}

/** The value of a JSON text; a byte order mark is skipped. */
export function parseJson<T>(
  text: string,
  reviver: JsonReviver | undefined,
  attempt: Attempt,
): T {
  const start = text.startsWith("\ufeff") ? 1 : 0;
  const json = text.slice(start);
  try {
    return JSON.parse(json, reviver);
  } catch (cause) {
    const index = jsonErrorIndex(json);
    // It is JSON: the error is the reviver's own.
    if (index === undefined) throw cause;
    const position = positionIn(text, start + index);
    throw new ParseError(
      `Cannot read "${attempt.path}": it is not JSON: ${
        found(json, index)
      } at ${describePosition(position)}`,
      { ...attempt, ...position, code: "PARSE", cause },
    );
  }
}

function found(json: string, index: number): string {
  if (json.trim() === "") return "it is empty";
  const character = json.codePointAt(index);
  return character === undefined
    ? "it ends too early"
    : `unexpected ${JSON.stringify(String.fromCodePoint(character))}`;
}

function serializationError(attempt: Attempt, error: unknown): unknown {
  const reason = error instanceof Unserializable
    ? `${error.message} at ${error.place}`
    : error instanceof Error
    ? error.message
    : String(error);
  return new SerializationError(
    `Cannot write "${attempt.path}": the value cannot be written as JSON: ${reason}`,
    { ...attempt, code: "SERIALIZATION", cause: error },
  );
}

/** A part of a value that JSON cannot hold. */
class Unserializable extends Error {
  readonly place: string;

  constructor(place: string, reason: string) {
    super(reason);
    this.place = place;
  }
}

/** An object that is being serialized. */
interface Level {
  /** What `JSON.stringify` walks through: the object, or a sorted copy of it. */
  readonly holder: object;
  readonly original: object;
  readonly key: string;
}

/**
 * A replacer that knows where it is. `JSON.stringify` calls it for every
 * property with the object that holds it as `this`, depth first.
 */
class Walk {
  readonly #replacer: JsonReplacer | undefined;
  readonly #keys: readonly string[] | undefined;
  readonly #sortKeys: boolean;
  readonly #rejectsLoss: boolean;
  readonly #levels: Level[] = [];

  constructor({ replacer, sortKeys, onLossy }: JsonWriteOptions) {
    this.#replacer = typeof replacer === "function" ? replacer : undefined;
    this.#keys = typeof replacer === "object"
      ? [...new Set(replacer.map(String))]
      : undefined;
    this.#sortKeys = sortKeys ?? false;
    this.#rejectsLoss = onLossy === "error";
  }

  stringify(value: unknown, indent: number | string): string | undefined {
    const visit = (holder: object, key: string, value: unknown) =>
      this.#visit(holder, key, value);
    return JSON.stringify(value, function (this: object, key, value) {
      return visit(this, key, value);
    }, indent);
  }

  /** The place that made `JSON.stringify` throw `error`, or `error` itself. */
  find(value: unknown, error: unknown): unknown {
    if (error instanceof Unserializable) return error;
    try {
      this.stringify(value, 0);
    } catch (found) {
      return found instanceof Unserializable ? found : error;
    }
    return error;
  }

  #visit(holder: object, key: string, given: unknown): unknown {
    while (this.#levels.length > 0 && this.#levels.at(-1)?.holder !== holder) {
      this.#levels.pop();
    }
    const value = this.#replacer === undefined
      ? given
      : this.#replacer.call(holder, key, given);
    if (typeof value === "bigint") {
      this.#fail(holder, key, `the BigInt ${value}n has no JSON form`);
    }
    if (this.#rejectsLoss) {
      const loss = lossOf(value);
      if (loss !== undefined) {
        this.#fail(holder, key, `${loss}, and onLossy is "error"`);
      }
    }
    return typeof value === "object" && value !== null
      ? this.#enter(holder, key, value)
      : value;
  }

  #enter(holder: object, key: string, original: object): object {
    if (isBoxed(original)) return original;
    if (this.#levels.some((level) => level.original === original)) {
      this.#fail(holder, key, "the value contains itself");
    }
    const copy = Array.isArray(original) ||
        (!this.#sortKeys && this.#keys === undefined)
      ? original
      : this.#withChosenKeys(original);
    this.#levels.push({ holder: copy, original, key });
    return copy;
  }

  #withChosenKeys(original: object): object {
    const keys = this.#keys?.filter((key) => Object.hasOwn(original, key)) ??
      Object.keys(original);
    // Without a prototype, or a key "__proto__" would be lost.
    const copy: Record<string, unknown> = Object.create(null);
    for (const key of this.#sortKeys ? keys.sort() : keys) {
      copy[key] = Reflect.get(original, key);
    }
    return copy;
  }

  #fail(holder: object, key: string, reason: string): never {
    const steps = this.#levels.slice(1).map((level, index) =>
      step(this.#levels[index]?.holder, level.key)
    );
    const last = this.#levels.length === 0 ? "" : step(holder, key);
    throw new Unserializable(`$${steps.join("")}${last}`, reason);
  }
}

function step(holder: unknown, key: string): string {
  if (Array.isArray(holder)) return `[${key}]`;
  return /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u.test(key)
    ? `.${key}`
    : `[${JSON.stringify(key)}]`;
}

/** What would be read back differently, in words. */
function lossOf(value: unknown): string | undefined {
  switch (typeof value) {
    case "undefined":
      return "undefined would be dropped or become null";
    case "function":
    case "symbol":
      return `a ${typeof value} would be dropped or become null`;
    case "number":
      if (Object.is(value, -0)) return "-0 would become 0";
      return Number.isFinite(value) ? undefined : `${value} would become null`;
    case "object":
      return value === null ? undefined : lossOfObject(value);
    default:
      return undefined;
  }
}

function lossOfObject(value: object): string | undefined {
  const symbol = Object.getOwnPropertySymbols(value)
    .find((symbol) =>
      Object.prototype.propertyIsEnumerable.call(value, symbol)
    );
  if (symbol !== undefined) {
    return `the property ${String(symbol)} would be dropped`;
  }
  if (Array.isArray(value)) {
    // Behind the indices, if at all. A hole shows as undefined in its turn.
    const last = Object.keys(value).at(-1);
    return last === undefined || /^\d+$/.test(last)
      ? undefined
      : `the array's property ${JSON.stringify(last)} would be dropped`;
  }
  const prototype = Object.getPrototypeOf(value);
  // By its own prototype being none: in a test runner's realm Object may be another.
  const isPlain = prototype === null ||
    (Object.getPrototypeOf(prototype) === null &&
      Object.hasOwn(prototype, "hasOwnProperty"));
  return isPlain
    ? undefined
    : `${describe(value)} would come back as something else`;
}

/** What `JSON.stringify` writes as the primitive inside. */
function isBoxed(value: object): boolean {
  return value instanceof Number || value instanceof String ||
    value instanceof Boolean;
}
