// What every rule has, whatever its section.

import { ACTIONS, MAX_RATE, MODES, RULE_ID, SEVERITIES } from "../language/names.js";
import { RATE } from "../language/parts.js";
import { keysOf } from "../language/shape.js";
import type { Example, HoldTerms, RateLimit, RuleAction, RuleBase, RuleMode } from "../model.js";
import { readWrittenAction } from "./action.js";
import { type Context, didYouMean, Fields, type Node } from "./context.js";
import type { FloorCheck } from "./floors.js";
import { holdTerms } from "./hold.js";
import { readWindows } from "./time.js";
import * as v from "./values.js";

export const SLUG_REMEDY = 'Use lower-case letters, digits and "-".';

export type Section = "exec" | "file" | "network";

/** What rules take from the rest of the policy. */
export interface RuleSetting {
  readonly subjects: readonly string[];
  readonly approvals: HoldTerms;
  /** The terms that the rule's own file sees: a floor's do not change with the files that extend it. */
  readonly ownApprovals: HoldTerms;
  /** The sandbox's user, for `owner: user`. */
  readonly uid: number;
  /** The sandbox's, where examples run. */
  readonly workspace: string;
  /** Names that are set where an example does not say which. */
  readonly environment: readonly string[];
  /** Index of the file, furthest first. */
  readonly layer: number;
  readonly floors: FloorCheck;
}

/** True for the actions that keep an action from going on. */
export function restricts(action: RuleAction): boolean {
  return action === "deny" || action === "hold";
}

/** Reads what all rules have in common; undefined when it has no usable id or action (which is reported). */
export function readBase(
  context: Context,
  fields: Fields,
  section: Section,
  setting: RuleSetting,
): RuleBase | undefined {
  const idNode = fields.require("id", "Give the rule a name: verdicts and the audit speak of it by that.");
  const actionNode = fields.require("action", "Say allow, deny, hold or log.");
  const id = idNode && v.matching(context, idNode, "the id", RULE_ID, SLUG_REMEDY);
  const action = actionNode && v.oneOf(context, actionNode, "the action", ACTIONS);
  if (id === "default")
    context.error(
      fields.originOf("id"),
      "value",
      'the id "default" is taken by the default itself',
      "Choose another.",
    );
  const subjects = readSubjects(context, fields, "subject", setting.subjects);
  const { mode, locked } = readMode(context, fields, action);
  const hold = readHold(context, fields, action, locked ? setting.ownApprovals : setting.approvals);
  const base = {
    message: fields.read("message", (n) => v.nonEmpty(context, n, "the message")) ?? "",
    because: fields.read("because", (n) => v.nonEmpty(context, n, '"because"')) ?? "",
    severity: fields.read("severity", (n) => v.oneOf(context, n, "the severity", SEVERITIES)) ?? "info",
    tags: fields.read("tags", (n) => readTags(context, n)) ?? [],
    when: fields.read("when", (n) => readWindows(context, n)) ?? [],
    rate: fields.read("rate", (n) => readRate(context, fields, n, action)),
    match: fields.read("match", (n) => readExamples(context, n, section, subjects, setting)) ?? [],
    notMatch: fields.read("notMatch", (n) => readExamples(context, n, section, subjects, setting)) ?? [],
    origin: idNode?.origin ?? fields.origin,
  };
  if (id === undefined || action === undefined) return undefined;
  return { id: `${section}/${id}`, subjects, action, hold, mode, locked, ...base };
}

/** Names of subjects under a key, each checked against the policy's. */
export function readSubjects(
  context: Context,
  fields: Fields,
  key: string,
  known: readonly string[],
): readonly string[] {
  return fields.each(key, "the subject", (n) => v.oneOf(context, n, "the subject", known));
}

function readHold(
  context: Context,
  fields: Fields,
  action: RuleAction | undefined,
  approvals: HoldTerms,
): HoldTerms | undefined {
  const node = fields.get("hold");
  if (node === undefined) return action === "hold" ? approvals : undefined;
  if (action !== undefined && action !== "hold") {
    context.error(
      fields.originOf("hold"),
      "value",
      `"hold" has no meaning with the action "${action}"`,
      'Remove it, or say "action: hold".',
    );
  }
  const terms = holdTerms(context, node, "hold", approvals);
  return action === "hold" ? terms : undefined;
}

/** A floor that could permit, or that is only watched, would be none. */
function readMode(
  context: Context,
  fields: Fields,
  action: RuleAction | undefined,
): { mode: RuleMode; locked: boolean } {
  const mode = fields.read("mode", (n) => v.oneOf(context, n, "the mode", MODES)) ?? "enforce";
  const locked = fields.read("locked", (n) => v.bool(context, n, '"locked"')) ?? false;
  if (locked && action !== undefined && !restricts(action)) {
    context.error(
      fields.originOf("locked"),
      "locked",
      `a rule with the action "${action}" cannot be locked: a floor denies or holds`,
      'Remove "locked", or say "action: deny" or "action: hold".',
    );
  }
  if (locked && mode === "observe") {
    context.error(
      fields.originOf("mode"),
      "locked",
      "a locked rule cannot only observe",
      'Remove "mode", or "locked".',
    );
  }
  return { mode, locked };
}

function readTags(context: Context, node: Node): string[] {
  const tags = v.oneOrMore(context, node, "tags", (n) =>
    v.matching(context, n, "the tag", RULE_ID, SLUG_REMEDY),
  );
  return [...new Set(tags)];
}

function readRate(
  context: Context,
  rule: Fields,
  node: Node,
  action: RuleAction | undefined,
): RateLimit | undefined {
  if (action === "deny") {
    context.error(
      rule.originOf("rate"),
      "value",
      '"rate" has no meaning with the action "deny": it would deny the first ones and let the others go on',
      "Give the rate to the rule that permits, and deny after it.",
    );
  }
  const fields = Fields.of(context, node, "rate", keysOf(RATE));
  const maxNode = fields?.require("max", "Say how many, e.g. { max: 30, per: 1m }.");
  const perNode = fields?.require("per", "Say in what time, e.g. { max: 30, per: 1m }.");
  const max = maxNode && v.integer(context, maxNode, "the max of a rate", 1, MAX_RATE);
  const perMs = perNode && v.duration(context, perNode, "the time of a rate");
  return max === undefined || perMs === undefined ? undefined : { max, perMs };
}

/** Examples of actions; those that do not say whose they are belong to the rule's first subject. */
function readExamples(
  context: Context,
  node: Node,
  section: Section,
  subjects: readonly string[],
  setting: RuleSetting,
): Example[] {
  const subject = subjects[0] ?? setting.subjects[0] ?? "";
  return v.oneOrMore(context, node, "the examples", (n) => {
    const written = readWrittenAction(context, unwrap(n, section), section);
    if (written === undefined) return undefined;
    if (written.subject !== "" && !setting.subjects.includes(written.subject)) {
      const remedy = didYouMean(written.subject, setting.subjects);
      return context.error(n.origin, "value", `there is no subject "${written.subject}"`, remedy);
    }
    return { action: written.with({ ...setting, subject }), text: written.text, origin: n.origin };
  });
}

/** `{ exec: ACTION }` is ACTION in a rule of exec. */
function unwrap(node: Node, section: Section): Node {
  const [only, second] = node.kind === "map" ? node.entries : [];
  return only !== undefined && second === undefined && only.key === section ? only.value : node;
}
