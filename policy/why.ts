// Why an action is decided as it is: every rule in order with what it found, what would decide without the deciding
// rule, and the rules that miss by one fact. For people; run time needs none of it.

import { refuse } from "./evaluate/conclude.js";
import type { Inquiry } from "./evaluate/rules.js";
import { untimely } from "./evaluate/time.js";
import {
  type Action,
  type Evaluation,
  evaluate,
  evaluatePlainly,
  inquire,
  type Moment,
  type TraceStep,
} from "./evaluate.js";
import type { Policy, RuleBase } from "./model.js";

/** A rule that would match, if one fact were another. */
export interface NearMiss {
  readonly rule: string;
  /** "executable", "argv", ..., or "when" or "rate". */
  readonly fact: string;
  /** What the fact is; "" for none. May hold text from the sandbox, of any length. */
  readonly is: string;
  /** What the rule wants it to be, as the policy says it. */
  readonly wants: string;
}

export interface Why {
  /** What `evaluate` says. */
  readonly evaluation: Evaluation;
  /** Every rule of the section in order, also those after the one that decided. None for an action that is refused. */
  readonly steps: readonly TraceStep[];
  /** What would decide, were the deciding rule not there; undefined when no rule decided. */
  readonly without: Evaluation | undefined;
  /** In the order of the rules. */
  readonly nearMisses: readonly NearMiss[];
}

/** Explains a decision. Like `evaluate`, it never throws. */
export function why(policy: Policy, asked: Action, moment?: Moment): Why {
  const evaluation = evaluate(policy, asked, moment);
  const inquiry = inquire(policy, asked);
  if ("sentence" in inquiry) {
    return { evaluation: refuse(inquiry), steps: [], without: undefined, nearMisses: [] };
  }
  const findings = inquiry.rules.map((rule, rank) => look(inquiry, rule, rank, moment));
  return {
    evaluation,
    steps: findings.map(({ step }) => step),
    without:
      evaluation.origin === undefined ? undefined : decideWithout(policy, asked, moment, evaluation.rule),
    nearMisses: findings.flatMap(({ nearMiss }) => nearMiss ?? []),
  };
}

function look(
  inquiry: Inquiry,
  rule: RuleBase,
  rank: number,
  moment: Moment | undefined,
): { readonly step: TraceStep; readonly nearMiss: NearMiss | undefined } {
  const match = inquiry.match(rank);
  const matched = match.why === "" || match.unknown !== "";
  const other = untimely(rule, moment, inquiry.hasRate);
  const step = {
    rule: rule.id,
    matched: matched && other === "",
    why: match.why === "" ? other : match.why,
  };
  if (step.matched) return { step, nearMiss: undefined };
  const missing = inquiry.misses(rank).filter(() => !matched);
  const time = other === "" ? [] : [{ fact: other, ...timely(rule, other, moment) }];
  const all = [...missing, ...time];
  const [only] = all;
  return { step, nearMiss: all.length === 1 && only !== undefined ? { rule: rule.id, ...only } : undefined };
}

function timely(
  rule: RuleBase,
  fact: "when" | "rate",
  moment: Moment | undefined,
): { is: string; wants: string } {
  if (fact === "rate") {
    const { max, perMs } = rule.rate ?? { max: 0, perMs: 0 };
    const used = moment?.used?.(rule.id, perMs);
    return {
      is: used === undefined ? "" : `${used} in ${perMs} ms`,
      wants: `less than ${max} in ${perMs} ms`,
    };
  }
  const time = new Date(moment?.timeMs ?? Number.NaN);
  return {
    is: Number.isNaN(time.getTime()) ? "" : time.toISOString(),
    wants: rule.when
      .map(({ days, fromMinute, toMinute, timeZone }) =>
        [days.map((day) => DAYS[day]).join(","), `${clock(fromMinute)}-${clock(toMinute)}`, timeZone].join(
          " ",
        ),
      )
      .join("; "),
  };
}

const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

function clock(minute: number): string {
  return [Math.floor(minute / 60), minute % 60].map((part) => String(part).padStart(2, "0")).join(":");
}

function decideWithout(policy: Policy, asked: Action, moment: Moment | undefined, id: string): Evaluation {
  const others = <T extends RuleBase>(rules: readonly T[]) => rules.filter((rule) => rule.id !== id);
  const { exec, file, network } = policy;
  return evaluatePlainly(
    { ...policy, exec: others(exec), file: others(file), network: others(network) },
    asked,
    moment,
  );
}
