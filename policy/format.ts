// A policy file (or a file of test cases) in one layout: two spaces, keys in the order in which they are read, comments
// and the flow style of short rules kept. What the file means is the same afterwards, or it is not formatted.

import {
  type Document,
  isMap,
  isPair,
  isScalar,
  isSeq,
  type Pair,
  parseDocument,
  type ScalarTag,
  type Tags,
  visit,
  type YAMLMap,
} from "yaml";
import type { Diagnostic } from "./diagnostics.js";
import { CASE, MOUNT, NETWORK_RULE, RULE, SANDBOX, SUBJECT, TOP, WAY } from "./format-keys.js";
import { type Node, parseYaml } from "./parse.js";

/** The formatted text, or why the file is left as it is. */
export type FormatResult =
  | { readonly text: string; readonly diagnostics: readonly [] }
  | { readonly text: undefined; readonly diagnostics: readonly Diagnostic[] };

/** Longest mapping or list in braces or brackets that stays on one line. */
const MAX_FLOW = 160;
/** Width of folded blocks (">"). */
const MAX_FOLDED = 110;

/** Formats one file. Pure; never throws. `file` is for the findings. */
export function formatPolicy(text: string, file: string): FormatResult {
  const before = parseYaml(text, file);
  if (before.root === undefined || before.diagnostics.length > 0)
    return { text: undefined, diagnostics: before.diagnostics };
  let formatted = layOut(text);
  let stable = false;
  // What a comment belongs to can become clear only when it stands at its new place.
  for (let round = 0; round < 4 && !stable && formatted !== undefined; round++) {
    const next = layOut(formatted);
    stable = next === formatted;
    formatted = next;
  }
  if (formatted === undefined) return refused(before.root, "it could not be read again");
  const after = parseYaml(formatted, file);
  const same = after.root !== undefined && meaning(after.root) === meaning(before.root);
  if (!same) return refused(before.root, "its meaning would change");
  if (comments(formatted) !== comments(text)) return refused(before.root, "a comment would be lost");
  if (!stable) return refused(before.root, "it has no layout that stays the same");
  return { text: formatted, diagnostics: [] };
}

function refused(root: Node, why: string): FormatResult {
  const finding: Diagnostic = {
    severity: "error",
    code: "format",
    message: `the file is left as it is: formatted, ${why}`,
    remedy: "Move comments to lines of their own.",
    rule: "",
    layer: "",
    origin: root.origin,
  };
  return { text: undefined, diagnostics: [finding] };
}

const PARSING = { version: "1.2", schema: "core", uniqueKeys: false } as const;

type Stringify = Parameters<NonNullable<ScalarTag["stringify"]>>;

function isText(tag: Tags[number]): tag is ScalarTag {
  return typeof tag === "object" && tag.tag === "tag:yaml.org,2002:str";
}

/** Texts are never broken: a pattern on two lines is not found by searching for it. Folded blocks (">") are. */
const unbroken = (tags: Tags): Tags =>
  tags.map((tag) =>
    isText(tag)
      ? {
          ...tag,
          stringify: (...[item, context, onComment, onChompKeep]: Stringify) => {
            const folded = isScalar(item) && item.type === "BLOCK_FOLDED";
            const options = { ...context.options, lineWidth: folded ? MAX_FOLDED : 0 };
            return tag.stringify?.(item, { ...context, options }, onComment, onChompKeep) ?? "";
          },
        }
      : tag,
  );

/** Undefined when the text cannot be read: the library writes some texts, such as keys with line separators, wrongly. */
function layOut(text: string): string | undefined {
  const document = parseDocument(plain(text), { ...PARSING, customTags: unbroken });
  if (document.errors.length > 0) return undefined;
  if (isMap(document.contents)) orderTop(document.contents);
  dropFlowBreaks(document);
  const printed = document.toString({ indent: 2, indentSeq: true, lineWidth: MAX_FLOW, nullStr: "" });
  return `${tighten(printed)
    .replace(/[ \t]+$/gm, "")
    .replace(/\n{3,}/g, "\n\n")
    .trimEnd()}\n`;
}

function plain(text: string): string {
  return text.replace(/^\ufeff/, "").replace(/\r\n/g, "\n");
}

/** "[ a, b ]" as "[a, b]"; braces keep their spaces. */
function tighten(text: string): string {
  const cuts: number[] = [];
  visit(parseDocument(text, PARSING), {
    Seq(_, { flow, range }) {
      if (!flow || !range) return;
      const [start, end] = [range[0], range[1] - 1];
      if (text[start + 1] === " ") cuts.push(start + 1);
      if (text[end] === "]" && text[end - 1] === " " && /[^\s]/.test(text[end - 2] ?? "")) cuts.push(end - 1);
    },
  });
  const cut = new Set(cuts);
  // Offsets are in UTF-16 units.
  return text
    .split("")
    .filter((_, i) => !cut.has(i))
    .join("");
}

function orderTop(top: YAMLMap): void {
  order(top, TOP);
  for (const { key, value } of top.items as Pair[]) {
    const name = isScalar(key) ? key.value : undefined;
    if (name === "metadata") order(value, ["name", "description"]);
    if (name === "sandbox" && isMap(value)) {
      keepAbove(value);
      order(value, SANDBOX);
      each(value.get("mounts", true), (mount) => order(mount, MOUNT));
      order(value.get("user", true), ["uid", "gid", "name"]);
    }
    if (name === "subjects") each(value, orderSubject);
    if (name === "exec" || name === "file") each(value, (rule) => order(rule, RULE));
    if (name === "network") each(value, (rule) => order(rule, NETWORK_RULE));
    if (name === "cases") each(value, (item) => order(item, CASE));
    if (name === "waive") each(value, (item) => order(item, ["name", "reason"]));
  }
}

function orderSubject(subject: unknown): void {
  order(subject, SUBJECT);
  if (isMap(subject)) each(subject.get("enters", true), (way) => order(way, WAY));
}

function each(node: unknown, then: (item: unknown) => void): void {
  if (isSeq(node)) for (const item of node.items) then(item);
}

/** Sorts the pairs of a mapping. What is above its first pair stays above the mapping. */
function order(node: unknown, keys: readonly string[]): void {
  if (!isMap(node)) return;
  const rank = (pair: unknown) => {
    const key = isPair(pair) && isScalar(pair.key) ? keys.indexOf(String(pair.key.value)) : -1;
    return key < 0 ? keys.length : key;
  };
  const sorted = [...node.items].sort((a, b) => rank(a) - rank(b));
  const [first] = node.items;
  const [next] = sorted;
  if (first !== next && first !== undefined && next !== undefined) {
    // The empty line before a mapping's first key belongs to the place, not to the key.
    const [from, to] = [first.key, next.key];
    if (isScalar(from) && isScalar(to)) {
      const space = from.spaceBefore;
      from.spaceBefore = to.spaceBefore ?? false;
      to.spaceBefore = space ?? false;
    }
  }
  node.items.splice(0, node.items.length, ...sorted);
}

/** A comment above the first key of a section is about that key, and goes where it goes. */
function keepAbove(section: YAMLMap): void {
  const key = section.items[0]?.key;
  if (section.flow || !section.commentBefore || !isScalar(key)) return;
  key.commentBefore = section.commentBefore;
  section.commentBefore = null;
}

/** Empty lines in braces would make the printer break what fits on one line. */
function dropFlowBreaks(document: Document): void {
  visit(document, {
    Collection(_, node) {
      if (!node.flow) return;
      for (const item of node.items) {
        const first = isPair(item) ? item.key : item;
        if (isScalar(first) && !first.commentBefore) first.spaceBefore = false;
      }
    },
  });
}

/** What the file says, whatever the order of keys; the order of variables counts, since one may use those before it. */
function meaning(node: Node, path = ""): string {
  switch (node.kind) {
    case "scalar":
      return JSON.stringify([node.value, typeof node.value === "string" ? node.value : node.text]);
    case "list":
      return `[${node.items.map((item) => meaning(item, `${path}[]`)).join(",")}]`;
    case "map": {
      const members = node.entries.map(
        ({ key, value }) => `${JSON.stringify(key)}:${meaning(value, `${path}.${key}`)}`,
      );
      return `{${(path === ".variables" ? members : members.sort()).join(",")}}`;
    }
  }
}

/** All comments, in an order of their own: they move with what they are about. */
function comments(text: string): string {
  const found: string[] = [];
  const add = (comment: string | null | undefined) => {
    for (const line of comment?.split("\n") ?? []) if (line.trim() !== "") found.push(line.trim());
  };
  const document = parseDocument(plain(text), PARSING);
  add(document.commentBefore);
  add(document.comment);
  visit(document, {
    Node(_, node) {
      add(node.commentBefore);
      add(node.comment);
    },
  });
  return JSON.stringify(found.sort());
}
