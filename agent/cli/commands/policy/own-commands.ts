/** What the rules of a policy do to the commands that it names itself: its main command, and its health check. */
import type { Diagnostic, Evaluation, Policy } from "../../../../policy/index.js";
import { Verdict } from "../../../../proto/gen/clawsec/v1/loader.js";
import { CliError } from "../../exit-codes.js";
import { askedOf } from "./asked.js";
import { byCode } from "./why.js";

interface Own {
  /** For people. */
  readonly name: "command" | "health check";
  readonly subject: string;
  readonly argv: readonly string[];
}

/**
 * Warnings by these codes:
 *   command-denied  a command of the policy's own is denied by its rules
 *   check-held      its health check is held each time, and fails when nobody answers in time
 * A program that is not found on this host, and what depends on a content or on what an interpreter runs, is passed over.
 */
export async function lintOwnCommands(policy: Policy): Promise<Diagnostic[]> {
  const { why } = await import("../../../../policy/why.js");
  const moment = { timeMs: Date.now(), used: () => 0 };
  const { command, healthCheck } = policy.sandbox;
  const main = policy.subjects[0]?.name ?? "";
  const all: Own[] = [];
  if (command.length > 0) all.push({ name: "command", subject: main, argv: command });
  if (healthCheck !== undefined)
    all.push({ name: "health check", subject: healthCheck.subject, argv: healthCheck.command });
  return all.flatMap((own) => {
    const action = execOf(policy, own);
    if (action === undefined) return [];
    const { evaluation } = why(policy, action, moment);
    const others = byCode(action, evaluation, (other) => why(policy, other, moment).evaluation);
    const isCertain = others.every(([, { verdict }]) => verdict === evaluation.verdict);
    return isCertain && !goesByContent(policy, evaluation.rule) ? findings(policy, own, evaluation) : [];
  });
}

function execOf(policy: Policy, { subject, argv }: Own) {
  try {
    return askedOf(policy, ["exec", ...argv], { subject, ancestor: [], env: [] }).action;
  } catch (error) {
    // It is not on this host: it may be in the sandbox, where it runs.
    if (error instanceof CliError) return undefined;
    throw error;
  }
}

// Whether a rule down to the one that decides looks at a file's content, which is not known here.
function goesByContent({ exec }: Policy, rule: string): boolean {
  const last = exec.findIndex(({ id }) => id === rule);
  return exec.slice(0, last < 0 ? undefined : last + 1).some(({ sha256 }) => sha256.length > 0);
}

function findings(policy: Policy, own: Own, { verdict, rule }: Evaluation): Diagnostic[] {
  const { origin } = policy.sandbox;
  const shared = { severity: "warning", rule, layer: "", origin } as const;
  if (verdict === Verdict.DENY) {
    return [
      {
        ...shared,
        code: "command-denied",
        message: `the sandbox's ${own.name} (${own.argv[0]}) is denied by ${rule}: it can never run`,
        remedy: `permit it for the subject ${own.subject} with a rule above that one`,
      },
    ];
  }
  if (verdict === Verdict.HOLD && own.name === "health check") {
    return [
      {
        ...shared,
        code: "check-held",
        message: `the sandbox's health check (${own.argv[0]}) is held by ${rule} each time, and fails when nobody answers in time`,
        remedy: `permit it for the subject ${own.subject} with a rule above that one`,
      },
    ];
  }
  return [];
}
