// Exec rules as the exec gate's table. The gate knows the path of the image that the kernel will load and the names in
// its environment, and no more: a rule that looks at these alone decides there; what looks at more is asked about, from the first row on that
// could be about it. The table is not used for scripts and for files without a name.
//
// Order, so that a row never decides what another rule has a say in: the ways into subjects (whoever enters must be
// known), locked denials, locked holds, then all other rules in the order of the policy, and the default.

import {
  type ExecRow,
  type ExecTable,
  type FactsNeeded,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { ANY_PATH, pathExpression, textExpression } from "../match/expression.js";
import type { ExecRule, Policy, RuleAction } from "../model.js";
import type { View } from "./host.js";
import { readOnly } from "./read-only.js";
import type { Capabilities, Report } from "./report.js";

const ROW_VERDICTS: Readonly<Record<RuleAction, Verdict>> = {
  allow: Verdict.ALLOW,
  deny: Verdict.DENY,
  hold: Verdict.ASK,
  log: Verdict.LOG,
};

export interface LoweredExec {
  readonly table: ExecTable;
  readonly facts: FactsNeeded;
}

/** The table, the facts that questions need, and a row of explanation for each exec rule. */
export function lowerExec(
  policy: Policy,
  view: View,
  capabilities: Capabilities,
  report: Report,
): LoweredExec {
  for (const rule of policy.exec) {
    if (rule.action === "hold") capabilities.need(report, ["ptrace.hold"], rule.id, rule.origin);
    if (rule.sha256.length > 0) checkContent(rule, view, report);
    explain(rule, policy, capabilities, report);
  }
  if (policy.defaults.exec === "hold")
    capabilities.need(report, ["ptrace.hold"], "exec/default", policy.sandbox.origin);
  return { table: { rows: rows(policy) }, facts: { sha256: policy.exec.some((r) => r.sha256.length > 0) } };
}

function rows(policy: Policy): ExecRow[] {
  const locked = policy.exec.filter((rule) => rule.locked);
  return [
    ...entries(policy),
    ...locked.filter((rule) => rule.action === "deny").flatMap((rule) => rowOf(rule, policy)),
    ...locked.filter((rule) => rule.action !== "deny").flatMap((rule) => ask(rule)),
    // A policy that only observes has no other verdicts: without a row, all is asked about.
    ...(policy.mode === "observe"
      ? []
      : [
          ...policy.exec.filter((rule) => !rule.locked).flatMap((rule) => rowOf(rule, policy)),
          ...last(policy),
        ]),
  ];
}

/** Whoever enters a subject is asked about: the answer says so. */
function entries(policy: Policy): ExecRow[] {
  return policy.subjects.flatMap((subject) =>
    subject.enters
      // A way through a script is none for what the table is used for.
      .filter((way) => way.script.length === 0)
      .map((way) => ({
        rule: `subject ${subject.name}`,
        subjects: [...way.from],
        executable: way.executable.length === 0 ? "" : pathExpression(way.executable, { subtree: false }),
        verdict: Verdict.ASK,
        message: "",
        environment: "",
      })),
  );
}

/** True when the rule can match nothing that the table is used for. */
function isElsewhere(rule: ExecRule): boolean {
  return !rule.kinds.includes("file") || rule.script.length > 0;
}

function ask(rule: ExecRule): ExecRow[] {
  if (isElsewhere(rule)) return [];
  return [
    {
      rule: rule.id,
      subjects: [...rule.subjects],
      executable: rule.executable.length === 0 ? "" : pathExpression(rule.executable, { subtree: false }),
      verdict: Verdict.ASK,
      message: "",
      environment: rule.environment.length === 0 ? "" : textExpression(rule.environment),
    },
  ];
}

function rowOf(rule: ExecRule, policy: Policy): ExecRow[] {
  if (rule.mode === "observe") {
    // What it would have done goes into the audit, and only an answer carries it there.
    return rule.action === "deny" || rule.action === "hold" ? ask(rule) : [];
  }
  if (rule.action === "hold" || beyondTable(rule).length > 0) return ask(rule);
  const permits = rule.action !== "deny";
  return ask(rule).map((row) => ({
    ...row,
    verdict: ROW_VERDICTS[rule.action],
    message: permits ? "" : rule.message || rule.because || "the policy does not allow it",
    ...(permits ? permitted(row.executable, row.subjects, policy) : {}),
  }));
}

/**
 * The evaluator denies what has no canonical path and whoever has no subject of the policy, whatever the rules say.
 * A row that permits says both, so that the rest falls through to a question.
 */
function permitted(executable: string, subjects: readonly string[], policy: Policy) {
  return {
    executable: executable === "" ? ANY_PATH : executable,
    subjects: subjects.length === 0 ? policy.subjects.map((subject) => subject.name) : [...subjects],
  };
}

function last(policy: Policy): ExecRow[] {
  const action = policy.defaults.exec;
  if (action === "hold") return [];
  const row = { rule: "exec/default", verdict: ROW_VERDICTS[action], environment: "" };
  return action === "deny"
    ? [{ ...row, subjects: [], executable: "", message: "no rule allows it" }]
    : [{ ...row, ...permitted("", [], policy), message: "" }];
}

/** What a rule looks at that the table does not know, in words. */
function beyondTable(rule: ExecRule): string[] {
  return beyondPath(rule).filter((fact) => fact !== ENVIRONMENT);
}

const ENVIRONMENT = "environment";

/** What a rule looks at beside the path, in words. */
function beyondPath(rule: ExecRule): string[] {
  const facts: readonly (readonly [boolean, string])[] = [
    [rule.sha256.length > 0, "content"],
    [rule.script.length > 0, "script"],
    [rule.inWorkspace !== undefined, "workspace"],
    [rule.code.length > 0, "code"],
    [rule.argv !== undefined, "arguments"],
    [rule.cwd.length > 0, "working directory"],
    [rule.environment.length > 0, ENVIRONMENT],
    [rule.parent.length > 0, "caller"],
    [rule.ancestor.length > 0, "ancestors"],
    [rule.category.length > 0, "category"],
    [rule.when.length > 0, "time"],
    [rule.rate !== undefined, "rate"],
  ];
  return facts.filter(([looks]) => looks).map(([, name]) => name);
}

const VERIFIED = "BPF checks that what runs is what was approved";
const REFUSED = "BPF-LSM refuses the call when it is not, and BPF kills what gets past that";

function explain(rule: ExecRule, policy: Policy, capabilities: Capabilities, report: Report): void {
  const verified = capabilities.has("bpf.lsm") ? `${VERIFIED}: ${REFUSED}` : VERIFIED;
  const facts = beyondPath(rule);
  const looks =
    facts.length === 0 ? "looks at the file only" : `looks at the file and its ${facts.join(", ")}`;
  const say = (layer: string, why: string, notCheaper: string) =>
    report.explain(rule.id, rule.action, layer, why, rule.origin, notCheaper);
  if (!rule.locked && (rule.mode === "observe" || policy.mode === "observe")) {
    say(
      "supervisor",
      `${looks}; decides nothing, what it would have done is recorded`,
      "the table gives verdicts and records no others",
    );
  } else if (rule.action === "hold") {
    say(
      "supervisor, person",
      `${looks}; the image waits for an answer before it runs`,
      "only a person answers a hold",
    );
  } else if (!rule.kinds.includes("file")) {
    say(
      "supervisor",
      `${looks}; ${verified}`,
      "the exec gate's table goes by paths, and such files have none",
    );
  } else if (beyondTable(rule).length > 0) {
    say(
      "supervisor",
      `${looks}; ${verified}`,
      `the exec gate's table knows only the path and the environment, not the ${beyondTable(rule).join(", ")}`,
    );
  } else {
    say(
      "exec gate",
      `${looks}: a row of the table decides; ${verified}`,
      "mounts and Landlock take whole trees from everybody, and give the caller no rule and no reason",
    );
  }
}

/** A hash that permits holds only as long as the content cannot change between the hash and the run. */
function checkContent(rule: ExecRule, view: View, report: Report): void {
  const paths = [...rule.executable, ...rule.script];
  if (paths.length > 0 && paths.every((pattern) => readOnly(pattern, view))) return;
  const fact = "content that the sandbox can write may be another one when it runs";
  const remedy = 'Add an "executable" or "script" that lies on read-only mounts.';
  if (rule.action === "deny" || rule.action === "hold") {
    report.warning("sha256-writable", rule.id, rule.origin, `${rule.id} goes by a hash: ${fact}`, remedy);
  } else {
    report.refuse(
      "sha256-writable",
      rule.id,
      "exec gate",
      rule.origin,
      `${rule.id} cannot be enforced: it permits by a hash, and ${fact}`,
      remedy,
    );
  }
}
