/** Under which policy each sandbox was started, on disk: a supervisor that comes back decides as the one before. */
import { chmodSync } from "node:fs";
import Database from "better-sqlite3";
import type { PolicySource } from "../../../policy/index.js";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS sandboxes (
  name TEXT PRIMARY KEY,
  record TEXT NOT NULL
) STRICT;
`;

/** What is needed to compile the policy of a sandbox again, exactly as it was. */
export interface SandboxRecord {
  readonly name: string;
  readonly policyPath: string;
  /** The text of every file of the policy when it was applied, the policy's own last: the files may have changed since. */
  readonly sources: readonly PolicySource[];
  readonly policyHash: string;
  readonly variables: Readonly<Record<string, string>>;
  /** The same when the sandbox was started: what a running sandbox cannot change is still as they say. */
  readonly startedFrom: readonly PolicySource[];
  /** Replaces sandbox.command when not empty. */
  readonly command: readonly string[];
  readonly terminal: boolean;
  readonly detached: boolean;
  /** TERM of whoever started it. */
  readonly term: string;
  readonly epoch: number;
}

export class SandboxStore {
  readonly #db: Database.Database;

  /** Opens or makes the database at `path` (":memory:" for one that is not kept). */
  constructor(path: string) {
    this.#db = new Database(path);
    if (path !== ":memory:") chmodSync(path, 0o600);
    this.#db.pragma("journal_mode = WAL");
    this.#db.exec(SCHEMA);
  }

  put(record: SandboxRecord): void {
    this.#db
      .prepare("INSERT OR REPLACE INTO sandboxes (name, record) VALUES (?, ?)")
      .run(record.name, JSON.stringify(record));
  }

  remove(name: string): void {
    this.#db.prepare("DELETE FROM sandboxes WHERE name = ?").run(name);
  }

  all(): SandboxRecord[] {
    const rows = this.#db.prepare("SELECT record FROM sandboxes ORDER BY name").all() as { record: string }[];
    return rows.map(({ record }) => JSON.parse(record) as SandboxRecord);
  }

  close(): void {
    this.#db.close();
  }
}
