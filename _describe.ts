/** A value in an error message: its type, and itself where it is short. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "string") {
    const text = JSON.stringify(value);
    return `the string ${text.length > 60 ? `${text.slice(0, 56)}…"` : text}`;
  }
  if (typeof value === "object") {
    const { constructor } = value;
    return typeof constructor === "function" && constructor.name !== ""
      ? `an instance of ${constructor.name}`
      : "an object";
  }
  return typeof value === "function"
    ? "a function"
    : `the ${typeof value} ${String(value)}`;
}
