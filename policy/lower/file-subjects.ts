// Denials for some subjects: their entries' Landlock trees must leave the path out already.

import { isWithin } from "../match/path.js";
import type { FileOperationName } from "../model.js";
import type { FileReport } from "./file-report.js";
import type { FileLayers, RulePath } from "./files.js";

/** Operations that Landlock knows, the list of trees that grants each, and the ABI that has it. */
const GRANTS = [
  ["read", ["read", "write", "exec"], 1],
  ["write", ["write"], 3],
  ["create", ["write"], 1],
  ["exec", ["exec"], 1],
] as const;

const WRITES: readonly FileOperationName[] = [
  "write",
  "create",
  "delete",
  "rename",
  "link",
  "truncate",
  "chmod",
];

/** Takes from `operations` what Landlock decides, or refuses it. */
export function denySubject(
  { rule, scope }: RulePath,
  operations: Set<FileOperationName>,
  { policy, view, abi, capabilities }: FileLayers,
  say: FileReport,
): void {
  const around = view.mountOf(scope.tree);
  const writable = view.mounts.some((m) => m.mode === "rw" && isWithin(m.target, scope.tree));
  if (around?.mode === "ro" && !writable && WRITES.some((operation) => operations.has(operation))) {
    for (const operation of WRITES) operations.delete(operation);
    say.explain("read-only mount", `the mount ${around.target} is read-only, for all subjects`);
  }
  for (const [operation, lists, smallest] of GRANTS) {
    if (!operations.has(operation)) continue;
    // What of a pattern is not granted as a tree is asked about, where an open can be.
    if (operation === "read" && !scope.exact) continue;
    operations.delete(operation);
    const open = rule.subjects.filter((name) => {
      const files = policy.subjects.find((s) => s.name === name)?.files;
      return (
        files === undefined ||
        lists
          .flatMap((list) => files[list])
          .some((t) => isWithin(scope.tree, t.path) || isWithin(t.path, scope.tree))
      );
    });
    if (open.length > 0) {
      say.refuse(
        "cannot-enforce",
        "landlock",
        `${open.join(", ")} can ${operation} ${scope.tree}, and Landlock grants trees but cannot take a part of one away`,
        `List narrower trees under "files" of the subject, or deny it for all subjects${operation === "read" ? ', or say "operations: [open]"' : ""}.`,
      );
    } else if (abi === 0) {
      say.need("landlock");
    } else if (abi < smallest) {
      say.refuse(
        "missing-layer",
        "landlock",
        `Landlock ABI ${smallest} is needed for ${operation}, and this kernel has ${abi}`,
        capabilities.remedy("landlock"),
      );
    } else {
      say.explain(
        "landlock",
        "the entry's trees leave the path out",
        "mounts and masks hold for all subjects",
      );
    }
  }
}
