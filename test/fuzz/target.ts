// Everything that reads a policy's text before anybody has looked at it, and what is done with a policy that was read.

import { evaluatePlainly } from "../../policy/evaluate.js";
import { formatPolicy } from "../../policy/format.js";
import {
  type Action,
  actionOf,
  compile,
  evaluate,
  type HostView,
  type Policy,
  parsePolicy,
  parsePolicyTest,
  type ReadBase,
  renderDiagnostics,
} from "../../policy/index.js";
import { lint } from "../../policy/lint/lint.js";
import { renderPolicy } from "../../policy/show.js";
import { capabilities, SYSTEM, tableHost } from "../../policy/testing/host.js";
import { connect, exec, file } from "../../policy/testing/policy.js";
import { why } from "../../policy/why.js";
import { FileOperation } from "../../proto/gen/clawsec/v1/loader.js";

const HOST: HostView = tableHost([...SYSTEM, "/srv/x/", "/srv/home/x", "/srv/notes/config.yaml", "/srv/key"]);

const ACTIONS: readonly Action[] = ["main", "tool", "gateway"].flatMap((subject) => [
  exec({ executable: "/usr/bin/git", argv: ["git", "-rf", "push", "--", "x"], cwd: "/home/agent" }, subject),
  exec(
    { executable: "/usr/bin/dash", script: "/home/agent/x.sh", argv: [], environmentNames: ["LD_X"] },
    subject,
  ),
  file(FileOperation.OPEN, "/home/agent/x.env", "", subject),
  file(FileOperation.RENAME, "/home/agent/a", "/home/agent/x/b", subject),
  connect("a.x.com", 443, subject),
  connect("192.0.2.7", 80, subject),
]);

const MOMENT = { timeMs: Date.UTC(2026, 10, 22, 10), used: () => 2 };

/** How far an input got. */
export type Reached = "refused" | "policy" | "test";

export class Untrue extends Error {}

/** What is done with an input, one after the other. Each is what one command of a person's does, and has its own time. */
export const OPERATIONS = ["read", "evaluate", "compile", "lint", "show", "format", "read the test"] as const;
export type Operation = (typeof OPERATIONS)[number];

/** Of so many inputs, one goes through all that is slow. */
export const THOROUGH = 32;

/**
 * Reads the text as everything that it could be; some (by their `number`) also through what takes much longer than
 * reading. `base` is what a policy that extends gets; `begin` is told what begins. @throws what no reader may throw, and
 * Untrue where two disagree.
 */
export function consume(
  text: string,
  base: string,
  number: number,
  begin: (operation: Operation) => void = () => undefined,
): Reached {
  const isThorough = number % THOROUGH === 0;
  let left = 6;
  const bases: ReadBase = (reference) => {
    left -= 1;
    if (left < 0) return { error: "there are too many" };
    // The text itself again: a cycle, or whatever is wrong with it once more.
    return { file: reference, text: reference.includes("base") ? base : text };
  };
  const variables: Record<string, string> = /^variables:.*\btop:/m.test(text) ? { top: "/srv/x" } : {};
  const read = (policyText: string) => parsePolicy(policyText, "fuzz.yaml", { base: bases, variables });
  begin("read");
  const { policy, diagnostics } = read(text);
  renderDiagnostics(diagnostics);
  if (policy === undefined && !diagnostics.some(({ severity }) => severity === "error"))
    throw new Untrue("There is neither a policy nor an error.");
  if (policy !== undefined) apply(policy, isThorough, begin);
  if (isThorough) {
    begin("format");
    const formatted = formatPolicy(text, "fuzz.yaml");
    left = 6;
    if (policy !== undefined && formatted.text !== undefined) {
      begin("read");
      if (read(formatted.text).policy?.hash !== policy.hash)
        throw new Untrue("The policy in its layout is another policy.");
    }
  }
  if (policy !== undefined) return "policy";
  const isTest = text.includes("PolicyTest");
  if (!isTest && !isThorough) return "refused";
  begin("read the test");
  const { test, diagnostics: findings } = parsePolicyTest(text, "fuzz.test.yaml");
  renderDiagnostics(findings);
  if (test === undefined) return "refused";
  for (const one of test.cases)
    for (const known of KNOWN) {
      const asked = actionOf(one, known);
      if ("action" in asked) evaluate(known, asked.action);
    }
  return "test";
}

const KNOWN: Policy[] = [];

/** A policy that the cases of test files are about. */
export function know(text: string): void {
  const { policy } = parsePolicy(text, "known.yaml");
  if (policy !== undefined) KNOWN.push(policy);
}

function apply(policy: Policy, isThorough: boolean, begin: (operation: Operation) => void): void {
  begin("evaluate");
  const own = policy.subjects.some(({ name }) => name === "main") ? "main" : "gateway";
  for (const action of isThorough ? ACTIONS : ACTIONS.filter(({ subject }) => subject === own)) {
    const fast = evaluate(policy, action, MOMENT);
    const plain = evaluatePlainly(policy, action, MOMENT);
    if (
      fast.verdict !== plain.verdict ||
      fast.rule !== plain.rule ||
      fast.enterSubject !== plain.enterSubject
    )
      throw new Untrue(`The index says ${fast.rule}, the walk through the rules ${plain.rule}.`);
    if (!isThorough) continue;
    const { evaluation } = why(policy, action, MOMENT);
    if (evaluation.rule !== fast.rule) throw new Untrue("why and evaluate name different rules.");
  }
  if (!isThorough) return;
  begin("compile");
  const compiled = compile(policy, { host: HOST, capabilities: capabilities() });
  renderDiagnostics(compiled.diagnostics);
  begin("lint");
  lint(policy, { host: HOST });
  begin("show");
  const shown = renderPolicy(policy);
  begin("read");
  const again = parsePolicy(shown, "shown.yaml");
  if (again.policy?.hash !== policy.hash) throw new Untrue("The policy as one flat text is another policy.");
}
