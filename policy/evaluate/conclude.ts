// From what decided to the answer: the verdict, how far it holds, and its sentence.

import {
  CacheScope,
  type ExecAction,
  type FileAction,
  type NetworkAction,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import type { Evaluation } from "../evaluate.js";
import type { Action, Policy, RuleAction } from "../model.js";
import { operationName } from "./file.js";
import type { Decider, Inquiry, Outcome, Refusal } from "./rules.js";

const VERDICTS: Readonly<Record<RuleAction, Verdict>> = {
  allow: Verdict.ALLOW,
  deny: Verdict.DENY,
  hold: Verdict.HOLD,
  log: Verdict.LOG,
};

/** The answer to an action that is not understood. */
export function refuse(refusal: Refusal): Evaluation {
  return {
    verdict: Verdict.DENY,
    rule: refusal.rule,
    because: "",
    message: refusal.sentence,
    hold: undefined,
    enterSubject: "",
    cacheScope: CacheScope.NONE,
    dependsOn: [],
    trace: [],
    origin: undefined,
    observed: undefined,
    counted: [],
    severity: "info",
    tags: [],
  };
}

/** The answer by what the walk through the rules came to. */
export function conclude(policy: Policy, asked: Action, inquiry: Inquiry, outcome: Outcome): Evaluation {
  const { decider, action, observed } = outcome;
  const { rule } = decider;
  // First: the ways into subjects look at facts as well.
  const entered = inquiry.entered();
  // What a person decides holds for what the person saw, what depends on the time does not last, and what is only
  // observed must be seen each time.
  const single = action === "hold" || outcome.timed || observed !== undefined || decider.sentence !== "";
  return {
    verdict: VERDICTS[action],
    rule: decider.id,
    because: rule?.because ?? "",
    message: message(asked, decider, action),
    hold: action === "hold" ? (rule?.hold ?? policy.approvals) : undefined,
    enterSubject: action === "deny" ? "" : entered,
    cacheScope: single ? CacheScope.NONE : inquiry.scope(decider.rank),
    dependsOn: inquiry.dependsOn(action === "hold" ? "hold" : decider.rank),
    trace: outcome.trace,
    origin: rule?.origin,
    observed: observed && { verdict: VERDICTS[observed.action], rule: observed.id },
    counted: outcome.counted,
    severity: rule?.severity ?? "info",
    tags: rule?.tags ?? [],
  };
}

function message(asked: Action, { rule, id, sentence }: Decider, action: RuleAction): string {
  if (sentence !== "" && action === "deny") return sentence;
  if (rule !== undefined && rule.message !== "") return rule.message;
  const because = rule !== undefined && rule.because !== "" ? `: ${rule.because}` : "";
  switch (action) {
    case "allow":
    case "log":
      return "";
    case "hold":
      return `${describe(asked)} waits for an answer (rule ${id})${because}`;
    case "deny":
      // What was denied and by which rule stands before it wherever it is shown.
      if (rule === undefined) return "no rule allows it";
      return rule.because || "the policy does not allow it";
  }
}

/** Longest part of a name from the sandbox that goes into a sentence. */
const MAX_NAME = 256;

function name(text: string): string {
  return text.length > MAX_NAME ? `${text.slice(0, MAX_NAME)}...` : text;
}

function describe({ action }: Action): string {
  switch (action?.$case) {
    case "exec":
      return describeExec(action.value);
    case "file":
      return describeFile(action.value);
    case "network":
      return describeNetwork(action.value);
    case undefined:
      return "an action without facts";
  }
}

function describeExec(exec: ExecAction): string {
  return `exec of ${name(exec.script || exec.executable || exec.requestedPath || "an unknown file")}`;
}

function describeFile(file: FileAction): string {
  const target = file.targetPath === "" ? "" : ` to ${name(file.targetPath)}`;
  return `${operationName(file.operation) ?? "operation"} of ${name(file.path)}${target}`;
}

function describeNetwork(network: NetworkAction): string {
  const host = network.host === "" ? network.address : network.host;
  const request =
    network.httpMethod === "" ? "" : `${name(network.httpMethod)} ${name(network.httpPath)} at `;
  return `${request === "" ? "connection to " : request}${name(host || "an unknown host")}:${network.port}`;
}
