/** The audit's record of a hold that was opened or has ended: who answered, when, and what they saw. */
import { Hold, HoldChangeKind, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { outcomeWord } from "../../../proto/words.js";
import { actionLine } from "../../common/action.js";
import { escapeText } from "../../common/escape.js";
import { finalVerdict } from "../holds/outcome.js";
import { type NewRecord, ownRecord } from "./record.js";

export function holdRecord(kind: HoldChangeKind, hold: Hold): NewRecord {
  const opened = kind === HoldChangeKind.OPENED;
  const action = actionLine(hold.action);
  return ownRecord(
    {
      kind: "hold",
      timeUs: opened ? hold.openedUs : hold.endedUs,
      sandbox: hold.sandbox,
      subject: hold.subject,
      execId: hold.process?.execId ?? "",
      parents: hold.process?.ancestors ?? [],
      summary: opened ? `held ${action} (hold ${hold.id})` : `hold ${hold.id} ${ending(hold)}: ${action}`,
      verdict: opened ? Verdict.HOLD : finalVerdict(hold),
      rule: hold.rule,
      layer: hold.answeredBy === "" || hold.answeredBy === "the policy" ? "supervisor" : "person",
      policyHash: hold.policyHash,
      latencyUs: opened ? 0 : Math.max(0, hold.endedUs - hold.openedUs),
      pid: hold.process?.pid ?? 0,
    },
    Hold.toJSON(hold),
  );
}

function ending(hold: Hold): string {
  const word = outcomeWord(hold.outcome);
  const by = hold.answeredBy === "" ? "" : ` by ${escapeText(hold.answeredBy)}`;
  // `reason` was escaped when the hold ended.
  const reason = hold.reason === "" ? "" : ` (${hold.reason})`;
  const verdict =
    hold.outcome === HoldOutcome.EXPIRED
      ? `, default ${finalVerdict(hold) === Verdict.ALLOW ? "allow" : "deny"}`
      : "";
  return `${word}${by}${verdict}${reason}`;
}
