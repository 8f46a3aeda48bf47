/**
 * Calls whose arguments are not kept while they are waited for. An async function
 * keeps its parameters as long as it is suspended: the text of every write that
 * waits for its turn, superseded or not.
 *
 * @module
 */

/** Starts a call; what is thrown before it is under way is a rejection. */
export function promised<T>(start: () => Promise<T>): Promise<T> {
  return new Promise((resolve) => resolve(start()));
}
