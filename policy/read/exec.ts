// The rules of "exec".

import { CATEGORIES } from "../categories.js";
import { CODES, KINDS, SELECTORS } from "../language/names.js";
import { EXEC_RULE } from "../language/rules.js";
import { keysOf } from "../language/shape.js";
import type { ArgvPattern, ExecKind, ExecRule, RuleBase } from "../model.js";
import { readArgv } from "./argv.js";
import { type RuleSetting, readBase, restricts } from "./base.js";
import { type Context, didYouMean, Fields, type Node } from "./context.js";
import { readRuleList } from "./rules.js";
import * as v from "./values.js";

/** Reads the list; what is wrong is reported and left out. */
export function readExecRules(context: Context, node: Node, setting: RuleSetting): ExecRule[] {
  return readRuleList(context, node, "exec", setting, (item) => readExecRule(context, item, setting));
}

function readExecRule(context: Context, node: Node, setting: RuleSetting): ExecRule | undefined {
  const fields = Fields.of(context, node, "a rule of exec", keysOf(EXEC_RULE));
  if (fields === undefined) return undefined;
  const base = readBase(context, fields, "exec", setting);
  const given = fields.each("kind", "the kind", (n) => v.oneOf(context, n, "the kind", KINDS));
  const facts = {
    executable: v.pathPatterns(context, fields, "executable"),
    sha256: fields.each("sha256", '"sha256"', (n) => v.sha256(context, n, "the sha256")),
    script: v.pathPatterns(context, fields, "script"),
    inWorkspace: fields.read("inWorkspace", (n) => v.bool(context, n, '"inWorkspace"')),
    code: fields.each("code", '"code"', (n) => v.oneOf(context, n, "the code", CODES)),
    argv: readArgv(context, fields),
    cwd: v.pathPatterns(context, fields, "cwd"),
    environment: fields.each("environment", '"environment"', (n) => readVariablePattern(context, n)),
    parent: v.pathPatterns(context, fields, "parent"),
    ancestor: v.pathPatterns(context, fields, "ancestor"),
    category: fields.each("category", "the category", (n) => readCategory(context, n)),
  };
  if (base === undefined) return undefined;
  if (!SELECTORS.some((key) => fields.has(key))) {
    const keys = SELECTORS.map((key) => `"${key}"`);
    context.error(
      base.origin,
      "missing-key",
      `a rule of exec needs one of the keys ${keys.slice(0, -1).join(", ")} and ${keys.at(-1)}`,
      'To mean any file, write: executable: "/**".',
      base.id,
    );
  }
  if (base.locked && facts.inWorkspace !== undefined)
    setting.floors.checkSandbox(base, setting.layer, "workspace");
  checkFirstArgument(context, fields, base, facts.argv);
  // A path says nothing about a file without one, so only denials reach such files unasked.
  const kinds = given.length > 0 ? given : base.action === "deny" ? KINDS : DEFAULT_KINDS;
  return { ...base, ...facts, kinds };
}

const DEFAULT_KINDS: readonly ExecKind[] = ["file"];

/** The words a caller puts into argv[0] bind nobody: a rule that depends on them stops only honest callers. */
function checkFirstArgument(
  context: Context,
  fields: Fields,
  base: RuleBase,
  argv: ArgvPattern | undefined,
): void {
  const first = argv?.glob?.[0];
  if (first === undefined || first === "*" || first === "**" || !restricts(base.action)) return;
  context.warning(
    fields.originOf("argv"),
    "argv0",
    "the rule looks at argv[0], which the caller chooses freely",
    'Begin the list with "*" and name the program under "executable".',
    base.id,
  );
}

/** A pattern for the name of an environment variable, e.g. "LD_*". */
function readVariablePattern(context: Context, node: Node): string | undefined {
  const value = v.argumentPattern(context, node, '"environment"');
  if (value === undefined) return undefined;
  if (value === "" || value.includes("=")) {
    return context.error(
      node.origin,
      "value",
      `"${value}" is not a pattern for the name of an environment variable`,
      'Only names are known, not values: write it like "GIT_*".',
    );
  }
  return value;
}

function readCategory(context: Context, node: Node): string | undefined {
  const value = v.text(context, node, "the category");
  if (value === undefined) return undefined;
  if (CATEGORIES.includes(value)) return value;
  const remedy =
    CATEGORIES.length === 0
      ? 'It is empty yet: name programs by "executable".'
      : didYouMean(value, CATEGORIES);
  return context.error(node.origin, "value", `the category "${value}" is not in the catalogue`, remedy);
}
