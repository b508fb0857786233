// File rules: each to the cheapest layer that decides it exactly.
//
//   deny read (for all)          mask: an empty file or folder over the path
//   deny write (for all)         the path bound read-only over itself
//   deny exec (for all)          the path bound noexec over itself
//   deny delete, rename, link    of one file, for all: the path bound over itself; a mount point can be neither
//                                removed nor renamed (EBUSY), and no hard link leaves a mount (EXDEV)
//   the same by a pattern        AppArmor, where the host has it and its words mean the same
//   hold, log or deny of open    fanotify on the path, bound over itself so that exactly this mount is marked
//   delete, rename, link,        seccomp notify; refused where the loader does not offer it
//   truncate
//   deny for one subject         Landlock of the subject's entry, when its trees leave the path out
//
// What only a question can decide (the time, a rate, the owner, a rule that observes) never goes to a static layer.
// Whatever is protected inside a writable mount also has the folders above it, up to the mount, bound over
// themselves: otherwise renaming such a folder would take the protection along and leave the name free.

import { expandBraces } from "../match/glob.js";
import { isWithin, type PatternScope, patternScopes } from "../match/path.js";
import type { FileOperationName, FileRule, Policy } from "../model.js";
import type { Share } from "./apparmor-pattern.js";
import { Exceptions } from "./exceptions.js";
import { checkBelowMask } from "./file-masks.js";
import { lowerByPattern } from "./file-patterns.js";
import { Draft, type LoweredFiles, Plan } from "./file-plan.js";
import { askAbout, notAsked } from "./file-questions.js";
import { FileReport, isConditional, observes, PINNED_OPERATIONS } from "./file-report.js";
import { denySubject } from "./file-subjects.js";
import type { Located, View } from "./host.js";
import type { Capabilities, Report } from "./report.js";

/** What is there to lower file rules with. `abi`: Landlock's, 0 for none. */
export interface FileLayers {
  readonly policy: Policy;
  readonly view: View;
  readonly capabilities: Capabilities;
  readonly abi: number;
}

/** One pattern of a rule, without braces. */
export interface RulePath {
  readonly rule: FileRule;
  readonly pattern: string;
  readonly scope: PatternScope;
}

export function lowerFiles(layers: FileLayers, report: Report): LoweredFiles {
  const plan = new Plan(layers.view);
  const earlier = new Exceptions();
  for (const rule of layers.policy.file) {
    const lowering = new Lowering(layers, earlier, plan.shares, new FileReport(rule, layers, report));
    lowering.rule(rule);
    if (!lowering.say.refused) plan.take(lowering.draft);
    earlier.add(rule);
  }
  return plan.result();
}

/** One rule. */
class Lowering {
  readonly draft: Draft;

  constructor(
    readonly layers: FileLayers,
    readonly earlier: Exceptions,
    /** What earlier rules have taken of AppArmor's automaton. */
    readonly shares: readonly Share[],
    readonly say: FileReport,
  ) {
    this.draft = new Draft(layers.view);
  }

  rule(rule: FileRule): void {
    const observing = observes(rule, this.layers.policy);
    if (rule.action === "allow" || (observing && rule.action === "log")) {
      this.say.explain(
        "supervisor",
        observing
          ? "observes a permission: decides nothing"
          : "an exception to the rules below it, where those are asked about",
        "mounts and Landlock know no exceptions",
      );
      return;
    }
    for (const pattern of rule.path.flatMap(expandBraces)) {
      const [scope] = patternScopes(pattern);
      if (scope === undefined) continue;
      const path = { rule, pattern, scope };
      if (rule.action !== "deny" || observing || isConditional(rule)) this.#asked(path, observing);
      else this.#denied(path);
    }
  }

  /** What a question decides: only opens and changes of names can be asked about. */
  #asked(path: RulePath, observing: boolean): void {
    const { rule, scope } = path;
    const operations = new Set(rule.operations);
    for (const operation of rule.operations) {
      const reason = notAsked(rule, operation, observing);
      if (reason === undefined) continue;
      operations.delete(operation);
      this.say.refuse("cannot-enforce", ...reason);
    }
    if (operations.size === 0) return;
    const located = this.#locate(scope);
    if (located !== undefined) askAbout(path, located, operations, this);
  }

  /** A denial that always holds. */
  #denied(path: RulePath): void {
    const { rule, scope } = path;
    const operations = new Set(rule.operations);
    if (rule.subjects.length === 0 && !scope.exact) lowerByPattern(path, operations, this);
    if (operations.size > 0 && scope.exact && rule.subjects.length === 0)
      this.#alreadyNotExecutable(path, operations);
    if (operations.size === 0) return;
    const located = this.#locate(scope);
    if (located === undefined) return;
    if (rule.subjects.length > 0) denySubject(path, operations, this.layers, this.say);
    else if (scope.exact) this.#denyAll(path, located, operations);
    askAbout(path, located, operations, this);
    for (const operation of operations) {
      if (operation !== "create" && operation !== "chmod" && operation !== "exec") continue;
      this.say.refuse(
        "cannot-enforce",
        operation === "exec" ? "mounts" : "seccomp.notify",
        `no layer of this host refuses ${operation} by itself there`,
        operation === "exec" ? 'Write a rule of "exec".' : "Deny writing as a whole (operations: [write]).",
      );
    }
  }

  /** Where the rule's tree is; undefined when there is nothing to guard (and said so). */
  #locate({ tree }: PatternScope): Located | undefined {
    const { view } = this.layers;
    const { rule } = this.say;
    const located = view.locate(tree);
    if (located === undefined) {
      // Nothing exists outside mounts, so a denial there holds by itself.
      if (rule.action === "deny" && !view.mounts.some((m) => isWithin(m.target, tree))) {
        this.say.explain("mounts", `${tree} is in no mount: it does not exist in the sandbox`);
      } else {
        this.say.refuse(
          "cannot-enforce",
          "mounts",
          `${tree} is not inside one mount`,
          "Begin the path with a folder that is mounted, one path for each mount.",
        );
      }
      return undefined;
    }
    return this.usable(tree, located) ? located : undefined;
  }

  /** Whether something can be mounted over a path; says so when not. */
  usable(tree: string, located: Located): boolean {
    const { rule } = this.say;
    if (located.mount.kind === "tmpfs") {
      this.say.refuse(
        "cannot-enforce",
        "mounts",
        `${tree} is on a tmpfs, which is empty when the sandbox starts: there is nothing to guard yet`,
        "Mount a folder of the host there.",
      );
      return false;
    }
    if (located.throughLink) {
      this.say.refuse(
        "cannot-enforce",
        "mounts",
        `the way to ${tree} goes through a symbolic link on the host`,
        "Name the path that the link leads to.",
      );
      return false;
    }
    if (located.kind !== "missing") return true;
    if (rule.optional) {
      this.say.explain("none", `${located.hostPath} does not exist; the rule is optional`);
    } else {
      this.say.refuse(
        "cannot-enforce",
        "mounts",
        `${tree} does not exist, so nothing can be mounted over it`,
        `Create ${located.hostPath} on the host, or say "optional: true" if it may be made by the sandbox.`,
      );
    }
    return false;
  }

  /** False, and said, when an earlier rule makes an exception that a static layer cannot leave out. */
  isWhole(operations: Iterable<FileOperationName>, tree: string, how: string): boolean {
    const exception = this.earlier.find(operations, tree);
    if (exception === undefined) return true;
    this.say.refuse(
      "cannot-enforce",
      "mounts",
      `${tree} cannot be ${how}, because ${exception.id} speaks of a part of it first`,
      "Name the parts that are to be denied one by one.",
    );
    return false;
  }

  /** Nothing to do where the whole tree is on mounts that nothing can be executed from. */
  #alreadyNotExecutable({ scope }: RulePath, operations: Set<FileOperationName>): void {
    const { view } = this.layers;
    const mount = view.mountOf(scope.tree);
    if (!operations.has("exec") || mount === undefined || mount.exec) return;
    if (view.mounts.some((m) => m.exec && isWithin(m.target, scope.tree))) return;
    operations.delete("exec");
    this.say.explain("mounts", `nothing can be executed from the mount ${mount.target}`);
  }

  /** Denials for everybody, as far as mounts express them. What is left in `operations` must be asked about. */
  #denyAll({ scope }: RulePath, located: Located, operations: Set<FileOperationName>): void {
    const { tree } = scope;
    const { view } = this.layers;
    if (operations.has("read") || operations.has("open")) {
      checkBelowMask(tree, this.layers, this.say);
      if (this.isWhole(operations, tree, "masked")) {
        this.draft.pinAncestors(tree, located.mount);
        this.draft.masked.push(tree);
        this.say.explain("mask", "the null device lies over a file, an empty read-only folder over a folder");
      }
      operations.clear();
      return;
    }
    const noexec = operations.delete("exec");
    if (noexec) {
      const inner = view.mounts.find((m) => m.exec && m.target !== tree && isWithin(m.target, tree));
      if (inner !== undefined) {
        this.say.refuse(
          "cannot-enforce",
          "mounts",
          `the mount ${inner.target} lies in ${tree} and can be executed from`,
          'Say "exec: false" for that mount, or move it.',
        );
      }
      if (this.isWhole(["exec"], tree, "made non-executable")) {
        this.draft.bind(tree, located, located.mount.mode, false);
        this.say.explain(
          "noexec mount",
          "the path is bound over itself, and nothing can be executed from there",
        );
      }
    }
    if (operations.has("write")) {
      const inner = view.mounts.find((m) => m.mode === "rw" && m.target !== tree && isWithin(m.target, tree));
      if (inner !== undefined) {
        this.say.refuse(
          "cannot-enforce",
          "mounts",
          `the mount ${inner.target} lies in ${tree} and is writable`,
          'Say "mode: ro" for that mount, or move it.',
        );
      }
      if (this.isWhole(operations, tree, "made read-only")) {
        this.draft.bind(tree, located, "ro", noexec ? false : located.mount.exec);
        this.say.explain("read-only mount", "the path is bound read-only over itself");
      }
      operations.clear();
      return;
    }
    if (operations.size === 0) return;
    if (located.mount.mode === "ro") {
      operations.clear();
      this.say.explain("read-only mount", `the mount ${located.mount.target} is read-only`);
      return;
    }
    if (located.kind === "file" && [...operations].every((o) => PINNED_OPERATIONS.includes(o))) {
      this.draft.bind(tree, located, "rw");
      operations.clear();
      this.say.explain(
        "mount point",
        "a mount point can be neither removed nor renamed, nor linked elsewhere",
      );
    }
  }
}

export type { LoweredFiles } from "./file-plan.js";
export type { Lowering };
