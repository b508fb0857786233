/** What one row of the audit is made of, and how the loader's events become rows. */
import type { AuditRecord } from "../../../proto/gen/clawsec/v1/control.js";
import { type DecisionEvent, Event, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { actionLine } from "../../common/action.js";
import { escapeTo } from "../../common/escape.js";
import { stateWord, verdictWord } from "../../common/verdict.js";

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

/** The row of a loader's event. */
export function recordOf(event: Event): NewRecord {
  const process = event.process;
  const base = {
    timeUs: event.timeUs,
    sandbox: event.sandbox,
    subject: event.subject,
    execId: process?.execId ?? "",
    parents: process?.ancestors ?? [],
    policyHash: event.policyHash,
    pid: process?.pid ?? 0,
    facts: JSON.stringify(Event.toJSON(event)) ?? "{}",
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
      return {
        ...base,
        kind: action?.$case ?? "exec",
        execId: action?.$case === "exec" && action.value.execId !== "" ? action.value.execId : base.execId,
        summary: decisionLine(actionLine(action), decision),
        verdict: decision.verdict,
        rule: decision.rule,
        observedRule: decision.observedRule,
        layer: decision.layer,
        latencyUs: decision.latencyUs,
      };
    }
    case "exec": {
      const exec = kind.value;
      const file = escapeTo(process?.executable ?? "", 200);
      const parents = exec.parentExecId === "" ? base.parents : [exec.parentExecId, ...base.parents];
      return {
        ...base,
        kind: "exec",
        execId: exec.execId,
        parents: parents.filter((id, index) => parents.indexOf(id) === index && id !== exec.execId),
        summary: exec.verified
          ? `loaded ${file}`
          : `killed before its first instruction: ${file}: ${escapeTo(exec.why, 300)}`,
        verdict: exec.verified ? Verdict.UNSPECIFIED : Verdict.DENY,
        layer: "bpf",
      };
    }
    case "exit": {
      const exit = kind.value.exit;
      const how = exit?.signal ? `by signal ${exit.signal}` : `with code ${exit?.code ?? 0}`;
      return { ...base, kind: "exit", execId: kind.value.execId, summary: `ended ${how}`, layer: "loader" };
    }
    case "sandboxEvent": {
      const detail = escapeTo(kind.value.detail, 300);
      const summary = `sandbox ${stateWord(kind.value.state)}${detail === "" ? "" : `: ${detail}`}`;
      return { ...base, kind: "sandbox", summary, layer: "loader" };
    }
    case "lost": {
      const summary = `${kind.value.count} events lost: ${escapeTo(kind.value.way, 100)}`;
      return { ...base, kind: "lost", summary, layer: "loader" };
    }
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

function decisionLine(action: string, { verdict, observed, observedRule, message }: DecisionEvent): string {
  const word = verdictWord(verdict) || "deny";
  const by = observedRule === "" ? "" : ` by ${escapeTo(observedRule, 100)}`;
  const would =
    observed !== Verdict.UNSPECIFIED && observed !== verdict
      ? ` (would be: ${verdictWord(observed)}${by})`
      : "";
  return `${word}${would} ${action}${message === "" ? "" : `: ${escapeTo(message, 300)}`}`;
}
