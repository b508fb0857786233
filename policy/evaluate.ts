// The evaluator: one action in, one verdict out. The same function answers at run time, in tests and in explanations.
//
// The first rule that matches decides; without one, the section's default does. Locked rules are a floor under both,
// and rules in observe mode only record what they would have done (evaluate/rules.ts). An action that is not
// understood (no facts, a truncated argv, an unknown kind) is denied. The function is total: it never throws.

import type { CacheScope, ExecFact, Verdict } from "../proto/gen/clawsec/v1/loader.js";
import type { Origin } from "./diagnostics.js";
import { conclude, refuse } from "./evaluate/conclude.js";
import { inquireExec } from "./evaluate/exec.js";
import { inquireFile } from "./evaluate/file.js";
import { inquireNetwork } from "./evaluate/network.js";
import { type Inquiry, type Refusal, walk } from "./evaluate/rules.js";
import type { Action, ExecRule, FileRule, HoldTerms, NetworkRule, Policy, RuleSeverity } from "./model.js";

export type { Action } from "./model.js";

/** When an action is decided, and how often rules have been used. */
export interface Moment {
  /** Milliseconds since the Unix epoch. */
  readonly timeMs: number;
  /** How many times the rule has matched within the last `perMs`. */
  readonly used?: (rule: string, perMs: number) => number;
}

/** One rule that was looked at, in order. */
export interface TraceStep {
  readonly rule: string;
  readonly matched: boolean;
  /**
   * The first fact that did not match, "when" or "rate"; "" when all did. With `matched`: the fact that is not known,
   * for which the rule denies.
   */
  readonly why: string;
}

export interface Evaluation {
  /** ALLOW, DENY, HOLD or LOG; nothing else. */
  readonly verdict: Verdict;
  /** Rule that decided, e.g. "exec/git-push" or "exec/default". */
  readonly rule: string;
  /** Why the rule is there, as the policy says it; "" when it does not. */
  readonly because: string;
  /** One sentence for the caller (a denial) or for the person who is asked (a hold). May hold text from the sandbox. */
  readonly message: string;
  /** With HOLD only. */
  readonly hold: HoldTerms | undefined;
  /** Exec only: subject that the process becomes part of ("" for no change). */
  readonly enterSubject: string;
  readonly cacheScope: CacheScope;
  /** Exec only: the facts that it goes by and that the caller can still change. A hold goes by all of them. */
  readonly dependsOn: readonly ExecFact[];
  /** The rules that were looked at: at least all that could match, up to the one that decided. */
  readonly trace: readonly TraceStep[];
  /** Where the rule is written; undefined for defaults. */
  readonly origin: Origin | undefined;
  /**
   * What observe mode kept from being decided (DENY or HOLD): by the first rule in observe mode that matches, or, if
   * the whole policy is in observe mode, by whatever would have decided. `rule` above is then that one, too.
   */
  readonly observed: { readonly verdict: Verdict; readonly rule: string } | undefined;
  /** Ids of the rules with a rate that matched. The caller records them, for `Moment.used`. */
  readonly counted: readonly string[];
  /** Of the rule that decided; "info" and none for defaults. */
  readonly severity: RuleSeverity;
  readonly tags: readonly string[];
}

const UNKNOWN: Refusal = { fact: "action", rule: "default", sentence: "no rule allows it" };

/** The action as its section's question; undefined for an action without facts. */
export function inquire(policy: Policy, asked: Action): Inquiry | Refusal {
  const { action } = asked;
  switch (action?.$case) {
    case "exec":
      return inquireExec(policy, asked, action.value);
    case "file":
      return inquireFile(policy, asked, action.value);
    case "network":
      return inquireNetwork(policy, asked, action.value);
    default:
      return UNKNOWN;
  }
}

/**
 * Decides one action. Without a moment, a rule with a time or a rate matches when it restricts and does not when it
 * permits.
 */
export function evaluate(policy: Policy, asked: Action, moment?: Moment): Evaluation {
  return decide(policy, asked, moment, false);
}

/** The same, by going through all rules instead of those that could match: slower, and with the whole trace. */
export function evaluatePlainly(policy: Policy, asked: Action, moment?: Moment): Evaluation {
  return decide(policy, asked, moment, true);
}

function decide(policy: Policy, asked: Action, moment: Moment | undefined, every: boolean): Evaluation {
  const inquiry = inquire(policy, asked);
  if ("sentence" in inquiry) return refuse(inquiry);
  return conclude(policy, asked, inquiry, walk(policy, inquiry, moment, every));
}

/**
 * Whether a rule's own matchers match an action, whatever other rules, its times, its rate and its mode say. A fact
 * that is not known does not match. `why` is the first fact that does not match ("action" when the rule is of another
 * section), "" when all do.
 */
export function matchesRule(
  policy: Policy,
  rule: ExecRule | FileRule | NetworkRule,
  asked: Action,
): { readonly matched: boolean; readonly why: string } {
  if (asked.action === undefined || !rule.id.startsWith(`${asked.action.$case}/`)) {
    return { matched: false, why: "action" };
  }
  const inquiry = inquire(policy, asked);
  const why = "sentence" in inquiry ? inquiry.fact : inquiry.matchRule(rule).why;
  return { matched: why === "", why };
}
