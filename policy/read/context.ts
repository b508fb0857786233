// What every reader of a part of the policy shares: where findings go, and the variables.

import type { Diagnostic, Origin } from "../diagnostics.js";
import { MAX_ITEMS } from "../language/names.js";
import type { Entry, ListNode, MapNode, Node, ScalarNode } from "../parse.js";
import type { Variables } from "../variables.js";

export class Context {
  readonly diagnostics: Diagnostic[] = [];

  constructor(readonly variables: Variables) {}

  /** True once there is an error. */
  get failed(): boolean {
    return this.diagnostics.some((d) => d.severity === "error");
  }

  add(findings: readonly Diagnostic[]): void {
    for (const finding of findings) this.diagnostics.push(finding);
  }

  error(origin: Origin, code: string, message: string, remedy = "", rule = ""): undefined {
    this.diagnostics.push({ severity: "error", code, message, remedy, rule, layer: "", origin });
    return undefined;
  }

  warning(origin: Origin, code: string, message: string, remedy = "", rule = ""): void {
    this.diagnostics.push({ severity: "warning", code, message, remedy, rule, layer: "", origin });
  }
}

/** Names a node for a message: "a list", "a number", ... */
export function describe(node: Node): string {
  switch (node.kind) {
    case "list":
      return "a list";
    case "map":
      return "a mapping";
    case "scalar":
      if (node.value === null) return "nothing";
      return typeof node.value === "string" ? "text" : `a ${typeof node.value}`;
  }
}

/** The name in `known` that was probably meant; undefined when none is near. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: { name: string; distance: number } | undefined;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (
      distance <= Math.max(1, Math.floor(candidate.length / 3)) &&
      (best === undefined || distance < best.distance)
    ) {
      best = { name: candidate, distance };
    }
  }
  return best?.name;
}

/** Edit distance where swapping two neighbours is one step (optimal string alignment); texts are cut at 64. */
function editDistance(left: string, right: string): number {
  const a = left.slice(0, 64);
  const b = right.slice(0, 64);
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? 0;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let distance = Math.min(at(i - 1, j) + 1, (row[j - 1] ?? 0) + 1, at(i - 1, j - 1) + (same ? 0 : 1));
      if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) distance = Math.min(distance, at(i - 2, j - 2) + 1);
      row.push(distance);
    }
  }
  return at(a.length, b.length);
}

export function didYouMean(name: string, known: readonly string[]): string {
  const near = nearest(name, known);
  return near === undefined ? `Known here: ${known.join(", ")}.` : `Did you mean "${near}"?`;
}

/** A list; each item is read, and those that are wrong are left out (and reported). */
export function list<T>(
  context: Context,
  node: Node,
  what: string,
  item: (node: Node) => T | undefined,
): T[] {
  if (node.kind !== "list") {
    context.error(
      node.origin,
      "type",
      `${what} must be a list, not ${describe(node)}`,
      'Write [a, b], or each item in a line of its own after "- ".',
    );
    return [];
  }
  if (node.items.length > MAX_ITEMS) {
    context.error(
      node.origin,
      "value",
      `${what} has more than ${MAX_ITEMS} items`,
      "Name many by one pattern.",
    );
    return [];
  }
  const values: T[] = [];
  for (const each of node.items) {
    const value = item(each);
    if (value !== undefined) values.push(value);
  }
  return values;
}

/** One value or a list of them. */
export function oneOrMore<T>(
  context: Context,
  node: Node,
  what: string,
  item: (node: Node) => T | undefined,
): T[] {
  if (node.kind !== "list") {
    const value = item(node);
    return value === undefined ? [] : [value];
  }
  // An empty list would read as "any" further on, which is not what anybody means by it.
  if (node.items.length === 0)
    context.error(
      node.origin,
      "value",
      `${what} must not be an empty list`,
      "Give it an item, or leave the key out.",
    );
  return list(context, node, what, item);
}

/** The node under a key of a mapping; undefined where there is none. */
export function nodeUnder(node: Node, key: string): Node | undefined {
  return node.kind === "map" ? node.entries.find((e) => e.key === key)?.value : undefined;
}

const NOTHING: readonly never[] = [];

/** A mapping whose keys are known. Unknown keys are reported as it is made. */
export class Fields {
  private constructor(
    readonly context: Context,
    readonly node: MapNode,
    readonly what: string,
  ) {}

  static of(context: Context, node: Node, what: string, known: readonly string[]): Fields | undefined {
    if (node.kind !== "map") {
      return context.error(
        node.origin,
        "type",
        `${what} must be a mapping, not ${describe(node)}`,
        `Write { KEY: VALUE } with keys such as ${known.slice(0, 3).join(", ")}.`,
      );
    }
    const fields = new Fields(context, node, what);
    for (const entry of node.entries) {
      if (!known.includes(entry.key)) {
        context.error(
          entry.keyOrigin,
          "unknown-key",
          `unknown key "${entry.key}" in ${what}`,
          didYouMean(entry.key, known),
        );
      }
    }
    return fields;
  }

  #entry(key: string): Entry | undefined {
    for (const entry of this.node.entries) if (entry.key === key) return entry;
    return undefined;
  }

  get origin(): Origin {
    return this.node.origin;
  }

  has(key: string): boolean {
    return this.#entry(key) !== undefined;
  }

  /** The node under a key; undefined when the key is not there. */
  get(key: string): Node | undefined {
    return this.#entry(key)?.value;
  }

  /** What `read` makes of the node under a key; undefined when the key is not there. */
  read<T>(key: string, read: (node: Node) => T | undefined): T | undefined {
    const node = this.get(key);
    return node === undefined ? undefined : read(node);
  }

  /** As `read`, for a key that takes one value or a list of them; empty when the key is not there. */
  each<T>(key: string, what: string, read: (node: Node) => T | undefined): readonly T[] {
    const node = this.get(key);
    return node === undefined ? NOTHING : oneOrMore(this.context, node, what, read);
  }

  /** Where the key is written; the mapping itself when it is not. */
  originOf(key: string): Origin {
    return this.#entry(key)?.keyOrigin ?? this.node.origin;
  }

  /** As `get`, but a missing key is an error. */
  require(key: string, remedy = ""): Node | undefined {
    const node = this.get(key);
    if (node === undefined) {
      this.context.error(this.node.origin, "missing-key", `${this.what} needs the key "${key}"`, remedy);
    }
    return node;
  }
}

export type { Entry, ListNode, MapNode, Node, ScalarNode };
