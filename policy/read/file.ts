// The rules of "file".

import { LARGEST_ID, OPERATIONS } from "../language/names.js";
import { FILE_RULE } from "../language/rules.js";
import { keysOf } from "../language/shape.js";
import type { FileRule } from "../model.js";
import { type RuleSetting, readBase } from "./base.js";
import { type Context, Fields, type Node } from "./context.js";
import { readRuleList } from "./rules.js";
import * as v from "./values.js";

/** Reads the list; what is wrong is reported and left out. */
export function readFileRules(context: Context, node: Node, setting: RuleSetting): FileRule[] {
  return readRuleList(context, node, "file", setting, (item) => readFileRule(context, item, setting));
}

function readFileRule(context: Context, node: Node, setting: RuleSetting): FileRule | undefined {
  const fields = Fields.of(context, node, "a rule of file", keysOf(FILE_RULE));
  if (fields === undefined) return undefined;
  const base = readBase(context, fields, "file", setting);
  fields.require("path");
  const path = v.pathPatterns(context, fields, "path");
  fields.require("operations", `Say which: ${OPERATIONS.join(", ")}.`);
  const operations = fields.each("operations", "operations", (n) =>
    v.oneOf(context, n, "an operation", OPERATIONS),
  );
  let ofUser = false;
  const owner = fields.each("owner", "the owner", (n) => {
    const name = readOwner(context, n);
    ofUser ||= name === "user";
    return name === "user" ? setting.uid : name;
  });
  const optional = fields.read("optional", (n) => v.bool(context, n, '"optional"')) ?? false;
  if (base?.locked && ofUser) setting.floors.checkSandbox(base, setting.layer, "user");
  if (base === undefined || operations.length === 0 || path.length === 0) return undefined;
  return { ...base, path, operations: OPERATIONS.filter((o) => operations.includes(o)), owner, optional };
}

/** A uid: a number, "root", or "user" for the sandbox's. */
function readOwner(context: Context, node: Node): number | "user" | undefined {
  if (node.kind === "scalar" && typeof node.value === "string" && !node.value.includes("${")) {
    const name = v.oneOf(context, node, "the owner", ["root", "user"] as const);
    return name === "root" ? 0 : name;
  }
  return v.integer(context, node, "the owner's uid", 0, LARGEST_ID);
}
