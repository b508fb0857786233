// Our patterns in AppArmor's language (docs/apparmor.md, "Patterns"): each is written out anew, so that both mean the
// same names.
//
//   ours          AppArmor's
//   **            {,**/}     there, "**" after "/" takes at least one character; alternatives say "none" too
//   *             *          a whole segment as ?*, which is never empty
//   ?             {...}      one character for us, one byte there: written as the bytes that a character can be
//   other bytes   \ooo       all that has a meaning there, or is not ASCII
//   end           {,/}       the name of a folder ends in "/" there

import { hasPattern } from "../match/glob.js";
import { isWithin } from "../match/path.js";

/** Characters that mean themselves there in double quotes; others are written byte by byte. */
const PLAIN = /^[A-Za-z0-9._+=:~%, -]$/;

/** One character of UTF-8 but "/": of one byte, or a first byte with as many that follow as it says. */
const CHARACTER = String.raw`{[^/\200-\377],[\302-\337][\200-\277],[\340-\357][\200-\277][\200-\277],[\360-\364][\200-\277][\200-\277][\200-\277]}`;

/** The pattern in AppArmor's language; undefined when no name can match it. `pattern` has no braces. */
export function apparmorPattern(pattern: string): string | undefined {
  const parts = partsOf(pattern);
  return parts && write(parts, "{,/}");
}

/**
 * Folders that must keep their names, or what is denied below them could be moved out of the pattern: in AppArmor's
 * language, from the first wildcard on. The folders above that are a mount, or mount points. A "**" at the first
 * wildcard needs none: a folder that is moved within the mount is still matched by it.
 *
 * Under a denial of "w" such a folder can be neither made, removed, renamed nor given another mode; what is in it is
 * free.
 */
export function heldFolders(pattern: string): string[] {
  const parts = partsOf(pattern) ?? [];
  const first = parts.findIndex(hasPattern);
  const held: string[] = [];
  for (let i = first; i >= 0 && i < parts.length - 1; i++) {
    if (i === first && parts[i] === "**") continue;
    // All folders below the one before, or those of this name.
    held.push(parts[i] === "**" ? `${write(parts.slice(0, i), "/")}**/` : write(parts.slice(0, i + 1), "/"));
  }
  return held;
}

/**
 * How much a pattern multiplies the states of the automaton that AppArmor makes of all patterns: one for each place
 * where it must remember on its own that a part of it was seen, while others are seen or not.
 */
export function states(pattern: string): number {
  const parts = partsOf(pattern) ?? [];
  let [count, rest, named] = [1, false, false];
  for (const [i, part] of parts.entries()) {
    const last = i === parts.length - 1;
    if (rest && named && !last && hasPattern(part)) count++;
    if (part === "**") {
      [rest, named] = [true, false];
    } else {
      named = true;
      const runs = part.replace(/\\./gsu, "x").split(/\*+/);
      // Between the first star and the last; a star at the very end needs to remember nothing.
      count += Math.max(0, runs.length - 2 - (last && runs.at(-1) === "" ? 1 : 0));
    }
  }
  return count;
}

/** A pattern's share of the automaton, and the folder that all of its matches are in. */
export interface Share {
  readonly tree: string;
  readonly states: number;
}

/**
 * The shares multiply where trees overlap. Measured with apparmor_parser 3.0.8: 64 takes 0.1 s, 256 takes 0.9 s, 512
 * takes 3 s, 1024 takes 7 s (docs/apparmor.md, "Cost").
 */
export const MOST_STATES = 64;

/** True when a profile with these patterns is compiled in reasonable time. */
export function fits(shares: readonly Share[]): boolean {
  const heavy = shares.filter((share) => share.states > 1);
  return heavy.every(({ tree }) => {
    const overlapping = heavy.filter((other) => isWithin(other.tree, tree) || isWithin(tree, other.tree));
    return overlapping.reduce((product, share) => product * share.states, 1) <= MOST_STATES;
  });
}

/** Segments of a pattern, without a second "**" in a row, which adds nothing. Undefined: no path has such text. */
function partsOf(pattern: string): string[] | undefined {
  if (pattern.includes("\0") || !pattern.isWellFormed()) return undefined;
  const parts = pattern.replace(/^\//, "").split("/");
  return parts.filter((part, i) => part !== "**" || parts[i + 1] !== "**");
}

function write(parts: readonly string[], end: string): string {
  let text = "/";
  for (const [i, part] of parts.entries()) {
    const last = i === parts.length - 1;
    // At the end at least one segment more; there, too: after a "/" it is never empty.
    if (part === "**") text += last ? "**" : "{,**/}";
    else text += writeSegment(part) + (last ? end : "/");
  }
  return text;
}

function writeSegment(part: string): string {
  let text = "";
  for (const [token] of part.matchAll(/\\.|\*+|[^*]/gsu)) {
    // "**" would cross "/".
    if (token.startsWith("*")) text += "*";
    else if (token === "?") text += CHARACTER;
    else text += literal(token.length > 1 && token.startsWith("\\") ? token.slice(1) : token);
  }
  return text === "*" ? "?*" : text;
}

function literal(character: string): string {
  if (PLAIN.test(character)) return character;
  return [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}
