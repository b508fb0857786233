// A policy file, and what it extends, checked against the language: a Policy, or all that is wrong with it at once.

import { type Diagnostic, sortDiagnostics } from "./diagnostics.js";
import { checkExamples } from "./examples.js";
import { policyHash } from "./hash.js";
import { MODES } from "./language/names.js";
import type { HoldTerms, Policy, RuleBase, SubjectModel } from "./model.js";
import { environmentNames } from "./read/action.js";
import type { RuleSetting, Section } from "./read/base.js";
import { Context, type Node } from "./read/context.js";
import { readExecRules } from "./read/exec.js";
import { readFileRules } from "./read/file.js";
import { FloorCheck } from "./read/floors.js";
import { partialHoldTerms } from "./read/hold.js";
import { type Layer, type PolicySource, type ReadBase, readLayers, sections } from "./read/layers.js";
import { checkWaivers, mergeRules } from "./read/merge.js";
import { readNetworkRules } from "./read/network.js";
import { DEFAULT_UID, readSandbox } from "./read/sandbox.js";
import { readDefaults, readMetadata, readResolver, readSecrets, readWaivers } from "./read/sections.js";
import { readSubjectLists } from "./read/subjects.js";
import * as v from "./read/values.js";
import { declareVariables } from "./read/variables.js";
import { Variables } from "./variables.js";

export type { PolicySource, ReadBase } from "./read/layers.js";

export interface ParseOptions {
  /** Values for the policy's variables; they win over the file's. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Finds what `extends` names. Without it, `extends` is an error. */
  readonly base?: ReadBase;
}

/** With errors there is no policy; without there is one, and the findings are warnings. */
export interface ParseResult {
  readonly policy: Policy | undefined;
  readonly diagnostics: readonly Diagnostic[];
  /** All files that were read, the main one last. */
  readonly sources: readonly PolicySource[];
}

const DEFAULT_APPROVALS: HoldTerms = { timeoutMs: 5 * 60_000, onTimeout: "deny" };

/** Reads a policy: everything that needs no host is checked, and all errors are reported at once. Never throws. */
export function parsePolicy(text: string, file: string, options: ParseOptions = {}): ParseResult {
  const context = new Context(new Variables());
  const { layers, sources, complete } = readLayers(context, text, file, options.base);
  // Without all files, what is missing in the others is mostly in those that could not be read.
  const policy = complete ? readPolicy(context, layers, file, options) : undefined;
  if (policy !== undefined && !context.failed) checkExamples(context, policy);
  const order = [...sources].reverse().map((source) => source.file);
  const diagnostics = sortDiagnostics(context.diagnostics, order);
  const failed = diagnostics.some((d) => d.severity === "error");
  return { policy: failed ? undefined : policy, diagnostics, sources };
}

function readPolicy(
  context: Context,
  layers: readonly Layer[],
  file: string,
  options: ParseOptions,
): Policy | undefined {
  const main = layers.at(-1)?.fields;
  if (main === undefined) return undefined;
  const floors = new FloorCheck(context, layers, declareVariables(context, layers, options.variables ?? {}));
  const nodes = (key: string): Node[] => sections(layers, key).map(({ node }) => node);
  // Every file has a name and a mode, though only the last one's count.
  const metadata = layers.map(({ fields }) => readMetadata(context, fields)).at(-1);
  const modes = layers.map(({ fields }) =>
    fields.read("mode", (n) => v.oneOf(context, n, "the mode", MODES)),
  );
  const terms = layers.map(({ fields }) =>
    fields.read("approvals", (n) => partialHoldTerms(context, n, "approvals")),
  );
  const approvals = overlay(terms);
  const subjects = readSubjects(context, layers);
  const sandboxes = nodes("sandbox");
  if (sandboxes.length === 0) main.require("sandbox", "A policy, or one that it extends, says what exists.");
  const sandbox = readSandbox(
    context,
    sandboxes,
    subjects.map((s) => s.name),
  );
  const files = layers.map((layer) => layer.file);
  const setting = (layer: number): RuleSetting => ({
    subjects: subjects.map((s) => s.name),
    approvals,
    ownApprovals: overlay((layers[layer]?.own ?? [layer]).map((index) => terms[index])),
    uid: sandbox?.user.uid ?? DEFAULT_UID,
    workspace: sandbox?.workspace ?? "/",
    environment: environmentNames(sandbox?.environment ?? {}),
    layer,
    floors,
  });
  const rules = <T extends RuleBase>(
    key: Section,
    read: (context: Context, node: Node, setting: RuleSetting) => T[],
  ): T[] =>
    mergeRules(
      context,
      sections(layers, key).map(({ node, layer }) => read(context, node, setting(layer))),
    );
  const lists = {
    exec: rules("exec", readExecRules),
    file: rules("file", readFileRules),
    network: rules("network", readNetworkRules),
  };
  const all: readonly RuleBase[] = [...lists.exec, ...lists.file, ...lists.network];
  floors.checkSubjects(all);
  const partial = {
    apiVersion: "clawsec/v1" as const,
    name: metadata?.name ?? "",
    description: metadata?.description ?? "",
    mode: modes.at(-1) ?? "enforce",
    waive: checkWaivers(context, readWaivers(context, nodes("waive")), all, files),
    layers: layers.map(({ reference, file, first }) => ({ reference, file, first })),
    subjects,
    defaults: readDefaults(context, nodes("defaults")),
    ...lists,
    secrets: readSecrets(context, nodes("secrets")),
    approvals,
    resolverHosts: readResolver(context, nodes("resolver")),
  };
  if (sandbox === undefined) return undefined;
  const policy = { ...partial, sandbox };
  return { ...policy, hash: policyHash(policy), sourceFile: file };
}

/** What the last file that says it says; the usual for what none says. */
function overlay(terms: readonly (Partial<HoldTerms> | undefined)[]): HoldTerms {
  return Object.assign({ ...DEFAULT_APPROVALS }, ...terms);
}

/** Without the section there is one subject, which has all of the sandbox's loopback to itself. */
function readSubjects(context: Context, layers: readonly Layer[]): SubjectModel[] {
  const lists = sections(layers, "subjects").map(({ node }) => node);
  const origin = layers.at(-1)?.fields.origin;
  if (lists.length > 0 || origin === undefined) return readSubjectLists(context, lists);
  return [{ name: "main", enters: [], entry: undefined, files: undefined, loopback: "any", origin }];
}
