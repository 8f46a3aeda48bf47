/**
 * JSON as text, both ways, with errors that name the place: `$.a.b[3]` in a
 * value, line and column in a file.
 *
 * @module
 */

import { jsonErrorIndex } from "./_json_syntax.ts";
import { describe, describeThrown } from "./_describe.ts";
import type { Attempt } from "./_failure.ts";
import type {
  JsonReplacer,
  JsonReviver,
  JsonWriteOptions,
} from "./_options.ts";
import { isPlainArray, isPlainObject, isThenable } from "./_plain_object.ts";
import { describePosition, type Origin, textPosition } from "./_utf8.ts";
import { ParseError, SerializationError } from "./errors.ts";

/** The JSON text of a value, without a newline at its end. */
export function stringifyJson(
  value: unknown,
  options: JsonWriteOptions,
  attempt: Attempt,
  root: string = "$",
): string {
  const { indent = 2, sortKeys = false, onLossy, replacer } = options;
  try {
    // A copy of an object cannot have its integer keys in another order.
    const isWalkable = sortKeys || !Array.isArray(replacer) ||
      !replacer.some((key) => /^\d+$/.test(`${key}`));
    const isWalked = sortKeys || onLossy === "error" ||
      needsWalk(value, replacer);
    if (isWalked && !isWalkable) new Walk(options).stringify(value, 0);
    // Else once: a second evaluation may find something else.
    const text = isWalked && isWalkable
      ? new Walk(options).stringify(value, indent)
      : plainStringify(value, replacer, indent);
    // Where the top level has no JSON form, the result is not a string.
    if (typeof text === "string") return text;
    throw new Unserializable("$", `${describe(value)} has no JSON form`);
  } catch (error) {
    const found = error instanceof Unserializable
      ? error
      : findUnserializable(value, options) ?? error;
    const reason = found instanceof Unserializable
      ? `${found.message} at ${root}${found.place.slice(1)}`
      : describeThrown(found);
    throw new SerializationError(
      `Cannot write "${attempt.path}": the value cannot be written as JSON: ${reason}`,
      { ...attempt, code: "SERIALIZATION", cause: error },
    );
  }
}

function plainStringify(
  value: unknown,
  replacer: JsonWriteOptions["replacer"],
  indent: number | string,
): string | undefined {
  if (typeof replacer === "function") {
    let isTop = true;
    return JSON.stringify(value, function (this: object, key, value) {
      const replaced = replacer.call(this, key, value);
      if (isTop ? wouldVanish(replaced) : isThenable(replaced)) {
        throw new Vanishing();
      }
      isTop = false;
      return replaced;
    }, indent);
  }
  return JSON.stringify(value, replacer && [...replacer].map(String), indent);
}

/** What would be written as `{}`; where, is found out by who catches it. */
class Vanishing extends Error {
  constructor() {
    super("a promise, a Map or a Set would become {}: await or convert it");
  }
}

/** The most that a map or a set is asked for its content is its size: JSON has none of it. */
function wouldVanish(value: unknown): boolean {
  return isThenable(value) || isKeyed(value);
}

/** A map or a set, of any realm, that has no JSON form of its own. */
function isKeyed(value: unknown): boolean {
  return typeof value === "object" && value !== null && !hasOwnForm(value) &&
    (isBox(value, "Map", () => sizeOfMap(value)) ||
      isBox(value, "Set", () => sizeOfSet(value)));
}

/** Throws for what is no map, whatever it says of itself. */
function sizeOfMap(value: unknown): unknown {
  return Reflect.get(Map.prototype, "size", value);
}

function sizeOfSet(value: unknown): unknown {
  return Reflect.get(Set.prototype, "size", value);
}

/** A date has one too, which is known. */
function hasOwnForm(value: object): boolean {
  return "toJSON" in value && typeof value.toJSON === "function" &&
    value.toJSON !== Date.prototype.toJSON;
}

/** Far deeper than data is. */
const MOST_LEVELS = 500;

/** Whether what would become `{}` can be found by a walk alone, which takes several times as long. A replacer that is a function is one already. */
function needsWalk(
  value: unknown,
  replacer: JsonWriteOptions["replacer"],
): boolean {
  if (typeof replacer === "function") return false;
  const keys = replacer && new Set([...replacer].map(String));
  return isKeyed(value) || holdsForms(value, keys, 0);
}

/** Whether something in it has a JSON form of its own, could be awaited, or is too deep to be looked at: what contains itself is. */
function holdsForms(
  value: unknown,
  keys: ReadonlySet<string> | undefined,
  level: number,
): boolean {
  if (typeof value === "function") return hasOwnForm(value);
  if (typeof value !== "object" || value === null) return false;
  if (level > MOST_LEVELS || hasOwnForm(value) || isThenable(value)) {
    return true;
  }
  if (Array.isArray(value)) {
    return value.some((element) => holdsForms(element, keys, level + 1));
  }
  return Object.keys(value).some((key) =>
    (keys === undefined || keys.has(key)) &&
    holdsForms(Reflect.get(value, key), keys, level + 1)
  );
}

/** The place at which `JSON.stringify` threw, which it does not tell. */
function findUnserializable(
  value: unknown,
  options: JsonWriteOptions,
): Unserializable | undefined {
  try {
    new Walk(options).stringify(value, 0);
  } catch (error) {
    if (error instanceof Unserializable) return error;
  }
  return undefined;
}

/** The value of a JSON text, which begins at `start`. */
export function parseJson<T>(
  text: string,
  reviver: JsonReviver | undefined,
  attempt: Attempt,
  { start = 0, origin }: { start?: number; origin?: Origin } = {},
): T {
  const json = text.slice(start);
  try {
    return JSON.parse(json, reviver);
  } catch (cause) {
    const index = jsonErrorIndex(json);
    // It is JSON: the error is the reviver's own.
    if (index === undefined) throw cause;
    const position = textPosition(text, start + index, origin);
    throw new ParseError(
      `Cannot read "${attempt.path}": it is not JSON: ${
        found(json, index)
      } at ${describePosition(position)}`,
      { ...attempt, ...position, code: "PARSE", cause },
    );
  }
}

function found(json: string, index: number): string {
  if (/^[ \t\n\r]*$/.test(json)) return "it is empty";
  const character = json.codePointAt(index);
  return character === undefined
    ? "it ends too early"
    : `unexpected ${JSON.stringify(String.fromCodePoint(character))}`;
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
  /** The objects of the levels, to find one among thousands. */
  readonly #entered = new Set<object>();

  constructor({ replacer, sortKeys, onLossy }: JsonWriteOptions) {
    this.#replacer = typeof replacer === "function" ? replacer : undefined;
    this.#keys = typeof replacer === "object"
      ? [...new Set([...replacer].map(String))]
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

  #visit(holder: object, key: string, given: unknown): unknown {
    while (this.#levels.length > 0 && this.#levels.at(-1)?.holder !== holder) {
      const left = this.#levels.pop();
      if (left !== undefined) this.#entered.delete(left.original);
    }
    const value = this.#replacer === undefined ? given : this.#replacer.call(
      this.#levels.at(-1)?.original ?? holder,
      key,
      given,
    );
    if (isBigInt(value)) {
      this.#fail(holder, key, `the BigInt ${value}n has no JSON form`);
    }
    if (isThenable(value)) {
      this.#fail(
        holder,
        key,
        `${
          describe(value)
        }, which can be awaited, would become {}: await it first`,
      );
    }
    if (this.#levels.length === 0 && isKeyed(value)) {
      this.#fail(
        holder,
        key,
        `${
          describe(value)
        } would become {}: write Object.fromEntries(map), or an array of it`,
      );
    }
    // To drop a property is what a replacer returns undefined for.
    const isDropped = value === undefined && given !== undefined;
    const loss = this.#rejectsLoss && !isDropped ? lossOf(value) : undefined;
    if (loss !== undefined) {
      this.#fail(holder, key, `${loss}, and onLossy is "error"`);
    }
    return typeof value === "object" && value !== null && !isAtom(value)
      ? this.#enter(holder, key, value)
      : value;
  }

  #enter(holder: object, key: string, original: object): object {
    if (this.#entered.has(original)) {
      this.#fail(holder, key, "the value contains itself");
    }
    const copy = Array.isArray(original) ||
        (!this.#sortKeys && this.#keys === undefined)
      ? original
      : this.#withChosenKeys(original);
    this.#levels.push({ holder: copy, original, key });
    this.#entered.add(original);
    return copy;
  }

  #withChosenKeys(original: object): object {
    const keys = this.#keys?.filter((key) => key in original) ??
      Object.keys(original);
    // Without a prototype, or a key "__proto__" would be lost.
    const copy: Record<string, unknown> = Object.create(null);
    for (const key of this.#sortKeys ? keys.toSorted() : keys) {
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
  if (isPlainArray(value)) {
    // More keys than elements: the last is a name. A hole, which would hide
    // one, shows as undefined in its turn.
    const keys = Object.keys(value);
    return keys.length > value.length
      ? `the array's property ${JSON.stringify(keys.at(-1))} would be dropped`
      : undefined;
  }
  return isPlainObject(value)
    ? undefined
    : `${describe(value)} would come back as something else`;
}

function isBigInt(value: unknown): boolean {
  return typeof value === "bigint" ||
    (typeof value === "object" && value !== null &&
      isBox(value, "BigInt", BigInt.prototype.valueOf));
}

/** What `JSON.stringify` does not walk into: raw JSON, and a primitive in an object. */
function isAtom(value: object): boolean {
  return isRawJson(value) ||
    isBox(value, "Number", Number.prototype.valueOf) ||
    isBox(value, "String", String.prototype.valueOf) ||
    isBox(value, "Boolean", Boolean.prototype.valueOf);
}

function isRawJson(value: object): boolean {
  return "isRawJSON" in JSON && typeof JSON.isRawJSON === "function" &&
    JSON.isRawJSON(value) === true;
}

/** By its slot, as `JSON.stringify` looks: its class may be that of another realm. The tag only spares the others an exception. */
function isBox(value: object, tag: string, unbox: () => unknown): boolean {
  if (Object.prototype.toString.call(value) !== `[object ${tag}]`) return false;
  try {
    unbox.call(value);
    return true;
  } catch {
    return false;
  }
}
