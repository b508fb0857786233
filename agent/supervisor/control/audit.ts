/** FollowAudit: what is there after an id, then each record as it is written, without a gap between the two. */
import type { ServerWritableStream } from "@grpc/grpc-js";
import type { AuditRecord, FollowAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import { statusOf } from "../../common/grpc.js";
import type { AuditStore } from "../audit/store.js";

/** Records read at a time. */
const PAGE = 256;

export function followAudit(
  audit: AuditStore,
  call: ServerWritableStream<FollowAuditRequest, AuditRecord>,
): void {
  let last = call.request.afterId;
  let stopped = false;
  let pumping = false;
  // The table is the queue: a slow reader costs a cursor, not memory.
  const pump = () => {
    if (pumping || stopped) return;
    pumping = true;
    try {
      for (;;) {
        const newest = audit.newest();
        const page = audit.after(call.request, last, PAGE);
        for (const record of page) {
          last = record.id;
          if (!call.write(record)) {
            call.once("drain", () => {
              pumping = false;
              pump();
            });
            return;
          }
        }
        if (page.length < PAGE) {
          // What did not match is not read again.
          last = Math.max(last, newest);
          break;
        }
      }
    } catch (error) {
      stop();
      call.emit("error", statusOf(error));
    }
    pumping = false;
  };
  let scheduled = false;
  const wake = () => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      pump();
    });
  };
  const stop = () => {
    stopped = true;
    audit.off("record", wake);
  };
  audit.on("record", wake);
  call.on("cancelled", stop);
  call.on("close", stop);
  call.on("error", stop);
  pump();
}
