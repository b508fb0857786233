// Ways into a subject that no exec rule ever permits: the subject's rules and files are then for nobody.

import type { Diagnostic } from "../diagnostics.js";
import type { ExecRule, Policy, Transition } from "../model.js";
import { decidesFirst } from "./cover.js";
import { disjointPaths } from "./inclusion.js";

/** Names each way in whose execs are all denied, whoever of its `from` asks. */
export function lintReach(policy: Policy): Diagnostic[] {
  // A policy that only observes permits what it says it would deny.
  if (policy.mode === "observe" || policy.defaults.exec !== "deny") return [];
  return policy.subjects.flatMap(({ name, enters }) =>
    enters
      .filter((way) => way.from.every((from) => denied(policy, from, way)))
      .map((way) => ({
        severity: "warning" as const,
        code: "unreachable",
        message: `no exec rule permits ${way.from.join(" or ")} the way into the subject "${name}"`,
        remedy: `Add a rule of exec that permits ${way.executable.concat(way.script).join(", ")} for ${way.from.join(", ")}.`,
        rule: "",
        layer: "",
        origin: way.origin,
      })),
  );
}

/** True when no rule that permits, or could after a hold, can match the way's execs before a denial of all of them. */
function denied(policy: Policy, from: string, way: Transition): boolean {
  const asked: ExecRule = {
    ...NOTHING,
    id: "",
    subjects: [from],
    executable: way.executable,
    script: way.script,
    argv: way.argv,
    origin: way.origin,
  };
  for (const rule of policy.exec) {
    if (rule.subjects.length > 0 && !rule.subjects.includes(from)) continue;
    if (rule.action === "deny") {
      if (decidesFirst(policy, rule, asked)) return true;
    } else if (!apart(rule, way)) return false;
  }
  return true;
}

/** True when the rule certainly matches none of the way's execs. */
function apart(rule: ExecRule, way: Transition): boolean {
  if (!rule.kinds.includes("file")) return true;
  // What matches by the script's path as well is not told apart by the image.
  if (rule.action === "hold" || rule.executable.length === 0 || way.executable.length === 0) return false;
  return disjointPaths(rule.executable, way.executable) === "yes";
}

const NOTHING = {
  action: "allow",
  message: "",
  because: "",
  hold: undefined,
  mode: "enforce",
  locked: false,
  severity: "info",
  tags: [],
  when: [],
  rate: undefined,
  match: [],
  notMatch: [],
  sha256: [],
  inWorkspace: undefined,
  code: [],
  cwd: [],
  environment: [],
  parent: [],
  ancestor: [],
  category: [],
  kinds: ["file"],
} as const;
