// A list of rules of one section.

import type { RuleBase } from "../model.js";
import type { Section } from "./base.js";
import type { Context, Node } from "./context.js";
import * as v from "./values.js";

/** A rule list; the same id twice is an error at the second. */
export function readRuleList<T extends RuleBase>(
  context: Context,
  node: Node,
  section: Section,
  read: (node: Node) => T | undefined,
): T[] {
  const seen = new Map<string, T>();
  for (const rule of v.list(context, node, section, read)) {
    const first = seen.get(rule.id);
    if (first === undefined) seen.set(rule.id, rule);
    else {
      const name = rule.id.slice(section.length + 1);
      context.error(
        rule.origin,
        "duplicate-id",
        `the id "${name}" is already used in line ${first.origin.line}`,
        "Give each rule of a section its own id.",
        rule.id,
      );
    }
  }
  return [...seen.values()];
}
