// Going through a list of rules in order, with a trace.

import type { TraceStep } from "../evaluate.js";
import type { RuleBase } from "../model.js";

export interface Walk<T> {
  /** The first rule that matched. */
  readonly rule: T | undefined;
  readonly trace: readonly TraceStep[];
}

/** `mismatch` names the first fact that does not match, or "" when the rule matches. */
export function firstMatch<T extends RuleBase>(
  rules: readonly T[],
  subject: string,
  mismatch: (rule: T) => string,
): Walk<T> {
  const trace: TraceStep[] = [];
  for (const rule of rules) {
    const other = rule.subjects.length > 0 && !rule.subjects.includes(subject);
    const why = other ? "subject" : mismatch(rule);
    trace.push({ rule: rule.id, matched: why === "", why });
    if (why === "") return { rule, trace };
  }
  return { rule: undefined, trace };
}

/** Computes something once for each policy, rule or other model object. */
export function once<K extends object, V>(compute: (key: K) => V): (key: K) => V {
  const known = new WeakMap<K, V>();
  return (key) => {
    const found = known.get(key);
    if (found !== undefined) return found;
    const value = compute(key);
    known.set(key, value);
    return value;
  };
}
