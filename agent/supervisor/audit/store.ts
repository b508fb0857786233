/**
 * The audit: one append-only table. A row is written once; triggers refuse to change or remove one, so that also a
 * mistake in this program cannot. Of a loader's event the row has the bytes that came; its facts are read from them
 * when somebody asks.
 */
import { chmodSync } from "node:fs";
import Database from "better-sqlite3";
import type { Event } from "../../../proto/gen/clawsec/v1/loader.js";
import { nowUs } from "../../common/time.js";
import type { ReceivedEvent } from "./batch.js";
import type { RuleNote } from "./notes.js";
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
  tags TEXT NOT NULL DEFAULT '[]',
  event BLOB
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
  policy_hash, latency_us, pid, boot_id, sequence, severity, tags, event)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
`;

/** Finds the note of a rule by the hash of its policy; undefined when either is not known. */
export type NoteOf = (policyHash: string, rule: string) => RuleNote | undefined;

/** What became of a batch of events. */
export interface Ingested {
  /** All events up to and with this one are durable: what may be acknowledged. */
  readonly upTo: number;
  readonly inserted: number;
  /** Already there, from before a reconnect. */
  readonly duplicates: number;
  /** Events of the batch that were looked at: all of them, unless the writing was interrupted. */
  readonly taken: number;
  /** What the events say to be lost: the way, and how many. */
  readonly lost: readonly (readonly [string, number])[];
}

/** Events between two looks at whether somebody else wants to write. */
const LOOK_EVERY = 32;

/** Writes the audit of one installation. */
export class AuditStore {
  readonly #db: Database.Database;
  readonly #insert: Database.Statement;
  readonly #known: Database.Statement;
  readonly #last: Database.Statement;

  /**
   * Opens or makes the database at `path`. `noteOf` says what the policy of a hash says about a rule; `waitMs`: for
   * another's lock.
   */
  constructor(
    path: string,
    readonly noteOf: NoteOf = () => undefined,
    waitMs = 5000,
  ) {
    this.#db = new Database(path, { timeout: waitMs });
    chmodSync(path, 0o600);
    this.#db.pragma("journal_mode = WAL");
    // An acknowledged event must survive a power cut: WAL syncs at each commit only with FULL.
    this.#db.pragma("synchronous = FULL");
    this.#db.exec(SCHEMA);
    addColumns(this.#db);
    this.#insert = this.#db.prepare(INSERT);
    this.#known = this.#db.prepare("SELECT 1 FROM audit WHERE boot_id = ? AND sequence = ?");
    this.#last = this.#db.prepare("SELECT max(sequence) AS last FROM audit WHERE boot_id = ?");
  }

  /** Writes one record of the supervisor's own, durable when this returns. */
  append(record: NewRecord): void {
    this.#write(record, record.facts, null, null, null);
  }

  /** The same with several, in one transaction: all of them, or, when it throws, none. */
  appendAll(records: readonly NewRecord[]): void {
    this.#db.transaction(() => {
      for (const record of records) this.append(record);
    })();
  }

  /**
   * Writes a batch of a loader's events in one transaction. Events that are already there are ignored; a jump in
   * the sequence becomes a record of kind "lost". Throws, with nothing written, when the commit fails: then nothing
   * may be acknowledged. When `interrupted` says so, only what was looked at until then is written.
   */
  ingest(
    bootId: string,
    events: readonly ReceivedEvent[],
    interrupted: () => boolean = () => false,
  ): Ingested {
    const lost: [string, number][] = [];
    let [inserted, duplicates, taken] = [0, 0, 0];
    let upTo = this.#lastSequence(bootId);
    this.#db.transaction(() => {
      for (const { event, bytes } of events) {
        if (taken % LOOK_EVERY === LOOK_EVERY - 1 && interrupted()) break;
        taken += 1;
        const { sequence } = event;
        // What is beyond the last is new: that it is not there need not be looked up.
        if (sequence <= upTo && this.#known.get(bootId, sequence) !== undefined) {
          duplicates += 1;
          continue;
        }
        if (sequence > upTo + 1) {
          lost.push(["sequence-gap", sequence - upTo - 1]);
          this.append(gapRecord(event, upTo + 1, sequence - upTo - 1));
          inserted += 1;
        }
        this.#write(recordOf(event), "", bytes, bootId, sequence);
        inserted += 1;
        if (event.kind?.$case === "lost") lost.push([event.kind.value.way, event.kind.value.count]);
        upTo = Math.max(upTo, sequence);
      }
    })();
    return { upTo, inserted, duplicates, taken, lost };
  }

  /** Number of records. Reads the whole table. */
  count(): number {
    return (this.#db.prepare("SELECT count(*) AS n FROM audit").get() as { n: number }).n;
  }

  close(): void {
    this.#db.close();
  }

  #lastSequence(bootId: string): number {
    return (this.#last.get(bootId) as { last: number | null }).last ?? 0;
  }

  #write(
    record: Omit<NewRecord, "facts">,
    facts: string,
    event: Uint8Array | null,
    bootId: string | null,
    sequence: number | null,
  ): void {
    const { severity, tags } = this.noteOf(record.policyHash, record.observedRule || record.rule) ?? record;
    this.#insert.run(
      record.timeUs,
      record.sandbox,
      record.subject,
      record.execId,
      JSON.stringify(record.parents),
      record.kind,
      record.summary,
      facts,
      record.verdict,
      record.rule,
      record.layer,
      record.policyHash,
      record.latencyUs,
      record.pid,
      bootId,
      sequence,
      severity,
      JSON.stringify(tags),
      event,
    );
  }
}

/** Databases of before rules had a severity, and of before events were kept as they came, lack columns. */
function addColumns(db: Database.Database): void {
  const known = new Set((db.pragma("table_info(audit)") as { name: string }[]).map(({ name }) => name));
  if (!known.has("severity")) db.exec("ALTER TABLE audit ADD COLUMN severity TEXT NOT NULL DEFAULT ''");
  if (!known.has("tags")) db.exec("ALTER TABLE audit ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'");
  if (!known.has("event")) db.exec("ALTER TABLE audit ADD COLUMN event BLOB");
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
