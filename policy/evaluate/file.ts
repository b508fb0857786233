// Verdicts on file operations that the loader asks about. What the mounts grant is the last rule of every policy:
// a guarded operation that no rule speaks of is as allowed as the mount it is on makes it.

import { CacheScope, type FileAction, FileOperation } from "../../proto/gen/clawsec/v1/loader.js";
import { hasPattern, type Matcher } from "../match/glob.js";
import { compilePath, isCanonical, isWithin } from "../match/path.js";
import type { Action, FileOperationName, FileRule, Mount, Policy } from "../model.js";
import { type Fact, match, misses, picker, type Ready, ready, restricts, subjectFact } from "./facts.js";
import { type Fallback, type Inquiry, once, type Refusal, ranked } from "./rules.js";
import { insertPath, Trie } from "./trie.js";

interface AskedFile {
  readonly subject: string;
  readonly action: FileAction;
}

interface ReadyFile extends Ready<FileRule, ReadyFile, AskedFile> {
  readonly path: readonly Matcher[];
}

function readyFile(rule: FileRule): ReadyFile {
  return {
    ...ready<FileRule, ReadyFile, AskedFile>(rule, fileFacts(rule)),
    path: rule.path.map((p) => compilePath(p, { subtree: true })),
  };
}

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
  [FileOperation.CREATE]: ["create", "write"],
  [FileOperation.CHMOD]: ["chmod"],
};

function hasTarget(operation: FileOperation): boolean {
  return operation === FileOperation.RENAME || operation === FileOperation.LINK;
}

const has = (rule: FileRule, names: readonly FileOperationName[]) =>
  names.some((name) => rule.operations.includes(name));

/** Whether the rule speaks of the operation on its (first) name. */
function speaksOfName(rule: FileRule, operation: FileOperation): boolean {
  if (has(rule, SPEAKS[operation] ?? [])) return true;
  // What must not change must not become writable to others; the right to write is not the right to chmod. For one
  // subject it is Landlock that keeps from writing, and chmod(2) is none of its rights.
  return (
    operation === FileOperation.CHMOD && restricts(rule) && rule.subjects.length === 0 && has(rule, ["write"])
  );
}

/** A rename or a link makes its target: where nothing may be created, it may not either. */
function speaksOfTarget(rule: FileRule, operation: FileOperation): boolean {
  return hasTarget(operation) && restricts(rule) && has(rule, ["create"]);
}

function matchesPaths(ready: ReadyFile, { action }: AskedFile): boolean {
  const { rule, restricts } = ready;
  const matches = (text: string) => ready.path.some((m) => m(text));
  const { operation, path, targetPath } = action;
  if (!hasTarget(operation)) return matches(path);
  // Two names: one is enough to restrict, both are needed to permit.
  if (restricts) return matches(targetPath) || (speaksOfName(rule, operation) && matches(path));
  return matches(path) && matches(targetPath);
}

/**
 * The owner is that of the object at the first name. Who owns what a rename replaces is not known: a restriction
 * holds for it, whoever does.
 */
function matchesOwner({ rule, restricts, path }: ReadyFile, { action }: AskedFile): boolean {
  if (rule.owner.includes(action.ownerUid)) return true;
  const replaces = action.operation === FileOperation.RENAME && restricts;
  return replaces && path.some((m) => m(action.targetPath));
}

const WORDS: Readonly<Record<number, FileOperationName>> = {
  [FileOperation.OPEN]: "open",
  [FileOperation.DELETE]: "delete",
  [FileOperation.RENAME]: "rename",
  [FileOperation.LINK]: "link",
  [FileOperation.TRUNCATE]: "truncate",
  [FileOperation.CREATE]: "create",
  [FileOperation.CHMOD]: "chmod",
};

/** The operation's name in the language; undefined for a number that is none. */
export function operationName(operation: FileOperation): FileOperationName | undefined {
  return WORDS[operation];
}

const FILE_FACTS: readonly Fact<FileRule, ReadyFile, AskedFile>[] = [
  subjectFact(),
  {
    name: "operation",
    isSaid: () => true,
    holds: ({ rule }, { action: { operation } }) =>
      speaksOfName(rule, operation) || speaksOfTarget(rule, operation),
    is: ({ action }) => operationName(action.operation) ?? "",
    wants: (rule) => rule.operations.join(", "),
  },
  {
    name: "path",
    isSaid: () => true,
    holds: matchesPaths,
    is: ({ action }) => (hasTarget(action.operation) ? `${action.path}, ${action.targetPath}` : action.path),
    wants: (rule) => rule.path.join(", "),
  },
  {
    name: "owner",
    isSaid: (rule) => rule.owner.length > 0,
    holds: matchesOwner,
    is: ({ action }) => String(action.ownerUid),
    wants: (rule) => rule.owner.join(", "),
  },
];

const fileFacts = picker(FILE_FACTS);

interface FileIndex {
  /** By rank, each made when it is first looked at. */
  readonly ready: (ReadyFile | undefined)[];
  readonly rules: readonly FileRule[];
  readonly paths: Trie;
  /** Ranks of the rules about opens that go by patterns. */
  readonly byPattern: readonly number[];
}

const indexOf = once((policy: Policy): FileIndex => {
  const rules = ranked(policy.file);
  const paths = new Trie();
  const byPattern: number[] = [];
  for (const [rank, rule] of rules.entries()) {
    for (const pattern of rule.path) insertPath(paths, pattern, rank, true);
    if (speaksOfName(rule, FileOperation.OPEN) && rule.path.some(hasPattern)) byPattern.push(rank);
  }
  return { ready: new Array(rules.length), rules, paths, byPattern };
});

function readyAt({ ready, rules }: FileIndex, rank: number): ReadyFile {
  ready[rank] ??= readyFile(rules[rank] as FileRule);
  return ready[rank];
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

export function inquireFile(policy: Policy, { subject }: Action, action: FileAction): Inquiry | Refusal {
  const two = hasTarget(action.operation);
  const facts: [string, boolean][] = [
    ["operation", operationName(action.operation) !== undefined],
    ["path", isCanonical(action.path) && (!two || isCanonical(action.targetPath))],
    ["subject", policy.subjects.some((s) => s.name === subject)],
  ];
  const unknown = facts.find(([, known]) => !known);
  if (unknown !== undefined) {
    const sentence = "its path, its operation or the subject of the caller is not known";
    return { fact: unknown[0], rule: "file/unknown", sentence };
  }
  const index = indexOf(policy);
  const asked: AskedFile = { subject, action };
  const matchReady = (rule: ReadyFile) => match(rule, rule.facts, asked);
  return {
    rules: index.rules,
    candidates: () => [...index.paths.find(action.path), ...(two ? index.paths.find(action.targetPath) : [])],
    match: (rank) => matchReady(readyAt(index, rank)),
    matchRule: (rule) => matchReady(readyFile(rule as FileRule)),
    misses: (rank) => misses(readyAt(index, rank), readyAt(index, rank).facts, asked),
    actionOf: (rule) => rule.action,
    hasRate: true,
    fallback: () => byMounts(policy, action),
    scope: (rank) => {
      if (action.operation !== FileOperation.OPEN || index.rules[rank]?.action === "log")
        return CacheScope.NONE;
      return passesPattern(index, subject, rank) ? CacheScope.NONE : CacheScope.FILE;
    },
    dependsOn: () => [],
    entered: () => "",
  };
}

/**
 * Whether a rule up to this rank decides by names, which can change without the file changing: such answers are not
 * kept.
 */
function passesPattern(index: FileIndex, subject: string, rank: number): boolean {
  for (const passed of index.byPattern) {
    if (passed > rank) return false;
    const { subjects } = index.rules[passed] as FileRule;
    if (subjects.length === 0 || subjects.includes(subject)) return true;
  }
  return false;
}

function byMounts({ sandbox: { mounts } }: Policy, action: FileAction): Fallback {
  const mount = mountOf(mounts, action.path);
  const target = hasTarget(action.operation) ? mountOf(mounts, action.targetPath) : mount;
  const writes = action.operation !== FileOperation.OPEN;
  const granted =
    mount !== undefined && target !== undefined && (!writes || (mount.mode === "rw" && target.mode === "rw"));
  return granted
    ? { rule: "file/mounts", action: "allow", sentence: "", fixed: true }
    : { rule: "file/default", action: "deny", sentence: "", fixed: true };
}
