// What is said about one file rule while it is lowered, and the words that its lowering shares.

import type { PatternScope } from "../match/path.js";
import type { FileOperationName, FileRule, Policy } from "../model.js";
import type { FileLayers } from "./files.js";
import type { Report } from "./report.js";

/** Calls that change names or sizes and can be asked about. */
export const NAME_OPERATIONS: readonly FileOperationName[] = ["delete", "rename", "link", "truncate"];
/** What a mount point withstands by itself. */
export const PINNED_OPERATIONS: readonly FileOperationName[] = ["delete", "rename", "link"];

/** True when the rule only records what it would have done. */
export function observes(rule: FileRule, policy: Policy): boolean {
  return !rule.locked && (rule.mode === "observe" || policy.mode === "observe");
}

/** True when a rule looks at what no static layer knows. */
export function isConditional(rule: FileRule): boolean {
  return rule.when.length > 0 || rule.rate !== undefined || rule.owner.length > 0;
}

export class FileReport {
  #refused = false;
  readonly #warned = new Set<string>();

  constructor(
    readonly rule: FileRule,
    readonly layers: FileLayers,
    readonly report: Report,
  ) {}

  /** True once a part of the rule was refused: then nothing of it is lowered. */
  get refused(): boolean {
    return this.#refused;
  }

  refuse(code: "cannot-enforce" | "missing-layer", layer: string, message: string, remedy: string): void {
    this.#refused = true;
    const { id, origin } = this.rule;
    const waived = this.report.refuse(
      code,
      id,
      layer,
      origin,
      `${id} cannot be enforced: ${message}`,
      remedy,
    );
    if (waived) this.explain(layer, message);
  }

  /** False, and refused, when the host lacks a mechanism. */
  need(mechanism: string): boolean {
    const there = this.layers.capabilities.need(this.report, [mechanism], this.rule.id, this.rule.origin);
    if (!there) {
      this.#refused = true;
      this.explain(mechanism, "it is missing");
    }
    return there;
  }

  explain(layer: string, why: string, notCheaper = ""): void {
    this.report.explain(this.rule.id, this.rule.action, layer, why, this.rule.origin, notCheaper);
  }

  /** Once for each code and sentence. */
  warning(code: string, message: string, remedy: string): void {
    if (this.#warned.has(code + message)) return;
    this.#warned.add(code + message);
    this.report.warning(code, this.rule.id, this.rule.origin, message, remedy);
  }

  /** Why the rule is asked about at all. */
  whyAsked(scope: PatternScope): string {
    const { rule } = this;
    if (observes(rule, this.layers.policy)) return "mounts, Landlock and AppArmor refuse, and record nothing";
    if (rule.owner.length > 0) return "mounts, Landlock and AppArmor do not look at owners";
    if (rule.when.length > 0 || rule.rate !== undefined)
      return "mounts, Landlock and AppArmor know neither the time nor how often";
    if (rule.action !== "deny") return "mounts, Landlock and AppArmor refuse or permit, they do not ask";
    if (rule.subjects.length > 0) return "mounts hold for all subjects, and Landlock cannot take a part away";
    return scope.exact
      ? "mounts cannot refuse these operations alone"
      : "mounts and Landlock know trees, no patterns, and AppArmor cannot say it exactly on this host";
  }
}
