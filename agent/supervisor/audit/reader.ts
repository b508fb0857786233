/**
 * The thread that searches the audit: a search through a large table keeps neither a decision nor a record waiting. It
 * answers in the contract's encoding, so that the thread that serves the answers passes bytes on.
 */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import {
  AuditRecord,
  type FollowAuditRequest,
  type QueryAuditRequest,
  QueryAuditResponse,
} from "../../../proto/gen/clawsec/v1/control.js";
import { type Asked, answer, started } from "../../common/thread.js";
import { AuditView } from "./view.js";

/** What the thread is asked. */
export type ReadRequest =
  /** Answered with an encoded QueryAuditResponse. */
  | { readonly kind: "query"; readonly request: QueryAuditRequest }
  /** Answered with an {@link EncodedPage}. */
  | {
      readonly kind: "after";
      readonly request: FollowAuditRequest;
      readonly afterId: number;
      readonly limit: number;
    }
  /** Answered when the database is closed. */
  | { readonly kind: "close" };

export interface ReaderData {
  readonly path: string;
}

/** As {@link Page}, each record as an encoded AuditRecord. */
export interface EncodedPage {
  readonly records: readonly Uint8Array<ArrayBuffer>[];
  readonly upTo: number;
  readonly full: boolean;
}

function serve(port: MessagePort, { path }: ReaderData): void {
  const view = new AuditView(path);
  const read = (request: ReadRequest) => {
    switch (request.kind) {
      case "query": {
        const value = QueryAuditResponse.encode(view.query(request.request)).finish();
        return { value, transfer: [value.buffer as ArrayBuffer] };
      }
      case "after": {
        const page = view.after(request.request, request.afterId, request.limit);
        const records = page.records.map((record) => AuditRecord.encode(record).finish());
        return { value: { ...page, records }, transfer: records.map(({ buffer }) => buffer as ArrayBuffer) };
      }
      case "close":
        return { value: view.close() };
    }
  };
  port.on("message", ({ id, request }: Asked<ReadRequest>) => answer(port, id, () => read(request)));
  started(port, undefined);
}

if (parentPort !== null) serve(parentPort, workerData as ReaderData);
