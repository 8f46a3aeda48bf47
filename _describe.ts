/**
 * Values in error messages.
 *
 * @module
 */

import { isError } from "./_runtime/errno.ts";

const LONGEST_STRING = 60;

/** A value in words: its type, and itself where it is short. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `the string ${shorten(JSON.stringify(value))}`;
    case "object":
      return value === null ? "null" : describeObject(value);
    case "undefined":
      return "undefined";
    case "function":
      return "a function";
    default:
      return `the ${typeof value} ${String(value)}`;
  }
}

/** What was thrown, in words. Anything may be. */
export function describeThrown(error: unknown): string {
  return isError(error) ? error.message : describe(error);
}

function shorten(text: string): string {
  return text.length > LONGEST_STRING
    ? `${text.slice(0, LONGEST_STRING - 2)}…"`
    : text;
}

function describeObject(value: object): string {
  try {
    const { constructor } = value;
    const name = typeof constructor === "function" ? constructor.name : "";
    return typeof name === "string" && name !== ""
      ? `an instance of ${name}`
      : "an object";
  } catch {
    // A getter of theirs, or a revoked proxy.
    return "an object";
  }
}
