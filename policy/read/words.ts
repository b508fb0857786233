// A command as one text, split like a shell splits words, and nothing more than that: what a shell would do beyond
// (operators, globs, expansions) is refused, since no example means it.

import { parse } from "shell-quote";
import type { Context, Node } from "./context.js";
import * as v from "./values.js";

/** Stand for "$$" and for "${" and "}" of the policy's own variables while the shell's rules are applied. */
const DOLLAR = "\ue000";
const OPEN = "\ue001";
const CLOSE = "\ue002";

/** Words of a text with variables filled in, each a part of its word; undefined when it is refused (and reported). */
export function shellWords(context: Context, node: Node, what: string): string[] | undefined {
  if (node.kind !== "scalar" || typeof node.value !== "string") {
    const value = v.text(context, node, what);
    return value === undefined ? undefined : [value];
  }
  const held = node.value.replace(/\$\$|\$\{([A-Za-z0-9_-]+)\}/g, (_, name: string | undefined) =>
    name === undefined ? DOLLAR : `${OPEN}${name}${CLOSE}`,
  );
  const refuse = (why: string) =>
    context.error(
      node.origin,
      "value",
      `${what} ${why}`,
      'Quote it in \'...\' for the character itself, or write a mapping with "executable" and "argv".',
    );
  const why = beyondWords(held);
  if (why !== undefined) return refuse(why);
  const words: string[] = [];
  for (const entry of parse(held, (name) => ({ op: `$${name}` }))) {
    if (typeof entry === "string") words.push(entry);
    else if ("comment" in entry) return refuse('has a comment ("#")');
    else if (entry.op === "glob")
      return refuse(`has a shell pattern ("${"pattern" in entry ? entry.pattern : "*"}")`);
    else if (entry.op.startsWith("$")) return refuse(`has a shell expansion ("${entry.op}")`);
    else return refuse(`has a shell operator ("${entry.op}")`);
  }
  const filled = words.map((word) => {
    const text = word.replaceAll(DOLLAR, "$$$$").replaceAll(OPEN, "${").replaceAll(CLOSE, "}");
    return text.includes("$") ? v.text(context, { ...node, value: text, text }, what) : text;
  });
  return filled.every((word) => word !== undefined) ? filled : undefined;
}

/** What the library lets through as plain characters although a shell would not; undefined for nothing. */
function beyondWords(text: string): string | undefined {
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i] as string;
    if (quote === "'") {
      if (c === "'") quote = "";
    } else if (c === "\\") i++;
    else if (c === "`") return 'has a shell expansion ("`")';
    else if (quote === '"') {
      if (c === '"') quote = "";
    } else if (c === "'" || c === '"') {
      if (text[i - 1] === "$") return `has a shell expansion ("$${c}")`;
      quote = c;
    } else if (c === "\n") return "has more than one line";
    else if ("[]{}".includes(c)) return `has a shell pattern ("${c}")`;
    else if (c === "~" && /^\s?$/.test(text[i - 1] ?? "")) return 'has a shell expansion ("~")';
  }
  return quote === "" ? undefined : `has a ${quote} without its end`;
}
