// Whether one rule matches everything that another of its section does, told from what they say. "yes" is certain.
// What a rule does with facts that are not known (which parent, what is in the first bytes) depends on whether it
// permits or restricts, so a rule of the one kind covers one of the other only where no such fact is asked for.

import type { ArgvPattern, ExecRule, FileRule, NetworkRule, Policy, RuleBase } from "../model.js";
import {
  includesArgv,
  includesCidrs,
  includesHosts,
  includesPaths,
  includesPorts,
  includesTexts,
} from "./inclusion.js";

export type AnyRule = ExecRule | FileRule | NetworkRule;

const PLAIN = { subtree: false };
const TREE = { subtree: true };

/** True for deny and hold. */
export function restricts(rule: RuleBase): boolean {
  return rule.action === "deny" || rule.action === "hold";
}

/** True when the rule decides whenever it matches: always, in every mode, however often. */
export function isSteady(rule: RuleBase): boolean {
  return rule.when.length === 0 && rule.rate === undefined && rule.mode === "enforce";
}

/**
 * True when `a`, which stands before `b`, decides whatever `b` would: `b` is never the rule that decides. Both are of
 * one section. False also means "not known".
 */
export function decidesFirst(policy: Policy, a: AnyRule, b: AnyRule): boolean {
  if (!isSteady(a)) return false;
  // Locked rules are a floor: a denial ends the question, a hold only raises what the others say.
  if (a.locked && a.action !== "deny" && !(b.locked && b.action === "hold")) return false;
  return covers(policy, a, b);
}

/** True when `a` matches everything that `b` matches, leaving times and rates out of account. */
export function covers(policy: Policy, a: AnyRule, b: AnyRule): boolean {
  if (!coversSubjects(policy, a, b)) return false;
  if (isExec(a) && isExec(b)) return coversExec(a, b);
  if (isFile(a) && isFile(b)) return coversFile(a, b);
  return isNetwork(a) && isNetwork(b) && coversNetwork(a, b);
}

export function isExec(rule: AnyRule): rule is ExecRule {
  return "executable" in rule;
}
export function isFile(rule: AnyRule): rule is FileRule {
  return "operations" in rule;
}
export function isNetwork(rule: AnyRule): rule is NetworkRule {
  return "cidr" in rule;
}

function coversSubjects(policy: Policy, a: RuleBase, b: RuleBase): boolean {
  if (a.subjects.length === 0) return true;
  const wanted = b.subjects.length === 0 ? policy.subjects.map(({ name }) => name) : b.subjects;
  return wanted.every((name) => a.subjects.includes(name));
}

/** For a list of which one must match: the empty one is any. */
function coversList(
  a: readonly string[],
  b: readonly string[],
  includes: (a: readonly string[], b: readonly string[]) => string,
): boolean {
  return a.length === 0 || (b.length > 0 && includes(a, b) === "yes");
}

const bySet = (a: readonly unknown[], b: readonly unknown[]) =>
  b.every((x) => a.includes(x)) ? "yes" : "no";
const byPath = (a: readonly string[], b: readonly string[]) => includesPaths(a, b, PLAIN);

function coversExec(a: ExecRule, b: ExecRule): boolean {
  if (bySet(a.kinds, b.kinds) !== "yes") return false;
  const facts = [a.sha256, a.cwd, a.environment, a.parent, a.ancestor, a.category, a.code].flat();
  const asks = facts.length > 0 || a.inWorkspace !== undefined || !(a.argv === undefined || onlyGlob(a.argv));
  if (asks && restricts(a) !== restricts(b)) return false;
  // A permission by content or by place holds for a script only when it names the interpreter or the script.
  const byFile = (rule: ExecRule) => rule.executable.length + rule.script.length > 0;
  if ((a.sha256.length > 0 || a.inWorkspace !== undefined) && byFile(a) !== byFile(b)) return false;
  return (
    coversImage(a, b) &&
    coversList(a.script, b.script, byPath) &&
    coversList(a.sha256, b.sha256, bySet) &&
    (a.inWorkspace === undefined || a.inWorkspace === b.inWorkspace) &&
    coversList(a.code, b.code, bySet) &&
    coversArgv(a.argv, b.argv) &&
    coversList(a.cwd, b.cwd, byPath) &&
    coversList(a.environment, b.environment, includesTexts) &&
    coversList(a.parent, b.parent, byPath) &&
    coversList(a.ancestor, b.ancestor, byPath) &&
    coversList(a.category, b.category, bySet)
  );
}

/** A restricting rule without `script` also matches by the script's own path; a permitting one never does. */
function coversImage(a: ExecRule, b: ExecRule): boolean {
  if (a.executable.length === 0) return true;
  if (b.executable.length === 0 || byPath(a.executable, b.executable) !== "yes") return false;
  return !matchesByScript(b) || matchesByScript(a);
}

function matchesByScript(rule: ExecRule): boolean {
  return restricts(rule) && rule.script.length === 0 && rule.executable.length > 0;
}

/**
 * True when `a` decides first for all programs that `b` names, and what is left to `b` are files without a name, and
 * scripts of these names whose interpreter `a` does not match. The usual mistake: "allow /usr/**" before
 * "deny /usr/bin/x".
 */
export function decidesProgramsFirst(policy: Policy, a: ExecRule, b: ExecRule): boolean {
  if (!b.kinds.includes("file") || (a.script.length > 0 && b.script.length === 0)) return false;
  // With a list of scripts that is any, `b` no longer matches by the script's path.
  const script = matchesByScript(b) ? ["/**"] : b.script;
  return decidesFirst(policy, a, { ...b, script, kinds: ["file"] });
}

function onlyGlob(argv: ArgvPattern): boolean {
  const { exact, prefix, regex, flags, without } = argv;
  return exact === undefined && prefix === undefined && regex.length + flags.length + without.length === 0;
}

function coversArgv(a: ArgvPattern | undefined, b: ArgvPattern | undefined): boolean {
  if (a === undefined) return true;
  if (b === undefined) return onlyGlob(a) && (a.glob === undefined || includesArgv(a.glob, ["**"]) === "yes");
  if (JSON.stringify(a) === JSON.stringify(b)) return true;
  if (a.glob !== undefined && includesArgv(a.glob, b.glob ?? ["**"]) !== "yes") return false;
  if (a.exact !== undefined && JSON.stringify(a.exact) !== JSON.stringify(b.exact)) return false;
  if (a.prefix !== undefined) {
    const known = b.exact ?? b.prefix ?? [];
    if (!a.prefix.every((word, i) => known[i] === word)) return false;
  }
  // All of these must hold, so `a` covers `b` where it asks for no more.
  if (bySet(b.regex, a.regex) !== "yes") return false;
  if (a.flags.length + a.without.length === 0) return true;
  const names = (flags: readonly (readonly string[])[]) => flags.map((flag) => [...flag].sort().join("|"));
  return (
    JSON.stringify(a.valued) === JSON.stringify(b.valued) &&
    bySet(names(b.flags), names(a.flags)) === "yes" &&
    bySet(names(b.without), names(a.without)) === "yes"
  );
}

function coversFile(a: FileRule, b: FileRule): boolean {
  if (bySet(a.operations, b.operations) !== "yes") return false;
  if (a.owner.length > 0 && (b.owner.length === 0 || bySet(a.owner, b.owner) !== "yes")) return false;
  // Of two names one is enough to restrict, and both are needed to permit; masks and read-only mounts know no order.
  if (!restricts(a) && restricts(b)) return false;
  if (restricts(a) !== restricts(b) && a.owner.length > 0) return false;
  return includesPaths(a.path, b.path, TREE) === "yes";
}

/** Names can be looked up as soon as some port is open, so a denial of some connections says nothing of the lookup. */
function ofSomeConnections(rule: NetworkRule): boolean {
  return rule.ports.length + rule.protocols.length + rule.methods.length + rule.paths.length > 0;
}

function coversNetwork(a: NetworkRule, b: NetworkRule): boolean {
  if (a.action === "deny" && ofSomeConnections(a) && !(b.action === "deny" && ofSomeConnections(b)))
    return false;
  const unsure = a.protocols.length + a.methods.length + a.paths.length > 0;
  if (unsure && restricts(a) !== restricts(b)) return false;
  return (
    (b.host.length === 0 || (a.host.length > 0 && includesHosts(a.host, b.host) === "yes")) &&
    (b.cidr.length === 0 || (a.cidr.length > 0 && includesCidrs(a.cidr, b.cidr) === "yes")) &&
    includesPorts(a.ports, b.ports) === "yes" &&
    coversList(a.protocols, b.protocols, bySet) &&
    coversList(a.methods, b.methods, bySet) &&
    coversList(a.paths, b.paths, bySet)
  );
}
