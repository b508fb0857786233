/**
 * How often rules with a rate have matched. On disk: whoever restarts the supervisor gives nobody a fresh allowance.
 * A question counts once for a rule, however often it is judged or asked again.
 */
import { chmodSync } from "node:fs";
import Database from "better-sqlite3";
import type { Question } from "../../../proto/gen/clawsec/v1/loader.js";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS uses (
  sandbox TEXT NOT NULL,
  rule TEXT NOT NULL,
  time_ms INTEGER NOT NULL,
  question TEXT NOT NULL,
  PRIMARY KEY (sandbox, rule, question)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uses_by_time ON uses (sandbox, rule, time_ms);
CREATE INDEX IF NOT EXISTS uses_old ON uses (time_ms);
`;

/** Longest period of a rate, as the language has it: older uses are forgotten. */
const LONGEST_MS = 49 * 24 * 3_600_000;

export class RateBook {
  readonly #db: Database.Database;
  readonly #used: Database.Statement;
  readonly #note: Database.Statement;

  /** Opens or makes the database at `path` (":memory:" for one that is not kept). */
  constructor(path: string) {
    this.#db = new Database(path);
    if (path !== ":memory:") chmodSync(path, 0o600);
    this.#db.pragma("journal_mode = WAL");
    this.#db.exec(SCHEMA);
    this.#db.prepare("DELETE FROM uses WHERE time_ms < ?").run(Date.now() - LONGEST_MS);
    this.#used = this.#db.prepare(
      "SELECT count(*) AS n FROM uses WHERE sandbox = ? AND rule = ? AND time_ms > ? AND question <> ?",
    );
    this.#note = this.#db.prepare(
      "INSERT OR IGNORE INTO uses (sandbox, rule, time_ms, question) VALUES (?, ?, ?, ?)",
    );
  }

  /** How many other questions of this sandbox have matched a rule within the last `perMs` before `nowMs`. */
  used(question: Question, rule: string, perMs: number, nowMs: number): number {
    const row = this.#used.get(question.sandbox, rule, nowMs - perMs, keyOf(question)) as { n: number };
    return row.n;
  }

  /** Records that a question has matched the rules. On disk when this returns. Throws when it cannot be written. */
  note(question: Question, rules: readonly string[], nowMs: number): void {
    if (rules.length === 0) return;
    const key = keyOf(question);
    this.#db.transaction(() => {
      for (const rule of rules) this.#note.run(question.sandbox, rule, nowMs, key);
    })();
  }

  close(): void {
    this.#db.close();
  }
}

/** Question ids are unique within a loader's boot; the time of asking makes them unique over boots. */
function keyOf(question: Question): string {
  return `${question.id}@${question.askedUs}`;
}
