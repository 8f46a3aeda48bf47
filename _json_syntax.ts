/**
 * Where a text stops being JSON. `JSON.parse` says that it does; where, only
 * some runtimes tell, and in different words. Runs only after `JSON.parse`
 * failed, and without recursion, so that no nesting is too deep for it.
 *
 * @module
 */

const SPACE = /[ \t\n\r]*/y;
/** A token that is no string. */
const TOKEN =
  /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[[\]{},:]/y;
/** As much of a number or a word as may be the start of one. */
const TOKEN_START =
  /t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?|-?(?:(?:0|[1-9]\d*)(?:\.\d*)?(?:(?<=\d)[eE][+-]?\d*)?)?/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const ESCAPE_START = /\\(?:u[0-9a-fA-F]{0,3})?/y;

/** What may come next. */
type State =
  | "value"
  | "value or ]"
  | "key"
  | "key or }"
  | ":"
  | ", or ]"
  | ", or }"
  | "end";

/** The index of the first character that cannot be part of a JSON text, its length where it ends too early, `undefined` where it is JSON. */
export function jsonErrorIndex(text: string): number | undefined {
  const closers: ("]" | "}")[] = [];
  let state: State = "value";
  let index = 0;
  for (;;) {
    index += matchAt(SPACE, text, index).length;
    if (index === text.length) return state === "end" ? undefined : index;
    const isString = text[index] === '"';
    const token = isString ? '"' : matchAt(TOKEN, text, index);
    const start = isString ? "" : matchAt(TOKEN_START, text, index);
    if (token === "" && start === "") return index;
    const next: State | undefined = follow(state, token || start, closers);
    if (next === undefined) return index;
    // A number or a word that breaks off, as in "1." or "tru".
    if (start.length > token.length) return index + start.length;
    state = next;
    index += token.length;
    if (isString) {
      const { end, isClosed } = scanString(text, index);
      if (!isClosed) return end;
      index = end;
    }
  }
}

function matchAt(pattern: RegExp, text: string, index: number): string {
  pattern.lastIndex = index;
  return pattern.exec(text)?.[0] ?? "";
}

/** How far a string goes from behind its first quote: behind its last one, or to what no string may hold. By hand: a pattern overflows its stack on a long string. */
function scanString(
  text: string,
  start: number,
): { end: number; isClosed: boolean } {
  let index = start;
  while (index < text.length) {
    const unit = text.charCodeAt(index);
    if (unit === QUOTE) return { end: index + 1, isClosed: true };
    if (unit < FIRST_PRINTABLE) break;
    if (unit === BACKSLASH) {
      const { length } = matchAt(ESCAPE, text, index);
      if (length === 0) {
        index += matchAt(ESCAPE_START, text, index).length;
        break;
      }
      index += length;
    } else {
      index++;
    }
  }
  return { end: index, isClosed: false };
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FIRST_PRINTABLE = 0x20;

function follow(
  state: State,
  token: string,
  closers: ("]" | "}")[],
): State | undefined {
  switch (state) {
    case "key":
    case "key or }":
      if (token === '"') return ":";
      return token === "}" && state === "key or }" ? close(closers) : undefined;
    case ":":
      return token === ":" ? "value" : undefined;
    case ", or ]":
      if (token === ",") return "value";
      return token === "]" ? close(closers) : undefined;
    case ", or }":
      if (token === ",") return "key";
      return token === "}" ? close(closers) : undefined;
    case "end":
      return undefined;
    case "value":
    case "value or ]":
      if (token === "[") {
        closers.push("]");
        return "value or ]";
      }
      if (token === "{") {
        closers.push("}");
        return "key or }";
      }
      if (token === "]") {
        return state === "value or ]" ? close(closers) : undefined;
      }
      return /^[},:]$/.test(token) ? undefined : afterValue(closers);
  }
}

function close(closers: ("]" | "}")[]): State {
  closers.pop();
  return afterValue(closers);
}

function afterValue(closers: readonly ("]" | "}")[]): State {
  const closer = closers.at(-1);
  return closer === undefined ? "end" : closer === "]" ? ", or ]" : ", or }";
}
