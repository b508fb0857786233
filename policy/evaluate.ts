// The evaluator: one action in, one verdict out. The same function answers at run time, in tests and in explanations.
//
// The first rule that matches decides; without one, the section's default does. An action that is not understood
// (no facts, a truncated argv, an unknown kind) is denied. The function is total: it never throws.

import {
  CacheScope,
  type ExecAction,
  type FileAction,
  type NetworkAction,
  Verdict,
} from "../proto/gen/clawsec/v1/loader.js";
import type { Origin } from "./diagnostics.js";
import { evaluateExec } from "./evaluate/exec.js";
import { evaluateFile } from "./evaluate/file.js";
import { evaluateNetwork } from "./evaluate/network.js";
import type { Action, HoldTerms, Policy, RuleAction, RuleBase } from "./model.js";

export type { Action } from "./model.js";

/** One rule that was looked at, in order. */
export interface TraceStep {
  readonly rule: string;
  readonly matched: boolean;
  /** The first fact that did not match; "" when all did. */
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
  readonly trace: readonly TraceStep[];
  /** Where the rule is written; undefined for defaults. */
  readonly origin: Origin | undefined;
}

/** What one section's evaluator finds out. */
export interface Finding {
  /** The rule that matched; undefined when the default decides. */
  readonly rule: RuleBase | undefined;
  readonly action: RuleAction;
  /** Reported when no rule matched. */
  readonly fallbackRule: string;
  /** A sentence for a denial by the fallback; "" for the usual one. */
  readonly fallbackMessage?: string;
  readonly cacheScope: CacheScope;
  readonly enterSubject: string;
  readonly trace: readonly TraceStep[];
}

/** Decides one action. */
export function evaluate(policy: Policy, asked: Action): Evaluation {
  const { action } = asked;
  switch (action?.$case) {
    case "exec":
      return conclude(policy, evaluateExec(policy, asked.subject, action.value), describeExec(action.value));
    case "file":
      return conclude(policy, evaluateFile(policy, asked.subject, action.value), describeFile(action.value));
    case "network":
      return conclude(
        policy,
        evaluateNetwork(policy, asked.subject, action.value),
        describeNetwork(action.value),
      );
    case undefined:
      return conclude(policy, unknownAction(), "An action without facts");
  }
}

function unknownAction(): Finding {
  return {
    rule: undefined,
    action: "deny",
    fallbackRule: "default",
    cacheScope: CacheScope.NONE,
    enterSubject: "",
    trace: [],
  };
}

const VERDICTS: Readonly<Record<RuleAction, Verdict>> = {
  allow: Verdict.ALLOW,
  deny: Verdict.DENY,
  hold: Verdict.HOLD,
  log: Verdict.LOG,
};

function conclude(policy: Policy, finding: Finding, what: string): Evaluation {
  const { rule, action } = finding;
  const id = rule?.id ?? finding.fallbackRule;
  return {
    verdict: VERDICTS[action],
    rule: id,
    because: rule?.because ?? "",
    message: message(finding, id, what),
    hold: action === "hold" ? (rule?.hold ?? policy.approvals) : undefined,
    enterSubject: action === "deny" ? "" : finding.enterSubject,
    // What a person decides holds for what the person saw; the supervisor remembers answers, not the cache.
    cacheScope: action === "hold" ? CacheScope.NONE : finding.cacheScope,
    trace: finding.trace,
    origin: rule?.origin,
  };
}

function message(finding: Finding, id: string, what: string): string {
  const { rule, action } = finding;
  if (rule !== undefined && rule.message !== "") return rule.message;
  const because = rule !== undefined && rule.because !== "" ? `: ${rule.because}` : "";
  switch (action) {
    case "allow":
    case "log":
      return "";
    case "hold":
      return `${what} waits for an answer (rule ${id})${because}`;
    case "deny":
      // What was denied and by which rule stands before it wherever it is shown.
      if (rule === undefined) return finding.fallbackMessage || "no rule allows it";
      return rule.because || "the policy does not allow it";
  }
}

/** Longest part of a name from the sandbox that goes into a sentence. */
const MAX_NAME = 256;

function name(text: string): string {
  return text.length > MAX_NAME ? `${text.slice(0, MAX_NAME)}...` : text;
}

function describeExec(exec: ExecAction): string {
  return `exec of ${name(exec.script || exec.executable || exec.requestedPath || "an unknown file")}`;
}

const OPERATION_WORDS = [
  "operation",
  "open",
  "delete",
  "rename",
  "link",
  "truncate",
  "create",
  "chmod",
] as const;

function describeFile(file: FileAction): string {
  const word = OPERATION_WORDS[file.operation] ?? "operation";
  const target = file.targetPath === "" ? "" : ` to ${name(file.targetPath)}`;
  return `${word} of ${name(file.path)}${target}`;
}

function describeNetwork(network: NetworkAction): string {
  const host = network.host === "" ? network.address : network.host;
  return `connection to ${name(host === "" ? "an unknown host" : host)}:${network.port}`;
}
