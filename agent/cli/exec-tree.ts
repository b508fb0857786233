/** The tree of the programs of a sandbox, from its audit records. */
import type { AuditRecord } from "../../proto/gen/clawsec/v1/control.js";
import { Event, type ExecEvent, type ExitEvent, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { verdictWord } from "../../proto/words.js";
import { actionLine } from "../common/action.js";
import { escapeText } from "../common/escape.js";
import { loadedLine } from "../supervisor/audit/record.js";

/** One exec: one that happened, or one that was refused. */
export interface ExecNode {
  readonly record: AuditRecord;
  /** What was loaded; undefined when nothing was. */
  readonly exec: ExecEvent | undefined;
  /** Of a hold: the record of how it ended. */
  answer: AuditRecord | undefined;
  /** The end of the process that executed it. */
  exit: ExitEvent | undefined;
  /** Processes that were forked from it, executed nothing, and ended. */
  forks: number;
  /** 0 for one whose parent is not among the records. */
  depth: number;
  readonly children: ExecNode[];
}

/** Builds the tree. Gives its nodes in the order in which a tree is drawn, children in the order of their records. */
export function execTree(records: readonly AuditRecord[]): ExecNode[] {
  const nodes = new Map<string, ExecNode>();
  const exits: [string, ExitEvent][] = [];
  for (const record of records) {
    const kind = eventOf(record)?.kind;
    if (kind?.$case === "exit") exits.push([record.execId, kind.value]);
    if (record.kind !== "exec") continue;
    // Ids are missing where a call could not even be read: each such record stands for itself.
    const id = record.execId || `record ${record.id}`;
    const exec = kind?.$case === "exec" ? kind.value : undefined;
    const known = nodes.get(id);
    if (known !== undefined) {
      // Of an exec that was held there are two records.
      if (exec === undefined) known.answer = record;
      continue;
    }
    nodes.set(id, { record, exec, answer: undefined, exit: undefined, forks: 0, depth: 0, children: [] });
  }
  for (const [id, exit] of exits) {
    const node = nodes.get(id);
    if (node === undefined) continue;
    if (exit.forked) node.forks += 1;
    else node.exit = exit;
  }
  const roots: ExecNode[] = [];
  for (const [id, node] of nodes) {
    const parent = node.record.parents[0] ?? "";
    const above = parent === id ? undefined : nodes.get(parent);
    (above?.children ?? roots).push(node);
  }
  return inOrder(roots);
}

/** Depth first, with a stack of its own: a chain of execs can be as long as the audit. */
function inOrder(roots: readonly ExecNode[]): ExecNode[] {
  const result: ExecNode[] = [];
  const stack = [...roots].reverse();
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    result.push(node);
    for (const child of [...node.children].reverse()) {
      child.depth = node.depth + 1;
      stack.push(child);
    }
  }
  return result;
}

function eventOf(record: AuditRecord): Event | undefined {
  try {
    return Event.fromJSON(JSON.parse(record.facts));
  } catch {
    return undefined;
  }
}

/** True for the first program of a session: the sandbox's init, which the loader starts itself. */
export function isInit(record: AuditRecord): boolean {
  const kind = eventOf(record)?.kind;
  return kind?.$case === "exec" && kind.value.verified && kind.value.decision === undefined;
}

/**
 * What became of an exec: "refused", "killed" (before its first instruction), "unseen" (let happen, and did not), "held",
 * "replaced" (its process executed another one), "ended" or "running".
 */
export type ExecState = "refused" | "killed" | "unseen" | "held" | "replaced" | "ended" | "running";

export function stateOf(node: ExecNode): ExecState {
  if (node.exec === undefined) return node.record.verdict === Verdict.DENY ? "refused" : "unseen";
  if (!node.exec.verified) return "killed";
  if (node.exit !== undefined) return "ended";
  // The same process: the child's record came from this process's next exec.
  if (node.children.some((child) => child.exec !== undefined && child.record.pid === node.record.pid))
    return "replaced";
  return node.record.verdict === Verdict.HOLD && node.answer === undefined ? "held" : "running";
}

/** The decision that holds: of a hold, the answer. */
export function decisionOn({ record, answer }: ExecNode): AuditRecord {
  return answer ?? record;
}

/** One line for people, escaped, safe to print: what ran, who decided, how it ended. */
export function nodeLine(node: ExecNode, word: (word: string) => string): string {
  const { record, exec } = node;
  const decision = decisionOn(node);
  const verdict = verdictWord(decision.verdict);
  const parts = [
    String(record.pid),
    exec === undefined ? attempted(record) : loadedLine(exec),
    record.subject === "" ? "" : `(${escapeText(record.subject)})`,
    verdict === "" ? "" : word(verdict),
    escapeText(decision.rule),
    ending(node),
  ];
  return parts.filter((part) => part !== "").join(" ");
}

function attempted(record: AuditRecord): string {
  const kind = eventOf(record)?.kind;
  return kind?.$case === "decision" ? actionLine(kind.value.action) : record.summary;
}

function ending(node: ExecNode): string {
  const forks = node.forks === 0 ? "" : `, and ${node.forks} forks of it`;
  switch (stateOf(node)) {
    case "refused":
      return "";
    case "killed":
      return `killed before its first instruction: ${escapeText(node.exec?.why ?? "")}`;
    case "unseen":
      return "did not happen, or was not seen";
    case "held":
      return "is held";
    case "replaced":
      return `executed the next${forks}`;
    case "running":
      return `no end on record${forks}`;
    case "ended": {
      const { exit } = node.exit ?? {};
      return `${exit?.signal ? `signal ${exit.signal}` : `exit ${exit?.code ?? 0}`}${forks}`;
    }
  }
}
