// Policies as data, before they become text: so that rules can be taken away one by one when a difference is shrunk.

import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { stringify } from "yaml";
import { type Policy, parsePolicy, renderDiagnostics } from "../../policy/index.js";

export type RuleDocument = { readonly id: string; readonly action: string } & Readonly<
  Record<string, unknown>
>;
export const SECTIONS = ["exec", "file", "network"] as const;

export interface PolicyDocument {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly extends?: readonly string[];
  readonly mode?: string;
  readonly sandbox?: Readonly<Record<string, unknown>>;
  readonly subjects?: readonly Readonly<Record<string, unknown>>[];
  readonly defaults?: Readonly<Record<string, string>>;
  readonly approvals?: Readonly<Record<string, unknown>>;
  readonly resolver?: Readonly<Record<string, unknown>>;
  readonly exec?: readonly RuleDocument[];
  readonly file?: readonly RuleDocument[];
  readonly network?: readonly RuleDocument[];
}

/** A policy, and what it extends by "./NAME.base.yaml". */
export interface Documents {
  readonly main: PolicyDocument;
  readonly base: PolicyDocument | undefined;
}

export function textOf(document: PolicyDocument): string {
  return stringify(document, { lineWidth: 0, aliasDuplicateObjects: false });
}

/** The whole as text, for people. */
export function show({ main, base }: Documents): string {
  return base === undefined ? textOf(main) : `${textOf(main)}--- # what it extends\n${textOf(base)}`;
}

/** What `main` extends under this name. */
export function baseName(name: string): string {
  return `./${name}.base.yaml`;
}

/** Writes both into a folder. Returns the path of the policy. */
export function writeDocuments(folder: string, name: string, { main, base }: Documents): string {
  const path = join(folder, `${name}.yaml`);
  const whole = base === undefined ? main : { ...main, extends: [baseName(name)] };
  writeFileSync(path, textOf(whole));
  if (base !== undefined) writeFileSync(join(folder, basename(baseName(name))), textOf(base));
  return path;
}

/** The policy that the documents mean. @throws with the findings when they mean none: the generator is wrong then. */
export function meaning({ main, base }: Documents): Policy {
  const whole = base === undefined ? main : { ...main, extends: ["./base.yaml"] };
  const { policy, diagnostics } = parsePolicy(textOf(whole), "policy.yaml", {
    base: () => (base === undefined ? { error: "there is none" } : { file: "base.yaml", text: textOf(base) }),
  });
  if (policy === undefined) throw new Error(`${renderDiagnostics(diagnostics)}\n${show({ main, base })}`);
  return policy;
}

/** Where the rules of both files are. */
export interface RulePlace {
  readonly file: "main" | "base";
  readonly section: (typeof SECTIONS)[number];
  readonly index: number;
}

/** All rules that the harness itself does not need. */
export function rulePlaces(documents: Documents): RulePlace[] {
  const places: RulePlace[] = [];
  for (const file of ["main", "base"] as const)
    for (const section of SECTIONS)
      for (const [index, rule] of (documents[file]?.[section] ?? []).entries())
        if (rule.id !== HARNESS_RULE) places.push({ file, section, index });
  return places;
}

/** Id of the rule that lets the driver run. */
export const HARNESS_RULE = "driver";

export function withoutRule(documents: Documents, { file, section, index }: RulePlace): Documents {
  const document = documents[file];
  if (document === undefined) return documents;
  const rules = (document[section] ?? []).filter((_, i) => i !== index);
  return { ...documents, [file]: { ...document, [section]: rules } };
}
