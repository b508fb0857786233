// Denials by a pattern, for everybody: AppArmor, as far as its permissions mean the same as the rule's operations.
//
//   read               r m x l  nothing of the file is seen, by whatever way, and no link makes another file of it
//   write, or all of   w l      AppArmor's "w" is all of them together, so that it stands for no single one; it leaves
//   create ... chmod            a new hard link at the name, which "l" is for
//   open               the two above together: an open can be for either
//   exec               x m      "x" alone would leave it to a loader that maps it (ld.so PROGRAM), which noexec does not
//
// A hard link or a rename to a name that the pattern leaves out is refused by AppArmor itself: a link may not permit
// more than what it links to, and a rename needs to read and to write what it renames. The folders that the pattern
// names are kept from being renamed, too.

import { isWithin } from "../match/path.js";
import type { FileOperationName } from "../model.js";
import { apparmorPattern, fits, heldFolders, states } from "./apparmor-pattern.js";
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
      `${JSON.stringify(pattern)} has text in it that no file name can have`,
      "Write the name as the file system has it, in UTF-8.",
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
  const share = { tree: scope.tree, states: states(pattern) };
  const fitting = fits([...lowering.shares, ...draft.shares, share]);
  if (!fitting && asked && around !== undefined) return;
  for (const name of taken) operations.delete(name);
  if (!fitting) {
    say.refuse(
      "cannot-enforce",
      "apparmor",
      `${pattern} is one of too many patterns with a name between two "**" (or a text between two "*"): AppArmor's parser would take minutes`,
      'Use fewer of them, end them in "/**", or begin them with different folders.',
    );
    return;
  }
  const seen = taken.has("read") || taken.has("open");
  if (!lowering.isWhole(taken, scope.tree, "denied by AppArmor")) return;
  const held = seen || writes ? heldFolders(pattern) : undefined;
  if (!pin(path, held, lowering)) return;
  const permissions = `${seen ? "rmlx" : ""}${writes ? "wl" : ""}${taken.has("exec") ? "xm" : ""}`;
  draft.denials.push({ rule: rule.id, pattern: text, permissions });
  draft.shares.push(share);
  say.explain(
    "apparmor",
    `the profile denies ${[...taken].join(", ")} of ${pattern}`,
    "mounts and Landlock know trees, no patterns",
  );
}

/**
 * Keeps folders from being renamed out of the pattern's reach: those above its first wildcard by mounts, those below
 * by the profile. `held` is undefined when the files themselves may be renamed or copied, so that it would be in vain.
 * False when they cannot be kept, which is said.
 */
function pin({ rule, pattern, scope }: RulePath, held: string[] | undefined, lowering: Lowering): boolean {
  const { say, draft } = lowering;
  const { view } = lowering.layers;
  const { tree } = scope;
  const around = view.mountOf(tree);
  const writable = view.mounts.some((m) => m.mode === "rw" && (isWithin(m.target, tree) || m === around));
  if (around?.mode === "rw" && around.target !== tree) {
    const located = view.locate(tree);
    if (located === undefined || !lowering.usable(tree, located)) return false;
    draft.bind(tree, located, around.mode);
  }
  // In a read-only mount nothing is renamed, and the folders above mounts are the root file system's.
  if (!writable) return true;
  if (held === undefined) {
    say.warning(
      "pattern-names",
      `${rule.id} goes by names, and ${tree} has writable folders in it: what is renamed or copied there has another name`,
      "Name the folders (without a pattern), or deny writing there, too.",
    );
  } else if (held.length > 0) {
    for (const folder of held) draft.denials.push({ rule: rule.id, pattern: folder, permissions: "w" });
    say.warning(
      "pattern-names",
      `${rule.id} goes by names: the folders that ${pattern} names below ${tree} can be neither made, removed nor renamed in the sandbox, nor given another mode`,
      'Make them before, or end the pattern in "/**/NAME".',
    );
  }
  return true;
}
