// Patterns as automata over characters, so that "everything that this one matches, that one matches too" can be decided
// and not only guessed.

import { expandBraces, hasPattern } from "../match/glob.js";

/** A separator is never part of a segment: "/" between those of a path, NUL between arguments, none within a text. */
export type Separator = "/" | "\0" | "";

type Label = { readonly kind: "char"; readonly char: string } | { readonly kind: "any" };

interface Edge {
  readonly label: Label;
  readonly to: number;
}

/** A nondeterministic automaton. `any` is every character but the separator. */
export class Automaton {
  readonly edges: Edge[][] = [];
  readonly epsilon: number[][] = [];
  readonly accepting = new Set<number>();
  readonly starts: number[] = [];
  readonly literals = new Set<string>();

  constructor(readonly separator: Separator) {}

  state(): number {
    this.edges.push([]);
    this.epsilon.push([]);
    return this.edges.length - 1;
  }

  char(from: number, char: string, to: number): void {
    this.literals.add(char);
    this.edges[from]?.push({ label: { kind: "char", char }, to });
  }

  any(from: number, to: number): void {
    this.edges[from]?.push({ label: { kind: "any" }, to });
  }

  skip(from: number, to: number): void {
    this.epsilon[from]?.push(to);
  }

  /** All that is reached without reading, sorted. */
  closure(states: Iterable<number>): number[] {
    const seen = new Set<number>();
    const open = [...states];
    for (let state = open.pop(); state !== undefined; state = open.pop()) {
      if (seen.has(state)) continue;
      seen.add(state);
      open.push(...(this.epsilon[state] ?? []));
    }
    return [...seen].sort((a, b) => a - b);
  }

  /** States after one character, closed. */
  step(states: readonly number[], char: string): number[] {
    const next: number[] = [];
    for (const state of states) {
      for (const { label, to } of this.edges[state] ?? []) {
        if (label.kind === "any" ? char !== this.separator : label.char === char) next.push(to);
      }
    }
    return this.closure(next);
  }

  accepts(states: readonly number[]): boolean {
    return states.some((state) => this.accepting.has(state));
  }
}

/** Adds the characters of one segment (or text) without braces; returns the state after it. */
function addSegment(automaton: Automaton, from: number, pattern: string): number {
  let here = from;
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i] as string;
    if (c === "*") {
      // A state of its own: a loop on `here` would be shared with whatever else leads there.
      const loop = automaton.state();
      automaton.skip(here, loop);
      automaton.any(loop, loop);
      here = loop;
      continue;
    }
    const next = automaton.state();
    if (c === "?") automaton.any(here, next);
    else if (c === "\\") automaton.char(here, pattern[++i] ?? "\\", next);
    else automaton.char(here, c, next);
    here = next;
  }
  return here;
}

/** Adds a sequence in which "**" is any number of segments, each led in by the separator. */
function addSequence(automaton: Automaton, parts: readonly string[]): void {
  let here = automaton.state();
  automaton.starts.push(here);
  for (const part of parts) {
    const next = automaton.state();
    if (part === "**") {
      const inside = automaton.state();
      automaton.char(here, automaton.separator, inside);
      automaton.any(inside, inside);
      automaton.skip(inside, here);
      automaton.skip(here, next);
    } else {
      const inside = automaton.state();
      automaton.char(here, automaton.separator, inside);
      automaton.skip(addSegment(automaton, inside, part), next);
    }
    here = next;
  }
  automaton.accepting.add(here);
}

/** Canonical paths that one of the patterns matches; "/" is the empty text. As compilePath reads them. */
export function pathAutomaton(patterns: readonly string[], options: { subtree: boolean }): Automaton {
  const automaton = new Automaton("/");
  for (const pattern of patterns) {
    const tree = options.subtree && !hasPattern(pattern);
    for (const alternative of expandBraces(pattern)) {
      const relative = alternative.startsWith("/") ? alternative.slice(1) : alternative;
      const parts = relative === "" ? [] : relative.split("/");
      if (tree) parts.push("**");
      // "/x/**" is what lies below /x: "**" at the end takes at least one segment.
      else if (parts.at(-1) === "**") parts.push("*");
      addSequence(automaton, parts);
    }
  }
  return automaton;
}

/** Argument lists, each argument led in by NUL. An alternative of one element stands for one element. */
export function argvAutomaton(patterns: readonly string[]): Automaton {
  const automaton = new Automaton("\0");
  let here = automaton.state();
  automaton.starts.push(here);
  for (const pattern of patterns) {
    const next = automaton.state();
    const inside = automaton.state();
    automaton.char(here, "\0", inside);
    if (pattern === "**") {
      automaton.any(inside, inside);
      automaton.skip(inside, here);
      automaton.skip(here, next);
    } else {
      for (const alternative of expandBraces(pattern))
        automaton.skip(addSegment(automaton, inside, alternative), next);
    }
    here = next;
  }
  automaton.accepting.add(here);
  return automaton;
}

/** Single texts, such as names of environment variables. */
export function textAutomaton(patterns: readonly string[]): Automaton {
  const automaton = new Automaton("");
  for (const pattern of patterns) {
    for (const alternative of expandBraces(pattern)) {
      const start = automaton.state();
      automaton.starts.push(start);
      automaton.accepting.add(addSegment(automaton, start, alternative));
    }
  }
  return automaton;
}
