/** How a hold ends: each way has its own facts, and none is a boolean. */
import { type Hold, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";

export type Ending =
  | { kind: "allowed"; by: string; reason: string }
  | { kind: "denied"; by: string; reason: string }
  | { kind: "expired"; verdict: Verdict.ALLOW | Verdict.DENY; reason: string }
  | { kind: "requester-gone"; why: string };

/** The hold as it is after this ending. */
export function ended(hold: Hold, ending: Ending, endedUs: number): Hold {
  switch (ending.kind) {
    case "allowed":
      return { ...hold, endedUs, outcome: HoldOutcome.ALLOWED, answeredBy: ending.by, reason: ending.reason };
    case "denied":
      return { ...hold, endedUs, outcome: HoldOutcome.DENIED, answeredBy: ending.by, reason: ending.reason };
    case "expired":
      return {
        ...hold,
        endedUs,
        outcome: HoldOutcome.EXPIRED,
        defaultVerdict: ending.verdict,
        reason: ending.reason,
      };
    case "requester-gone":
      return { ...hold, endedUs, outcome: HoldOutcome.REQUESTER_GONE, reason: ending.why };
  }
}

/** What an ended hold's action gets. Everything that is not plainly an allowance is a denial. */
export function finalVerdict(hold: Hold): Verdict.ALLOW | Verdict.DENY {
  switch (hold.outcome) {
    case HoldOutcome.ALLOWED:
      return Verdict.ALLOW;
    case HoldOutcome.EXPIRED:
      return hold.defaultVerdict === Verdict.ALLOW ? Verdict.ALLOW : Verdict.DENY;
    default:
      return Verdict.DENY;
  }
}

/** One sentence for the caller whose action was held. */
export function finalMessage(hold: Hold): string {
  const reason = hold.reason === "" ? "" : `: ${hold.reason}`;
  switch (hold.outcome) {
    case HoldOutcome.ALLOWED:
      return `allowed by ${hold.answeredBy}${reason}`;
    case HoldOutcome.DENIED:
      return `denied by ${hold.answeredBy}${reason}`;
    case HoldOutcome.EXPIRED:
      return `nobody answered in time; the rule's default is ${hold.defaultVerdict === Verdict.ALLOW ? "allow" : "deny"}`;
    case HoldOutcome.REQUESTER_GONE:
      return `the requester is gone${reason}`;
    default:
      return "the hold has not ended";
  }
}
