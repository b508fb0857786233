// Which rules could match, found by the fixed beginning of their patterns instead of going through all of them.
// A trie finds too many rather than too few: every rule that it names is still compared.

import { expandBraces, hasPattern, unescapeGlob } from "../match/glob.js";

// What is empty is left out: among many rules, most time goes into fetching memory that nobody has touched lately.
interface Node {
  /** Ranks of rules for exactly this place. */
  exact: number[] | undefined;
  /** Ranks of rules for this place or something below it. */
  below: number[] | undefined;
  children: Map<string, Node> | undefined;
}

const node = (): Node => ({ exact: undefined, below: undefined, children: undefined });

export class Trie {
  private readonly root = node();

  /** Ranks must come in ascending order. */
  insert(place: readonly string[], rank: number, reach: "exact" | "below"): void {
    let here = this.root;
    for (const part of place) {
      here.children ??= new Map();
      let child = here.children.get(part);
      if (child === undefined) {
        child = node();
        here.children.set(part, child);
      }
      here = child;
    }
    // Two patterns of one rule may have the same beginning.
    const ranks = here[reach];
    if (ranks === undefined) here[reach] = [rank];
    else if (ranks.at(-1) !== rank) ranks.push(rank);
  }

  /** Ascending lists of the ranks of rules that could hold at this place. */
  findAt(place: readonly string[]): (readonly number[])[] {
    const lists: (readonly number[])[] = [];
    let here: Node | undefined = this.root;
    for (const part of place) {
      if (here.below !== undefined) lists.push(here.below);
      here = here.children?.get(part);
      if (here === undefined) return lists;
    }
    if (here.below !== undefined) lists.push(here.below);
    if (here.exact !== undefined) lists.push(here.exact);
    return lists;
  }

  /** For a path. */
  find(path: string): (readonly number[])[] {
    return this.findAt(placeOf(path));
  }
}

function placeOf(path: string): string[] {
  return (path.startsWith("/") ? path.slice(1) : path).split("/");
}

/** Inserts a path pattern. With `subtree`, one without "*", "?" or "{}" also stands for all below it. */
export function insertPath(trie: Trie, pattern: string, rank: number, subtree: boolean): void {
  const isTree = subtree && !hasPattern(pattern);
  for (const alternative of expandBraces(pattern)) {
    const parts = placeOf(alternative);
    const first = hasPattern(alternative) ? parts.findIndex(hasPattern) : -1;
    const fixed = first < 0 ? parts : parts.slice(0, first);
    const place = alternative.includes("\\") ? fixed.map(unescapeGlob) : fixed;
    trie.insert(isTree && alternative === "/" ? [] : place, rank, first < 0 && !isTree ? "exact" : "below");
  }
}
