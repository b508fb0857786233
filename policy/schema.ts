// The syntax tree checked against the language: a Policy, or all that is wrong with it at once.

import { type Diagnostic, type Origin, sortDiagnostics } from "./diagnostics.js";
import { policyHash } from "./hash.js";
import { parseAddress } from "./match/cidr.js";
import { hostPatternError, normalizeHost } from "./match/host.js";
import type { Defaults, HoldTerms, Policy, SecretItem, SecretsModel, SubjectModel } from "./model.js";
import { parseYaml } from "./parse.js";
import { ACTIONS, MODES, type RuleSetting } from "./read/base.js";
import { Context, describe, didYouMean, Fields, type MapNode, type Node } from "./read/context.js";
import { readExecRules } from "./read/exec.js";
import { readFileRules } from "./read/file.js";
import { readNetworkRules } from "./read/network.js";
import { readSandbox } from "./read/sandbox.js";
import { readSubjectList } from "./read/subjects.js";
import * as v from "./read/values.js";
import { VARIABLE_NAME, Variables } from "./variables.js";

export interface ParseOptions {
  /** Values for the policy's variables; they win over the file's. */
  readonly variables?: Readonly<Record<string, string>>;
}

/** With errors there is no policy; without there is one, and the findings are warnings. */
export interface ParseResult {
  readonly policy: Policy | undefined;
  readonly diagnostics: readonly Diagnostic[];
}

const DEFAULT_APPROVALS: HoldTerms = { timeoutMs: 5 * 60_000, onTimeout: "deny" };
const SECTIONS = [
  "apiVersion",
  "kind",
  "metadata",
  "mode",
  "variables",
  "sandbox",
  "subjects",
  "defaults",
  "exec",
  "file",
  "network",
  "secrets",
  "approvals",
  "resolver",
] as const;

/** Reads a policy: everything that needs no host is checked, and all errors are reported at once. Never throws. */
export function parsePolicy(text: string, file: string, options: ParseOptions = {}): ParseResult {
  const parsed = parseYaml(text, file);
  if (parsed.root === undefined || parsed.diagnostics.length > 0) {
    return { policy: undefined, diagnostics: sortDiagnostics(parsed.diagnostics) };
  }
  const context = new Context(new Variables());
  const policy = readPolicy(context, parsed.root, file, options);
  const diagnostics = sortDiagnostics(context.diagnostics);
  const failed = diagnostics.some((d) => d.severity === "error");
  return { policy: failed ? undefined : policy, diagnostics };
}

function readPolicy(context: Context, root: Node, file: string, options: ParseOptions): Policy | undefined {
  const fields = Fields.of(context, root, "a policy", SECTIONS);
  if (fields === undefined) return undefined;
  // Versions first: a file of another version is not worth a hundred messages about its keys.
  const version = fields.require("apiVersion", 'A policy begins with "apiVersion: clawsec/v1".');
  const kind = fields.require("kind", 'Write "kind: Policy".');
  if (version && v.oneOf(context, version, "apiVersion", ["clawsec/v1"] as const) === undefined)
    return undefined;
  if (kind) v.oneOf(context, kind, "kind", ["Policy"] as const);

  declareVariables(context, fields.get("variables"), root.origin, options.variables ?? {});
  const metadata = readMetadata(context, fields);
  const approvalsNode = fields.get("approvals");
  const approvals =
    approvalsNode === undefined
      ? DEFAULT_APPROVALS
      : v.holdTerms(context, approvalsNode, "approvals", DEFAULT_APPROVALS);
  const subjects = readSubjects(context, fields);
  const sandboxNode = fields.require("sandbox");
  const sandbox = sandboxNode && readSandbox(context, sandboxNode);
  const setting: RuleSetting = {
    subjects: subjects.map((s) => s.name),
    approvals,
    uid: sandbox?.user.uid ?? 1000,
  };
  const rules = <T>(key: "exec" | "file" | "network", read: (node: Node) => T[]): T[] => {
    const node = fields.get(key);
    return node === undefined ? [] : read(node);
  };
  const secretsNode = fields.get("secrets");
  const partial = {
    apiVersion: "clawsec/v1" as const,
    name: metadata.name,
    description: metadata.description,
    mode: fields.read("mode", (n) => v.oneOf(context, n, "the mode", MODES)) ?? "enforce",
    waive: [],
    layers: [{ reference: file, file }],
    subjects,
    defaults: readDefaults(context, fields),
    exec: rules("exec", (node) => readExecRules(context, node, setting)),
    file: rules("file", (node) => readFileRules(context, node, setting)),
    network: rules("network", (node) => readNetworkRules(context, node, setting)),
    secrets: secretsNode && readSecrets(context, secretsNode),
    approvals,
    resolverHosts: readResolver(context, fields),
  };
  if (sandbox === undefined) return undefined;
  const policy = { ...partial, sandbox };
  return { ...policy, hash: policyHash(policy), sourceFile: file };
}

/** Declares what the file has, in its order; given values win. A value may use variables declared above it. */
function declareVariables(
  context: Context,
  node: Node | undefined,
  root: Origin,
  given: Readonly<Record<string, string>>,
): void {
  const map: MapNode | undefined = node?.kind === "map" ? node : undefined;
  if (node !== undefined && map === undefined) {
    context.error(node.origin, "type", `variables must be a mapping, not ${describe(node)}`);
  }
  for (const { key, keyOrigin, value } of map?.entries ?? []) {
    if (!VARIABLE_NAME.test(key)) {
      context.error(
        keyOrigin,
        "value",
        `"${key}" is not a name for a variable`,
        'Use letters, digits, "-" and "_".',
      );
      continue;
    }
    const override = Object.hasOwn(given, key) ? given[key] : undefined;
    if (override !== undefined) {
      if (/[\u0000-\u001f\u007f]/.test(override)) {
        context.error(
          keyOrigin,
          "control-character",
          `the value given for "${key}" has control characters`,
          "Remove them.",
        );
      }
      context.variables.declare(key, override);
    } else if (value.kind === "scalar" && value.value === null) {
      context.variables.declare(key, undefined);
    } else {
      context.variables.declare(key, v.text(context, value, `the variable "${key}"`, { plain: true }) ?? "");
    }
  }
  for (const name of Object.keys(given)) {
    if (context.variables.has(name)) continue;
    const known = context.variables.names();
    const remedy = known.length === 0 ? "The policy declares no variables." : didYouMean(name, known);
    context.error(
      node?.origin ?? root,
      "unknown-variable",
      `a value was given for "${name}", which is not a variable of the policy`,
      remedy,
    );
  }
}

function readMetadata(context: Context, policy: Fields): { name: string; description: string } {
  const node = policy.require("metadata", 'Write "metadata: { name: NAME }".');
  const fields = node && Fields.of(context, node, "metadata", ["name", "description"]);
  const nameNode = fields?.require("name");
  const descriptionNode = fields?.get("description");
  const grammar = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/;
  return {
    name:
      (nameNode &&
        v.matching(
          context,
          nameNode,
          "the name",
          grammar,
          'Use at most 40 lower-case letters, digits and "-".',
        )) ??
      "",
    description: (descriptionNode && v.text(context, descriptionNode, "the description")) ?? "",
  };
}

/** Without the section there is one subject, which has all of the sandbox's loopback to itself. */
function readSubjects(context: Context, policy: Fields): SubjectModel[] {
  const node = policy.get("subjects");
  if (node !== undefined) return readSubjectList(context, node);
  return [
    { name: "main", enters: [], entry: undefined, files: undefined, loopback: "any", origin: policy.origin },
  ];
}

function readDefaults(context: Context, policy: Fields): Defaults {
  const node = policy.get("defaults");
  const fields = node && Fields.of(context, node, "defaults", ["exec", "file", "network"]);
  const action = (key: "exec" | "network") => {
    const value = fields?.get(key);
    return (value && v.oneOf(context, value, `the default of ${key}`, ACTIONS)) ?? "deny";
  };
  const file = fields?.get("file");
  if (file) v.oneOf(context, file, "the default of file", ["deny"] as const);
  return { exec: action("exec"), network: action("network"), file: "deny" };
}

function readSecrets(context: Context, node: Node): SecretsModel | undefined {
  const fields = Fields.of(context, node, "secrets", ["mount", "items"]);
  if (fields === undefined) return undefined;
  const mountNode = fields.get("mount");
  const itemsNode = fields.get("items");
  const items =
    itemsNode === undefined
      ? []
      : v.list(context, itemsNode, "the items of secrets", (n) => readSecret(context, n));
  const seen = new Map<string, SecretItem>();
  for (const item of items) {
    if (seen.has(item.name))
      context.error(
        item.origin,
        "duplicate-id",
        `the secret "${item.name}" is there twice`,
        "Keep one of the two.",
      );
    seen.set(item.name, item);
  }
  return {
    mount: (mountNode && v.path(context, mountNode, "the mount of secrets")) ?? "/run/secrets/clawsec",
    items: [...seen.values()],
    origin: mountNode?.origin ?? fields.origin,
  };
}

function readSecret(context: Context, node: Node): SecretItem | undefined {
  const fields = Fields.of(context, node, "a secret", ["name", "file"]);
  const nameNode = fields?.require("name");
  const fileNode = fields?.require("file");
  const grammar = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
  const name =
    nameNode &&
    v.matching(
      context,
      nameNode,
      "the name of a secret",
      grammar,
      'It becomes a file name: use letters, digits, ".", "_" and "-".',
    );
  const file = fileNode && v.path(context, fileNode, "the file of a secret");
  return name === undefined || file === undefined
    ? undefined
    : { name, file, origin: fileNode?.origin ?? node.origin };
}

function readResolver(context: Context, policy: Fields): Record<string, string> {
  const node = policy.get("resolver");
  const fields = node && Fields.of(context, node, "resolver", ["hosts"]);
  const hosts = fields?.get("hosts");
  const result = new Map<string, string>();
  if (hosts === undefined) return {};
  if (hosts.kind !== "map") {
    context.error(hosts.origin, "type", `hosts must be a mapping, not ${describe(hosts)}`);
    return {};
  }
  for (const { key, keyOrigin, value } of hosts.entries) {
    const name = normalizeHost(key);
    const why = name.includes("*") ? "patterns have no address" : hostPatternError(name);
    if (why !== undefined) {
      context.error(keyOrigin, "value", `"${key}" is not a host name: ${why}`);
      continue;
    }
    const address = v.text(context, value, `the address of ${name}`);
    if (address === undefined) continue;
    if (parseAddress(address) === undefined)
      context.error(value.origin, "value", `"${address}" is not an IPv4 or IPv6 address`);
    else result.set(name, address);
  }
  return Object.fromEntries(result);
}
