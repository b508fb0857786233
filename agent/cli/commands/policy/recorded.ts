/** Recorded actions, from the facts of audit records, as questions that a policy can be asked again. */
import type { Probe } from "../../../../policy/diff/probes.js";
import { canonicalJson } from "../../../../policy/index.js";
import { Event } from "../../../../proto/gen/clawsec/v1/loader.js";
import { decisionOf } from "../../../common/event.js";

/** The actions of an audit, each once. */
export interface Recorded {
  readonly probes: readonly Probe[];
  /** Records of decisions that could not be read. */
  readonly unread: number;
}

/** What is of one process or one moment, and no policy asks about. */
const PASSING: ReadonlySet<string> = new Set([
  "pid",
  "sandboxPid",
  "execId",
  "ancestors",
  "comm",
  "fileId",
  "scriptFileId",
  "argvHash",
  "contextHash",
  "requestedPath",
  "rule",
  "timeMs",
]);

/** Reads records as `audit search --json` has them: their facts are the loader's event. Others are passed over. */
export function recordedProbes(records: readonly unknown[]): Recorded {
  const probes = new Map<string, Probe>();
  let unread = 0;
  for (const record of records) {
    if (!isRecord(record) || !isRecord(record.facts) || !tellsDecision(record.facts)) continue;
    const probe = probeOf(record.facts, Number(record.timeUs));
    if (probe === undefined) unread++;
    // The last one counts: its time is the latest.
    else probes.set(canonicalJson(probe, PASSING), probe);
  }
  return { probes: [...probes.values()], unread };
}

function probeOf(facts: object, timeUs: number): Probe | undefined {
  try {
    const event = Event.fromJSON(facts);
    const told = decisionOf(event);
    // What was told only in part cannot be asked about again.
    if (told?.decision.action === undefined || told.decision.cut) return undefined;
    const timeMs = Number.isFinite(timeUs) && timeUs > 0 ? Math.floor(timeUs / 1000) : undefined;
    const { subject } = event;
    return { action: { subject, process: told.process, action: told.decision.action }, timeMs };
  } catch {
    return undefined;
  }
}

/** Of an exec that happened, the decision is a part. What the loader started itself nobody decided. */
function tellsDecision(facts: Record<string, unknown>): boolean {
  return isRecord(facts.decision) || (isRecord(facts.exec) && isRecord(facts.exec.decision));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
