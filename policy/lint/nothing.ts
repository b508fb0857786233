// Patterns for files that this sandbox does not have on this host: a misspelt path, or the name of a link. Rules see
// paths as the kernel resolves them, so a rule about a link is a rule about nothing.

import type { Diagnostic } from "../diagnostics.js";
import type { HostView } from "../lower/host.js";
import { hasPattern } from "../match/glob.js";
import { patternScopes } from "../match/path.js";
import type { ExecRule, Policy } from "../model.js";
import { Inside, type Reached } from "./inside.js";

/** Paths that are looked up on the host in one policy. */
const MAX_LOOKUPS = 20_000;

const FIELDS = ["executable", "script", "parent", "ancestor", "cwd"] as const;

export function lintNothing(policy: Policy, host: HostView): Diagnostic[] {
  const inside = new Inside(policy, host);
  const known = new Map<string, Reached>();
  const reach = (path: string): Reached => {
    const found =
      known.get(path) ??
      (known.size < MAX_LOOKUPS ? inside.reach(path) : ({ state: "unknown", at: path } as const));
    known.set(path, found);
    return found;
  };
  return policy.exec.flatMap((rule) => FIELDS.flatMap((field) => lintField(rule, field, reach)));
}

function lintField(
  rule: ExecRule,
  field: (typeof FIELDS)[number],
  reach: (path: string) => Reached,
): Diagnostic[] {
  const scopes = rule[field].flatMap((pattern) =>
    patternScopes(pattern).map((scope) => ({ ...scope, pattern, reached: reach(scope.tree) })),
  );
  const found: Diagnostic[] = [];
  const links = scopes.filter(({ reached, tree }) => reached.state === "found" && reached.path !== tree);
  for (const { tree, reached, pattern } of links.slice(0, 3)) {
    if (reached.state !== "found") continue;
    const meant = hasPattern(pattern) ? `everything below ${reached.path}` : reached.path;
    found.push(
      warning(
        rule,
        `"${pattern}" under "${field}" matches nothing: ${tree} leads through a link to ${reached.path}, and rules see the path it leads to`,
        `Write ${meant === reached.path ? reached.path : `the pattern with ${reached.path}`}.`,
      ),
    );
  }
  // One name of several that this host lacks is what lists of names are for.
  if (scopes.length > 0 && scopes.every(({ reached }) => reached.state === "missing")) {
    const at = scopes.map(({ reached }) => (reached.state === "missing" ? reached.at : "")).slice(0, 3);
    found.push(
      warning(
        rule,
        `"${field}" of ${rule.id} matches nothing on this host: the sandbox has no ${[...new Set(at)].join(", ")}`,
        "Check the spelling, or mount what holds it.",
      ),
    );
  }
  return found;
}

function warning(rule: ExecRule, message: string, remedy: string): Diagnostic {
  return {
    severity: "warning",
    code: "glob-matches-nothing",
    message,
    remedy,
    rule: rule.id,
    layer: "",
    origin: rule.origin,
  };
}
