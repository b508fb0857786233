/** Reads the audit. Each answer is of one moment: what was committed then, and nothing of what was not. */
import Database from "better-sqlite3";
import type {
  AuditRecord,
  FollowAuditRequest,
  QueryAuditRequest,
  QueryAuditResponse,
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
    const rows = this.#db
      .prepare(`SELECT * FROM audit ${where} ORDER BY id DESC LIMIT ?`)
      .all(...values, limit + 1) as Row[];
    return { records: rows.slice(0, limit).reverse().map(toRecord), truncated: rows.length > limit };
  }

  /** Up to `limit` records after an id, oldest first: one page of what a follower has not seen. */
  after(request: FollowAuditRequest, afterId: number, limit: number): Page {
    const { where, values } = filterOf({ ...request, afterId });
    return this.#db.transaction(() => {
      const rows = this.#db
        .prepare(`SELECT * FROM audit ${where} ORDER BY id LIMIT ?`)
        .all(...values, limit) as Row[];
      const full = rows.length === limit;
      // What did not match is not looked at again.
      const upTo = full ? (rows.at(-1)?.id ?? afterId) : Math.max(afterId, this.newest());
      return { records: rows.map(toRecord), upTo, full };
    })();
  }

  /** Id of the newest record, 0 for none. */
  newest(): number {
    return (this.#db.prepare("SELECT coalesce(max(id), 0) AS id FROM audit").get() as { id: number }).id;
  }

  close(): void {
    this.#db.close();
  }
}
