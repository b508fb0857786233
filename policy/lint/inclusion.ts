// Whether one set of patterns matches everything that another does. Decided exactly for paths, arguments and texts, as
// long as it takes few enough steps; else the answer is "unknown", and whoever asks must not conclude anything.

import { type Cidr, inCidr, parseCidr } from "../match/cidr.js";
import { hasPattern, unescapeGlob } from "../match/glob.js";
import { compilePath } from "../match/path.js";
import type { Ports } from "../model.js";
import { type Automaton, argvAutomaton, pathAutomaton, textAutomaton } from "./automaton.js";

export type Answer = "yes" | "no" | "unknown";

/** Pairs of states that one question may visit. */
const MAX_PAIRS = 4000;

/** True when every canonical path that one of `b` matches is matched by one of `a`. Patterns as in rules. */
export function includesPaths(
  a: readonly string[],
  b: readonly string[],
  options: { subtree: boolean },
): Answer {
  if (b.every((pattern) => a.includes(pattern))) return "yes";
  // Most patterns of long policies are plain paths: those need no automaton.
  const plain = b.every((pattern) => !hasPattern(pattern));
  if (plain && !options.subtree) {
    const matchers = a.map((pattern) => compilePath(pattern, options));
    return b.every((pattern) => matchers.some((m) => m(unescapeGlob(pattern)))) ? "yes" : "no";
  }
  return included(pathAutomaton(a, options), pathAutomaton(b, options), true);
}

/** True when no canonical path is matched by one of `a` and one of `b`. "unknown" as for inclusion. */
export function disjointPaths(a: readonly string[], b: readonly string[]): Answer {
  const [left, right] = [pathAutomaton(a, { subtree: false }), pathAutomaton(b, { subtree: false })];
  const alphabet = alphabetOf(left, right, true);
  const seen = new Set<string>();
  const open: { a: number; b: number; path: Canonical }[] = [];
  const visit = (as: readonly number[], bs: readonly number[], path: Canonical) => {
    for (const a of as) {
      for (const b of bs) {
        const key = `${a};${b};${path}`;
        if (seen.has(key)) continue;
        seen.add(key);
        open.push({ a, b, path });
      }
    }
  };
  visit(left.closure(left.starts), right.closure(right.starts), "start");
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const ends = pair.path === "start" || pair.path === "name";
    if (ends && left.accepting.has(pair.a) && right.accepting.has(pair.b)) return "no";
    if (seen.size > MAX_PAIRS) return "unknown";
    for (const char of alphabet) {
      const path = canonicalStep(pair.path, char);
      if (path !== undefined) visit(left.step([pair.a], char), right.step([pair.b], char), path);
    }
  }
  return "yes";
}

/** The same for argument lists. */
export function includesArgv(a: readonly string[], b: readonly string[]): Answer {
  return included(argvAutomaton(a), argvAutomaton(b), false);
}

/** The same for single texts. */
export function includesTexts(a: readonly string[], b: readonly string[]): Answer {
  if (b.every((pattern) => a.includes(pattern))) return "yes";
  return included(textAutomaton(a), textAutomaton(b), false);
}

/** The same for host patterns. Always exact, since each pattern of `b` is covered by a single one of `a` or by none. */
export function includesHosts(a: readonly string[], b: readonly string[]): Answer {
  return b.every((pattern) => a.some((wider) => hostIncludes(wider, pattern))) ? "yes" : "no";
}

function hostIncludes(a: string, b: string): boolean {
  if (a === "*" || a === b) return true;
  // "*.x.com" has every name below x.com, and every pattern for such names.
  return a.startsWith("*.") && b !== "*" && b.length > a.length - 1 && b.endsWith(a.slice(1));
}

/** The same for CIDRs. "unknown" when only several of `a` together could cover one of `b`. */
export function includesCidrs(a: readonly string[], b: readonly string[]): Answer {
  const known = (texts: readonly string[]): Cidr[] =>
    texts.flatMap((text) => {
      const cidr = parseCidr(text);
      return "error" in cidr ? [] : [cidr];
    });
  const wide = known(a);
  const covered = known(b).every((cidr) => wide.some((w) => w.bits <= cidr.bits && inCidr(w, cidr)));
  return covered ? "yes" : "unknown";
}

/** The same for ports; an empty list is all of them. */
export function includesPorts(a: readonly Ports[], b: readonly Ports[]): Answer {
  if (a.length === 0) return "yes";
  const ranges = [...a].sort((x, y) => x.first - y.first);
  const wanted = b.length === 0 ? [{ first: 1, last: 65535 }] : b;
  const covered = wanted.every(({ first, last }) => {
    let next = first;
    for (const range of ranges) if (range.first <= next && range.last >= next) next = range.last + 1;
    return next > last;
  });
  return covered ? "yes" : "no";
}

/** What of a path has been read, as far as it can still become canonical. */
type Canonical = "start" | "slash" | "dot" | "dots" | "name";

function canonicalStep(state: Canonical, char: string): Canonical | undefined {
  if (state === "start") return char === "/" ? "slash" : undefined;
  if (char === "/") return state === "name" ? "slash" : undefined;
  if (char === "\0") return undefined;
  if (char === ".") return state === "slash" ? "dot" : state === "dot" ? "dots" : "name";
  return "name";
}

/** The characters that the two tell apart, and one that stands for all others. */
function alphabetOf(a: Automaton, b: Automaton, canonical: boolean): ReadonlySet<string> {
  const alphabet = new Set([...a.literals, ...b.literals]);
  if (canonical) for (const char of "/.") alphabet.add(char);
  for (let code = 0x61; ; code++) {
    const other = String.fromCharCode(code);
    if (alphabet.has(other)) continue;
    return alphabet.add(other);
  }
}

/** Searches for a text that `b` accepts and `a` does not: one state of `b` beside all states of `a` at a time. */
function included(a: Automaton, b: Automaton, canonical: boolean): Answer {
  const alphabet = alphabetOf(a, b, canonical);
  const seen = new Set<string>();
  const open: { b: number; a: readonly number[]; path: Canonical }[] = [];
  const visit = (states: readonly number[], beside: readonly number[], path: Canonical) => {
    const key = beside.join(",");
    for (const state of states) {
      const whole = `${state};${path};${key}`;
      if (seen.has(whole)) continue;
      seen.add(whole);
      open.push({ b: state, a: beside, path });
    }
  };
  visit(b.closure(b.starts), a.closure(a.starts), "start");
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const ends = !canonical || pair.path === "start" || pair.path === "name";
    if (ends && b.accepting.has(pair.b) && !a.accepts(pair.a)) return "no";
    if (seen.size > MAX_PAIRS) return "unknown";
    for (const char of alphabet) {
      const path = canonical ? canonicalStep(pair.path, char) : pair.path;
      if (path === undefined) continue;
      const next = b.step([pair.b], char);
      if (next.length > 0) visit(next, a.step(pair.a, char), path);
    }
  }
  return "yes";
}
