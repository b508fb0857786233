// What is expected, what was seen, and whether they are the same.

import type { Evaluation } from "../../policy/index.js";
import type { Attempt, DriverAnswer } from "./attempt.js";

export interface Expected {
  /** `either`: a protection may refuse more than the rule says, as the documentation says. */
  readonly outcome: "happens" | "refused" | "either";
  /** The rule in the loader's event; undefined where the loader names none. */
  readonly rule: string | undefined;
  /** Whether a person was asked; undefined where that depends on who is faster. */
  readonly held: boolean | undefined;
  readonly why: string;
}

/** What was seen of one attempt. */
export interface Observed {
  readonly answer: DriverAnswer;
  /** Whether its effect is there. */
  readonly happened: boolean;
  /** Why what happened is not what was meant ("" when it is): another image, other arguments, another host. */
  readonly wrong: string;
  /** The action stood still and a person (or the deadline) decided. */
  readonly held: boolean;
  /** Rules that the loader's events name, in order. */
  readonly rules: readonly string[];
}

export function refused({ rule }: Pick<Evaluation, "rule">, why: string): Expected {
  return { outcome: "refused", rule, held: false, why };
}

/** Why the two differ, one sentence; "" when they do not. */
export function difference(expected: Expected, observed: Observed): string {
  const { answer, happened } = observed;
  const said = `the driver says ${answer.status} ${answer.number}`;
  // The folder on the way to what must not be reached may not be there either.
  const isWithout = answer.status === "prep" && expected.outcome === "refused" && expected.rule === undefined;
  if (!isWithout && ["prep", "cwd", "late"].includes(answer.status)) return `it could not be tried: ${said}`;
  if (observed.wrong !== "") return observed.wrong;
  if (expected.outcome === "happens" && !happened) return `it must happen and did not (${said})`;
  if (expected.outcome === "refused" && happened) return `it must not happen and did (${said})`;
  if (expected.held !== undefined && expected.held !== observed.held)
    return expected.held ? "it must be held and was not" : "it was held and must not be";
  const last = observed.rules.at(-1);
  if (expected.rule !== undefined && last !== expected.rule)
    return `the rule must be ${expected.rule}, and the loader says ${observed.rules.join(", ") || "nothing"}`;
  return "";
}

/** One pair of a policy and an action that came out otherwise than the policy says. */
export interface Difference {
  readonly attempt: Attempt;
  readonly expected: Expected;
  readonly observed: Observed;
  readonly why: string;
}
