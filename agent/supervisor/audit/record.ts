/** What one row of the audit is made of, and how the loader's events become rows. */
import type { AuditRecord } from "../../../proto/gen/clawsec/v1/control.js";
import {
  type DecisionEvent,
  Event,
  type ExecEvent,
  type ExitEvent,
  type LostEvent,
  Verdict,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { stateWord, verdictWord } from "../../../proto/words.js";
import { actionLine } from "../../common/action.js";
import { escapeArgv, escapeTo, escapeWord } from "../../common/escape.js";

/** The kinds of records. "lost" says that others are missing. */
export const KINDS = [
  "exec",
  "file",
  "network",
  "exit",
  "hold",
  "sandbox",
  "policy",
  "kill",
  "lost",
] as const;
export type Kind = (typeof KINDS)[number];

/** A record before the store has given it an id. */
export type NewRecord = Omit<AuditRecord, "id" | "kind"> & {
  kind: Kind;
  /** The rule that observe mode kept from deciding: the record's severity and tags are then that rule's. */
  observedRule?: string;
};

/** A record of the supervisor's own, with what it does not name left empty. */
export function ownRecord(
  fields: Pick<NewRecord, "kind" | "timeUs" | "summary"> & Partial<Omit<NewRecord, "facts">>,
  facts: unknown = {},
): NewRecord {
  return {
    sandbox: "",
    subject: "",
    execId: "",
    parents: [],
    verdict: Verdict.UNSPECIFIED,
    rule: "",
    layer: "supervisor",
    policyHash: "",
    latencyUs: 0,
    pid: 0,
    severity: "",
    tags: [],
    ...fields,
    facts: JSON.stringify(facts) ?? "{}",
  };
}

/** All facts of a loader's event, as JSON. */
export function factsOf(event: Event): string {
  return JSON.stringify(Event.toJSON(event)) ?? "{}";
}

/** What a row says of a loader's event beside its facts. */
export function recordOf(event: Event): Omit<NewRecord, "facts"> {
  const process = event.process;
  const base = {
    timeUs: event.timeUs,
    sandbox: event.sandbox,
    subject: event.subject,
    execId: process?.execId ?? "",
    parents: process?.ancestors ?? [],
    policyHash: event.policyHash,
    pid: process?.pid ?? 0,
    verdict: Verdict.UNSPECIFIED,
    rule: "",
    layer: "",
    latencyUs: 0,
    severity: "",
    tags: [],
  };
  const kind = event.kind;
  switch (kind?.$case) {
    case "decision": {
      const decision = kind.value;
      const action = decision.action;
      const ofExec = action?.$case === "exec" && action.value.execId !== "";
      return {
        ...base,
        ...decided(decision),
        kind: action?.$case ?? "exec",
        // An exec has its own id, whether or not it happened, and whoever called is its parent.
        ...(ofExec ? { execId: action.value.execId, parents: withParent(base.execId, base.parents) } : {}),
        summary: decisionLine(actionLine(action), decision),
      };
    }
    case "exec":
      return { ...base, kind: "exec", execId: kind.value.execId, ...execRow(kind.value) };
    case "exit":
      return {
        ...base,
        kind: "exit",
        execId: kind.value.execId,
        summary: exitLine(kind.value),
        layer: "bpf",
      };
    case "sandboxEvent": {
      const detail = escapeTo(kind.value.detail, 300);
      const summary = `sandbox ${stateWord(kind.value.state)}${detail === "" ? "" : `: ${detail}`}`;
      return { ...base, kind: "sandbox", summary, layer: "loader" };
    }
    case "lost":
      return { ...base, kind: "lost", summary: lostLine(kind.value), layer: "loader" };
    default:
      // A kind of a newer loader: kept with all its facts rather than dropped.
      return {
        ...base,
        kind: "lost",
        summary: "an event of a kind that this supervisor does not know",
        layer: "loader",
      };
  }
}

/** What a row says of a decision. */
function decided(decision: DecisionEvent): Partial<NewRecord> {
  const { verdict, rule, observedRule, layer, latencyUs } = decision;
  return { verdict, rule, observedRule, layer, latencyUs };
}

function withParent(parent: string, ancestors: readonly string[]): string[] {
  return parent === "" || ancestors.includes(parent) ? [...ancestors] : [parent, ...ancestors];
}

/** An image that was loaded: with the decision about it, or killed, or started by the loader itself. */
function execRow(exec: ExecEvent): Partial<NewRecord> & { summary: string } {
  const { decision, verified } = exec;
  const loaded = loadedLine(exec);
  if (!verified) {
    const summary = `killed before its first instruction: ${loaded}: ${escapeTo(exec.why, 300)}`;
    return { summary, verdict: Verdict.DENY, layer: "bpf" };
  }
  if (decision === undefined) return { summary: `loaded ${loaded}`, layer: "bpf" };
  const action = decision.action === undefined ? loaded : actionLine(decision.action);
  return { ...decided(decision), summary: decisionLine(action, decision) };
}

/** The image as the kernel loaded it: its file, and its arguments. One line, safe to print. */
export function loadedLine(exec: ExecEvent): string {
  const deleted = exec.executableDeleted ? " (deleted file)" : "";
  const argv = exec.argv.length > 0 ? ` [${escapeArgv(exec.argv)}]` : "";
  return `${escapeWord(exec.executable, 200)}${deleted}${argv}${exec.argvTruncated ? " (arguments cut)" : ""}`;
}

/** How a process ended: "ended with code 7 after 1.2 s". */
export function exitLine({ exit, startedUs, endedUs, forked }: ExitEvent): string {
  const how = exit?.signal ? `by signal ${exit.signal}` : `with code ${exit?.code ?? 0}`;
  const after = startedUs > 0 ? ` after ${seconds(endedUs - startedUs)}` : "";
  return `${forked ? "a fork of it ended" : "ended"} ${how}${after}`;
}

function seconds(us: number): string {
  const ms = Math.max(0, us) / 1000;
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function lostLine({ way, count, sinceUs, untilUs }: LostEvent): string {
  const time = (us: number) => new Date(us / 1000).toISOString();
  const between = sinceUs > 0 && untilUs > sinceUs ? ` between ${time(sinceUs)} and ${time(untilUs)}` : "";
  return `${count} events were lost${between}: ${escapeTo(way, 100)}`;
}

function decisionLine(action: string, decision: DecisionEvent): string {
  const { verdict, observed, observedRule, message, execUnseen, cut } = decision;
  const word = verdictWord(verdict) || "deny";
  const by = observedRule === "" ? "" : ` by ${escapeTo(observedRule, 100)}`;
  const would =
    observed !== Verdict.UNSPECIFIED && observed !== verdict
      ? ` (would be: ${verdictWord(observed)}${by})`
      : "";
  const unseen = execUnseen ? " (it did not happen, or was not seen)" : "";
  const shortened = cut ? " (arguments cut)" : "";
  return `${word}${would} ${action}${shortened}${unseen}${message === "" ? "" : `: ${escapeTo(message, 300)}`}`;
}
