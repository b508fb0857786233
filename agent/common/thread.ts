/**
 * A worker thread that answers requests, as seen by the thread that asks. What blocks (a disk, a search through a
 * large table) is done there, so that whoever asks goes on meanwhile.
 *
 * Each request is answered once: with the thread's answer, or with an error when the thread has died or has answered
 * nothing for too long. A thread that died is started again by the next request.
 */
import { type MessagePort, type Transferable, Worker } from "node:worker_threads";

/** What a thread sends: first that it has started, then an answer to each request. */
export type Reply =
  | { readonly kind: "started"; readonly value: unknown }
  | { readonly kind: "done"; readonly id: number; readonly value: unknown }
  | { readonly kind: "failed"; readonly id: number; readonly why: string };

/** A request as a thread gets it. Those with the id 0 are told only: nothing is answered. */
export interface Asked<Request> {
  readonly id: number;
  readonly request: Request;
}

export interface ThreadOptions {
  /** What it does, for errors: "the audit's writer". */
  readonly name: string;
  readonly file: URL;
  /** The thread's `workerData`, made anew for each start. */
  readonly data: () => unknown;
  /** How long it may answer nothing, with requests waiting, until they fail. Undefined: as long as it takes. */
  readonly patienceMs?: number;
  /** Told what it says first, at each start. */
  readonly up?: (value: unknown) => void;
  /** Told when it has ended though nobody closed it. */
  readonly died?: (error: Error) => void;
}

/**
 * What a thread makes lives for one request: a small young generation is as fast as V8's own 48 MiB, which each thread
 * would fill before it reuses any of it.
 */
const YOUNG_MB = 4;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Thread<Request> {
  readonly #options: ThreadOptions;
  #worker: Worker | undefined;
  #started: Promise<unknown> | undefined;
  #waiting = new Map<number, Waiting>();
  #last = 0;
  /** Requests that failed because nothing came for too long, and that the thread has not answered yet. */
  #late = 0;
  #timer: NodeJS.Timeout | undefined;
  #answers = 0;
  #closed = false;

  constructor(options: ThreadOptions) {
    this.#options = options;
  }

  /** Starts the thread, if it does not run. Resolves with what it says first; rejects when it cannot start. */
  start(): Promise<unknown> {
    if (this.#started !== undefined) return this.#started;
    const { file, data } = this.#options;
    const worker = new Worker(file, {
      workerData: data(),
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.#worker = worker;
    let died: unknown;
    const started = new Promise<unknown>((resolve, reject) => {
      worker.on("message", (reply: Reply) => {
        if (reply.kind === "started") {
          this.#options.up?.(reply.value);
          resolve(reply.value);
        } else {
          this.#answered(reply);
        }
      });
      worker.on("error", (error) => {
        died = error;
      });
      worker.on("exit", (code) => {
        const why = died === undefined ? `exit code ${code}` : words(died);
        const error = new Error(`${this.#options.name} has ended: ${why}`);
        reject(died instanceof Error ? died : error);
        this.#gone(error);
      });
    });
    // Who asks is told; nobody has to wait for the start itself.
    started.catch(() => undefined);
    this.#started = started;
    return started;
  }

  /** Asks; the thread is started when it does not run. Rejects with a sentence when there is no answer. */
  ask<Value>(request: Request, transfer: readonly Transferable[] = []): Promise<Value> {
    const { name, patienceMs } = this.#options;
    if (this.#closed) return Promise.reject(new Error(`${name} is closed`));
    if (this.#late > 0) return Promise.reject(new Error(`${name} has not answered for ${patienceMs} ms`));
    this.start();
    this.#last += 1;
    const id = this.#last;
    return new Promise<Value>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#post({ id, request }, transfer);
      this.#arm();
    });
  }

  /** Tells it something that needs no answer. Lost when it does not run: its `data` must have it at the next start. */
  tell(request: Request): void {
    this.#post({ id: 0, request }, []);
  }

  /**
   * Asks it to end by a last request, after which its port is closed; resolves when it has. One that does not answer
   * in time is ended where it stands.
   */
  async close(last: Request): Promise<void> {
    if (this.#closed) return;
    const worker = this.#worker;
    const over = worker && this.ask(last);
    this.#closed = true;
    await over?.catch(() => undefined);
    this.#disarm();
    await worker?.terminate();
  }

  #post(message: Asked<Request>, transfer: readonly Transferable[]): void {
    this.#worker?.postMessage(message, transfer);
  }

  #answered(reply: Exclude<Reply, { kind: "started" }>): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    this.#answers += 1;
    if (waiting === undefined) this.#late -= 1;
    // The time without an answer begins anew.
    if (this.#waiting.size === 0) this.#disarm();
    else this.#timer?.refresh();
    if (reply.kind === "done") waiting?.resolve(reply.value);
    else waiting?.reject(new Error(reply.why));
  }

  #arm(): void {
    const { name, patienceMs } = this.#options;
    if (patienceMs === undefined || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const before = this.#answers;
      // It may have been this thread that stood still: what has come meanwhile is taken first.
      setImmediate(() => {
        if (this.#waiting.size === 0) return;
        if (this.#answers !== before) {
          this.#arm();
          return;
        }
        this.#late += this.#waiting.size;
        this.#fail(new Error(`${name} has not answered for ${patienceMs} ms`));
      });
    }, patienceMs);
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #gone(error: Error): void {
    this.#worker = undefined;
    this.#started = undefined;
    this.#late = 0;
    this.#disarm();
    this.#fail(error);
    if (!this.#closed) this.#options.died?.(error);
  }

  #fail(error: Error): void {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}

/** In the thread: says that it has started. */
export function started(port: MessagePort, value: unknown): void {
  port.postMessage({ kind: "started", value } satisfies Reply);
}

/** In the thread: does what was asked, and answers with what came of it, or with the words of its error. */
export function answer(
  port: MessagePort,
  id: number,
  action: () => { readonly value: unknown; readonly transfer?: readonly Transferable[] },
): void {
  let reply: Reply;
  let transfer: readonly Transferable[] = [];
  try {
    const done = action();
    transfer = done.transfer ?? [];
    reply = { kind: "done", id, value: done.value };
  } catch (error) {
    reply = { kind: "failed", id, why: words(error) };
  }
  if (id !== 0) port.postMessage(reply, transfer);
}

function words(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
