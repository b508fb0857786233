// `argv`: a list of argument patterns, or a mapping that says more.

import { RE2JS } from "re2js";
import { FLAG, MAX_REGEX } from "../language/names.js";
import { ARGV } from "../language/parts.js";
import { keysOf } from "../language/shape.js";
import type { ArgvPattern, FlagNames } from "../model.js";
import { type Context, Fields, type Node } from "./context.js";
import * as v from "./values.js";

/** Largest compiled program, in instructions: time to match is program x text. */
export const MAX_PROGRAM = 2000;

const NOTHING: ArgvPattern = {
  glob: undefined,
  exact: undefined,
  prefix: undefined,
  regex: [],
  flags: [],
  without: [],
  valued: [],
};

/** The pattern under the key "argv"; undefined when there is none, or it is wrong (which is reported). */
export function readArgv(context: Context, rule: Fields): ArgvPattern | undefined {
  const node = rule.get("argv");
  if (node === undefined) return undefined;
  if (node.kind !== "map") return { ...NOTHING, glob: readGlob(context, node, '"argv"') };
  const fields = Fields.of(context, node, "argv", keysOf(ARGV));
  if (fields === undefined) return undefined;
  if (node.entries.length === 0) return empty(context, node, '"argv"', "mapping");
  if (node.entries.length === 1 && fields.has("valued")) {
    context.error(
      fields.originOf("valued"),
      "value",
      '"valued" alone says nothing: it only tells values from flags',
      'Add "flags" or "without".',
    );
  }
  return {
    glob: fields.read("glob", (n) => readGlob(context, n, '"glob"')),
    // Empty: no arguments at all.
    exact: fields.read("exact", (n) => v.list(context, n, '"exact"', (i) => literal(context, i))),
    prefix: fields.read("prefix", (n) =>
      n.kind === "list" && n.items.length === 0
        ? empty(context, n, '"prefix"', "list")
        : v.list(context, n, '"prefix"', (i) => literal(context, i)),
    ),
    regex: fields.each("regex", '"regex"', (n) => readRegex(context, n)),
    flags: fields.each("flags", '"flags"', (n) => readFlag(context, n)),
    without: fields.each("without", '"without"', (n) => readFlag(context, n)),
    valued: fields.each("valued", '"valued"', (n) => readFlag(context, n)).flat(),
  };
}

function readGlob(context: Context, node: Node, what: string): string[] | undefined {
  if (node.kind === "list" && node.items.length === 0) return empty(context, node, what, "list");
  return v.list(context, node, what, (n) => v.argumentPattern(context, n, "an element of argv"));
}

function empty(context: Context, node: Node, what: string, kind: "list" | "mapping"): undefined {
  return context.error(
    node.origin,
    "value",
    `${what} must not be an empty ${kind}`,
    "Leave the key out to mean any arguments.",
  );
}

function literal(context: Context, node: Node): string | undefined {
  return v.text(context, node, "an argument", { plain: true });
}

function readFlag(context: Context, node: Node): FlagNames | undefined {
  const value = v.text(context, node, "a flag");
  if (value === undefined) return undefined;
  const names = value.split("|");
  const wrong = names.find((name) => !FLAG.test(name));
  if (wrong === undefined) return names;
  const word = /^-[A-Za-z0-9]{2}/.test(wrong);
  return context.error(
    node.origin,
    "value",
    `"${wrong}" is not a flag`,
    word
      ? `"${wrong}" is read as the flags ${[...wrong.slice(1)].map((c) => `-${c}`).join(" ")}. For a word with one dash, use "glob".`
      : 'Write "-r", "--recursive", or all its names: "-r|-R|--recursive".',
  );
}

/** The size of a program is known after it is made; the library itself bounds repetitions, depth and memory before. */
const knownRegex = new Map<string, string>();

/** Why a text is not an expression that can be used; "" when it is. */
export function regexError(expression: string): string {
  if (expression.length > MAX_REGEX) return `it is longer than ${MAX_REGEX} characters`;
  const known = knownRegex.get(expression);
  if (known !== undefined) return known;
  let why = "";
  try {
    if (RE2JS.compile(expression).programSize() > MAX_PROGRAM) why = "it is too large when it is compiled";
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    why = text.replace(/^error parsing regexp: /, "").replace(/`/g, '"');
  }
  if (knownRegex.size < 10_000) knownRegex.set(expression, why);
  return why;
}

function readRegex(context: Context, node: Node): string | undefined {
  const value = v.nonEmpty(context, node, "the regular expression", { escape: RE2JS.quote });
  if (value === undefined) return undefined;
  const why = regexError(value);
  if (why === "") return value;
  return context.error(
    node.origin,
    "value",
    `the regular expression is not one: ${why}`,
    "The syntax is RE2's: no look-around and no back-references.",
  );
}
