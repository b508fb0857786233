// Permissions that stand before what they extend denies by the names of the environment. Who writes "allow /usr/bin/git"
// above a base that denies LD_PRELOAD seldom means git with LD_PRELOAD, too; first match wins, so that is what it says.

import type { Diagnostic } from "../diagnostics.js";
import type { ExecRule, Policy } from "../model.js";
import { covers, isSteady } from "./cover.js";

/** Pairs of rules that are looked at in one policy. */
const MAX_PAIRS = 20_000;
/** Rules that are named in one finding. */
const SHOWN = 3;

/** One finding for each denial by `environment` that rules of another file, before it, take something from. */
export function lintVariables(policy: Policy): Diagnostic[] {
  let pairs = MAX_PAIRS;
  return policy.exec.flatMap((denial, at) => {
    if (!isDenialByName(denial)) return [];
    const before = policy.exec.slice(0, at);
    const passing = before.filter((rule, i) => {
      if (!permits(rule) || rule.origin.file === denial.origin.file || pairs-- <= 0) return false;
      if (isOfEntries(policy, rule)) return false;
      const both = common(policy, denial, rule);
      if (both === undefined || !covers(policy, { ...denial, environment: [] }, both)) return false;
      const asDenied: ExecRule = { ...both, action: "deny", environment: denial.environment };
      return !before
        .slice(0, i)
        .some((first) => first.action === "deny" && isSteady(first) && covers(policy, first, asDenied));
    });
    return passing.length === 0 ? [] : [finding(denial, passing)];
  });
}

/** A locked denial decides first, wherever it stands. */
function isDenialByName(rule: ExecRule): boolean {
  return rule.action === "deny" && rule.environment.length > 0 && !rule.locked && isSteady(rule);
}

function permits(rule: ExecRule): boolean {
  return rule.environment.length === 0 && rule.mode === "enforce" && ["allow", "log"].includes(rule.action);
}

/** Entries take such variables away before they go on. */
function isOfEntries(policy: Policy, { executable }: ExecRule): boolean {
  const entries = policy.subjects.map(({ entry }) => entry?.path);
  return executable.length > 0 && executable.every((path) => entries.includes(path));
}

/** The rule for the subjects that both are for; undefined: there are none. */
function common(policy: Policy, denial: ExecRule, rule: ExecRule): ExecRule | undefined {
  const all = policy.subjects.map(({ name }) => name);
  const of = ({ subjects }: ExecRule) => (subjects.length === 0 ? all : subjects);
  if (denial.subjects.length === 0) return rule;
  const subjects = of(rule).filter((name) => of(denial).includes(name));
  return subjects.length === 0 ? undefined : { ...rule, subjects };
}

function finding(denial: ExecRule, passing: readonly ExecRule[]): Diagnostic {
  const one = passing.length === 1;
  const names = passing.slice(0, SHOWN).map(({ id }) => id);
  const more = passing.length - names.length;
  const who = more > 0 ? `${names.join(", ")} and ${more} more` : names.join(", ");
  const first = passing[0] as ExecRule;
  const name = denial.id.replace(/^exec\//, "");
  return {
    severity: "warning",
    code: "variables-pass",
    message: `${who} (${first.action}) also ${one ? "permits" : "permit"} what ${denial.id} of ${denial.origin.file} denies for its environment (${denial.environment.join(", ")}), since ${one ? "it comes" : "they come"} first`,
    remedy: `Put a denial with the id ${name} before ${one ? "it" : "them"}: it takes the place of the other.`,
    rule: first.id,
    layer: "",
    origin: first.origin,
  };
}
