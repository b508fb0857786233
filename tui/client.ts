import {
  type ClientReadableStream,
  credentials,
  status as grpcStatus,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import {
  type AuditRecord,
  ControlClient,
  type Hold,
  type HoldChange,
  type QueryAuditResponse,
  type StatusResponse,
} from "../proto/gen/clawsec/v1/control.js";
import type { KillReport, Verdict } from "../proto/gen/clawsec/v1/loader.js";

/** What a connection tells its owner. */
export interface Listener {
  connected(status: StatusResponse): void;
  /** `why` is one sentence; the connection goes on trying. */
  gone(why: string): void;
  status(status: StatusResponse): void;
  hold(change: HoldChange): void;
  audit(records: readonly AuditRecord[]): void;
}

/** Longest message, as the supervisor's: a sandbox chooses how long the arguments are that are asked about. */
const messageBytes = 32 * 1024 * 1024;
const statusEveryMs = 1000;
const callMs = 5000;
/** A kill waits until nothing is left. */
const killMs = 30_000;
const firstRetryMs = 250;
const lastRetryMs = 2000;
/** Records shown before new ones come. */
const pastRecords = 50;

/**
 * One supervisor's Control API over its unix socket, connected again whenever the supervisor comes back.
 * Every connection starts from nothing: open holds come again, whoever listens forgets the old ones.
 */
export class Connection {
  readonly #socketPath: string;
  readonly #listener: Listener;
  #client: ControlClient | undefined;
  #streams: ClientReadableStream<unknown>[] = [];
  #timer: NodeJS.Timeout | undefined;
  #retryMs = firstRetryMs;
  #closed = false;

  constructor(socketPath: string, listener: Listener) {
    this.#socketPath = socketPath;
    this.#listener = listener;
  }

  /** Connects, and from then on calls the listener until `close`. */
  open(): void {
    void this.#connect();
  }

  close(): void {
    this.#closed = true;
    this.#drop();
  }

  /** Throws an Error with a sentence when the supervisor refuses or cannot be reached. */
  async answer(id: string, verdict: Verdict, reason: string): Promise<Hold | undefined> {
    const client = this.#client;
    if (client === undefined) throw new Error("the supervisor is not connected");
    const response = await call<{ hold: Hold | undefined }>((done) =>
      client.answerHold({ id, verdict, reason, via: "tui" }, ...deadline(callMs), done),
    );
    return response.hold;
  }

  /** Kills the named sandbox, or all of them when `name` is undefined. Throws as `answer` does. */
  async kill(name: string | undefined, reason: string): Promise<KillReport> {
    const client = this.#client;
    if (client === undefined) throw new Error("the supervisor is not connected");
    const request = { name: name ?? "", all: name === undefined, reason };
    return call<KillReport>((done) => client.kill(request, ...deadline(killMs), done));
  }

  async #connect(): Promise<void> {
    // A new client each time: an old one waits ever longer between its own attempts.
    const client = new ControlClient(`unix:${this.#socketPath}`, credentials.createInsecure(), {
      "grpc.max_receive_message_length": messageBytes,
    });
    this.#client = client;
    try {
      const status = await this.#status(client);
      if (this.#client !== client) return;
      this.#retryMs = firstRetryMs;
      this.#listener.connected(status);
      this.#follow(client, client.watchHolds({ sandbox: "" }), (change: HoldChange) =>
        this.#listener.hold(change),
      );
      const past = await call<QueryAuditResponse>((done) =>
        client.queryAudit({ ...anyRecord, limit: pastRecords }, ...deadline(callMs), done),
      );
      if (this.#client !== client) return;
      this.#listener.audit(past.records);
      const afterId = past.records.at(-1)?.id ?? 0;
      this.#follow(client, client.followAudit({ sandbox: "", kinds: [], afterId }), (record: AuditRecord) =>
        this.#listener.audit([record]),
      );
      this.#pollStatus(client);
    } catch (error) {
      this.#lost(client, error);
    }
  }

  #status(client: ControlClient): Promise<StatusResponse> {
    return call<StatusResponse>((done) => client.status({}, ...deadline(callMs), done));
  }

  #pollStatus(client: ControlClient): void {
    this.#timer = setTimeout(async () => {
      try {
        const status = await this.#status(client);
        if (this.#client !== client) return;
        this.#listener.status(status);
        this.#pollStatus(client);
      } catch (error) {
        this.#lost(client, error);
      }
    }, statusEveryMs);
  }

  #follow<T>(client: ControlClient, stream: ClientReadableStream<T>, each: (message: T) => void): void {
    this.#streams.push(stream);
    stream.on("data", each);
    stream.on("error", (error) => this.#lost(client, error));
    stream.on("end", () => this.#lost(client, new Error("the supervisor ended the stream")));
  }

  /** Called by everything that fails on `client`; only the first counts. */
  #lost(client: ControlClient, error: unknown): void {
    if (this.#client !== client || this.#closed) return;
    this.#drop();
    this.#listener.gone(sentence(error));
    this.#timer = setTimeout(() => void this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs);
  }

  #drop(): void {
    clearTimeout(this.#timer);
    const client = this.#client;
    this.#client = undefined;
    for (const stream of this.#streams.splice(0)) stream.cancel();
    client?.close();
  }
}

const anyRecord = {
  sandbox: "",
  kinds: [],
  verdicts: [],
  severities: [],
  tag: "",
  execId: "",
  ancestor: "",
  beforeId: 0,
  text: "",
  sinceUs: 0,
  untilUs: 0,
  afterId: 0,
};

function deadline(ms: number): [Metadata, { deadline: number }] {
  return [new Metadata(), { deadline: Date.now() + ms }];
}

function call<T>(start: (done: (error: ServiceError | null, response: T) => void) => unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, response) => (error ? reject(new Error(sentence(error))) : resolve(response)));
  });
}

/** A gRPC error's own words, without its code. */
function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, details } = error as Partial<ServiceError>;
  if (code === grpcStatus.UNAVAILABLE) return "the supervisor does not answer on its socket";
  if (code === grpcStatus.DEADLINE_EXCEEDED) return "the supervisor did not answer in time";
  return details === undefined || details === "" ? error.message : details;
}
