// What stands beside the parts of a policy that is shown: where each is written, and what holds for it. And which of
// its mappings are on one line.

import { isMap, isScalar, isSeq, type Pair, type YAMLMap } from "yaml";
import type { Origin } from "./diagnostics.js";
import type { Policy } from "./model.js";

/** Origins above rules, mounts and subjects; short lists and mappings on one line. */
export function comment(top: YAMLMap, policy: Policy): void {
  const items = (key: string, at: YAMLMap = top): unknown[] => {
    const list = at.get(key, true);
    return isSeq(list) ? list.items : [];
  };
  const each = (
    nodes: unknown[],
    from: readonly { readonly origin: Origin }[],
    note: (i: number) => string,
  ) => {
    for (const [i, node] of nodes.entries()) {
      const origin = from[i]?.origin;
      if (isMap(node) && origin !== undefined)
        node.commentBefore = line(` ${origin.file}:${origin.line}${note(i)}`);
    }
  };
  for (const key of ["exec", "file", "network"] as const) {
    const rules = policy[key];
    each(items(key), rules, (i) => {
      const rule = rules[i];
      if (rule?.locked) return ", locked: no other rule makes it weaker";
      if (rule?.mode === "observe") return ", observes only";
      return policy.mode === "observe" ? ", observes only, as the whole policy does" : "";
    });
  }
  each(items("subjects"), policy.subjects, () => "");
  each(items("waive"), policy.waive, () => "");
  const sandbox = top.get("sandbox", true);
  if (isMap(sandbox)) each(items("mounts", sandbox), policy.sandbox.mounts, () => "");
  for (const pair of top.items as Pair[]) {
    if (isScalar(pair.key) && !["apiVersion", "kind", "metadata", "mode"].includes(String(pair.key.value)))
      pair.key.spaceBefore = true;
    flow(pair.value, 0);
  }
}

/** Mappings and lists without further ones in them, on one line each; rules stay one key a line. */
function flow(node: unknown, depth: number): boolean {
  const inner = isMap(node)
    ? (node.items as Pair[]).map(({ value }) => value)
    : isSeq(node)
      ? node.items
      : undefined;
  if (inner === undefined) return true;
  const plain = inner.map((child) => flow(child, depth + 1)).every(Boolean);
  if (depth > 0 && plain && (isMap(node) || isSeq(node)) && !node.commentBefore) {
    node.flow = !inner.some((child) => isSeq(child) || isMap(child)) && String(inner.join(", ")).length < 90;
    return false;
  }
  return false;
}

/** A comment cannot break its line, nor move a terminal. */
export function line(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\u00b7");
}
