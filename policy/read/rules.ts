// A list of rules of one section of one file.

import type { RuleBase } from "../model.js";
import type { RuleSetting, Section } from "./base.js";
import type { Context, Node } from "./context.js";
import * as v from "./values.js";

/** Reads a rule list; the same id twice is an error at the second. */
export function readRuleList<T extends RuleBase>(
  context: Context,
  node: Node,
  section: Section,
  setting: RuleSetting,
  read: (node: Node) => T | undefined,
): T[] {
  const seen = new Map<string, T>();
  for (const rule of v.list(context, node, section, (item) => pinned(context, setting, () => read(item)))) {
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

/** A floor means what its own file says: a nearer file that gives one of its variables another value would move it. */
function pinned<T extends RuleBase>(
  context: Context,
  setting: RuleSetting,
  read: () => T | undefined,
): T | undefined {
  const { value: rule, used } = context.variables.recorded(read);
  if (rule?.locked === true) setting.floors.checkVariables(rule, setting.layer, used);
  return rule;
}
