/** policy test: cases with what is expected of them, run by the evaluator that decides at run time. */
import { readdirSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import type { Diagnostic, Evaluation, ExplainRow, Policy } from "../../../../policy/index.js";
import type { Expected, PolicyCase, PolicyTest } from "../../../../policy/testfile.js";
import type { Why } from "../../../../policy/why.js";
import type { Capability } from "../../../../proto/gen/clawsec/v1/loader.js";
import { verdictWord } from "../../../../proto/words.js";
import { sentence } from "../../../common/grpc.js";
import { fileBase, readSource, sourceName } from "../../../common/sources.js";
import { CliError, Exit } from "../../exit-codes.js";
import { colour, type Io, print, printJson } from "../../io.js";
import { CAPABILITIES, compileLocally, diagnosticJson, hostCapabilities, safe } from "./load.js";

/** What one case came to. */
interface Outcome {
  readonly file: string;
  readonly line: number;
  readonly name: string;
  readonly passed: boolean;
  readonly expected: Expected;
  /** Undefined when the case could not be asked. */
  readonly got: (Required<Omit<Expected, "layer">> & { readonly layer: string | null }) | undefined;
  /** What differs, or why it could not be asked; "" for a case that passed. */
  readonly differs: string;
  readonly because: string;
}

export function addTest(policy: Command, io: Io): void {
  policy
    .command("test <file...>")
    .description("run test files (or all *.test.yaml below folders)")
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Examples beside rules run whenever a policy is read, so here as well. A case that expects a layer needs to
know the host. Ends with 3 when a case fails, or a file has errors.

Examples:
  clawsec policy test policy.test.yaml
  clawsec policy test policies/`,
    )
    .action((files: string[], options: { json?: boolean; capabilities?: string }) =>
      test(io, files, options),
    );
}

async function test(
  io: Io,
  names: readonly string[],
  options: { json?: boolean; capabilities?: string },
): Promise<void> {
  const files = names.flatMap(testFiles);
  if (files.length === 0) throw new CliError(Exit.failed, "There is no *.test.yaml below what was named.");
  const capabilities = await hostCapabilities(io, options.capabilities);
  const outcomes: Outcome[] = [];
  const errors: Diagnostic[] = [];
  for (const file of files) await runFile(io, file, capabilities, outcomes, errors);
  const failed = outcomes.filter(({ passed }) => !passed);
  if (options.json) {
    printJson(io, {
      passed: outcomes.length - failed.length,
      failed: failed.length,
      cases: outcomes,
      diagnostics: errors.map(diagnosticJson),
    });
  } else {
    const { renderDiagnostics } = await import("../../../../policy/index.js");
    if (errors.length > 0) print(io, renderDiagnostics(errors));
    for (const outcome of failed) print(io, failure(io, outcome));
    const broken =
      errors.length === 0 ? "" : `, ${errors.length} ${errors.length === 1 ? "error" : "errors"}`;
    print(io, `${outcomes.length - failed.length} passed, ${failed.length} failed${broken}`);
  }
  if (failed.length > 0 || errors.length > 0) io.exit = Exit.policy;
}

/** The file itself, or all *.test.yaml below the folder, sorted. */
function testFiles(name: string): string[] {
  const path = resolve(name);
  try {
    if (!statSync(path).isDirectory()) return [path];
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(".test.yaml"))
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((file) => !file.includes("/node_modules/"))
      .sort();
  } catch (error) {
    throw new CliError(Exit.failed, `${path} cannot be read: ${sentence(error)}.`);
  }
}

async function runFile(
  io: Io,
  file: string,
  capabilities: readonly Capability[] | undefined,
  outcomes: Outcome[],
  errors: Diagnostic[],
): Promise<void> {
  const { parsePolicyTest } = await import("../../../../policy/testfile.js");
  const source = readSource(file);
  if ("error" in source) throw new CliError(Exit.failed, `The test ${source.error}.`);
  const { test, diagnostics } = parsePolicyTest(source.text, file);
  errors.push(...diagnostics.filter(({ severity }) => severity === "error"));
  if (test === undefined) return;
  const policy = await policyOf(test, errors);
  if (policy === undefined) return;
  const wanted = test.cases.some(({ expect }) => expect.layer !== undefined);
  const rows =
    wanted && capabilities !== undefined
      ? (await compileLocally(io, policy, capabilities)).explain
      : undefined;
  for (const one of test.cases) outcomes.push(await runCase(file, one, policy, rows));
}

async function policyOf(test: PolicyTest, errors: Diagnostic[]): Promise<Policy | undefined> {
  const { reference, origin } = test.policy;
  const found = fileBase(reference, join(dirname(test.file), "test"));
  if ("error" in found) {
    const message = `the policy ${sourceName(reference, test.file)} cannot be had: ${found.error}`;
    errors.push({ severity: "error", code: "policy", message, remedy: "", rule: "", layer: "", origin });
    return undefined;
  }
  const { parsePolicy } = await import("../../../../policy/index.js");
  const { policy, diagnostics } = parsePolicy(found.text, found.file, {
    variables: test.variables,
    base: fileBase,
  });
  errors.push(...diagnostics.filter(({ severity }) => severity === "error"));
  return policy;
}

async function runCase(
  file: string,
  one: PolicyCase,
  policy: Policy,
  rows: readonly ExplainRow[] | undefined,
): Promise<Outcome> {
  const { actionOf } = await import("../../../../policy/testfile.js");
  const { why } = await import("../../../../policy/why.js");
  const common = { file, line: one.origin.line, name: one.name, expected: one.expect };
  const asked = actionOf(one, policy);
  if ("error" in asked)
    return { ...common, passed: false, got: undefined, differs: asked.error.message, because: "" };
  const moment = one.timeMs === undefined ? undefined : { timeMs: one.timeMs, used: () => 0 };
  const reason = why(policy, asked.action, moment);
  const layer = rows === undefined ? null : layersOf(rows, reason.evaluation.rule);
  const got = { ...factsOf(reason.evaluation), layer };
  const differs = differences(one.expect, got);
  return { ...common, passed: differs === "", got, differs, because: differs === "" ? "" : reasons(reason) };
}

function factsOf(evaluation: Evaluation) {
  return {
    verdict: verdictWord(evaluation.verdict) as NonNullable<Expected["verdict"]>,
    rule: evaluation.rule,
    subject: evaluation.enterSubject,
    observed: verdictWord(evaluation.observed?.verdict ?? 0) as NonNullable<Expected["observed"]>,
  };
}

/** Layers that enforce a rule here, in the order of the report. */
export function layersOf(rows: readonly ExplainRow[], rule: string): string {
  return [...new Set(rows.filter((row) => row.rule === rule).map(({ layer }) => layer))].join(", ");
}

function differences(expected: Expected, got: NonNullable<Outcome["got"]>): string {
  const parts: string[] = [];
  for (const key of ["verdict", "rule", "subject", "observed"] as const) {
    const wanted = expected[key];
    if (wanted !== undefined && wanted !== got[key])
      parts.push(`${key}: expected ${wanted || "none"}, got ${got[key] || "none"}`);
  }
  if (expected.layer !== undefined) {
    if (got.layer === null) {
      parts.push(
        `layer: expected ${expected.layer}, and the host is not known; run a loader, or give --capabilities FILE`,
      );
    } else if (!got.layer.split(", ").includes(expected.layer) && got.layer !== expected.layer) {
      parts.push(`layer: expected ${expected.layer}, got ${got.layer || "none"}`);
    }
  }
  return parts.join("; ");
}

/** One sentence a line: the rule that decided, and those that nearly did. */
function reasons({ evaluation, nearMisses }: Why): string {
  const at = evaluation.origin === undefined ? "" : ` (${evaluation.origin.file}:${evaluation.origin.line})`;
  const because = evaluation.because === "" ? "" : `: ${evaluation.because}`;
  const lines = [`${evaluation.rule}${at} decided${because}`];
  for (const { rule, fact, is, wants } of nearMisses.slice(0, 3))
    lines.push(`${rule} misses by ${fact} alone: it is ${is || "not there"}, and the rule wants ${wants}`);
  return lines.join("\n");
}

function failure(io: Io, { file, line, name, differs, because, got }: Outcome): string {
  const layer = got?.layer ? `\n  layer: ${got.layer}` : "";
  const why = because === "" ? "" : `\n${because.replace(/^/gm, "  ")}`;
  return `${colour(io, "red", "FAIL")} ${safe(`${file}:${line}: ${name}`)}\n${safe(`  ${differs}${why}${layer}`)}`;
}
