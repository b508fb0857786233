/**
 * The thread that writes the audit, so that neither a disk nor a batch of events keeps a decision waiting.
 *
 * Requests are done in the order in which they came, but for the supervisor's own records: somebody waits for each, so
 * they go before batches, and a batch that is being written is committed as far as it is for them.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { type Event, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { type Asked, answer, started } from "../../common/thread.js";
import { eventsOf } from "./batch.js";
import { NoteBook, type RuleNotes } from "./notes.js";
import type { NewRecord } from "./record.js";
import { AuditStore, type Ingested } from "./store.js";

/** What the thread is asked to do. */
export type WriteRequest =
  /** Answered with a {@link Written} when the batch, an encoded EventBatch, is durable. */
  | {
      readonly kind: "ingest";
      readonly bootId: string;
      readonly batch: Uint8Array;
      /** Whether denied execs are news. */
      readonly denials: boolean;
    }
  /** Answered when the record is durable. */
  | { readonly kind: "append"; readonly record: NewRecord }
  /** Told only: what a policy says about its rules. Holds for what is asked afterwards. */
  | { readonly kind: "policy"; readonly hash: string; readonly notes: RuleNotes }
  /** Answered when all that was asked before is done and the database is closed. */
  | { readonly kind: "close" };

/** Records of the supervisor's own that are written in one transaction. */
const TOGETHER = 512;

type Append = Asked<Extract<WriteRequest, { kind: "append" }>>;

function isAppend(asked: Asked<WriteRequest> | undefined): asked is Append {
  return asked?.request.kind === "append";
}

/** What the thread is started with. It says first how many records there are. */
export interface WriterData {
  readonly path: string;
  /** How long to wait for another's lock. */
  readonly waitMs: number;
  readonly policies: readonly (readonly [string, RuleNotes])[];
}

/** A batch that is durable. */
export interface Written {
  /** All events up to and with this one are durable: what may be acknowledged. */
  readonly upTo: number;
  /** Records that were added since the last answer, of this batch and of the beginning of one that failed later. */
  readonly inserted: number;
  /** What their events say to be lost. */
  readonly lost: Ingested["lost"];
  /** Those events of it that the supervisor acts on, in order: of sandboxes, and of denied execs where asked for. */
  readonly news: readonly Event[];
}

/** Requests in the order in which they are done. */
class Queue {
  readonly #urgent: Asked<WriteRequest>[] = [];
  readonly #others: Asked<WriteRequest>[] = [];

  constructor(readonly port: MessagePort) {}

  add(asked: Asked<WriteRequest>): void {
    const { kind } = asked.request;
    (kind === "append" || kind === "policy" ? this.#urgent : this.#others).push(asked);
  }

  /** Takes what has come. */
  fetch(): void {
    for (let got = receiveMessageOnPort(this.port); got; got = receiveMessageOnPort(this.port)) {
      this.add(got.message as Asked<WriteRequest>);
    }
  }

  /** True when something has come that goes before a batch. */
  hasUrgent(): boolean {
    this.fetch();
    return this.#urgent.length > 0;
  }

  nextUrgent(): Asked<WriteRequest> | undefined {
    return this.#urgent.shift();
  }

  /** Takes the records that wait next, as many as are written together. */
  nextAppends(): Append[] {
    this.fetch();
    const end = this.#urgent.findIndex((asked, index) => index === TOGETHER || !isAppend(asked));
    return this.#urgent.splice(0, end === -1 ? this.#urgent.length : end).filter(isAppend);
  }

  next(): Asked<WriteRequest> | undefined {
    this.fetch();
    return this.#urgent.shift() ?? this.#others.shift();
  }
}

function isNews({ kind }: Event, denials: boolean): boolean {
  if (kind?.$case === "sandboxEvent") return true;
  if (!denials || kind?.$case !== "decision") return false;
  return kind.value.verdict === Verdict.DENY && kind.value.action?.$case === "exec";
}

function serve(port: MessagePort, { path, waitMs, policies }: WriterData): void {
  const notes = new NoteBook(policies);
  const store = new AuditStore(path, (hash, rule) => notes.noteOf(hash, rule), waitMs);
  const queue = new Queue(port);
  // What was written and not told yet: when a later part of a batch fails, it waits for the next answer.
  let untold = { inserted: 0, lost: [] as Ingested["lost"] };

  const write = (bootId: string, batch: Uint8Array, denials: boolean): Written => {
    let events = eventsOf(batch);
    const news = events.map(({ event }) => event).filter((event) => isNews(event, denials));
    let upTo = 0;
    do {
      const part = store.ingest(bootId, events, () => queue.hasUrgent());
      upTo = part.upTo;
      untold = { inserted: untold.inserted + part.inserted, lost: [...untold.lost, ...part.lost] };
      events = events.slice(part.taken);
      for (let asked = queue.nextUrgent(); asked; asked = queue.nextUrgent()) handle(asked);
    } while (events.length > 0);
    const told = untold;
    untold = { inserted: 0, lost: [] };
    return { upTo, ...told, news };
  };

  // To make many durable takes hardly longer than one. When that fails, each is told of its own failure.
  const append = (records: readonly Append[]): void => {
    let areWritten = false;
    try {
      store.appendAll(records.map(({ request }) => request.record));
      areWritten = true;
    } catch {}
    for (const { id, request } of records)
      answer(port, id, () => ({ value: areWritten ? undefined : store.append(request.record) }));
  };

  const handle = ({ id, request }: Asked<WriteRequest>): void => {
    if (request.kind === "append") {
      append([{ id, request }, ...queue.nextAppends()]);
      return;
    }
    answer(port, id, () => {
      switch (request.kind) {
        case "ingest":
          return { value: write(request.bootId, request.batch, request.denials) };
        case "policy":
          return { value: notes.remember(request.hash, request.notes) };
        case "close":
          return { value: store.close() };
      }
    });
  };

  port.on("message", (asked: Asked<WriteRequest>) => {
    queue.add(asked);
    for (let next = queue.next(); next; next = queue.next()) handle(next);
  });
  started(port, store.count());
}

if (parentPort !== null) serve(parentPort, workerData as WriterData);
