// Comments below a key without a value ("name:"). The library takes them for the value's and prints them behind the
// key; they are about the key that follows.

import { type Document, isPair, isScalar, type Scalar, visit, type YAMLMap } from "yaml";

/** Moves each comment below an empty value to the key after it, or to the end of its mapping. */
export function giveBackComments(document: Document, source: string): void {
  visit(document, {
    Map(_, node) {
      if (node.flow) return;
      for (const [index, item] of node.items.entries()) {
        if (isPair(item) && isScalar(item.value)) giveBack(node, index, item.value, source);
      }
    },
  });
}

function giveBack(map: YAMLMap, index: number, value: Scalar, source: string): void {
  const { comment, range } = value;
  // Only an empty value has what follows it in its range: from the colon to the next key.
  if (!comment || !range || range[0] !== range[1]) return;
  const between = source.slice(range[0], range[2]);
  const lines = comment.split("\n");
  const beside = /^[ \t]*#/.test(between) ? lines.shift() : undefined;
  if (lines.length === 0) return;
  value.comment = beside ?? null;
  const below = lines.join("\n");
  const next = map.items[index + 1]?.key;
  if (isScalar(next)) {
    next.commentBefore = next.commentBefore ? `${below}\n${next.commentBefore}` : below;
    // The library says so after any such comment.
    next.spaceBefore = /\n[ \t]*\n/.test(source.slice(range[0], next.range?.[0]));
  } else {
    map.comment = map.comment ? `${below}\n${map.comment}` : below;
  }
}
