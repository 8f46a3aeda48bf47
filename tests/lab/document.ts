/**
 * Documents that tell whether they are whole: what a document must hold follows
 * from its first fields.
 *
 * @module
 */

/** A document with a payload of `length` bytes; for every label another. */
export function document(label: string, length: number): string {
  const payload = label.repeat(Math.ceil(length / label.length))
    .slice(0, length);
  return `${JSON.stringify({ label, length, payload })}\n`;
}

/** The label of a document, or `undefined` if any part of it is missing or of another document. */
export function wholeLabel(text: string): string | undefined {
  try {
    const read: { label: string; length: number } = JSON.parse(text);
    return text === document(read.label, read.length) ? read.label : undefined;
  } catch {
    return undefined;
  }
}
