// *.test.yaml: cases of a policy, each an action and what the policy says to it.

import { type Diagnostic, type Origin, sortDiagnostics } from "./diagnostics.js";
import { CASE, EXPECT, POLICY_TEST } from "./language/actions.js";
import { ACTIONS, TIME } from "./language/names.js";
import { keysOf } from "./language/shape.js";
import type { Action, Policy, RuleAction } from "./model.js";
import { parseYaml } from "./parse.js";
import { actionDefaults, readWrittenAction, type WrittenAction } from "./read/action.js";
import type { Section } from "./read/base.js";
import { Context, describe, didYouMean, Fields, type Node, nodeUnder } from "./read/context.js";
import * as v from "./read/values.js";
import { VARIABLE_NAME, Variables } from "./variables.js";

/** What a case wants of the evaluation; what it does not name can be anything. */
export interface Expected {
  readonly verdict?: RuleAction;
  /** Rule that decides, e.g. "exec/git-push" or "exec/default". */
  readonly rule?: string;
  readonly layer?: string;
  /** The subject that the exec enters; "" for none. */
  readonly subject?: string;
  /** What an observing rule, or policy, would have decided. */
  readonly observed?: RuleAction;
}

export interface PolicyCase {
  readonly name: string;
  readonly action: WrittenAction;
  /** When it happens, in milliseconds since 1970; undefined when it does not say. */
  readonly timeMs: number | undefined;
  readonly expect: Expected;
  readonly origin: Origin;
}

export interface PolicyTest {
  readonly file: string;
  /** As written: a path relative to the test file, or "builtin:NAME". */
  readonly policy: { readonly reference: string; readonly origin: Origin };
  /** Values for the policy's variables. They can be used in the cases, too. */
  readonly variables: Readonly<Record<string, string>>;
  readonly cases: readonly PolicyCase[];
}

/** Reads a test file; all errors at once, and no test with any. Never throws. */
export function parsePolicyTest(
  text: string,
  file: string,
): { readonly test: PolicyTest | undefined; readonly diagnostics: readonly Diagnostic[] } {
  const parsed = parseYaml(text, file);
  const context = new Context(new Variables());
  context.add(parsed.diagnostics);
  const test =
    parsed.root !== undefined && !context.failed ? readTest(context, parsed.root, file) : undefined;
  return { test: context.failed ? undefined : test, diagnostics: sortDiagnostics(context.diagnostics) };
}

/** The action of a case as this policy is asked it; without one, the finding says why. */
export function actionOf(
  { action }: PolicyCase,
  policy: Policy,
): { readonly action: Action } | { readonly error: Diagnostic } {
  const known = policy.subjects.map((subject) => subject.name);
  if (action.subject !== "" && !known.includes(action.subject)) {
    const context = new Context(new Variables());
    const message = `the policy has no subject "${action.subject}"`;
    context.error(action.node.origin, "value", message, didYouMean(action.subject, known));
    const [error] = context.diagnostics;
    if (error !== undefined) return { error };
  }
  return { action: action.with(actionDefaults(policy)) };
}

function readTest(context: Context, root: Node, file: string): PolicyTest | undefined {
  const named = nodeUnder(root, "kind");
  if (named?.kind === "scalar" && named.value === "Policy") {
    const message = "this is a policy, and not a test of one";
    return context.error(
      named.origin,
      "value",
      message,
      "Give its *.test.yaml; policy check reads a policy.",
    );
  }
  const fields = Fields.of(context, root, "a policy test", keysOf(POLICY_TEST));
  if (fields === undefined) return undefined;
  const version = fields.require("apiVersion", 'A policy test begins with "apiVersion: clawsec/v1".');
  const kind = fields.require("kind", 'Write "kind: PolicyTest".');
  if (version) v.oneOf(context, version, "apiVersion", ["clawsec/v1"] as const);
  if (kind) v.oneOf(context, kind, "kind", ["PolicyTest"] as const);
  const variables = fields.read("variables", (n) => readVariables(context, n)) ?? {};
  const policyNode = fields.require("policy", 'Name the policy\'s file, e.g. "policy: ./policy.yaml".');
  const reference = policyNode && v.nonEmpty(context, policyNode, "the policy");
  const casesNode = fields.require(
    "cases",
    'List them, e.g. "- { name: a push, exec: /usr/bin/git push, expect: hold }".',
  );
  const cases =
    casesNode === undefined ? [] : v.list(context, casesNode, "cases", (n) => readCase(context, n));
  const seen = new Map<string, PolicyCase>();
  for (const one of cases) {
    const first = seen.get(one.name);
    if (first === undefined) seen.set(one.name, one);
    else {
      const message = `the case "${one.name}" is already there in line ${first.origin.line}`;
      context.error(one.origin, "duplicate-id", message, "Give each case its own name.");
    }
  }
  if (reference === undefined || policyNode === undefined) return undefined;
  return { file, policy: { reference, origin: policyNode.origin }, variables, cases };
}

const NAMES = 'Use letters, digits, "_" and "-", a letter first.';

function readVariables(context: Context, node: Node): Record<string, string> {
  if (node.kind !== "map") {
    context.error(node.origin, "type", `variables must be a mapping, not ${describe(node)}`);
    return {};
  }
  const values = new Map<string, string>();
  for (const { key, keyOrigin, value } of node.entries) {
    if (!VARIABLE_NAME.test(key)) {
      context.error(keyOrigin, "value", `"${key}" is not a name for a variable`, NAMES);
      continue;
    }
    const text = v.text(context, value, `the variable "${key}"`, { plain: true });
    if (text === undefined) continue;
    values.set(key, text);
    context.variables.declare(key, text);
  }
  return Object.fromEntries(values);
}

const SECTIONS: readonly Section[] = ["exec", "file", "network"];

function readCase(context: Context, node: Node): PolicyCase | undefined {
  const fields = Fields.of(context, node, "a case", keysOf(CASE));
  if (fields === undefined) return undefined;
  const nameNode = fields.require("name", "Say what the case shows.");
  const name = nameNode && v.nonEmpty(context, nameNode, "the name of a case");
  const [section, second] = SECTIONS.filter((key) => fields.has(key));
  if (section === undefined || second !== undefined) {
    context.error(
      node.origin,
      "missing-key",
      'a case has one of the keys "exec", "file" and "network"',
      'Write the action, e.g. exec: "/usr/bin/git push".',
    );
  }
  const actionNode = section && fields.get(section);
  const action = section && actionNode && readWrittenAction(context, actionNode, section);
  const subject = fields.read("subject", (n) => v.nonEmpty(context, n, "the subject")) ?? "";
  if (subject !== "" && action !== undefined && action.subject !== "") {
    const message = "the case and its action both say the subject";
    context.error(fields.originOf("subject"), "value", message, "Keep one of the two.");
  }
  const timeMs = fields.read("at", (n) => readTime(context, n));
  const expectNode = fields.require("expect", "Say allow, deny, hold or log.");
  const expect = expectNode && readExpected(context, expectNode);
  if (name === undefined || action === undefined || expect === undefined) return undefined;
  const asked = subject === "" ? action : withSubject(action, subject);
  return { name, action: asked, timeMs, expect, origin: nameNode?.origin ?? node.origin };
}

function withSubject(action: WrittenAction, subject: string): WrittenAction {
  return { ...action, subject, with: (defaults) => action.with({ ...defaults, subject }) };
}

/** A time with its zone, as RFC 3339 has it; milliseconds since 1970. */
function readTime(context: Context, node: Node): number | undefined {
  const value = v.text(context, node, "the time");
  if (value === undefined) return undefined;
  const ms = TIME.test(value) ? Date.parse(value) : Number.NaN;
  if (Number.isFinite(ms)) return ms;
  return context.error(
    node.origin,
    "value",
    `"${value}" is not a time`,
    'Write it with its zone, like "2026-11-22T10:00:00Z".',
  );
}

function readExpected(context: Context, node: Node): Expected | undefined {
  const verdict = (n: Node) => v.oneOf(context, n, "the verdict", ACTIONS);
  if (node.kind !== "map") {
    const only = verdict(node);
    return only === undefined ? undefined : { verdict: only };
  }
  const fields = Fields.of(context, node, "expect", keysOf(EXPECT));
  if (fields === undefined) return undefined;
  if (node.entries.length === 0) {
    return context.error(
      node.origin,
      "value",
      "expect must not be an empty mapping",
      "Say at least the verdict.",
    );
  }
  const text = (key: string) => fields.read(key, (n) => v.text(context, n, `"${key}"`));
  const expected = {
    verdict: fields.read("verdict", verdict),
    rule: text("rule"),
    layer: text("layer"),
    subject: text("subject"),
    observed: fields.read("observed", verdict),
  };
  return Object.fromEntries(Object.entries(expected).filter(([, value]) => value !== undefined));
}
