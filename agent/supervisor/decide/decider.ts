/** Answers the loader's questions: judges each, opens holds, and sends a hold's verdict when it ends. */

import { type Hold, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import {
  type Decision,
  type LoaderMessage,
  type Question,
  Verdict,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { sentence } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";
import type { HoldBook } from "../holds/book.js";
import { finalMessage, finalVerdict } from "../holds/outcome.js";
import type { Sandbox } from "../sandboxes/registry.js";
import { denial, judge } from "./judge.js";
import type { RateBook } from "./rates.js";

export interface DeciderParts {
  readonly holds: HoldBook;
  readonly rates: RateBook;
  readonly log: Logger;
  readonly sandbox: (name: string) => Sandbox | undefined;
  readonly send: (decision: Decision) => void;
  /** Resolves when what was recorded of a hold is durable, rejects when it cannot be; undefined when it is. */
  readonly recorded: (holdId: string) => Promise<void> | undefined;
}

export class Decider {
  readonly #parts: DeciderParts;
  /** Questions that wait for a hold, to judge them again when it ends. */
  readonly #waiting = new Map<number, Question>();
  /** Grows when the stream breaks: what was asked before it is asked again, and answered then. */
  #stream = 0;

  constructor(parts: DeciderParts) {
    this.#parts = parts;
    parts.holds.on("ended", (hold, questions) => this.#released(hold, questions));
  }

  /** Takes a message of the Decide stream. Never throws: what goes wrong is a denial. */
  receive({ message }: LoaderMessage): void {
    switch (message?.$case) {
      case "question":
        this.#question(message.value);
        break;
      case "held":
        this.#guard("a held action", () =>
          this.#parts.holds.held(message.value.questionId, message.value.exec),
        );
        break;
      case "requesterGone": {
        const { questionId, why } = message.value;
        this.#waiting.delete(questionId);
        this.#guard("a requester that is gone", () => this.#parts.holds.gone(questionId, why));
        break;
      }
      case "settled":
        this.#waiting.delete(message.value.questionId);
        this.#parts.log.debug({ settled: message.value }, "a hold was settled");
        break;
      default:
        this.#parts.log.warn("the loader sent a message of an unknown kind");
    }
  }

  /** The policy of a sandbox has changed: what it decides now is not asked any more. */
  reconsider(sandbox: string): void {
    for (const [id, question] of [...this.#waiting]) {
      if (question.sandbox !== sandbox) continue;
      const hold = this.#parts.holds.ofQuestion(id);
      if (hold === undefined) continue;
      const judgement = judge(question, this.#parts.sandbox(sandbox), this.#parts.rates);
      if (judgement.kind === "hold") continue;
      const { verdict, rule } = judgement.decision;
      const allowed = verdict === Verdict.ALLOW || verdict === Verdict.LOG;
      const by = `the policy changed: ${rule} decides now`;
      this.#parts.holds.settleByPolicy(hold.id, allowed ? Verdict.ALLOW : Verdict.DENY, by);
    }
  }

  /** The stream broke: every question will be asked again. */
  disconnected(): void {
    this.#stream += 1;
    this.#waiting.clear();
    this.#parts.holds.disconnected();
  }

  #question(question: Question): void {
    try {
      this.#answer(question);
    } catch (error) {
      this.#deny(question, error);
    }
  }

  /** E.g. a hold that cannot be written (disk full): not recorded, so not allowed. */
  #deny(question: Question, error: unknown): void {
    const why = `the supervisor could not record the question: ${sentence(error)}`;
    this.#parts.log.error({ question: question.id, error: sentence(error) }, "a question was denied");
    this.#waiting.delete(question.id);
    this.#guard("a question that was denied", () => this.#parts.holds.gone(question.id, why));
    this.#parts.send(denial(question, why));
  }

  /**
   * Does what follows from a hold when the hold's records are durable: at once when they are. When they cannot be
   * written, `failed` is done instead; when the stream breaks before, nothing.
   */
  #onceRecorded(holdId: string, then: () => void, failed: (error: unknown) => void): void {
    const recorded = this.#parts.recorded(holdId);
    if (recorded === undefined) {
      then();
      return;
    }
    const stream = this.#stream;
    const still = (action: () => void) => {
      if (this.#stream === stream) this.#guard("what follows from a hold", action);
    };
    recorded.then(
      () => still(then),
      (error: unknown) => still(() => failed(error)),
    );
  }

  #answer(question: Question): void {
    const { holds, send } = this.#parts;
    const deny = (error: unknown) => this.#deny(question, error);
    const judgement = judge(question, this.#parts.sandbox(question.sandbox), this.#parts.rates);
    if (judgement.kind === "final") {
      if (question.holdId === "") {
        send(judgement.decision);
        return;
      }
      this.#endAs(question.holdId, judgement.decision);
      this.#onceRecorded(question.holdId, () => send(judgement.decision), deny);
      return;
    }
    // What the loader holds already (this supervisor or the one before it said so) joins its hold.
    const known = question.holdId === "" ? undefined : holds.rejoin(question);
    if (known !== undefined && known.outcome !== HoldOutcome.OPEN) {
      this.#onceRecorded(known.id, () => send(withOutcome(judgement.decision, known)), deny);
      return;
    }
    this.#waiting.set(question.id, question);
    if (known !== undefined) return;
    const hold = holds.open(question, judgement.terms, question.holdId === "" ? undefined : question.holdId);
    const { id: holdId, deadlineUs } = hold;
    const held = { ...judgement.decision, verdict: Verdict.HOLD, holdId, deadlineUs };
    this.#onceRecorded(holdId, () => send(held), deny);
  }

  /** The policy decides now what is held: the open hold of it ends with that verdict. */
  #endAs(holdId: string, decision: Decision): void {
    const allowed = decision.verdict === Verdict.ALLOW || decision.verdict === Verdict.LOG;
    const verdict = allowed ? Verdict.ALLOW : Verdict.DENY;
    this.#parts.holds.settleByPolicy(holdId, verdict, `the policy changed: ${decision.rule} decides now`);
  }

  /** Nothing is released whose end is not recorded: the loader denies it at the deadline. */
  #released(hold: Hold, questions: readonly number[]): void {
    const release = () => this.#release(hold, questions);
    this.#onceRecorded(hold.id, release, () => {
      for (const id of questions) this.#waiting.delete(id);
    });
  }

  #release(hold: Hold, questions: readonly number[]): void {
    for (const id of questions) {
      const question = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (question === undefined) continue;
      // Judged again: an answer must not allow what the policy denies by now, and it must carry the present epoch.
      const judgement = judge(question, this.#parts.sandbox(question.sandbox), this.#parts.rates);
      const decision = { ...judgement.decision, holdId: hold.id };
      const deniedNow = judgement.kind === "final" && decision.verdict === Verdict.DENY;
      this.#parts.send(deniedNow ? decision : withOutcome(decision, hold));
    }
  }

  #guard(what: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#parts.log.error({ error: sentence(error) }, `${what} could not be recorded`);
    }
  }
}

/** The second decision on a held question. */
function withOutcome(decision: Decision, hold: Hold): Decision {
  const byPerson = hold.outcome === HoldOutcome.ALLOWED || hold.outcome === HoldOutcome.DENIED;
  return {
    ...decision,
    verdict: finalVerdict(hold),
    rule: hold.rule,
    layer: byPerson && hold.answeredBy !== "the policy" ? "person" : "supervisor",
    message: finalMessage(hold),
    holdId: hold.id,
  };
}
