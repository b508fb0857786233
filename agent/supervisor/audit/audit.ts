/**
 * The audit, as the supervisor uses it. Writing and searching are done by a thread each; this one only waits for them.
 *
 * What a promise here resolves for is durable, and nothing else is: a record that somebody's action depends on is
 * awaited before the action, a batch of events before it is acknowledged. Whatever goes wrong with the thread or the
 * disk rejects the promise, and the caller refuses what it was about to do.
 */
import { EventEmitter } from "node:events";
import type { FollowAuditRequest, QueryAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import { sentence } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";
import { Thread } from "../../common/thread.js";
import { NoteBook, type RuleNotes } from "./notes.js";
import type { EncodedPage, ReaderData, ReadRequest } from "./reader.js";
import type { NewRecord } from "./record.js";
import type { WriteRequest, WriterData, Written } from "./writer.js";

/** How long a write waits for another program's lock of the database. */
const LOCK_MS = 5000;
/** How long nothing may be written, with something to write, until that counts as a failure. Longer than a lock's wait. */
const PATIENCE_MS = 6000;

export interface AuditOptions {
  /** The database. */
  readonly path: string;
  readonly log: Logger;
  /** Milliseconds, for tests of what happens after them. */
  readonly lockMs?: number;
  readonly patienceMs?: number;
}

/** The audit of one installation. Emits "written" after each commit. */
export class Audit extends EventEmitter<{ written: [] }> {
  readonly #writer: Thread<WriteRequest>;
  readonly #reader: Thread<ReadRequest>;
  readonly #notes = new NoteBook();
  readonly #lost = new Map<string, number>();
  #count = 0;

  private constructor({ path, log, lockMs = LOCK_MS, patienceMs = PATIENCE_MS }: AuditOptions) {
    super();
    this.setMaxListeners(0);
    const died = (error: Error) => log.error({ error: sentence(error) }, "a thread of the audit has ended");
    this.#writer = new Thread({
      name: "the writer of the audit",
      file: new URL("./writer.js", import.meta.url),
      data: (): WriterData => ({ path, waitMs: lockMs, policies: this.#notes.entries() }),
      patienceMs,
      up: (records) => {
        this.#count = records as number;
      },
      died,
    });
    this.#reader = new Thread({
      name: "the reader of the audit",
      file: new URL("./reader.js", import.meta.url),
      data: (): ReaderData => ({ path }),
      died,
    });
  }

  /** Opens or makes the database. Rejects when it cannot be written. */
  static async open(options: AuditOptions): Promise<Audit> {
    const audit = new Audit(options);
    await audit.#writer.start();
    return audit;
  }

  /** What a policy says about its rules: holds for all that is written from now on. */
  remember(policyHash: string, notes: RuleNotes): void {
    this.#notes.remember(policyHash, notes);
    this.#writer.tell({ kind: "policy", hash: policyHash, notes });
  }

  /** Writes one record of the supervisor's own. Durable when this resolves. */
  async append(record: NewRecord): Promise<void> {
    await this.#writer.ask({ kind: "append", record });
    this.#count += 1;
    this.emit("written");
  }

  /**
   * Writes a batch of a loader's events, an encoded EventBatch. Durable when this resolves; when it rejects, nothing
   * of it may be acknowledged. `denials`: whether denied execs are among the news that it resolves with.
   */
  async ingest(bootId: string, batch: Uint8Array, denials = false): Promise<Written> {
    // A copy: what gRPC read may lie in a buffer that has other messages, too.
    const own = new Uint8Array(batch);
    const request = { kind: "ingest", bootId, batch: own, denials } as const;
    const written = await this.#writer.ask<Written>(request, [own.buffer]);
    this.#count += written.inserted;
    for (const [way, count] of written.lost) this.#lost.set(way, (this.#lost.get(way) ?? 0) + count);
    if (written.inserted > 0) this.emit("written");
    return written;
  }

  /** Events lost since the start, by the way they were lost. */
  lost(): Record<string, number> {
    return Object.fromEntries(this.#lost);
  }

  /** Number of records. */
  count(): number {
    return this.#count;
  }

  /** The newest records that match, oldest first: an encoded QueryAuditResponse. */
  query(request: QueryAuditRequest): Promise<Uint8Array> {
    return this.#reader.ask({ kind: "query", request });
  }

  /** Up to `limit` records after an id, oldest first: one page of what a follower has not seen. */
  after(request: FollowAuditRequest, afterId: number, limit: number): Promise<EncodedPage> {
    return this.#reader.ask({ kind: "after", request, afterId, limit });
  }

  /** Writes what was handed over until now, and closes the database. */
  async close(): Promise<void> {
    await Promise.all([this.#writer.close({ kind: "close" }), this.#reader.close({ kind: "close" })]);
  }
}
