/** Holds: listing, watching and answering. */
import { type ServerWritableStream, status } from "@grpc/grpc-js";
import {
  type AnswerHoldRequest,
  type AnswerHoldResponse,
  type Hold,
  type HoldChange,
  HoldChangeKind,
  type ListHoldsRequest,
  type ListHoldsResponse,
  type WatchHoldsRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { outcomeWord } from "../../../proto/words.js";
import { escapeTo } from "../../common/escape.js";
import { Refusal } from "../../common/grpc.js";
import type { HoldBook } from "../holds/book.js";

/** Ended holds that one list has at most. */
const MAX_ENDED = 200;

export function listHolds(holds: HoldBook, request: ListHoldsRequest): ListHoldsResponse {
  const open = holds.list(request.sandbox);
  return { holds: request.ended ? [...open, ...holds.past(request.sandbox, MAX_ENDED)] : open };
}

/** Every open hold first, then each change. A watcher that does not read is cut off, so that it cannot fill memory. */
export function watchHolds(holds: HoldBook, call: ServerWritableStream<WatchHoldsRequest, HoldChange>): void {
  const { sandbox } = call.request;
  const send = (kind: HoldChangeKind, hold: Hold) => {
    if (sandbox !== "" && hold.sandbox !== sandbox) return;
    if (call.writableLength > 1000) {
      stop();
      call.emit("error", {
        code: status.RESOURCE_EXHAUSTED,
        details: "The watcher does not read its changes.",
      });
      return;
    }
    call.write({ kind, hold });
  };
  const stop = () => holds.off("change", send);
  for (const hold of holds.list(sandbox)) send(HoldChangeKind.OPENED, hold);
  holds.on("change", send);
  call.on("cancelled", stop);
  call.on("close", stop);
  call.on("error", stop);
}

/** A person's answer. */
export function answerHold(holds: HoldBook, request: AnswerHoldRequest, by: string): AnswerHoldResponse {
  if (request.verdict !== Verdict.ALLOW && request.verdict !== Verdict.DENY) {
    throw new Refusal(status.INVALID_ARGUMENT, "A hold is answered with ALLOW or DENY.");
  }
  const answered = holds.answer(request.id, request.verdict, by, request.reason);
  const id = escapeTo(request.id, 40);
  switch (answered.kind) {
    case "answered":
      return { hold: answered.hold };
    case "ambiguous":
      throw new Refusal(
        status.INVALID_ARGUMENT,
        `More than one open hold has an id that begins with ${id}: ${answered.ids.join(", ")}.`,
      );
    case "ended":
      throw new Refusal(
        status.FAILED_PRECONDITION,
        `The hold ${answered.hold.id} has ended: ${outcomeWord(answered.hold.outcome)}${
          answered.hold.answeredBy === "" ? "" : ` by ${answered.hold.answeredBy}`
        }.`,
      );
    case "unknown":
      throw new Refusal(status.NOT_FOUND, `There is no hold ${id}. See clawsec holds.`);
  }
}
