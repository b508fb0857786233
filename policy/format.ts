// A policy file (or a file of test cases) in one layout: two spaces, keys in the order in which they are read, comments
// and the flow style of short rules kept. What the file means is the same afterwards, or it is not formatted.

import {
  type Document,
  isMap,
  isPair,
  isScalar,
  isSeq,
  type Pair,
  type ScalarTag,
  type Tags,
  visit,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import type { Diagnostic } from "./diagnostics.js";
import { giveBackComments } from "./format-comments.js";
import { CASE, HEALTH_CHECK, MOUNT, NETWORK_RULE, RULE, SANDBOX, SUBJECT, TOP, WAY } from "./format-keys.js";
import { type Node, readYaml } from "./parse.js";

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
  const read = (of: string) => readYaml(of, file, tags);
  const { root, diagnostics, document } = read(plain(text));
  if (root === undefined || document === undefined || diagnostics.length > 0)
    return { text: undefined, diagnostics };
  const said = { meaning: meaning(root), comments: comments(document) };
  let formatted = layOut(document, plain(text));
  // What a comment belongs to can become clear only when it stands at its new place.
  for (let round = 0; round < 4; round++) {
    const after = read(formatted);
    // The library writes some texts, such as keys with line separators, wrongly.
    if (after.root === undefined || after.document === undefined)
      return refused(root, "it could not be read again");
    if (meaning(after.root) !== said.meaning) return refused(root, "its meaning would change");
    if (comments(after.document) !== said.comments) return refused(root, "a comment would be lost");
    const next = layOut(after.document, formatted);
    if (next === formatted) return { text: formatted, diagnostics: [] };
    formatted = next;
  }
  return refused(root, "it has no layout that stays the same");
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

type Stringify = Parameters<NonNullable<ScalarTag["stringify"]>>;

function isText(tag: Tags[number]): tag is ScalarTag {
  return typeof tag === "object" && tag.tag === "tag:yaml.org,2002:str";
}

/**
 * Texts are never broken: a pattern on two lines is not found by searching for it. Folded blocks (">") are. And
 * "[a, b]" has no spaces inside, where "{ a: b }" has.
 */
const tags = (known: Tags): Tags =>
  known.map((tag) => {
    if (typeof tag !== "object") return tag;
    if (isText(tag))
      return {
        ...tag,
        stringify: (...[item, context, onComment, onChompKeep]: Stringify) => {
          const folded = isScalar(item) && item.type === "BLOCK_FOLDED";
          const options = { ...context.options, lineWidth: folded ? MAX_FOLDED : 0 };
          return tag.stringify?.(item, { ...context, options }, onComment, onChompKeep) ?? "";
        },
      };
    if (!("collection" in tag)) return tag;
    const flowCollectionPadding = tag.collection === "seq" ? "" : " ";
    // The library calls it for collections, too; its types say so for scalars only.
    const stringify = (...[item, context, onComment, onChompKeep]: Stringify) =>
      (item as unknown as YAMLSeq).toString({ ...context, flowCollectionPadding }, onComment, onChompKeep);
    return Object.assign({ ...tag }, { stringify });
  });

function layOut(document: Document, source: string): string {
  giveBackComments(document, source);
  if (isMap(document.contents)) orderTop(document.contents);
  dropFlowBreaks(document);
  const printed = document.toString({ indent: 2, indentSeq: true, lineWidth: MAX_FLOW, nullStr: "" });
  return `${printed
    .replace(/[ \t]+$/gm, "")
    .replace(/\n{3,}/g, "\n\n")
    .trimEnd()}\n`;
}

function plain(text: string): string {
  return text.replace(/^\ufeff/, "").replace(/\r\n/g, "\n");
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
      order(value.get("healthCheck", true), HEALTH_CHECK);
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
function comments(document: Document): string {
  const found: string[] = [];
  const add = (comment: string | null | undefined) => {
    for (const line of comment?.split("\n") ?? []) if (line.trim() !== "") found.push(line.trim());
  };
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
