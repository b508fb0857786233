// The facts of an action, one by one, and what a rule wants of each. A rule matches when all of them hold.
//
// A fact can be unknown (a hash that nobody took, a caller without an image). A rule that permits does not match then.
// A rule that restricts must not be dodged by hiding a fact: when everything else holds, it denies.

import type { RuleAction, RuleBase } from "../model.js";

/** The fact cannot be compared; the sentence says why, for the caller. */
export interface Unknown {
  readonly unknown: string;
}

export interface Fact<R, A> {
  /** As the policy's key is called. */
  readonly name: string;
  readonly holds: (rule: R, asked: A) => boolean | Unknown;
  /** What it is, for a person. May hold text from the sandbox, of any length. */
  readonly is: (asked: A, rule: R) => string;
  /** What the rule wants it to be, for a person. */
  readonly wants: (rule: R) => string;
}

export interface Match {
  /** The first fact that does not hold or is not known; "" when all hold. */
  readonly why: string;
  /** Set when only unknown facts keep a restricting rule from matching: the sentence of its denial. */
  readonly unknown: string;
}

/** A fact that does not hold. */
export interface Miss {
  readonly fact: string;
  readonly is: string;
  readonly wants: string;
}

const MATCHED: Match = { why: "", unknown: "" };

/** True for the actions that take something away. */
export function restricts(rule: { readonly action: RuleAction }): boolean {
  return rule.action === "deny" || rule.action === "hold";
}

/** The fact that every rule has first. */
export function subjectFact<R extends RuleBase, A extends { readonly subject: string }>(): Fact<R, A> {
  return {
    name: "subject",
    holds: (rule, asked) => rule.subjects.length === 0 || rule.subjects.includes(asked.subject),
    is: (asked) => asked.subject,
    wants: (rule) => rule.subjects.join(", "),
  };
}

/** Compares until a fact does not hold. */
export function match<R extends RuleBase, A>(facts: readonly Fact<R, A>[], rule: R, asked: A): Match {
  let unknown: Match | undefined;
  for (const fact of facts) {
    const answer = fact.holds(rule, asked);
    if (answer === true) continue;
    if (answer === false || !restricts(rule)) return { why: fact.name, unknown: "" };
    unknown ??= { why: fact.name, unknown: answer.unknown };
  }
  return unknown ?? MATCHED;
}

/** All facts that do not hold, unknown ones included. */
export function misses<R extends RuleBase, A>(facts: readonly Fact<R, A>[], rule: R, asked: A): Miss[] {
  return facts
    .filter((fact) => fact.holds(rule, asked) !== true)
    .map((fact) => ({ fact: fact.name, is: fact.is(asked, rule), wants: fact.wants(rule) }));
}
