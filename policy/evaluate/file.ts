// Verdicts on file operations that the loader asks about. What the mounts grant is the last rule of every policy:
// a guarded operation that no rule speaks of is as allowed as the mount it is on makes it.

import { CacheScope, type FileAction, FileOperation } from "../../proto/gen/clawsec/v1/loader.js";
import type { Finding } from "../evaluate.js";
import { hasPattern, type Matcher } from "../match/glob.js";
import { compilePath, isCanonical, isWithin } from "../match/path.js";
import type { FileOperationName, FileRule, Mount, Policy } from "../model.js";
import { firstMatch, once } from "./rules.js";

const pathsOf = once((rule: FileRule): readonly Matcher[] =>
  rule.path.map((p) => compilePath(p, { subtree: true })),
);

/**
 * Operations of a rule that speak of what is asked. The kernel does not say whether an open reads or writes: `read`
 * speaks of every open, and `write` of none (it is enforced by the mount, where the kernel does know).
 */
const SPEAKS: Readonly<Record<number, readonly FileOperationName[]>> = {
  [FileOperation.OPEN]: ["open", "read"],
  [FileOperation.DELETE]: ["delete", "write"],
  [FileOperation.RENAME]: ["rename", "write"],
  [FileOperation.LINK]: ["link", "write"],
  [FileOperation.TRUNCATE]: ["truncate", "write"],
};

function hasTarget(operation: FileOperation): boolean {
  return operation === FileOperation.RENAME || operation === FileOperation.LINK;
}

function speaksOf(rule: FileRule, action: FileAction): boolean {
  const restricts = rule.action === "deny" || rule.action === "hold";
  if (SPEAKS[action.operation]?.some((name) => rule.operations.includes(name))) return true;
  // A name that must not be opened must not be given to the file by another name either.
  return (
    restricts &&
    hasTarget(action.operation) &&
    (rule.operations.includes("open") || rule.operations.includes("read"))
  );
}

function matchesPaths(rule: FileRule, action: FileAction): boolean {
  const paths = pathsOf(rule);
  const matches = (path: string) => paths.some((m) => m(path));
  if (!hasTarget(action.operation)) return matches(action.path);
  // Two names: one is enough to restrict, both are needed to permit.
  if (rule.action === "deny" || rule.action === "hold")
    return matches(action.path) || matches(action.targetPath);
  return matches(action.path) && matches(action.targetPath);
}

/** The mount that a path is on: the one with the longest target that holds it. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let best: Mount | undefined;
  for (const mount of mounts) {
    if (isWithin(path, mount.target) && (best === undefined || mount.target.length >= best.target.length))
      best = mount;
  }
  return best;
}

export function evaluateFile(policy: Policy, subject: string, action: FileAction): Finding {
  let scope = action.operation === FileOperation.OPEN ? CacheScope.FILE : CacheScope.NONE;
  const known = SPEAKS[action.operation] !== undefined && isCanonical(action.path);
  const whole = known && (!hasTarget(action.operation) || isCanonical(action.targetPath));
  if (!whole || !policy.subjects.some((s) => s.name === subject)) {
    return {
      rule: undefined,
      action: "deny",
      fallbackRule: "file/unknown",
      fallbackMessage: "its path, its operation or the subject of the caller is not known",
      cacheScope: CacheScope.NONE,
      enterSubject: "",
      trace: [],
    };
  }
  const { rule, trace } = firstMatch(policy.file, subject, (candidate) => {
    if (!speaksOf(candidate, action)) return "operation";
    // A pattern decides by names, which can change without the file changing: such answers are not kept.
    if (candidate.path.some(hasPattern)) scope = CacheScope.NONE;
    return matchesPaths(candidate, action) ? "" : "path";
  });
  if (rule !== undefined) {
    const cacheScope = rule.action === "log" ? CacheScope.NONE : scope;
    return { rule, action: rule.action, fallbackRule: rule.id, cacheScope, enterSubject: "", trace };
  }
  const mount = mountOf(policy.sandbox.mounts, action.path);
  const target = hasTarget(action.operation) ? mountOf(policy.sandbox.mounts, action.targetPath) : mount;
  const writes = action.operation !== FileOperation.OPEN;
  const granted =
    mount !== undefined && target !== undefined && (!writes || (mount.mode === "rw" && target.mode === "rw"));
  return {
    rule: undefined,
    action: granted ? "allow" : "deny",
    fallbackRule: granted ? "file/mounts" : "file/default",
    cacheScope: scope,
    enterSubject: "",
    trace,
  };
}
