/**
 * The audit: one append-only table. A row is written once; triggers refuse to change or remove one, so that also a
 * mistake in this program cannot.
 */
import { EventEmitter } from "node:events";
import { chmodSync } from "node:fs";
import Database from "better-sqlite3";
import type {
  AuditRecord,
  FollowAuditRequest,
  QueryAuditRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import type { Event } from "../../../proto/gen/clawsec/v1/loader.js";
import { nowUs } from "../../common/time.js";
import { DEFAULT_LIMIT, filterOf, MAX_LIMIT, type Row, toRecord } from "./query.js";
import { type NewRecord, ownRecord, recordOf } from "./record.js";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us INTEGER NOT NULL,
  sandbox TEXT NOT NULL,
  subject TEXT NOT NULL,
  exec_id TEXT NOT NULL,
  parents TEXT NOT NULL,
  kind TEXT NOT NULL,
  summary TEXT NOT NULL,
  facts TEXT NOT NULL,
  verdict INTEGER NOT NULL,
  rule TEXT NOT NULL,
  layer TEXT NOT NULL,
  policy_hash TEXT NOT NULL,
  latency_us INTEGER NOT NULL,
  pid INTEGER NOT NULL,
  boot_id TEXT,
  sequence INTEGER,
  severity TEXT NOT NULL DEFAULT '',
  tags TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS audit_by_event ON audit (boot_id, sequence) WHERE boot_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS audit_by_sandbox ON audit (sandbox, id);
CREATE INDEX IF NOT EXISTS audit_by_exec ON audit (exec_id, id);
CREATE INDEX IF NOT EXISTS audit_by_parent ON audit (json_extract(parents, '$[0]')) WHERE kind = 'exec';
CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
`;

const INSERT = `
INSERT INTO audit (time_us, sandbox, subject, exec_id, parents, kind, summary, facts, verdict, rule, layer,
  policy_hash, latency_us, pid, boot_id, sequence, severity, tags)
VALUES (@timeUs, @sandbox, @subject, @execId, @parents, @kind, @summary, @facts, @verdict, @rule, @layer,
  @policyHash, @latencyUs, @pid, @bootId, @sequence, @severity, @tags)
`;

/** What a policy says about one of its rules, for the audit. */
export interface RuleNote {
  readonly severity: string;
  readonly tags: readonly string[];
}

/** Finds the note of a rule by the hash of its policy; undefined when either is not known. */
export type NoteOf = (policyHash: string, rule: string) => RuleNote | undefined;

/** What became of a batch of events. */
export interface Ingested {
  /** All events up to and with this one are durable: what may be acknowledged. */
  readonly upTo: number;
  readonly inserted: number;
  /** Already there, from before a reconnect. */
  readonly duplicates: number;
}

/** The audit of one installation. Emits "record" for each new row, after its commit. */
export class AuditStore extends EventEmitter<{ record: [AuditRecord] }> {
  readonly #db: Database.Database;
  readonly #insert: Database.Statement;
  readonly #known: Database.Statement;
  readonly #last: Database.Statement;
  readonly #lost = new Map<string, number>();
  #count: number;

  /**
   * Opens or makes the database at `path` (":memory:" for one that is not kept). `noteOf` says what the policy of a
   * hash says about a rule; `waitMs`: for another's lock.
   */
  constructor(
    path: string,
    readonly noteOf: NoteOf = () => undefined,
    waitMs = 5000,
  ) {
    super();
    this.setMaxListeners(0);
    this.#db = new Database(path, { timeout: waitMs });
    if (path !== ":memory:") chmodSync(path, 0o600);
    this.#db.pragma("journal_mode = WAL");
    // An acknowledged event must survive a power cut: WAL syncs at each commit only with FULL.
    this.#db.pragma("synchronous = FULL");
    this.#db.exec(SCHEMA);
    addColumns(this.#db);
    this.#db.function("fold", { deterministic: true }, (text) => String(text).toLowerCase());
    this.#insert = this.#db.prepare(INSERT);
    this.#known = this.#db.prepare("SELECT 1 FROM audit WHERE boot_id = ? AND sequence = ?");
    this.#last = this.#db.prepare("SELECT max(sequence) AS last FROM audit WHERE boot_id = ?");
    this.#count = (this.#db.prepare("SELECT count(*) AS n FROM audit").get() as { n: number }).n;
  }

  /** Writes one record of the supervisor's own, durable when this returns. */
  append(record: NewRecord): AuditRecord {
    const written = this.#write(record, null, null);
    this.#count += 1;
    this.emit("record", written);
    return written;
  }

  /**
   * Writes a batch of a loader's events in one transaction. Events that are already there are ignored; a jump in
   * the sequence becomes a record of kind "lost". Throws, with nothing written, when the commit fails: then nothing
   * may be acknowledged.
   */
  ingest(bootId: string, events: readonly Event[]): Ingested {
    const written: AuditRecord[] = [];
    const lost: [string, number][] = [];
    let duplicates = 0;
    const before = this.#lastSequence(bootId);
    let upTo = before;
    this.#db.transaction(() => {
      for (const event of events) {
        // What is beyond the last is new: that it is not there need not be looked up.
        if (event.sequence <= upTo && this.#known.get(bootId, event.sequence) !== undefined) {
          duplicates += 1;
          continue;
        }
        if (event.sequence > upTo + 1) {
          const missing = event.sequence - upTo - 1;
          lost.push(["sequence-gap", missing]);
          written.push(this.#write(gapRecord(event, upTo + 1, missing), null, null));
        }
        written.push(this.#write(recordOf(event), bootId, event.sequence));
        if (event.kind?.$case === "lost") lost.push([event.kind.value.way, event.kind.value.count]);
        upTo = Math.max(upTo, event.sequence);
      }
    })();
    this.#count += written.length;
    for (const [way, count] of lost) this.countLost(way, count);
    for (const record of written) this.emit("record", record);
    return { upTo, inserted: written.length, duplicates };
  }

  /** Adds to the counter of one way to lose events. */
  countLost(way: string, count: number): void {
    this.#lost.set(way, (this.#lost.get(way) ?? 0) + count);
  }

  /** Events lost since the start, by the way they were lost. */
  lost(): Record<string, number> {
    return Object.fromEntries(this.#lost);
  }

  /** Number of records. Counted once at the start and then kept: a count reads the whole table. */
  count(): number {
    return this.#count;
  }

  /** Id of the newest record, 0 for none. */
  newest(): number {
    return (this.#db.prepare("SELECT coalesce(max(id), 0) AS id FROM audit").get() as { id: number }).id;
  }

  /** The newest records that match, oldest first. */
  query(request: QueryAuditRequest): { records: AuditRecord[]; truncated: boolean } {
    const { where, values } = filterOf(request);
    const limit = Math.min(request.limit || DEFAULT_LIMIT, MAX_LIMIT);
    const rows = this.#db
      .prepare(`SELECT * FROM audit ${where} ORDER BY id DESC LIMIT ?`)
      .all(...values, limit + 1) as Row[];
    return { records: rows.slice(0, limit).reverse().map(toRecord), truncated: rows.length > limit };
  }

  /** Up to `limit` records after an id, oldest first: one page of what a follower has not seen. */
  after(request: FollowAuditRequest, afterId: number, limit: number): AuditRecord[] {
    const { where, values } = filterOf({ ...request, afterId });
    const rows = this.#db.prepare(`SELECT * FROM audit ${where} ORDER BY id LIMIT ?`).all(...values, limit);
    return (rows as Row[]).map(toRecord);
  }

  close(): void {
    this.#db.close();
  }

  #lastSequence(bootId: string): number {
    return (this.#last.get(bootId) as { last: number | null }).last ?? 0;
  }

  #write(record: NewRecord, bootId: string | null, sequence: number | null): AuditRecord {
    const { observedRule, ...rest } = record;
    const { severity, tags } = this.noteOf(record.policyHash, observedRule || record.rule) ?? record;
    const written = { ...rest, severity, tags: [...tags] };
    const columns = { parents: JSON.stringify(record.parents), tags: JSON.stringify(tags) };
    const result = this.#insert.run({ ...written, ...columns, bootId, sequence });
    return { ...written, id: Number(result.lastInsertRowid) };
  }
}

/** Databases of before rules had a severity lack two columns. */
function addColumns(db: Database.Database): void {
  const known = new Set((db.pragma("table_info(audit)") as { name: string }[]).map(({ name }) => name));
  if (!known.has("severity")) db.exec("ALTER TABLE audit ADD COLUMN severity TEXT NOT NULL DEFAULT ''");
  if (!known.has("tags")) db.exec("ALTER TABLE audit ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'");
}

function gapRecord(event: Event, first: number, missing: number): NewRecord {
  return ownRecord(
    {
      kind: "lost",
      timeUs: nowUs(),
      sandbox: event.sandbox,
      summary: `${missing} events lost: the loader's sequence jumps from ${first - 1} to ${event.sequence}`,
    },
    { way: "sequence-gap", count: missing, first, last: event.sequence - 1 },
  );
}
