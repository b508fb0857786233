/** Holds: listing, watching and answering. */
import { type ServerWritableStream, status } from "@grpc/grpc-js";
import {
  type AnswerHoldRequest,
  type AnswerHoldResponse,
  type Hold,
  type HoldChange,
  HoldChangeKind,
  type ListHoldsRequest,
  type WatchHoldsRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { outcomeWord } from "../../../proto/words.js";
import { escapeTo } from "../../common/escape.js";
import { Refusal } from "../../common/grpc.js";
import type { HoldBook } from "../holds/book.js";

/** Ended holds that one list has at most. */
const MAX_ENDED = 200;

/** The holds of this moment, no faster than they are read. */
export async function listHolds(
  holds: HoldBook,
  call: ServerWritableStream<ListHoldsRequest, Hold>,
): Promise<void> {
  const { sandbox, ended } = call.request;
  const open = holds.list(sandbox);
  const list = ended ? [...open, ...holds.past(sandbox, MAX_ENDED)] : open;
  const gone = new Promise<"gone">((resolve) => {
    for (const event of ["cancelled", "close", "error"]) call.once(event, () => resolve("gone"));
  });
  for (const hold of list) {
    if (call.cancelled) return;
    if (call.write(hold)) continue;
    const room = new Promise<"room">((resolve) => call.once("drain", () => resolve("room")));
    if ((await Promise.race([room, gone])) === "gone") return;
  }
  call.end();
}

/**
 * Every open hold first, then each change. A watcher that reads slowly gets of each hold what is latest, and nothing of
 * one that began and ended meanwhile: what waits for it is never more than what is open, and what it saw open.
 */
export function watchHolds(holds: HoldBook, call: ServerWritableStream<WatchHoldsRequest, HoldChange>): void {
  const { sandbox } = call.request;
  const waiting = new Map<string, HoldChange>();
  const shown = new Set<string>();
  let room = true;
  let over = false;
  const changed = (kind: HoldChangeKind, hold: Hold) => {
    if (sandbox !== "" && hold.sandbox !== sandbox) return;
    if (shown.has(hold.id)) waiting.set(hold.id, { kind, hold });
    else if (kind === HoldChangeKind.ENDED) waiting.delete(hold.id);
    else waiting.set(hold.id, { kind: HoldChangeKind.OPENED, hold });
    write();
  };
  const write = () => {
    for (const [id, change] of waiting) {
      if (!room || over) return;
      waiting.delete(id);
      if (change.kind === HoldChangeKind.ENDED) shown.delete(id);
      else shown.add(id);
      room = call.write(change);
    }
  };
  const stop = () => {
    over = true;
    holds.off("change", changed);
  };
  call.on("drain", () => {
    room = true;
    write();
  });
  call.on("cancelled", stop);
  call.on("close", stop);
  call.on("error", stop);
  for (const hold of holds.list(sandbox)) changed(HoldChangeKind.OPENED, hold);
  holds.on("change", changed);
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
