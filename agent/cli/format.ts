/** How things look: stable JSON shapes, and cells for tables. */
import type { AuditRecord, Health, Hold } from "../../proto/gen/clawsec/v1/control.js";
import {
  type Capability,
  CapabilityState,
  type KillReport,
  Process,
  type SandboxInfo,
} from "../../proto/gen/clawsec/v1/loader.js";
import { healthWord, outcomeWord, stateWord, verdictWord } from "../../proto/words.js";
import { actionJson } from "../common/action.js";

/** A sandbox as JSON; `health`: where its policy has a health check. */
export function sandboxJson(info: SandboxInfo, health?: Health): unknown {
  const { state, exit, publish, ...rest } = info;
  return {
    ...rest,
    state: stateWord(state),
    exit: exit === undefined ? null : { code: exit.code, signal: exit.signal },
    publish: publish.map(({ hostIp, hostPort, sandboxPort }) => ({ hostIp, hostPort, sandboxPort })),
    health: health === undefined ? null : { ...health, state: healthWord(health.state) },
  };
}

/** A hold as JSON. */
export function holdJson(hold: Hold): unknown {
  const { outcome, process, action, defaultVerdict, ...rest } = hold;
  return {
    ...rest,
    outcome: outcomeWord(outcome),
    defaultVerdict: verdictWord(defaultVerdict),
    process: process === undefined ? null : Process.toJSON(process),
    action: actionJson(action),
  };
}

/** An audit record as JSON; its facts as a value. */
export function recordJson(record: AuditRecord): unknown {
  return { ...record, verdict: verdictWord(record.verdict), facts: parsed(record.facts) };
}

/** A capability as JSON. */
export function capabilityJson({ state, ...rest }: Capability): unknown {
  return { ...rest, state: stateOf(state) };
}

/** "present" or "missing". */
export function stateOf(state: CapabilityState): string {
  return state === CapabilityState.PRESENT ? "present" : "missing";
}

/** One sandbox's kill as a sentence. */
export function killLine(kill: KillReport["sandboxes"][number]): string {
  const survivors = kill.survivors === 0 ? "0 survivors" : `${kill.survivors} SURVIVORS`;
  return `${kill.name}: killed ${kill.processes} processes in ${(kill.goneUs / 1000).toFixed(1)} ms, ${survivors}`;
}

/** "12:34:56" of local time; with the date when it is not today. */
export function clock(us: number, now = Date.now()): string {
  if (us === 0) return "-";
  const date = new Date(us / 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (date.toDateString() === new Date(now).toDateString()) return time;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** "3s", "4m12s", "2h05m", "3d04h". */
export function duration(us: number): string {
  const seconds = Math.max(0, Math.floor(us / 1e6));
  const two = (value: number) => String(value).padStart(2, "0");
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h${two(Math.floor(seconds / 60) % 60)}m`;
  return `${Math.floor(seconds / 86_400)}d${two(Math.floor(seconds / 3600) % 24)}h`;
}

function parsed(facts: string): unknown {
  try {
    return JSON.parse(facts);
  } catch {
    return facts;
  }
}
