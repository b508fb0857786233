// The rule lists "exec", "file" and "network". The first rule that matches decides.

import type {
  ArgvPattern,
  ExecKind,
  ExecRule,
  FileOperationName,
  FileRule,
  HoldTerms,
  NetworkRule,
  RuleAction,
  RuleBase,
} from "../model.js";
import { type Context, Fields, type Node } from "./context.js";
import * as v from "./values.js";

export const ACTIONS: readonly RuleAction[] = ["allow", "deny", "hold", "log"];
const KINDS: readonly ExecKind[] = ["file", "anonymous", "deleted"];
const OPERATIONS: readonly FileOperationName[] = [
  "read",
  "write",
  "open",
  "delete",
  "rename",
  "link",
  "truncate",
];
const COMMON = ["id", "subject", "action", "message", "because", "hold"] as const;

/** What rules take from the rest of the policy. */
export interface RuleSetting {
  readonly subjects: readonly string[];
  readonly approvals: HoldTerms;
}

type Section = "exec" | "file" | "network";

function readBase(
  context: Context,
  fields: Fields,
  section: Section,
  setting: RuleSetting,
): RuleBase | undefined {
  const idNode = fields.require("id", "Give the rule a name: verdicts and the audit speak of it by that.");
  const actionNode = fields.require("action", "Say allow, deny, hold or log.");
  const id =
    idNode &&
    v.matching(
      context,
      idNode,
      "the id",
      /^[a-z0-9][a-z0-9-]{0,63}$/,
      'Use lower-case letters, digits and "-".',
    );
  const action = actionNode && v.oneOf(context, actionNode, "the action", ACTIONS);
  if (id === "default")
    context.error(
      fields.originOf("id"),
      "value",
      'the id "default" is taken by the default itself',
      "Choose another.",
    );
  const messageNode = fields.get("message");
  const becauseNode = fields.get("because");
  const message = messageNode && v.nonEmpty(context, messageNode, "the message");
  const because = becauseNode && v.nonEmpty(context, becauseNode, '"because"');
  const subjects = readSubjects(context, fields, "subject", setting.subjects);
  const holdNode = fields.get("hold");
  if (holdNode !== undefined && action !== undefined && action !== "hold") {
    context.error(
      fields.originOf("hold"),
      "value",
      `"hold" has no meaning with the action "${action}"`,
      'Remove it, or say "action: hold".',
    );
  }
  const hold =
    holdNode === undefined ? setting.approvals : v.holdTerms(context, holdNode, "hold", setting.approvals);
  if (id === undefined || action === undefined) return undefined;
  return {
    id: `${section}/${id}`,
    subjects,
    action,
    message: message ?? "",
    because: because ?? "",
    hold: action === "hold" ? hold : undefined,
    mode: "enforce",
    locked: false,
    severity: "info",
    tags: [],
    when: [],
    rate: undefined,
    match: [],
    notMatch: [],
    origin: idNode?.origin ?? fields.origin,
  };
}

/** Names of subjects under a key, each checked against the policy's. */
export function readSubjects(
  context: Context,
  fields: Fields,
  key: string,
  known: readonly string[],
): string[] {
  const node = fields.get(key);
  if (node === undefined) return [];
  return v.oneOrMore(context, node, "the subject", (n) => v.oneOf(context, n, "the subject", known));
}

/** A rule list; the same id twice is an error at the second. */
function readList<T extends RuleBase>(
  context: Context,
  node: Node,
  section: Section,
  read: (node: Node) => T | undefined,
): T[] {
  const seen = new Map<string, T>();
  for (const rule of v.list(context, node, section, read)) {
    const first = seen.get(rule.id);
    if (first === undefined) seen.set(rule.id, rule);
    else {
      const name = rule.id.slice(section.length + 1);
      context.error(
        rule.origin,
        "duplicate-id",
        `the id "${name}" is already used in line ${first.origin.line}`,
        "Give each rule of a section its own id.",
        rule.id,
      );
    }
  }
  return [...seen.values()];
}

export function readExecRules(context: Context, node: Node, setting: RuleSetting): ExecRule[] {
  const keys = [...COMMON, "executable", "script", "argv", "cwd", "kind"];
  return readList(context, node, "exec", (item) => {
    const fields = Fields.of(context, item, "a rule of exec", keys);
    const base = fields && readBase(context, fields, "exec", setting);
    if (fields === undefined) return undefined;
    const patterns = (key: string) => readPatterns(context, fields, key);
    const executable = patterns("executable");
    const script = patterns("script");
    const cwd = patterns("cwd");
    const argv = readArgv(context, fields);
    const kindNode = fields.get("kind");
    const given =
      kindNode && v.oneOrMore(context, kindNode, "the kind", (n) => v.oneOf(context, n, "the kind", KINDS));
    if (!fields.has("executable") && !fields.has("script") && !fields.has("kind") && base !== undefined) {
      context.error(
        base.origin,
        "missing-key",
        'a rule of exec needs the key "executable", "script" or "kind"',
        'To mean any file, write: executable: "/**".',
        base.id,
      );
    }
    if (base === undefined) return undefined;
    // The words a caller puts into argv[0] bind nobody: a rule that depends on them stops only honest callers.
    const first = argv?.glob?.[0];
    if (
      first !== undefined &&
      first !== "*" &&
      first !== "**" &&
      (base.action === "deny" || base.action === "hold")
    ) {
      context.warning(
        fields.originOf("argv"),
        "argv0",
        `the rule looks at argv[0], which the caller chooses freely`,
        'Begin the list with "*" and name the program under "executable".',
        base.id,
      );
    }
    // A path says nothing about a file without one, so only denials reach such files unasked.
    const kinds: readonly ExecKind[] = given ?? (base.action === "deny" ? KINDS : ["file"]);
    return {
      ...base,
      executable,
      sha256: [],
      script,
      inWorkspace: undefined,
      argv,
      cwd,
      environment: [],
      parent: [],
      ancestor: [],
      category: [],
      kinds,
    };
  });
}

export function readPatterns(context: Context, fields: Fields, key: string): string[] {
  const node = fields.get(key);
  return node === undefined
    ? []
    : v.oneOrMore(context, node, `"${key}"`, (n) => v.pathPattern(context, n, `"${key}"`));
}

export function readArgv(context: Context, fields: Fields): ArgvPattern | undefined {
  const node = fields.get("argv");
  if (node === undefined) return undefined;
  if (node.kind === "list" && node.items.length === 0) {
    return context.error(
      node.origin,
      "value",
      '"argv" must not be an empty list',
      "Leave the key out to mean any arguments.",
    );
  }
  const glob = v.list(context, node, '"argv"', (n) => v.argumentPattern(context, n, "an element of argv"));
  return { glob, exact: undefined, prefix: undefined, regex: [], flags: [], without: [], valued: [] };
}

export function readFileRules(context: Context, node: Node, setting: RuleSetting): FileRule[] {
  const keys = [...COMMON, "path", "operations", "optional"];
  return readList(context, node, "file", (item) => {
    const fields = Fields.of(context, item, "a rule of file", keys);
    if (fields === undefined) return undefined;
    const base = readBase(context, fields, "file", setting);
    fields.require("path");
    const path = readPatterns(context, fields, "path");
    const operationsNode = fields.require("operations", `Say which: ${OPERATIONS.join(", ")}.`);
    const operations =
      operationsNode &&
      v.oneOrMore(context, operationsNode, "operations", (n) =>
        v.oneOf(context, n, "an operation", OPERATIONS),
      );
    const optionalNode = fields.get("optional");
    const optional = (optionalNode && v.bool(context, optionalNode, '"optional"')) ?? false;
    if (base === undefined || operations === undefined || path.length === 0) return undefined;
    return {
      ...base,
      path,
      operations: OPERATIONS.filter((o) => operations.includes(o)),
      owner: [],
      optional,
    };
  });
}

export function readNetworkRules(context: Context, node: Node, setting: RuleSetting): NetworkRule[] {
  const keys = [...COMMON, "host", "cidr", "port", "ports", "resolvesTo"];
  return readList(context, node, "network", (item) => {
    const fields = Fields.of(context, item, "a rule of network", keys);
    if (fields === undefined) return undefined;
    const base = readBase(context, fields, "network", setting);
    const each = <T>(key: string, read: (node: Node) => T | undefined): T[] => {
      const value = fields.get(key);
      return value === undefined ? [] : v.oneOrMore(context, value, `"${key}"`, read);
    };
    const host = each("host", (n) => v.hostPattern(context, n, "the host"));
    const cidr = each("cidr", (n) => v.cidr(context, n, "the cidr"));
    if (fields.has("port") && fields.has("ports")) {
      context.error(
        fields.originOf("ports"),
        "unknown-key",
        'a rule has "port" or "ports", not both',
        "Write one list.",
      );
    }
    const ports = [
      ...each("port", (n) => v.ports(context, n, "the port")),
      ...each("ports", (n) => v.ports(context, n, "the port")),
    ];
    const resolvesTo = each("resolvesTo", (n) => v.cidr(context, n, '"resolvesTo"'));
    if (fields.has("host") === fields.has("cidr")) {
      context.error(
        fields.originOf("id"),
        "missing-key",
        'a rule of network needs either "host" or "cidr"',
        'Names are ruled by "host", literal addresses by "cidr".',
      );
      return undefined;
    }
    if (fields.has("cidr") && fields.has("resolvesTo")) {
      context.error(
        fields.originOf("resolvesTo"),
        "value",
        '"resolvesTo" has no meaning with "cidr"',
        "Remove it.",
      );
    }
    return base === undefined
      ? undefined
      : { ...base, host, cidr, ports, protocols: [], methods: [], paths: [], resolvesTo };
  });
}
