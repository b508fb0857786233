/** Holds on disk, so that an open question survives a restart of the supervisor. */
import { chmodSync } from "node:fs";
import Database from "better-sqlite3";
import { Hold, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS holds (
  id TEXT PRIMARY KEY,
  sandbox TEXT NOT NULL,
  key TEXT NOT NULL,
  open INTEGER NOT NULL,
  opened_us INTEGER NOT NULL,
  hold TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS holds_open ON holds (open, opened_us);
`;

/** Ended holds beyond this number are forgotten here; the audit keeps their records. */
const KEPT_ENDED = 1000;

/** A hold and the key of its question. */
export interface StoredHold {
  readonly hold: Hold;
  readonly key: string;
}

interface Row {
  key: string;
  hold: string;
}

export class HoldStore {
  readonly #db: Database.Database;
  readonly #put: Database.Statement;
  readonly #byId: Database.Statement;
  readonly #byPrefix: Database.Statement;

  /** Opens or makes the database at `path` (":memory:" for one that is not kept). */
  constructor(path: string) {
    this.#db = new Database(path);
    if (path !== ":memory:") chmodSync(path, 0o600);
    this.#db.pragma("journal_mode = WAL");
    this.#db.exec(SCHEMA);
    this.#put = this.#db.prepare(
      "INSERT OR REPLACE INTO holds (id, sandbox, key, open, opened_us, hold) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#byId = this.#db.prepare("SELECT 1 FROM holds WHERE id = ?");
    // A range of the primary key: whatever follows the prefix is less than the last character of Unicode.
    this.#byPrefix = this.#db.prepare(
      "SELECT key, hold FROM holds WHERE id >= @prefix AND id < @prefix || char(1114111) LIMIT 10",
    );
    this.#db
      .prepare(
        "DELETE FROM holds WHERE open = 0 AND id NOT IN (SELECT id FROM holds WHERE open = 0 ORDER BY opened_us DESC LIMIT ?)",
      )
      .run(KEPT_ENDED);
  }

  /** Writes a hold as it is now. Durable when this returns. */
  put({ hold, key }: StoredHold): void {
    const open = hold.outcome === HoldOutcome.OPEN ? 1 : 0;
    this.#put.run(hold.id, hold.sandbox, key, open, hold.openedUs, JSON.stringify(Hold.toJSON(hold)));
  }

  /** Writes many at once: all of them or none. */
  putAll(holds: readonly StoredHold[]): void {
    this.#db.transaction(() => {
      for (const hold of holds) this.put(hold);
    })();
  }

  /** Whether a hold, open or ended, has this id. */
  has(id: string): boolean {
    return this.#byId.get(id) !== undefined;
  }

  /** Every open hold, oldest first. */
  open(): StoredHold[] {
    return (
      this.#db.prepare("SELECT key, hold FROM holds WHERE open = 1 ORDER BY opened_us").all() as Row[]
    ).map(stored);
  }

  /** Ended holds, newest first. */
  ended(sandbox: string, limit: number): Hold[] {
    const rows = this.#db
      .prepare(
        "SELECT key, hold FROM holds WHERE open = 0 AND (? = '' OR sandbox = ?) ORDER BY opened_us DESC LIMIT ?",
      )
      .all(sandbox, sandbox, limit) as Row[];
    return rows.map((row) => stored(row).hold);
  }

  /** Holds, open or ended, whose id begins so; at most ten. */
  byPrefix(prefix: string): Hold[] {
    const rows = this.#byPrefix.all({ prefix }) as Row[];
    return rows.map((row) => stored(row).hold);
  }

  close(): void {
    this.#db.close();
  }
}

function stored(row: Row): StoredHold {
  return { key: row.key, hold: Hold.fromJSON(JSON.parse(row.hold)) };
}
