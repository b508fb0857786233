/** Reading the loader's events. */
import type { DecisionEvent, Event, Process } from "../../proto/gen/clawsec/v1/loader.js";

/** A decision, and the process that asked for it. */
export interface Told {
  readonly decision: DecisionEvent;
  readonly process: Process | undefined;
}

/** The decision that an event tells of: alone, or with the exec that came of it. */
export function decisionOf({ kind, process }: Event): Told | undefined {
  if (kind?.$case === "decision") return { decision: kind.value, process };
  if (kind?.$case !== "exec" || kind.value.decision === undefined) return undefined;
  return { decision: kind.value.decision, process: kind.value.caller };
}
