// The facts of an action, one by one, and what a rule wants of each. A rule matches when all of them hold.
//
// A fact can be unknown (a hash that nobody took, a caller without an image). A rule that permits does not match then.
// A rule that restricts must not be dodged by hiding a fact: when everything else holds, it denies.

import type { RuleAction, RuleBase } from "../model.js";

/** The fact cannot be compared; the sentence says why, for the caller. */
export interface Unknown {
  readonly unknown: string;
}

/** A rule made ready to be compared: `R` is the rule, `C` this with its patterns, `A` what is asked. */
export interface Ready<R extends RuleBase, C, A> {
  readonly rule: R;
  readonly restricts: boolean;
  /** It has times or a rate. */
  readonly isTimed: boolean;
  /** Those that the rule says something about. */
  readonly facts: readonly Fact<R, C, A>[];
}

export interface Fact<R, C, A> {
  /** As the policy's key is called. */
  readonly name: string;
  /** Whether the rule says anything about it. */
  readonly isSaid: (rule: R) => boolean;
  /** Only of rules that say something about it. */
  readonly holds: (ready: C, asked: A) => boolean | Unknown;
  /** What it is, for a person. May hold text from the sandbox, of any length. */
  readonly is: (asked: A) => string;
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
export function subjectFact<
  R extends RuleBase,
  C extends { readonly rule: R },
  A extends { readonly subject: string },
>(): Fact<R, C, A> {
  return {
    name: "subject",
    isSaid: (rule) => rule.subjects.length > 0,
    holds: ({ rule }, asked) => rule.subjects.includes(asked.subject),
    is: (asked) => asked.subject,
    wants: (rule) => rule.subjects.join(", "),
  };
}

/**
 * Picks the facts that a rule says something about. Most rules speak of the same few: each list of them is made once,
 * so that comparing one rule after another fetches little memory.
 */
export function picker<R extends RuleBase, C, A>(
  facts: readonly Fact<R, C, A>[],
): (rule: R) => readonly Fact<R, C, A>[] {
  const lists = new Map<number, readonly Fact<R, C, A>[]>();
  return (rule) => {
    const said = facts.reduce((bits, fact, i) => (fact.isSaid(rule) ? bits | (1 << i) : bits), 0);
    const known = lists.get(said);
    if (known !== undefined) return known;
    const list = facts.filter((_, i) => (said & (1 << i)) !== 0);
    lists.set(said, list);
    return list;
  };
}

/** What all rules have ready. */
export function ready<R extends RuleBase, C, A>(rule: R, facts: readonly Fact<R, C, A>[]): Ready<R, C, A> {
  return {
    rule,
    restricts: restricts(rule),
    isTimed: rule.when.length > 0 || rule.rate !== undefined,
    facts,
  };
}

/** Compares with these of its facts, until one does not hold. */
export function match<R extends RuleBase, C extends { readonly restricts: boolean }, A>(
  rule: C,
  facts: readonly Fact<R, C, A>[],
  asked: A,
): Match {
  let unknown: Match | undefined;
  for (const fact of facts) {
    const answer = fact.holds(rule, asked);
    if (answer === true) continue;
    if (answer === false || !rule.restricts) return { why: fact.name, unknown: "" };
    unknown ??= { why: fact.name, unknown: answer.unknown };
  }
  return unknown ?? MATCHED;
}

/** All of these facts that do not hold, unknown ones included. */
export function misses<R extends RuleBase, C extends { readonly rule: R }, A>(
  rule: C,
  facts: readonly Fact<R, C, A>[],
  asked: A,
): Miss[] {
  return facts
    .filter((fact) => fact.holds(rule, asked) !== true)
    .map((fact) => ({ fact: fact.name, is: fact.is(asked), wants: fact.wants(rule.rule) }));
}
