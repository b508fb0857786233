// What is right by the language and probably not what was meant. All findings are warnings, and each is certain: where
// a question cannot be decided, nothing is said.

import { type Diagnostic, sortDiagnostics } from "../diagnostics.js";
import type { HostView } from "../lower/host.js";
import type { Policy } from "../model.js";
import { lintNothing } from "./nothing.js";
import { lintOrder } from "./order.js";
import { lintReach } from "./reach.js";
import { lintVariables } from "./variables.js";
import { lintWidth } from "./width.js";

/** What lint may know beside the policy. */
export interface LintInputs {
  /** The host's files; without them nothing is said of patterns that match nothing here. */
  readonly host?: HostView;
}

/**
 * Findings by these codes, in the order of the file:
 *   shadowed              an earlier rule always decides
 *   contradictory         an earlier rule has the same matchers and another action
 *   redundant             another rule says the same of all that this one matches
 *   unreachable           no exec rule permits the way into a subject
 *   over-wide-allow       every program, every host, or writing everywhere is permitted
 *   variables-pass        a rule permits what a file that it extends denies for names of the environment
 *   glob-matches-nothing  the sandbox has no such path on this host
 *   lint-bounded          not all pairs of rules were compared
 */
export function lint(policy: Policy, inputs: LintInputs = {}): Diagnostic[] {
  return sortDiagnostics([
    ...lintOrder(policy),
    ...lintReach(policy),
    ...lintWidth(policy),
    ...lintVariables(policy),
    ...(inputs.host === undefined ? [] : lintNothing(policy, inputs.host)),
  ]);
}
