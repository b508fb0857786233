// The tables of keys in docs/policy.md, from what declares the language. `node dist/test/docs/reference.js` writes them
// between "<!-- generated from the schema: NAME -->" and "<!-- end -->"; the rest of the page is written by hand.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";
import {
  CASE,
  EXEC_ACTION,
  EXPECT,
  FILE_ACTION,
  NETWORK_ACTION,
  POLICY_TEST,
} from "../../policy/language/actions.js";
import { ARGV, HOLD, RATE, WINDOW } from "../../policy/language/parts.js";
import {
  DEFAULTS,
  ENTRY,
  FILES,
  LOOPBACK,
  METADATA,
  POLICY,
  RESOLVER,
  SECRET,
  SECRETS,
  SUBJECT,
  TRANSITION,
  TREE,
  WAIVER,
} from "../../policy/language/policy.js";
import { EXEC_RULE, FILE_RULE, NETWORK_RULE } from "../../policy/language/rules.js";
import { HEALTH_CHECK, LIMITS, MOUNT, PUBLISH, SANDBOX, USER } from "../../policy/language/sandbox.js";
import {
  duration,
  type Key,
  type Mapping,
  path,
  pathPattern,
  port,
  type Shape,
  size,
} from "../../policy/language/shape.js";

type Keys = Readonly<Record<string, Key>>;

const only = (keys: Keys, keep: (key: string) => boolean): Keys =>
  Object.fromEntries(Object.entries(keys).filter(([key]) => keep(key)));
/** Keys that a rule of each section has, and those of one section alone. */
const common = (key: string) => key in FILE_RULE.keys && key in NETWORK_RULE.keys && key in EXEC_RULE.keys;
/** Examples are of the rule's own section: their table is that of its action. */
const EXAMPLES: Shape = { kind: "text" };
const examples = (keys: Keys): Keys =>
  Object.fromEntries(
    Object.entries(keys).map(([name, key]) => [
      name,
      name === "match" || name === "notMatch" ? { ...key, type: EXAMPLES } : key,
    ]),
  );
const own = (rule: Mapping): Keys => only(rule.keys, (key) => !common(key));

/** What stands between the markers of each name. */
export const TABLES: ReadonlyMap<string, Keys> = new Map([
  ["policy", POLICY.keys],
  ["rule", examples(only(EXEC_RULE.keys, common))],
  ["exec", own(EXEC_RULE)],
  ["file", own(FILE_RULE)],
  ["network", own(NETWORK_RULE)],
  ...[METADATA, WAIVER, HOLD, WINDOW, RATE, ARGV, SANDBOX, USER, MOUNT, LIMITS, PUBLISH, HEALTH_CHECK].map(
    named,
  ),
  ...[SUBJECT, TRANSITION, ENTRY, FILES, TREE, LOOPBACK, DEFAULTS, SECRETS, SECRET, RESOLVER].map(named),
  ...[POLICY_TEST, CASE, EXPECT, EXEC_ACTION, FILE_ACTION, NETWORK_ACTION].map(named),
]);

function named(mapping: Mapping): [string, Keys] {
  return [mapping.name, mapping.keys];
}

export const REFERENCE = join(packageRoot(), "docs/policy.md");
const SECTION = /^(<!-- generated from the schema: (\w+) -->)\n(?:[\s\S]*?\n)??(<!-- end -->)$/gm;

/** The page with its tables as the language has them. Throws when a marker names no table. */
export function withTables(page: string): string {
  return page.replace(SECTION, (_, begin: string, name: string, end: string) => {
    const keys = TABLES.get(name);
    if (keys === undefined) throw new Error(`docs/policy.md asks for a table "${name}" that there is not.`);
    return `${begin}\n${table(name, keys)}\n${end}`;
  });
}

/** The names of the tables that the page asks for. */
export function tablesOf(page: string): string[] {
  return [...page.matchAll(SECTION)].map((match) => match[2] ?? "");
}

function table(title: string, keys: Keys): string {
  const rows = Object.entries(keys).map(([name, key]) => {
    const usual = key.required === true ? "required" : key.default === undefined ? "" : value(key.default);
    return `| \`${name}\` | ${cell(words(key.type))} | ${usual} | ${cell(key.doc)}${example(key)} |`;
  });
  return `\n| ${title} | value | default | meaning |\n|---|---|---|---|\n${rows.join("\n")}\n`;
}

const value = (json: unknown) => `\`${typeof json === "string" ? json : cell(JSON.stringify(json))}\``;
const cell = (text: string) => text.replaceAll("|", "\\|");

function example({ example: one }: Key): string {
  return one === undefined
    ? ""
    : ` Example: \`${cell(typeof one === "string" ? one : JSON.stringify(one))}\``;
}

/** Shapes that have a name of their own in the reference. */
const NAMED: ReadonlyMap<Shape, string> = new Map([
  [duration, "duration"],
  [size, "size"],
  [path, "path"],
  [pathPattern, "pattern"],
  [port, "port or range"],
  [EXAMPLES, "action, as in test files; or a list"],
]);

/** What a key takes, in words. */
function words(shape: Shape): string {
  const name = NAMED.get(shape);
  if (name !== undefined) return name;
  switch (shape.kind) {
    case "text":
      return "text";
    case "word":
      return shape.words.map((word) => `\`${word}\``).join(", ");
    case "bool":
      return "`true`, `false`";
    case "integer":
    case "number":
      return `${shape.min} to ${shape.max}`;
    case "nothing":
      return "nothing";
    case "list":
      return `list of ${shape.item.kind === "either" && !NAMED.has(shape.item) ? `(${words(shape.item)})` : words(shape.item)}`;
    case "names":
      return `names, each with ${words(shape.value)}`;
    case "mapping":
      return `mapping (${shape.mapping.name.replace(/Rule$/, "")})`;
    case "either": {
      const [one, more] = shape.of;
      if (shape.of.length === 2 && one !== undefined && more?.kind === "list" && more.item === one)
        return `${words(one)}; or a list`;
      return shape.of.map(words).join("; or ");
    }
  }
}

if (import.meta.main) writeFileSync(REFERENCE, withTables(readFileSync(REFERENCE, "utf8")));
