/** One question, one judgement, by the policy's one evaluator. Whatever cannot be judged is denied with a sentence. */
import { type Evaluation, evaluate } from "../../../policy/index.js";
import { CacheScope, type Decision, type Question, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { sentence } from "../../common/grpc.js";
import type { HoldTerms } from "../holds/book.js";
import type { Sandbox } from "../sandboxes/registry.js";
import type { RateBook } from "./rates.js";

export type Judgement =
  /** What holds, now. */
  | { kind: "final"; decision: Decision }
  /** A person decides. `allowed` is the decision that an allowance becomes. */
  | { kind: "hold"; terms: HoldTerms; decision: Decision };

/** Judges a question under the policy of its sandbox. Without `rates`, every rate is used up. Never throws. */
export function judge(question: Question, sandbox: Sandbox | undefined, rates?: RateBook): Judgement {
  if (sandbox === undefined) {
    return denied(question, `the supervisor has no policy for a sandbox of the name ${question.sandbox}`);
  }
  if ("unreadable" in sandbox.policy) return denied(question, sandbox.policy.unreadable);
  if (question.action === undefined) {
    return denied(question, "the loader asked about an action of a kind that this supervisor does not know");
  }
  if (question.action.$case === "exec" && question.action.value.argvTruncated) {
    return denied(question, "its arguments are longer than clawsec shows to a person (128 KiB)");
  }
  let evaluation: Evaluation;
  try {
    const timeMs = Date.now();
    const used = (rule: string, perMs: number) => rates?.used(question, rule, perMs, timeMs) ?? Infinity;
    evaluation = evaluate(sandbox.policy, question, { timeMs, used });
    // Before the verdict: what is not counted must not be allowed.
    rates?.note(question, evaluation.counted, timeMs);
  } catch (error) {
    return denied(question, `the policy's evaluator failed: ${sentence(error)}`);
  }
  const decision: Decision = {
    ...base(question),
    rule: evaluation.rule,
    message: evaluation.message,
    epoch: sandbox.record.epoch,
    enterSubject: evaluation.enterSubject,
    cacheScope: evaluation.cacheScope,
    dependsOn: [...evaluation.dependsOn],
    observed: evaluation.observed?.verdict ?? Verdict.UNSPECIFIED,
    observedRule: evaluation.observed?.rule ?? "",
  };
  switch (evaluation.verdict) {
    case Verdict.ALLOW:
    case Verdict.LOG:
    case Verdict.DENY:
      return { kind: "final", decision: { ...decision, verdict: evaluation.verdict } };
    case Verdict.HOLD: {
      if (evaluation.hold === undefined) {
        return denied(question, `the rule ${evaluation.rule} holds without saying for how long`);
      }
      const terms: HoldTerms = {
        rule: evaluation.rule,
        because: evaluation.because,
        timeoutMs: evaluation.hold.timeoutMs,
        onTimeout: evaluation.hold.onTimeout === "allow" ? Verdict.ALLOW : Verdict.DENY,
        policyHash: sandbox.policy.hash,
      };
      // A person answers this question, once: the answer must not be used for another.
      return { kind: "hold", terms, decision: { ...decision, cacheScope: CacheScope.NONE } };
    }
    default:
      return denied(question, "the policy's evaluator gave no verdict");
  }
}

/** A denial that the supervisor makes without a rule. */
export function denial(question: Question, why: string): Decision {
  // The epoch of the question: an older one would be void, and the loader would ask for ever.
  return {
    ...base(question),
    verdict: Verdict.DENY,
    rule: "supervisor",
    message: why,
    epoch: question.epoch,
  };
}

function denied(question: Question, why: string): Judgement {
  return { kind: "final", decision: denial(question, why) };
}

function base(question: Question): Decision {
  return {
    questionId: question.id,
    verdict: Verdict.DENY,
    rule: "default",
    layer: "supervisor",
    message: "",
    cacheScope: CacheScope.NONE,
    epoch: question.epoch,
    enterSubject: "",
    holdId: question.holdId,
    deadlineUs: 0,
    observed: Verdict.UNSPECIFIED,
    observedRule: "",
    dependsOn: [],
  };
}
