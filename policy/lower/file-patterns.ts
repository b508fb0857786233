// Denials by a pattern, for everybody: AppArmor, as far as its permissions mean the same as the rule's operations.
//
//   read               r m x   nothing of the file is seen, by whatever way
//   write, or all of   w l     AppArmor's "w" is all of them together, so that it stands for no single one; "l" keeps
//   create ... chmod           the name from being given to another file
//   open               the two above together: an open can be for either
//   exec               x
//
// A hard link or a rename to a name that the pattern leaves out is refused by AppArmor itself: a link may not permit
// more than what it links to, and a rename needs to read and to write what it renames.

import { hasPattern } from "../match/glob.js";
import { isWithin } from "../match/path.js";
import type { FileOperationName } from "../model.js";
import { apparmorPattern } from "./apparmor.js";
import type { Lowering, RulePath } from "./files.js";

/** All that AppArmor's "w" covers. */
const WRITES: readonly FileOperationName[] = ["create", "delete", "rename", "link", "truncate", "chmod"];

/** Takes from `operations` what AppArmor decides, or refuses what nothing else could. */
export function lowerByPattern(path: RulePath, operations: Set<FileOperationName>, lowering: Lowering): void {
  const { rule, pattern, scope } = path;
  const { say, layers, draft } = lowering;
  const writes = operations.has("write") || WRITES.every((operation) => operations.has(operation));
  const taken = new Set<FileOperationName>();
  const take = (...names: readonly FileOperationName[]) => {
    for (const name of names) if (operations.has(name)) taken.add(name);
  };
  take("read", "exec");
  if (writes) take("write", "open", ...WRITES);
  const around = layers.view.mountOf(scope.tree);
  const exists = around !== undefined || layers.view.mounts.some((m) => isWithin(m.target, scope.tree));
  if (taken.size === 0 || !exists) return;
  // An open can be asked about instead; the rest is AppArmor's or nobody's.
  const asked = [...taken].every((name) => name === "read" || name === "open");
  const text = apparmorPattern(pattern);
  if (text === undefined) {
    if (asked) return;
    for (const name of taken) operations.delete(name);
    say.refuse(
      "cannot-enforce",
      "apparmor",
      `${pattern} cannot be said in AppArmor's language, and mounts know no patterns`,
      'Name the paths, or write the pattern with "*" and "**" and plain names only.',
    );
    return;
  }
  if (!layers.capabilities.has("apparmor")) {
    if (asked && around !== undefined) return;
    for (const name of taken) operations.delete(name);
    const detail = layers.capabilities.detail("apparmor");
    say.refuse(
      "missing-layer",
      "apparmor",
      `mounts know no patterns such as ${pattern}, and this host has no AppArmor${detail === "" ? "" : ` (${detail})`}`,
      'Name the paths, say "operations: [open]" to have every open of them refused, or use a kernel with AppArmor.',
    );
    return;
  }
  for (const name of taken) operations.delete(name);
  const seen = taken.has("read") || taken.has("open");
  if (!lowering.isWhole(taken, scope.tree, "denied by AppArmor")) return;
  // Who may read and write a file may give it another name, or copy it.
  if (!pin(path, (seen || writes) && keepsItsNames(pattern), lowering)) return;
  const permissions = `${seen ? "rmx" : ""}${writes ? "wl" : ""}${taken.has("exec") && !seen ? "x" : ""}`;
  draft.denials.push({ rule: rule.id, pattern: text, permissions });
  say.explain(
    "apparmor",
    `the profile denies ${[...taken].join(", ")} of ${pattern}`,
    "mounts and Landlock know trees, no patterns",
  );
}

/** Keeps the tree from being renamed out of the pattern's reach. False when it cannot be, which is said. */
function pin({ rule, scope }: RulePath, keepsNames: boolean, lowering: Lowering): boolean {
  const { say, draft } = lowering;
  const { view } = lowering.layers;
  const { tree } = scope;
  const around = view.mountOf(tree);
  const writable = view.mounts.some((m) => m.mode === "rw" && (isWithin(m.target, tree) || m === around));
  // In a read-only mount nothing is renamed, and the folders above mounts are the root file system's.
  if (around?.mode === "rw" && around.target !== tree) {
    const located = view.locate(tree);
    if (located === undefined || !lowering.usable(tree, located)) return false;
    draft.bind(tree, located, around.mode);
  }
  if (writable && !keepsNames) {
    say.warning(
      "pattern-names",
      `${rule.id} goes by names, and ${tree} has writable folders in it: what is renamed there has another name`,
      'End the pattern in "/**/NAME" for reads and writes, name the files, or deny writing there.',
    );
  }
  return true;
}

// True for TREE/NAME and TREE/**/NAME: no rename of a folder takes a file out of these.
function keepsItsNames(pattern: string): boolean {
  const parts = pattern.split("/");
  const first = parts.findIndex((part) => hasPattern(part));
  const rest = parts.slice(first).filter((part) => part !== "**");
  return rest.length === 1 && parts.at(-1) !== "**" && (parts.length - first === 1 || parts[first] === "**");
}
