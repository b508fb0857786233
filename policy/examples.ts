// The examples beside a rule (`match`, `notMatch`), tried when the policy is read: a policy with a wrong one does not load.

import { matchesRule } from "./evaluate.js";
import type { Policy } from "./model.js";
import type { Context } from "./read/context.js";

/** Tries every example against its own rule alone: whatever other rules say, and whatever the time. */
export function checkExamples(context: Context, policy: Policy): void {
  for (const rule of [...policy.exec, ...policy.file, ...policy.network]) {
    for (const example of rule.match) {
      const { matched, why } = matchesRule(policy, rule, example.action);
      if (matched) continue;
      context.error(
        example.origin,
        "example",
        `the rule ${rule.id} does not match its example "${example.text}": ${why} differs`,
        `Correct "${why}" in the rule, or the example.`,
        rule.id,
      );
    }
    for (const example of rule.notMatch) {
      if (!matchesRule(policy, rule, example.action).matched) continue;
      context.error(
        example.origin,
        "example",
        `the rule ${rule.id} matches "${example.text}", which it says that it does not`,
        "Make the rule narrower, or correct the example.",
        rule.id,
      );
    }
  }
}
