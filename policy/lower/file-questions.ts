// What of a file rule is asked about, each time: opens by fanotify, changes of names by seccomp notify. Both hold for one
// mount, so the path is bound over itself to be one.

import type { FileOperationName, FileRule } from "../model.js";
import { NAME_OPERATIONS } from "./file-report.js";
import type { Lowering, RulePath } from "./files.js";
import type { Located } from "./host.js";

/** Why an operation of the rule cannot be asked about: layer, sentence, remedy. */
export function notAsked(
  rule: FileRule,
  operation: FileOperationName,
  observing: boolean,
): [string, string, string] | undefined {
  const isName = NAME_OPERATIONS.includes(operation);
  const denies = rule.action === "deny";
  if (operation === "open" || (operation === "read" && denies)) return undefined;
  if (isName && !observing && rule.owner.length === 0) return undefined;
  const way = 'Say "operations: [open]"';
  if (observing)
    return [
      "mounts",
      `${operation} cannot be observed: where it is refused at all, the kernel refuses it by itself`,
      `${way}, enforce the rule, or waive it by its name.`,
    ];
  if (rule.owner.length > 0)
    return [
      "fanotify",
      `who owns a file is known when it is opened, not for ${operation}`,
      `${way}, or drop "owner".`,
    ];
  if (operation === "exec")
    return [
      "fanotify",
      "running a file is asked about by its exec, not as a file",
      'Write a rule of "exec".',
    ];
  if (rule.when.length > 0 || rule.rate !== undefined)
    return [
      "mounts",
      `${operation} is decided by mounts, which know neither the time nor how often`,
      `${way}, or drop "when" and "rate".`,
    ];
  if (operation === "create" || operation === "chmod")
    return [
      "seccomp.notify",
      `"${rule.action}" cannot be asked about ${operation}`,
      `Deny it, or leave it out.`,
    ];
  return [
    "fanotify",
    `"${rule.action}" cannot tell ${operation} from other opens: the kernel does not say what an open is for`,
    `${way}.`,
  ];
}

/** Asks about those of the operations that can be asked about: the caller has refused the others. */
export function askAbout(
  path: RulePath,
  located: Located,
  operations: ReadonlySet<FileOperationName>,
  lowering: Lowering,
): void {
  if (operations.has("open") || operations.has("read")) guardOpen(path, located, lowering);
  const names = NAME_OPERATIONS.filter((operation) => operations.has(operation));
  if (names.length > 0) guardNames(path, located, names, lowering);
}

function guardOpen({ rule, scope }: RulePath, located: Located, lowering: Lowering): void {
  const { say, draft } = lowering;
  if (!say.need("fanotify.perm")) return;
  draft.bind(scope.tree, located, located.mount.mode);
  draft.guards.push({ path: scope.tree, open: true, names: false });
  const why = scope.exact
    ? "each open of the path is asked about"
    : `each open below ${scope.tree} is asked about, because the path is a pattern`;
  say.explain("fanotify", why, say.whyAsked(scope));
  if (!scope.exact && located.mount.mode === "rw") {
    say.warning(
      "pattern-names",
      `${rule.id} goes by names, and ${scope.tree} is writable: a file renamed there is another name`,
      "Name the files, or deny writing there.",
    );
  }
}

function guardNames(
  { scope }: RulePath,
  located: Located,
  names: readonly FileOperationName[],
  lowering: Lowering,
): void {
  const { say, draft, layers } = lowering;
  if (located.mount.mode === "ro") {
    say.explain(
      "read-only mount",
      `the mount ${located.mount.target} is read-only: there is nothing to ask about`,
    );
    return;
  }
  if (!layers.capabilities.has("file.names")) {
    say.refuse(
      "cannot-enforce",
      "seccomp.notify",
      `the loader of this host cannot ask about ${names.join(", ")}`,
      "Deny writing (operations: [write]), or drop the rule.",
    );
    return;
  }
  draft.bind(scope.tree, located, "rw");
  draft.guards.push({ path: scope.tree, open: false, names: true });
  say.explain(
    "seccomp notify",
    `${names.join(", ")} below the path are done on the caller's behalf, once answered`,
    say.whyAsked(scope),
  );
}
