// File rules: each to the cheapest layer that decides it exactly.
//
//   deny read (for all)          mask: an empty file or folder over the path
//   deny write (for all)         the path bound read-only over itself
//   deny delete, rename, link    of one file, for all: the path bound over itself; a mount point can be neither
//                                removed nor renamed (EBUSY), and no hard link leaves a mount (EXDEV)
//   hold, log or deny of open    fanotify on the path, bound over itself so that exactly this mount is marked
//   the rest of the name calls   seccomp notify; refused where the loader does not offer it
//   deny for one subject         Landlock of the subject's entry, when its trees leave the path out
//
// Whatever is protected inside a writable mount also has the folders above it, up to the mount, bound over
// themselves: otherwise renaming such a folder would take the protection along and leave the name free.

import type { FileGuard } from "../../proto/gen/clawsec/v1/loader.js";
import { below, between, isWithin, join, type PatternScope, patternScopes } from "../match/path.js";
import type { FileOperationName, FileRule, Mount, Policy } from "../model.js";
import type { Located, View } from "./host.js";
import type { Capabilities, Report } from "./report.js";

/** Calls that change names or sizes; notified only where a rule needs it. */
const NAME_OPERATIONS: readonly FileOperationName[] = ["delete", "rename", "link", "truncate"];
/** What a mount point withstands by itself. */
const PINNED_OPERATIONS: readonly FileOperationName[] = ["delete", "rename", "link"];

/** A bind of a path over itself. */
export interface SelfBind {
  readonly target: string;
  readonly hostPath: string;
  readonly mode: "ro" | "rw";
  readonly exec: boolean;
}

export interface LoweredFiles {
  /** Shorter targets first. */
  readonly binds: readonly SelfBind[];
  readonly masked: readonly string[];
  readonly guards: readonly FileGuard[];
  readonly notifyNames: boolean;
}

export function lowerFiles(
  policy: Policy,
  view: View,
  capabilities: Capabilities,
  report: Report,
): LoweredFiles {
  const lowering = new Lowering(policy, view, capabilities, report);
  for (const rule of policy.file) lowering.rule(rule);
  return lowering.result();
}

class Lowering {
  readonly #binds = new Map<string, SelfBind>();
  readonly #masked = new Set<string>();
  readonly #guards = new Map<string, { open: boolean; names: boolean }>();
  /** Rules that are lowered statically so far, to find later what they must leave out. */
  readonly #earlier: FileRule[] = [];

  constructor(
    readonly policy: Policy,
    readonly view: View,
    readonly capabilities: Capabilities,
    readonly report: Report,
  ) {}

  result(): LoweredFiles {
    const masked = [...this.#masked].sort(byText);
    const isMasked = (path: string) => masked.some((mask) => isWithin(path, mask));
    const readOnly = [...this.#binds.values()].filter((b) => b.mode === "ro").map((b) => b.target);
    const binds = [...this.#binds.values()]
      // What would be bound beneath a mask is not there.
      .filter((bind) => !isMasked(bind.target))
      // A mount of its own inside a read-only one must not be the way round it.
      .map((bind) =>
        readOnly.some((tree) => isWithin(bind.target, tree)) ? { ...bind, mode: "ro" as const } : bind,
      );
    binds.sort(
      (a, b) => a.target.split("/").length - b.target.split("/").length || byText(a.target, b.target),
    );

    // A mark holds for one mount: each mount inside a guarded tree needs its own.
    const targets = [...binds.map((b) => b.target), ...this.view.mounts.map((m) => m.target)];
    const guards = new Map(this.#guards);
    for (const [path, guard] of this.#guards) {
      for (const target of targets) {
        if (!isWithin(target, path) || isMasked(target)) continue;
        const before = guards.get(target);
        guards.set(target, {
          open: guard.open || (before?.open ?? false),
          names: guard.names || (before?.names ?? false),
        });
      }
    }
    const fileGuards = [...guards.entries()]
      .filter(([path]) => !isMasked(path))
      .sort(([a], [b]) => byText(a, b))
      .map(([path, guard]) => ({ path, ...guard }));
    return { binds, masked, guards: fileGuards, notifyNames: fileGuards.some((g) => g.names) };
  }

  rule(rule: FileRule): void {
    const scopes = rule.path.flatMap(patternScopes);
    for (const scope of scopes) this.#scope(rule, scope);
    this.#earlier.push(rule);
  }

  #scope(rule: FileRule, scope: PatternScope): void {
    const located = this.#locate(rule, scope);
    if (located === undefined) return;
    const operations = new Set(rule.operations);
    if (rule.action === "allow") {
      this.report.explain(
        rule.id,
        "allow",
        "supervisor",
        "an exception to the rules below it, where those are asked about",
        rule.origin,
      );
      return;
    }
    if (rule.action !== "deny") {
      for (const operation of ["read", "write"] as const) {
        if (operations.delete(operation))
          this.#refuse(
            rule,
            "fanotify",
            `"${rule.action}" cannot tell ${operation} from other opens: the kernel does not say what an open is for`,
            'Say "operations: [open]".',
          );
      }
    } else if (rule.subjects.length > 0) {
      this.#denySubject(rule, scope, operations);
    } else {
      this.#denyAll(rule, scope, located, operations);
    }
    if (operations.has("open") || operations.has("read")) this.#guardOpen(rule, scope, located);
    const names = NAME_OPERATIONS.filter((operation) => operations.has(operation));
    if (names.length > 0) this.#guardNames(rule, scope, located, names);
  }

  /** Where the rule's tree is; undefined when there is nothing to guard (and said so). */
  #locate(rule: FileRule, scope: PatternScope): Located | undefined {
    const { tree } = scope;
    const located = this.view.locate(tree);
    if (located === undefined) {
      // Nothing exists outside mounts, so a denial there holds by itself.
      if (rule.action === "deny" && !this.view.mounts.some((m) => isWithin(m.target, tree))) {
        this.report.explain(
          rule.id,
          "deny",
          "mounts",
          `${tree} is in no mount: it does not exist in the sandbox`,
          rule.origin,
        );
      } else {
        this.#refuse(
          rule,
          "mounts",
          `${tree} is not inside one mount`,
          "Begin the path with a folder that is mounted, one path for each mount.",
        );
      }
      return undefined;
    }
    if (located.mount.kind === "tmpfs") {
      this.#refuse(
        rule,
        "mounts",
        `${tree} is on a tmpfs, which is empty when the sandbox starts: there is nothing to guard yet`,
        "Mount a folder of the host there.",
      );
      return undefined;
    }
    if (located.throughLink) {
      this.#refuse(
        rule,
        "mounts",
        `the way to ${tree} goes through a symbolic link on the host`,
        "Name the path that the link leads to.",
      );
      return undefined;
    }
    if (located.kind === "missing") {
      if (rule.optional) {
        this.report.explain(
          rule.id,
          rule.action,
          "none",
          `${located.hostPath} does not exist; the rule is optional`,
          rule.origin,
        );
      } else {
        this.#refuse(
          rule,
          "mounts",
          `${tree} does not exist, so nothing can be mounted over it`,
          `Create ${located.hostPath} on the host, or say "optional: true" if it may be made by the sandbox.`,
        );
      }
      return undefined;
    }
    return located;
  }

  /** Denials for everybody, as far as mounts express them. What is left in `operations` must be asked about. */
  #denyAll(rule: FileRule, scope: PatternScope, located: Located, operations: Set<FileOperationName>): void {
    if (!scope.exact) {
      if (operations.delete("write"))
        this.#refuse(
          rule,
          "mounts",
          "a pattern cannot be made read-only",
          'Name the paths, or say "operations: [open]" to have every open of them refused.',
        );
      return;
    }
    const exception = this.#earlier.find((earlier) => exempts(earlier, rule, scope.tree));
    if (operations.has("read") || operations.has("open")) {
      if (exception !== undefined) {
        this.#refuse(
          rule,
          "mounts",
          `${scope.tree} cannot be masked, because ${exception.id} speaks of a part of it first`,
          "Name the parts that are to be denied one by one.",
        );
      } else {
        this.#pinAncestors(scope.tree, located.mount);
        this.#masked.add(scope.tree);
        this.report.explain(
          rule.id,
          "deny",
          "mask",
          "an empty read-only mount lies over the path",
          rule.origin,
        );
      }
      operations.clear();
      return;
    }
    if (operations.delete("write")) {
      if (exception !== undefined) {
        this.#refuse(
          rule,
          "mounts",
          `${scope.tree} cannot be made read-only, because ${exception.id} speaks of a part of it first`,
          "Name the parts that are to be read-only one by one.",
        );
      } else {
        const inner = this.view.mounts.find(
          (m) => m.mode === "rw" && m.target !== scope.tree && isWithin(m.target, scope.tree),
        );
        if (inner !== undefined) {
          this.#refuse(
            rule,
            "mounts",
            `the mount ${inner.target} lies in ${scope.tree} and is writable`,
            'Say "mode: ro" for that mount, or move it.',
          );
        }
        this.#bind(scope.tree, located, "ro");
        this.report.explain(
          rule.id,
          "deny",
          "read-only mount",
          "the path is bound read-only over itself",
          rule.origin,
        );
      }
      operations.clear();
      return;
    }
    if (located.mount.mode === "ro") {
      for (const operation of NAME_OPERATIONS) operations.delete(operation);
      this.report.explain(
        rule.id,
        "deny",
        "read-only mount",
        `the mount ${located.mount.target} is read-only`,
        rule.origin,
      );
      return;
    }
    if (located.kind === "file" && [...operations].every((o) => PINNED_OPERATIONS.includes(o))) {
      this.#bind(scope.tree, located, "rw");
      operations.clear();
      this.report.explain(
        rule.id,
        "deny",
        "mount point",
        "a mount point can be neither removed nor renamed, nor linked elsewhere",
        rule.origin,
      );
    }
  }

  /** Denials for some subjects: their entries' Landlock trees must leave the path out already. */
  #denySubject(rule: FileRule, scope: PatternScope, operations: Set<FileOperationName>): void {
    for (const [operation, trees] of [
      ["read", "read"],
      ["write", "write"],
    ] as const) {
      if (!operations.has(operation)) continue;
      if (operation === "read" && !scope.exact) continue;
      operations.delete(operation);
      const open = rule.subjects.filter((name) => {
        const files = this.policy.subjects.find((s) => s.name === name)?.files;
        const granted =
          files === undefined ? undefined : [...files[trees], ...(trees === "read" ? files.write : [])];
        return (
          granted === undefined ||
          granted.some((t) => isWithin(scope.tree, t.path) || isWithin(t.path, scope.tree))
        );
      });
      if (open.length > 0) {
        this.#refuse(
          rule,
          "landlock",
          `${open.join(", ")} can ${operation} ${scope.tree}, and Landlock grants trees but cannot take a part of one away`,
          `List narrower trees under "files" of the subject, or deny it for all subjects${operation === "read" ? ', or say "operations: [open]"' : ""}.`,
        );
      } else {
        this.report.explain(rule.id, "deny", "landlock", "the entry's trees leave the path out", rule.origin);
      }
    }
  }

  #guardOpen(rule: FileRule, scope: PatternScope, located: Located): void {
    if (!this.capabilities.need(this.report, ["fanotify.perm"], rule.id, rule.origin)) return;
    this.#bind(scope.tree, located, located.mount.mode);
    const guard = this.#guards.get(scope.tree);
    this.#guards.set(scope.tree, { open: true, names: guard?.names ?? false });
    const why = scope.exact
      ? "each open of the path is asked about"
      : `each open below ${scope.tree} is asked about, because the path is a pattern`;
    this.report.explain(rule.id, rule.action, "fanotify", why, rule.origin);
    if (!scope.exact && located.mount.mode === "rw") {
      this.report.warning(
        "pattern-names",
        rule.id,
        rule.origin,
        `${rule.id} goes by names, and ${scope.tree} is writable: a file renamed there is another name`,
        "Name the files, or deny writing there.",
      );
    }
  }

  #guardNames(
    rule: FileRule,
    scope: PatternScope,
    located: Located,
    names: readonly FileOperationName[],
  ): void {
    if (located.mount.mode === "ro") {
      this.report.explain(
        rule.id,
        rule.action,
        "read-only mount",
        `the mount ${located.mount.target} is read-only: there is nothing to ask about`,
        rule.origin,
      );
      return;
    }
    if (!this.capabilities.has("file.names")) {
      this.#refuse(
        rule,
        "seccomp.notify",
        `the loader of this host cannot ask about ${names.join(", ")}`,
        "Deny writing (operations: [write]), or drop the rule.",
      );
      return;
    }
    this.#bind(scope.tree, located, "rw");
    const guard = this.#guards.get(scope.tree);
    this.#guards.set(scope.tree, { open: guard?.open ?? false, names: true });
    this.report.explain(
      rule.id,
      rule.action,
      "seccomp notify",
      `${names.join(", ")} below the path are done on the caller's behalf, once answered`,
      rule.origin,
    );
  }

  #bind(target: string, located: Located, mode: "ro" | "rw"): void {
    this.#pinAncestors(target, located.mount);
    if (target === located.mount.target && mode === located.mount.mode) return;
    const before = this.#binds.get(target);
    // Read-only wins over a bind that is only there to be a mount point.
    const kept = before?.mode === "ro" ? "ro" : mode;
    this.#binds.set(target, { target, hostPath: located.hostPath, mode: kept, exec: located.mount.exec });
  }

  #pinAncestors(target: string, mount: Mount): void {
    if (mount.mode === "ro" || !isWithin(target, mount.target)) return;
    const source = this.view.host.resolve(mount.source) ?? mount.source;
    for (const folder of between(mount.target, target)) {
      if (this.#binds.has(folder)) continue;
      const hostPath = join(source, below(folder, mount.target));
      this.#binds.set(folder, { target: folder, hostPath, mode: "rw", exec: mount.exec });
    }
  }

  #refuse(rule: FileRule, layer: string, message: string, remedy: string): void {
    this.report.error(
      "cannot-enforce",
      rule.id,
      layer,
      rule.origin,
      `${rule.id} cannot be enforced: ${message}`,
      remedy,
    );
  }
}

function byText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** True when an earlier rule says something else about a part of the tree that a later denial is about. */
function exempts(earlier: FileRule, later: FileRule, tree: string): boolean {
  if (earlier.action === "deny") return false;
  const sees = (o: FileOperationName) => o === "open" || o === "read";
  const common = earlier.operations.some((o) =>
    later.operations.some((p) => o === p || (sees(o) && sees(p))),
  );
  return (
    common &&
    earlier.path.flatMap(patternScopes).some((s) => isWithin(s.tree, tree) || isWithin(tree, s.tree))
  );
}
