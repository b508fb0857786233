// Where two policies decide differently: by actions, not by text.

import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { type Evaluation, evaluate } from "../evaluate.js";
import type { Action, Policy } from "../model.js";
import type { Probe } from "./probes.js";

/** What one policy says of an action. */
export interface Said {
  readonly verdict: "allow" | "log" | "hold" | "deny";
  readonly rule: string;
  /** Subject that an exec leads into; "" for none. */
  readonly enters: string;
}

/** One action on which the two differ. */
export interface Change {
  readonly action: Action;
  readonly timeMs: number | undefined;
  readonly before: Said;
  readonly after: Said;
}

/** Changes from one verdict to another. */
export interface ChangeGroup {
  readonly from: string;
  readonly to: string;
  /** "looser": more is permitted than before. "other": no more and no less, such as a subject or a log. */
  readonly direction: "looser" | "stricter" | "other";
  readonly changes: readonly Change[];
}

/** Groups by verdict before and after, looser ones first, larger ones before smaller ones. Deterministic. */
export function diffVerdicts(before: Policy, after: Policy, probes: Iterable<Probe>): ChangeGroup[] {
  const groups = new Map<string, { direction: ChangeGroup["direction"]; changes: Change[] }>();
  for (const { action, timeMs } of probes) {
    const moment = timeMs === undefined ? undefined : { timeMs, used: () => 0 };
    const [a, b] = [said(evaluate(before, action, moment)), said(evaluate(after, action, moment))];
    if (a.verdict === b.verdict && a.enters === b.enters) continue;
    const key = `${label(a)} -> ${label(b)}`;
    const group = groups.get(key) ?? { direction: direction(a, b), changes: [] };
    group.changes.push({ action, timeMs, before: a, after: b });
    groups.set(key, group);
  }
  const order = ["looser", "stricter", "other"];
  return [...groups.entries()]
    .map(([key, group]) => {
      const [from = "", to = ""] = key.split(" -> ");
      return { from, to, ...group };
    })
    .sort(
      (a, b) =>
        order.indexOf(a.direction) - order.indexOf(b.direction) ||
        b.changes.length - a.changes.length ||
        (a.from + a.to < b.from + b.to ? -1 : 1),
    );
}

function said({ verdict, rule, enterSubject }: Evaluation): Said {
  return { verdict: WORDS[verdict] ?? "deny", rule, enters: enterSubject };
}

const WORDS: Readonly<Record<number, Said["verdict"]>> = {
  [Verdict.ALLOW]: "allow",
  [Verdict.LOG]: "log",
  [Verdict.HOLD]: "hold",
  [Verdict.DENY]: "deny",
};

/** How much a verdict takes away. */
const STRICTNESS = { allow: 0, log: 0, hold: 1, deny: 2 } as const;

function direction(a: Said, b: Said): ChangeGroup["direction"] {
  const step = STRICTNESS[b.verdict] - STRICTNESS[a.verdict];
  return step < 0 ? "looser" : step > 0 ? "stricter" : "other";
}

function label({ verdict, enters }: Said): string {
  return enters === "" ? verdict : `${verdict} into ${enters}`;
}
