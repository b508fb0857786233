// How the sections of several files become one. What a nearer file says wins, key by key.

import type { RuleBase, Waiver } from "../model.js";
import { type Context, describe, type Entry, type MapNode, type Node } from "./context.js";

/**
 * One mapping of several, furthest first. `deep` names keys whose values are mappings that are merged in the same way,
 * `joined` keys whose lists are put one after the other. Undefined when there is none.
 */
export function mergeMaps(
  context: Context,
  nodes: readonly Node[],
  what: string,
  how: { readonly deep?: readonly string[]; readonly joined?: readonly string[] } = {},
): Node | undefined {
  if (nodes.length < 2) return nodes[0];
  const maps = nodes.filter((node): node is MapNode => {
    if (node.kind === "map") return true;
    context.error(node.origin, "type", `${what} must be a mapping, not ${describe(node)}`);
    return false;
  });
  const merged = new Map<string, Entry>();
  for (const { entries } of maps) {
    for (const entry of entries) {
      const below = merged.get(entry.key);
      merged.set(entry.key, below === undefined ? entry : over(context, below, entry, how));
    }
  }
  const last = maps.at(-1);
  return last && { kind: "map", entries: [...merged.values()], origin: last.origin };
}

function over(
  context: Context,
  below: Entry,
  entry: Entry,
  how: { readonly deep?: readonly string[]; readonly joined?: readonly string[] },
): Entry {
  if (how.deep?.includes(entry.key)) {
    const value = mergeMaps(context, [below.value, entry.value], entry.key);
    return value === undefined ? entry : { ...entry, value };
  }
  // What is no list stays, so that it is refused as it would be alone.
  if (how.joined?.includes(entry.key) && below.value.kind === "list" && entry.value.kind === "list") {
    const items = [...below.value.items, ...entry.value.items];
    return { ...entry, value: { ...entry.value, items } };
  }
  return entry;
}

/** Items of several files where one of a nearer file replaces those of the same name, and stands in their place. */
export function nearest<T extends { readonly origin: { readonly file: string } }>(
  items: readonly T[],
  name: (item: T) => string | number,
): T[] {
  const kept: T[] = [];
  for (const item of items) {
    const same = (other: T) => name(other) === name(item) && other.origin.file !== item.origin.file;
    const at = kept.findIndex(same);
    if (at < 0) kept.push(item);
    else {
      kept[at] = item;
      for (let i = kept.length - 1; i > at; i--) if (same(kept[i] as T)) kept.splice(i, 1);
    }
  }
  return kept;
}

/**
 * The rules of one section: floors first, furthest first, then the others, nearest first. A rule replaces one of the
 * same id in a further file, which must not be a floor. `lists` are furthest first.
 */
export function mergeRules<T extends RuleBase>(context: Context, lists: readonly (readonly T[])[]): T[] {
  const [only] = lists;
  const replaced = new Set<T>();
  const byId = new Map<string, T>();
  for (const rules of lists) {
    for (const rule of lists.length > 1 ? rules : []) {
      const below = byId.get(rule.id);
      byId.set(rule.id, rule);
      if (below === undefined) continue;
      replaced.add(below);
      if (below.locked) {
        context.error(
          rule.origin,
          "locked",
          `the rule ${rule.id} is locked by ${place(below)} and cannot be replaced`,
          "Give this rule another id; it can be stricter, and the locked one still holds.",
          rule.id,
        );
      }
    }
  }
  const ordered = lists.length === 1 && only !== undefined ? only : [...lists].reverse().flat();
  const floors = lists.flatMap((rules) => rules.filter((rule) => rule.locked));
  return [...floors, ...ordered.filter((rule) => !rule.locked)].filter((rule) => !replaced.has(rule));
}

/** Where a rule is written, for a sentence. */
export function place(rule: { readonly origin: { readonly file: string; readonly line: number } }): string {
  return `${rule.origin.file}:${rule.origin.line}`;
}

/**
 * Waivers against the rules that they are about: a floor of another file cannot be waived, and a waiver ends with the rule
 * that it was written for. `files` are furthest first.
 */
export function checkWaivers(
  context: Context,
  waivers: readonly Waiver[],
  rules: readonly RuleBase[],
  files: readonly string[],
): Waiver[] {
  const byId = new Map(rules.map((rule) => [rule.id, rule]));
  return waivers.filter((waiver) => {
    if (!waiver.name.includes("/")) return true;
    const rule = byId.get(waiver.name);
    if (rule === undefined) {
      context.error(
        waiver.origin,
        "value",
        `there is no rule "${waiver.name}" to waive`,
        'Name a rule by its section and id, e.g. "file/dotenv".',
      );
      return false;
    }
    if (rule.locked && rule.origin.file !== waiver.origin.file) {
      context.error(
        waiver.origin,
        "locked",
        `the rule ${rule.id} is locked by ${place(rule)} and cannot be waived`,
        "Run it on a host that can enforce it.",
        rule.id,
      );
    }
    // Who replaces a rule has not said that the host may lack the new one.
    return files.indexOf(waiver.origin.file) >= files.indexOf(rule.origin.file);
  });
}
