// Verdicts on execs, the subjects they lead into, and how far an answer may be used again.
//
// `executable` speaks of the image that the kernel loads, which for a script is its interpreter. A rule that
// restricts also matches by the script's own path, so that "deny /tmp/**" means scripts in /tmp too; a rule that
// permits never does, since that would permit whatever interpreter the script names.

import { CacheScope, type ExecAction, ExecFact, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import { isCanonical } from "../match/path.js";
import type { Action, ExecKind, ExecRule, Policy } from "../model.js";
import {
  type AskedExec,
  coversScripts,
  type ReadyExec,
  readyExec,
  scriptsOf,
  takesWay,
} from "./exec-facts.js";
import { match, misses } from "./facts.js";
import { type Fallback, type Inquiry, once, type Refusal, ranked } from "./rules.js";
import { insertPath, Trie } from "./trie.js";

interface ExecIndex {
  /** By rank, each made when it is first looked at. */
  readonly ready: (ReadyExec | undefined)[];
  readonly rules: readonly ExecRule[];
  /** By the patterns that the image must match. */
  readonly images: Trie;
  /** By the patterns that the script may match. */
  readonly scripts: Trie;
  /** Rules that name neither. */
  readonly rest: readonly number[];
  /** Ranks of the rules that a script decides which is not there now, but may be with the same image. */
  readonly byScript: readonly number[];
  /** Those of them that name scripts and no image. */
  readonly byScriptAlone: readonly number[];
}

const indexOf = once((policy: Policy): ExecIndex => {
  const rules = ranked(policy.exec);
  const images = new Trie();
  const scripts = new Trie();
  const rest: number[] = [];
  const byScript: number[] = [];
  const byScriptAlone: number[] = [];
  for (const [rank, rule] of rules.entries()) {
    const named = rule.executable.length > 0;
    for (const pattern of rule.executable) {
      insertPath(images, pattern, rank, false);
      if (coversScripts(rule)) insertPath(scripts, pattern, rank, false);
    }
    if (!named) for (const pattern of rule.script) insertPath(scripts, pattern, rank, false);
    if (!named && rule.script.length === 0) rest.push(rank);
    if (coversScripts(rule) || (!named && rule.script.length > 0)) byScript.push(rank);
    if (!named && rule.script.length > 0) byScriptAlone.push(rank);
  }
  return { ready: new Array(rules.length), rules, images, scripts, rest, byScript, byScriptAlone };
});

function readyAt({ ready, rules }: ExecIndex, rank: number): ReadyExec {
  ready[rank] ??= readyExec(rules[rank] as ExecRule);
  return ready[rank];
}

function kindOf(exec: ExecAction): ExecKind | undefined {
  switch (exec.kind) {
    case ExecutableKind.FILE:
      return "file";
    case ExecutableKind.ANONYMOUS:
      return "anonymous";
    case ExecutableKind.DELETED:
      return "deleted";
    default:
      return undefined;
  }
}

export function inquireExec(
  policy: Policy,
  { subject, process }: Action,
  exec: ExecAction,
): Inquiry | Refusal {
  if (exec.argvTruncated)
    return {
      fact: "argv",
      rule: "exec/argv-too-long",
      sentence: "its arguments are longer than can be checked",
    };
  const kind = kindOf(exec);
  if (kind === undefined)
    return { fact: "kind", rule: "exec/unknown-file", sentence: "it is not known what kind of file it is" };
  const others = [...scriptsOf(exec), ...(exec.loader === "" ? [] : [exec.loader])];
  if ((kind === "file" && !isCanonical(exec.executable)) || !others.every(isCanonical))
    return { fact: "executable", rule: "exec/unknown-file", sentence: "its path is not known" };
  if (!policy.subjects.some((s) => s.name === subject)) {
    const sentence = "the policy does not know the subject of the caller";
    return { fact: "subject", rule: "exec/unknown-subject", sentence };
  }

  const index = indexOf(policy);
  // No cache knows which scripts interpret a script.
  const looked = {
    beyondFile: false,
    beyondCache: exec.nestedScripts.length > 0,
    cwd: false,
    environment: false,
    script: false,
  };
  const asked: AskedExec = { subject, exec, kind, process, workspace: policy.sandbox.workspace, looked };
  const matchReady = (rule: ReadyExec) => match(rule, rule.facts, asked);
  const fallback: Fallback =
    kind === "file"
      ? { rule: "exec/default", action: policy.defaults.exec, sentence: "", fixed: false }
      : {
          rule: "exec/default",
          action: "deny",
          sentence: "it has no name in any file system, and no rule allows such files",
          fixed: false,
        };
  return {
    rules: index.rules,
    candidates: () => [
      ...index.images.find(exec.executable),
      ...(exec.loader === "" ? [] : index.images.find(exec.loader)),
      ...scriptsOf(exec).flatMap((script) => index.scripts.find(script)),
      ...(exec.scriptUnknown === "" ? [] : [index.byScript]),
      index.rest,
    ],
    match: (rank) => matchReady(readyAt(index, rank)),
    matchRule: (rule) => matchReady(readyExec(rule as ExecRule)),
    misses: (rank) => misses(readyAt(index, rank), readyAt(index, rank).facts, asked),
    actionOf: (rule) => rule.action,
    hasRate: true,
    fallback: () => fallback,
    scope: (rank) => {
      // A file without a name is not known again by one.
      if (kind !== "file" || looked.beyondCache) return CacheScope.NONE;
      return looked.beyondFile || passes(index, index.byScript, asked, rank)
        ? CacheScope.FILE_ARGV
        : CacheScope.FILE;
    },
    dependsOn: (rank) => {
      const held = rank === "hold";
      const byScript = held || looked.script || passes(index, index.byScriptAlone, asked, rank);
      const facts: (readonly [boolean, ExecFact])[] = [
        [held || looked.cwd, ExecFact.CWD],
        [held || looked.environment, ExecFact.ENVIRONMENT],
        [exec.script !== "" && byScript, ExecFact.SCRIPT],
      ];
      return facts.filter(([looks]) => looks).map(([, fact]) => fact);
    },
    entered: () => transition(policy, asked),
  };
}

/** Whether one of these rules, before this rank, would decide about the same image with another script. */
function passes(
  { rules }: ExecIndex,
  ranks: readonly number[],
  { subject, kind }: AskedExec,
  rank: number,
): boolean {
  for (const passed of ranks) {
    if (passed >= rank) return false;
    const { subjects, kinds } = rules[passed] as ExecRule;
    if (kinds.includes(kind) && (subjects.length === 0 || subjects.includes(subject))) return true;
  }
  return false;
}

/** The subject that an exec leads into: the first, in the order of the policy, with a matching way in. */
function transition(policy: Policy, asked: AskedExec): string {
  if (asked.kind !== "file") return "";
  return policy.subjects.find((subject) => subject.enters.some((way) => takesWay(way, asked)))?.name ?? "";
}
