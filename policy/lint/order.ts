// Rules that never decide, because an earlier one always does, and rules that a later one makes needless.

import type { Diagnostic } from "../diagnostics.js";
import { canonicalJson } from "../hash.js";
import { expandBraces, hasPattern } from "../match/glob.js";
import type { Policy } from "../model.js";
import {
  type AnyRule,
  covers,
  decidesFirst,
  decidesProgramsFirst,
  isExec,
  isFile,
  isSteady,
} from "./cover.js";

/** Pairs of rules that are compared in full in one policy, and pairs that are looked at. */
const MAX_COMPARISONS = 5000;
const MAX_PAIRS = 5_000_000;
/** How far below a rule one is looked for that makes it needless. */
const REDUNDANT_WINDOW = 64;

/** Says what is shadowed, contradictory or redundant, and, last, when it could not look at all pairs. */
export function lintOrder(policy: Policy): Diagnostic[] {
  const budget = { comparisons: MAX_COMPARISONS, pairs: MAX_PAIRS };
  const found = [policy.exec, policy.file, policy.network].flatMap((rules) =>
    lintSection(policy, rules, budget),
  );
  if (budget.comparisons <= 0 || budget.pairs <= 0) {
    found.push({
      severity: "warning",
      code: "lint-bounded",
      message: `the policy has more similar rules than can be compared with each other in reasonable time`,
      remedy: "Some rules that never decide may not be named here.",
      rule: "",
      layer: "",
      origin: policy.sandbox.origin,
    });
  }
  return found;
}

/** What is left of what one policy may take. */
interface Budget {
  comparisons: number;
  pairs: number;
}

function lintSection(policy: Policy, rules: readonly AnyRule[], budget: Budget): Diagnostic[] {
  const found: Diagnostic[] = [];
  const index = new Index();
  for (const [position, rule] of rules.entries()) {
    const first = search(policy, index.candidates(rule, budget), rule, budget);
    if (first !== undefined) found.push(first);
    else {
      const later = needless(policy, rules, position, budget);
      if (later !== undefined) found.push(later);
    }
    if (isSteady(rule)) index.add(rule);
  }
  return found;
}

function search(
  policy: Policy,
  earlier: readonly AnyRule[],
  rule: AnyRule,
  budget: Budget,
): Diagnostic | undefined {
  let programs: AnyRule | undefined;
  for (const a of earlier) {
    if (budget.comparisons-- <= 0) return undefined;
    if (decidesFirst(policy, a, rule)) return shadowed(a, rule);
    if (programs === undefined && a.action !== rule.action && isExec(a) && isExec(rule)) {
      if (decidesProgramsFirst(policy, a, rule)) programs = a;
    }
  }
  if (programs === undefined) return undefined;
  return warning(
    "shadowed",
    rule,
    `${rule.id} (${rule.action}) decides for no program that has a name: ${where(programs, rule)} (${programs.action}) comes first and matches all that it names`,
    `It is left with files without a name, and scripts whose interpreter ${programs.id} does not match. Put it before ${programs.id}.`,
  );
}

function shadowed(a: AnyRule, rule: AnyRule): Diagnostic {
  if (a.action === rule.action) {
    return warning(
      "redundant",
      rule,
      `${rule.id} never decides: ${where(a, rule)} comes first, matches all that it matches, and says ${a.action} too`,
      "Remove it, or put it first if its message or its terms are the ones that count.",
    );
  }
  if (canonicalJson(matchers(a)) === canonicalJson(matchers(rule))) {
    return warning(
      "contradictory",
      rule,
      `${rule.id} says ${rule.action} of exactly what ${where(a, rule)} says ${a.action} of; the first of them decides`,
      "Keep one of the two.",
    );
  }
  return warning(
    "shadowed",
    rule,
    `${rule.id} (${rule.action}) never decides: ${where(a, rule)} (${a.action}) comes first and matches all that it matches`,
    a.locked ? `Remove it: ${a.id} is locked and decides first.` : `Put it before ${a.id}, or remove it.`,
  );
}

/** A later rule that says the same of all this one matches, with only rules of that same action between the two. */
function needless(
  policy: Policy,
  rules: readonly AnyRule[],
  position: number,
  budget: Budget,
): Diagnostic | undefined {
  const rule = rules[position];
  if (rule === undefined || rule.locked || !isSteady(rule) || says(rule) || isFile(rule)) return undefined;
  for (const later of rules.slice(position + 1, position + 1 + REDUNDANT_WINDOW)) {
    if (later.action !== rule.action || later.locked || later.mode !== "enforce") return undefined;
    if (!isSteady(later) || terms(later) !== terms(rule)) continue;
    if (budget.comparisons-- <= 0) return undefined;
    if (covers(policy, later, rule)) {
      return warning(
        "redundant",
        rule,
        `${rule.id} changes nothing: ${where(later, rule)} comes after it, matches all that it matches, and says ${later.action} too`,
        'Remove it, or say under "because" why it is there.',
      );
    }
  }
  return undefined;
}

/** True when a match of this rule tells a person something that a match of another would not. */
function says(rule: AnyRule): boolean {
  return rule.because !== "" || rule.message !== "" || rule.tags.length > 0 || rule.severity !== "info";
}

/** What decides beside the action: how long a hold waits, and which private addresses a name may have. */
function terms(rule: AnyRule): string {
  return canonicalJson([rule.hold, "resolvesTo" in rule ? rule.resolvesTo : []]);
}

function matchers(rule: AnyRule): object {
  const { id: _, action: _a, message: _m, because: _b, hold: _h, origin: _o, ...rest } = rule;
  const { severity: _s, tags: _t, match: _e, notMatch: _n, locked: _l, ...matchers } = rest;
  return matchers;
}

function where(rule: AnyRule, from: AnyRule): string {
  const { file, line } = rule.origin;
  return file === from.origin.file ? `${rule.id} in line ${line}` : `${rule.id} (${file}:${line})`;
}

function warning(code: string, rule: AnyRule, message: string, remedy: string): Diagnostic {
  return { severity: "warning", code, message, remedy, rule: rule.id, layer: "", origin: rule.origin };
}

/**
 * Rules by what the texts they match begin with. A rule can match all that another does only where each of its
 * beginnings is one of the other's: so a few look-ups find all that need to be compared.
 */
class Index {
  readonly #byKey = new Map<string, Entry[]>();
  #count = 0;

  add(rule: AnyRule): void {
    const at = this.#count++;
    const entry: Entry = {
      rule,
      at,
      endings: patternsOf(rule).flatMap((p) => alternativesOf(rule, p, ending)),
    };
    for (const key of new Set(keysOf(rule))) {
      const known = this.#byKey.get(key);
      if (known === undefined) this.#byKey.set(key, [entry]);
      else known.push(entry);
    }
  }

  /** In the order of the policy. */
  candidates(rule: AnyRule, budget: Budget): AnyRule[] {
    const found = new Map<number, AnyRule>();
    const first = patternsOf(rule)[0];
    const end = first === undefined ? undefined : alternativesOf(rule, first, ending)[0];
    for (const key of lookups(rule)) {
      for (const { rule: candidate, at, endings } of this.#byKey.get(key) ?? []) {
        if (budget.pairs-- <= 0) break;
        if (end === undefined || endings.length === 0 || endings.some((e) => end.endsWith(e)))
          found.set(at, candidate);
      }
    }
    return [...found.entries()].sort(([a], [b]) => a - b).map(([, candidate]) => candidate);
  }
}

interface Entry {
  readonly rule: AnyRule;
  /** Place in the policy. */
  readonly at: number;
  /** What the texts that it matches end with, one for each alternative; none: not told by that. */
  readonly endings: readonly string[];
}

const ANY = "any";

/** The path patterns that a rule is indexed by. */
function patternsOf(rule: AnyRule): readonly string[] {
  return isExec(rule) ? rule.executable : isFile(rule) ? rule.path : [];
}

/** Keys under which a rule is found by all that it could cover. */
function keysOf(rule: AnyRule): string[] {
  if (isExec(rule) && rule.executable.length === 0) return [ANY];
  if (isExec(rule) || isFile(rule))
    return patternsOf(rule)
      .flatMap((p) => alternativesOf(rule, p, beginning))
      .map((text) => `path ${text}`);
  return [...rule.host.map((host) => `host ${host}`), ...(rule.cidr.length > 0 ? ["cidr"] : [])];
}

/** All keys of rules that could cover this one: those of its first pattern are enough. */
function lookups(rule: AnyRule): string[] {
  if (isExec(rule) || isFile(rule)) {
    const first = patternsOf(rule)[0];
    const text = first === undefined ? undefined : alternativesOf(rule, first, beginning)[0];
    if (text === undefined) return [ANY];
    return [ANY, ...Array.from({ length: text.length + 1 }, (_, length) => `path ${text.slice(0, length)}`)];
  }
  const host = rule.host[0];
  if (host === undefined) return ["cidr"];
  const labels = host.split(".");
  const wider = labels.slice(1).map((_, i) => `host *.${labels.slice(i + 1).join(".")}`);
  return [...new Set(["host *", `host ${host}`, ...wider])];
}

/** One text for each alternative of a pattern. Of a file rule a plain path is the tree below it, too. */
function alternativesOf(rule: AnyRule, pattern: string, of: (alternative: string) => string): string[] {
  const tree = isFile(rule) && !hasPattern(pattern) ? "*" : "";
  return expandBraces(pattern).map((alternative) => of(alternative + tree));
}

/** What every text that it matches begins with: what comes before the first wildcard. */
function beginning(alternative: string): string {
  if (!alternative.startsWith("/")) return "/";
  let text = "";
  for (let i = 0; i < alternative.length; i++) {
    const c = alternative[i] as string;
    if (c === "*" || c === "?") break;
    text += c === "\\" ? (alternative[++i] ?? "") : c;
  }
  return text;
}

/** What every text that it matches ends with: what comes after the last wildcard. */
function ending(alternative: string): string {
  let text = "";
  for (let i = 0; i < alternative.length; i++) {
    const c = alternative[i] as string;
    if (c === "*" || c === "?") text = "";
    else text += c === "\\" ? (alternative[++i] ?? "") : c;
  }
  return text;
}
