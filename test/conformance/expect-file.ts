// What file rules mean for one action. Mounts say what can be changed at all; rules for reading and writing take away
// from that; opens, deletes, renames, links and truncates are the evaluator's.

import type { FileOperationName, FileRule, Policy } from "../../policy/index.js";
import { FileOperation } from "../../proto/gen/clawsec/v1/loader.js";
import type { Attempt, FileIntent, MeantFile } from "./attempt.js";
import { ask, isIn, type Judge, settle } from "./expect.js";
import type { Expected } from "./expected.js";

/** Words of a rule that, denied, take this away; besides those that the evaluator knows. */
const STATIC: Readonly<Record<FileIntent, readonly FileOperationName[]>> = {
  read: ["read"],
  write: ["read", "write"],
  append: ["read", "write"],
  otrunc: ["read", "write"],
  create: ["read", "write", "create"],
  delete: ["write"],
  rename: ["write"],
  link: ["write"],
  truncate: ["read", "write"],
  chmod: ["read", "write", "chmod"],
};

const segment = (text: string) =>
  text
    .replace(/[.+^$()|[\]\\]/g, "\\$&")
    .replaceAll("*", "[^/]*")
    .replaceAll("?", "[^/]");

/** The patterns of the generator only: "*", "**" as a segment, "{a,b}"; a plain path is also all below it. */
export function ruleCovers(pattern: string, path: string): boolean {
  if (!/[*?{]/.test(pattern)) return isIn(path, [pattern]);
  const braced = /^(.*)\{([^}]*)\}(.*)$/.exec(pattern);
  if (braced !== null) {
    const [, before = "", list = "", after = ""] = braced;
    return list.split(",").some((item) => ruleCovers(before + item + after, path));
  }
  const parts = pattern.slice(1).split("/");
  const last = parts.length - 1;
  const text = parts
    .map((part, i) =>
      part !== "**" ? segment(part) + (i < last ? "/" : "") : i < last ? "(?:[^/]+/)*" : ".+",
    )
    .join("");
  return new RegExp(`^/${text}$`).test(path);
}

function covers(rule: FileRule, path: string): boolean {
  return rule.path.some((pattern) => ruleCovers(pattern, path));
}

function isFor(rule: FileRule, subject: string): boolean {
  return rule.subjects.length === 0 || rule.subjects.includes(subject);
}

function denier(policy: Policy, subject: string, path: string, intent: FileIntent) {
  for (const word of STATIC[intent]) {
    const first = policy.file.find(
      (rule) =>
        rule.mode === "enforce" &&
        isFor(rule, subject) &&
        rule.operations.includes(word) &&
        // What holds for one subject is Landlock's, and chmod is none of its rights.
        (intent !== "chmod" || word === "chmod" || rule.subjects.length === 0) &&
        covers(rule, path),
    );
    if (first?.action === "deny") return first;
  }
  return undefined;
}

/** Trees that a denial for all subjects takes out of view, with all that is in them. */
function masks(policy: Policy): string[] {
  return policy.file
    .filter(({ action, mode, subjects }) => action === "deny" && mode === "enforce" && subjects.length === 0)
    .filter(({ operations }) => operations.includes("read") || operations.includes("open"))
    .flatMap(({ path }) => path.map((pattern) => pattern.replace(/\/\*\*$/, "")))
    .filter((tree) => !/[*?{]/.test(tree));
}

/** Folders and files that a rule makes mount points: what it names, and the folders above. */
function mountPoints(policy: Policy): string[] {
  const points = new Set<string>();
  for (const rule of policy.file.filter(({ action }) => action !== "allow"))
    for (const pattern of rule.path)
      for (const name of /\{/.test(pattern) ? braces(pattern) : [pattern]) {
        const parts = name.split("/").slice(1);
        const fixed = parts.findIndex((part) => /[*?]/.test(part));
        const whole = fixed < 0 ? parts : parts.slice(0, fixed);
        for (let depth = 1; depth <= whole.length; depth++) points.add(`/${whole.slice(0, depth).join("/")}`);
      }
  return [...points];
}

function braces(pattern: string): string[] {
  const [, before = "", list = "", after = ""] = /^(.*)\{([^}]*)\}(.*)$/.exec(pattern) ?? [];
  return list.split(",").map((item) => before + item + after);
}

/** The deepest mount point that a path is on or below. */
function mountPointOf(points: readonly string[], path: string): string {
  let best = "";
  for (const point of points) if (isIn(path, [point]) && point.length > best.length) best = point;
  return best;
}

const NAMES: readonly FileIntent[] = ["delete", "rename", "link"];

export function expectFile(policy: Policy, attempt: Attempt, meant: MeantFile, judge: Judge): Expected {
  const { subject } = attempt;
  const { intent, path, target, facts } = meant;
  const paths = target === "" ? [path] : [path, target];
  const asked = judge(policy, ask(attempt, { $case: "file", value: facts }));
  const settled = settle(asked, attempt);
  // Static layers leave no event, and a guard asks about opens only.
  const isOpen = facts.operation === FileOperation.OPEN;
  const rule = isOpen && isGuarded(policy, asked.rule) ? settled.rule : undefined;
  const no = (why: string): Expected => ({
    outcome: "refused",
    rule: undefined,
    held: settled.held ? undefined : false,
    why,
  });
  const changes = intent !== "read";
  if (changes && paths.some((p) => isIn(p, ["/ro"]))) return no("the mount is read-only");
  const files = policy.subjects.find(({ name }) => name === subject)?.files;
  if (files !== undefined) {
    const trees = changes ? files.write : [...files.read, ...files.write, ...files.exec];
    const open = trees.map((tree) => tree.path);
    const closed = paths.find((p) => !isIn(p, open));
    // chmod is none of Landlock's rights.
    if (closed !== undefined && intent !== "chmod") return no(`${subject} has no tree with ${closed}`);
  }
  const mask = masks(policy).find((tree) => paths.some((p) => isIn(p, [tree])));
  if (mask !== undefined) return no(`a mask lies over ${mask}`);
  for (const p of paths) {
    const rule = denier(policy, subject, p, intent);
    if (rule !== undefined) return no(`${rule.id} takes ${p} away`);
  }
  const points = mountPoints(policy);
  const apart = target !== "" && mountPointOf(points, path) !== mountPointOf(points, target);
  const pinned = NAMES.includes(intent) && (apart || paths.some((p) => points.includes(p)));
  if (pinned && settled.outcome === "happens")
    return {
      ...settled,
      outcome: "either",
      rule: undefined,
      held: undefined,
      why: `${settled.why}, but a mount point is in the way`,
    };
  return { ...settled, rule };
}

/** Whether the loader asks because of this rule, so that an event names it. */
function isGuarded(policy: Policy, id: string): boolean {
  const rule = policy.file.find((candidate) => candidate.id === id);
  // What is allowed is asked about only where another rule guards it.
  if (rule === undefined || rule.action === "allow" || !rule.operations.includes("open")) return false;
  return rule.action !== "deny" || rule.subjects.length > 0 || rule.path.some((path) => /[*?{]/.test(path));
}
