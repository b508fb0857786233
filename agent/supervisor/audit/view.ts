/** Reads the audit. Each answer is of one moment: what was committed then, and nothing of what was not. */
import Database from "better-sqlite3";
import {
  AuditRecord,
  type FollowAuditRequest,
  type QueryAuditRequest,
  type QueryAuditResponse,
} from "../../../proto/gen/clawsec/v1/control.js";
import { DEFAULT_LIMIT, filterOf, MAX_LIMIT, type Row, toRecord } from "./query.js";

/** Part of what a follower has not seen. */
export interface Page {
  readonly records: readonly AuditRecord[];
  /** Nothing up to and with this id is left to see; the follower goes on after it. */
  readonly upTo: number;
  /** There may be more already. */
  readonly full: boolean;
}

/** Bytes of an answer, or of a page: below what a message of the Control API may have (32 MiB), whatever is in them. */
const MAX_BYTES = 24 * 1024 * 1024;

export class AuditView {
  readonly #db: Database.Database;

  /** Opens the database at `path`, which a store has made. */
  constructor(path: string) {
    this.#db = new Database(path, { readonly: true });
    this.#db.function("fold", { deterministic: true }, (text) => String(text).toLowerCase());
  }

  /** The newest records that match, oldest first. */
  query(request: QueryAuditRequest): QueryAuditResponse {
    const { where, values } = filterOf(request);
    const limit = Math.min(request.limit || DEFAULT_LIMIT, MAX_LIMIT);
    const { records, cut } = this.#read(`${where} ORDER BY id DESC`, values, limit + 1);
    const truncated = cut || records.length > limit;
    return { records: records.slice(0, limit).reverse(), truncated };
  }

  /** Up to `limit` records after an id, oldest first: one page of what a follower has not seen. */
  after(request: FollowAuditRequest, afterId: number, limit: number): Page {
    const { where, values } = filterOf({ ...request, afterId });
    return this.#db.transaction(() => {
      const { records, cut } = this.#read(`${where} ORDER BY id`, values, limit);
      const full = cut || records.length === limit;
      // What did not match is not looked at again.
      const upTo = full ? (records.at(-1)?.id ?? afterId) : Math.max(afterId, this.newest());
      return { records, upTo, full };
    })();
  }

  // At most `limit` records, and at most MAX_BYTES of them, but the first one in any case. `cut`: there are more.
  #read(clause: string, values: readonly (string | number)[], limit: number) {
    const rows = this.#db.prepare(`SELECT * FROM audit ${clause} LIMIT ?`).iterate(...values, limit);
    const records: AuditRecord[] = [];
    let bytes = 0;
    for (const row of rows as IterableIterator<Row>) {
      const record = toRecord(row);
      bytes += AuditRecord.encode(record).finish().length;
      if (bytes > MAX_BYTES && records.length > 0) return { records, cut: true };
      records.push(record);
    }
    return { records, cut: false };
  }

  /** Id of the newest record, 0 for none. */
  newest(): number {
    return (this.#db.prepare("SELECT coalesce(max(id), 0) AS id FROM audit").get() as { id: number }).id;
  }

  close(): void {
    this.#db.close();
  }
}
