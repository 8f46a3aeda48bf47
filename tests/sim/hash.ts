/**
 * Tells states apart by 53 bits: among ten million of them, the chance that any
 * two are taken for one is about one in two hundred.
 *
 * @module
 */

/** A number from 0 to 2^53 - 1 that depends on every character. */
export function hash(text: string): number {
  let one = 0x9e3779b9;
  let other = 0x85ebca6b;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    one = Math.imul(one ^ code, 0x01000193);
    other = Math.imul(other + code, 0xc2b2ae35) ^ (other >>> 15);
  }
  one = mix(one ^ (other >>> 11));
  other = mix(other ^ (one >>> 7));
  return (other >>> 11) * 2 ** 32 + (one >>> 0);
}

function mix(value: number): number {
  let mixed = value;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x7feb352d);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x846ca68b);
  return mixed ^ (mixed >>> 16);
}
