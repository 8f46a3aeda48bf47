/**
 * Objects that are nothing but their properties, and others that are told by
 * their shape.
 *
 * @module
 */

/** Whether the value is an object made by `{}` or without a prototype. */
export function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || isRootPrototype(prototype);
}

/** Whether the value is a promise, or what `await` takes for one. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value &&
    typeof value.then === "function";
}

/** Whether the value is an array and of no class of its own. */
export function isPlainArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) &&
    isRootPrototype(Object.getPrototypeOf(Object.getPrototypeOf(value)));
}

/** By shape: in a test runner's realm `Object.prototype` may be another one. */
function isRootPrototype(prototype: object | null): boolean {
  return prototype !== null && Object.getPrototypeOf(prototype) === null &&
    Object.hasOwn(prototype, "hasOwnProperty");
}
