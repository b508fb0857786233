// The walk through a section's rules: floors, observed rules, the first rule that decides.
//
// Locked rules come first. A locked denial decides at once; a locked hold is a floor under what the rest decides.
// A rule in observe mode decides nothing. Of the others, the first that matches decides, or the default.

import type { CacheScope, ExecFact } from "../../proto/gen/clawsec/v1/loader.js";
import type { Moment, TraceStep } from "../evaluate.js";
import type { Policy, RuleAction, RuleBase } from "../model.js";
import type { Match, Miss } from "./facts.js";
import { restricts } from "./facts.js";
import { untimely } from "./time.js";

/** A denial before any rule: the action is not understood. */
export interface Refusal {
  /** The fact that is not understood. */
  readonly fact: string;
  readonly rule: string;
  readonly sentence: string;
}

/** What decides when no rule does. */
export interface Fallback {
  readonly rule: string;
  readonly action: RuleAction;
  /** A sentence for a denial; "" for the usual one. */
  readonly sentence: string;
  /** Decided by something else than rules and defaults: observe mode does not lift it. */
  readonly fixed: boolean;
}

/** One action put to the rules of its section. */
export interface Inquiry {
  /** Locked rules first; the place in this list is the rule's rank. */
  readonly rules: readonly RuleBase[];
  /** Lists of ranks, each ascending, that hold every rule which could match. */
  readonly candidates: () => readonly (readonly number[])[];
  readonly match: (rank: number) => Match;
  /** Of a rule that need not be of the policy, but must be of the section. */
  readonly matchRule: (rule: RuleBase) => Match;
  readonly misses: (rank: number) => Miss[];
  /** What a matching rule means for what is asked. */
  readonly actionOf: (rule: RuleBase) => RuleAction;
  /** False where a match is no use of the rule, so that its rate neither holds nor counts. */
  readonly hasRate: boolean;
  readonly fallback: () => Fallback;
  /** How far an answer may be used again that the rule of this rank gave (the number of rules: the default). */
  readonly scope: (rank: number) => CacheScope;
  /** Exec only: what that answer goes by that the caller can still change; "hold": a person's, who sees everything. */
  readonly dependsOn: (rank: number | "hold") => readonly ExecFact[];
  /** Exec only: the subject that the process becomes part of. */
  readonly entered: () => string;
}

/** What decided. */
export interface Decider {
  /** Undefined for a default. */
  readonly rule: RuleBase | undefined;
  readonly rank: number;
  readonly id: string;
  readonly action: RuleAction;
  /** Instead of the rule's own sentence; "" for that. */
  readonly sentence: string;
}

export interface Outcome {
  readonly decider: Decider;
  /** What holds: the decider's action, or "allow" in observe mode. */
  readonly action: RuleAction;
  readonly observed: Decider | undefined;
  readonly counted: readonly string[];
  /** A time or a rate was looked at. */
  readonly timed: boolean;
  readonly trace: readonly TraceStep[];
}

/** Locked rules first, else as written. A parsed policy is in this order already. */
export function ranked<R extends RuleBase>(rules: readonly R[]): readonly R[] {
  return [...rules.filter((rule) => rule.locked), ...rules.filter((rule) => !rule.locked)];
}

/** Decides. With `every`, every rule is looked at until one decides; else only the candidates. */
export function walk(policy: Policy, inquiry: Inquiry, moment: Moment | undefined, every = false): Outcome {
  const { rules } = inquiry;
  const trace: TraceStep[] = [];
  const counted: string[] = [];
  let timed = false;
  let floor: Decider | undefined;
  let observed: Decider | undefined;
  let decided: Decider | undefined;
  // A locked hold of which a fact is not known denies, unless a locked denial is certain: that one is what is told.
  let unsure: Decider | undefined;

  const visit = (rank: number): boolean => {
    const rule = rules[rank] as RuleBase;
    if (unsure !== undefined && !rule.locked) return true;
    const { why, unknown } = inquiry.match(rank);
    const matched = why === "" || unknown !== "";
    const isTimed = matched && (rule.when.length > 0 || (inquiry.hasRate && rule.rate !== undefined));
    const other = isTimed ? untimely(rule, moment, inquiry.hasRate) : "";
    timed ||= isTimed;
    trace.push({ rule: rule.id, matched: matched && other === "", why: why === "" ? other : why });
    if (!matched || other !== "") return false;
    if (rule.rate !== undefined && inquiry.hasRate) counted.push(rule.id);
    const action = unknown === "" ? inquiry.actionOf(rule) : "deny";
    const decider: Decider = { rule, rank, id: rule.id, action, sentence: unknown };
    if (rule.locked) {
      if (unknown !== "" && inquiry.actionOf(rule) !== "deny") {
        unsure ??= decider;
        return false;
      }
      if (action === "deny") decided = decider;
      else if (action === "hold") floor ??= decider;
      return action === "deny";
    }
    if (rule.mode === "observe") {
      if (restricts(decider)) observed ??= decider;
      return false;
    }
    decided = decider;
    return true;
  };
  if (every) rules.some((_, rank) => visit(rank));
  else inOrder(inquiry.candidates(), visit);
  decided ??= unsure;

  const outcome = (decider: Decider, action: RuleAction, seen = observed): Outcome => ({
    decider,
    action,
    observed: seen,
    counted,
    timed,
    trace,
  });
  const fallback = inquiry.fallback();
  const last = byDefault(fallback, rules.length);
  const would = decided ?? last;
  const enforced =
    policy.mode !== "observe" || would.rule?.locked === true || (would === last && fallback.fixed);
  if (enforced || !restricts(would)) {
    const decider = floor !== undefined && would.action !== "deny" ? floor : would;
    return outcome(decider, decider.action);
  }
  // Without the rules it would be denied all the same.
  if (fallback.fixed && fallback.action === "deny") return outcome(last, "deny", would);
  if (floor === undefined) return outcome(would, "allow", would);
  return outcome(floor, floor.action, would.action === "deny" ? would : observed);
}

function byDefault(fallback: Fallback, rank: number): Decider {
  const { rule: id, action, sentence } = fallback;
  return { rule: undefined, rank, id, action, sentence };
}

/** Visits the numbers of ascending lists in ascending order, each once, until a visit returns true. */
export function inOrder(lists: readonly (readonly number[])[], visit: (rank: number) => boolean): void {
  const places = lists.map(() => 0);
  for (;;) {
    let lowest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < lists.length; i++) {
      const head = lists[i]?.[places[i] as number];
      if (head !== undefined && head < lowest) lowest = head;
    }
    if (lowest === Number.POSITIVE_INFINITY) return;
    for (let i = 0; i < lists.length; i++) {
      if (lists[i]?.[places[i] as number] === lowest) places[i] = (places[i] as number) + 1;
    }
    if (visit(lowest)) return;
  }
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
