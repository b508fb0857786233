/**
 * QueryAudit and FollowAudit. Both answer with what the audit's reader has encoded; a follower gets what is there after
 * an id, then each record as it is written, without a gap between the two.
 */
import type { handleServerStreamingCall, handleUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import {
  type ControlServer,
  ControlService,
  type FollowAuditRequest,
  type QueryAuditRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import { statusOf } from "../../common/grpc.js";
import type { Audit } from "../audit/audit.js";

/** Records read at a time. */
const PAGE = 256;

/** The Control service whose answers from the audit are encoded already. */
export type EncodedControlServer = {
  [Method in Exclude<keyof typeof ControlService, "queryAudit" | "followAudit">]: ControlServer[Method];
} & {
  queryAudit: handleUnaryCall<QueryAuditRequest, Uint8Array>;
  followAudit: handleServerStreamingCall<FollowAuditRequest, Uint8Array>;
};

const responseSerialize = (encoded: Uint8Array) =>
  Buffer.from(encoded.buffer, encoded.byteOffset, encoded.length);

/** The definition of {@link EncodedControlServer}. */
export const EncodedControlService = {
  ...ControlService,
  queryAudit: { ...ControlService.queryAudit, responseSerialize },
  followAudit: { ...ControlService.followAudit, responseSerialize },
};

export function followAudit(audit: Audit, call: ServerWritableStream<FollowAuditRequest, Uint8Array>): void {
  let last = call.request.afterId;
  let stopped = false;
  let pumping = false;
  let more = false;
  // The table is the queue: a slow reader costs a cursor and a page, not memory.
  const pump = async () => {
    more = true;
    if (pumping) return;
    pumping = true;
    try {
      while (more && !stopped) {
        more = false;
        const page = await audit.after(call.request, last, PAGE);
        last = page.upTo;
        more ||= page.full;
        await send(page.records);
      }
    } catch (error) {
      if (!stopped) call.emit("error", statusOf(error));
      stop();
    }
    pumping = false;
  };
  const send = async (records: readonly Uint8Array[]) => {
    let room = true;
    for (const record of records) {
      if (stopped) return;
      room = call.write(record);
    }
    if (!room && !stopped) await new Promise((resolve) => waiting.push(resolve));
  };
  const waiting: ((value: unknown) => void)[] = [];
  const proceed = () => {
    for (const resolve of waiting.splice(0)) resolve(undefined);
  };
  const stop = () => {
    stopped = true;
    audit.off("written", wake);
    proceed();
  };
  const wake = () => void pump();
  audit.on("written", wake);
  call.on("drain", proceed);
  call.on("cancelled", stop);
  call.on("close", stop);
  call.on("error", stop);
  wake();
}
