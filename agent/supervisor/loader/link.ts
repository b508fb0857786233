/**
 * The connection to the loader: Hello, the Decide stream and the Events stream. When any of them breaks, all are
 * dropped and made again, with a growing pause; while they are down, the loader decides alone (it denies).
 */
import { EventEmitter } from "node:events";
import { type ClientDuplexStream, connectivityState } from "@grpc/grpc-js";
import type {
  Capability,
  Decision,
  EventAck,
  HelloResponse,
  LoaderClient,
  LoaderMessage,
  SupervisorMessage,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { call, isUnavailable, loaderClient, rawEvents, sentence } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";
import { type Paths, packageVersion } from "../../common/paths.js";
import { loaderLogEnd, loaderLogTail, notRoot, runningLoader, spawnLoader } from "./process.js";

/** How the connection stands. */
export type LinkState = { kind: "connected"; hello: HelloResponse } | { kind: "disconnected"; why: string };

interface LinkEvents {
  connected: [HelloResponse];
  disconnected: [string];
  message: [LoaderMessage];
}

export interface LinkOptions {
  readonly paths: Paths;
  readonly log: Logger;
  /** Starts a loader when none answers. */
  readonly spawn: boolean;
  /** What the loader leaves unused, sorted; undefined: whatever it does. */
  readonly without?: readonly string[] | undefined;
  /**
   * Makes a batch of events, an encoded EventBatch, durable; resolves with the sequence that may be acknowledged, 0 for
   * none. Rejecting acknowledges nothing.
   */
  readonly ingest: (bootId: string, batch: Uint8Array) => Promise<number>;
}

/** sysexits.h: how the loader ends when the host lacks what no sandbox can do without. */
const EX_UNAVAILABLE = 69;

/** No loader could be reached or started. */
export class NoLoader extends Error {
  /** True when the host cannot enforce what clawsec needs. */
  readonly hostCannot: boolean;

  constructor(message: string, hostCannot: boolean) {
    super(message);
    this.name = "NoLoader";
    this.hostCannot = hostCannot;
  }
}

/** Why a connect failed; `fatal` when trying again at once will not help. */
interface Failure {
  readonly why: string;
  readonly fatal: boolean;
  /** Exit code of the loader, when it ended. */
  readonly code?: number | undefined;
}

/** How long a loader may take to answer: a loader that has ended is seen at once, a slow host proves its mechanisms slowly. */
const START_TIMEOUT_MS = 60_000;
const HELLO_TIMEOUT_MS = 5000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;

export class LoaderLink extends EventEmitter<LinkEvents> {
  readonly #options: LinkOptions;
  #client: LoaderClient | undefined;
  #decide: ClientDuplexStream<SupervisorMessage, LoaderMessage> | undefined;
  #events: ClientDuplexStream<EventAck, Buffer> | undefined;
  /** A batch is being made durable. The next one is read after it, so that they stay in order and few. */
  #ingesting = false;
  /** The last batch could not be made durable: until one is, each reconnect waits longer than the one before. */
  #unwritten = false;
  #state: LinkState = { kind: "disconnected", why: "not connected yet" };
  #pauseMs = FIRST_PAUSE_MS;
  /** Exit code of the loader that we started and that ended; undefined while none did. */
  #exit: number | null | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #spawned = false;
  /** Where the log of the loader that we started begins. */
  #logFrom = 0;

  constructor(options: LinkOptions) {
    super();
    this.#options = options;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** True when this link has started a loader, rather than found one. */
  get spawned(): boolean {
    return this.#spawned;
  }

  /** What the host can enforce, as the loader said at Hello; empty while disconnected. */
  get capabilities(): readonly Capability[] {
    return this.#state.kind === "connected" ? this.#state.hello.capabilities : [];
  }

  /** The client for unary calls. Throws a sentence while disconnected. */
  client(): LoaderClient {
    if (this.#client === undefined || this.#state.kind !== "connected") {
      const why = this.#state.kind === "disconnected" ? `: ${this.#state.why}` : "";
      throw new Error(`The loader is not connected${why}.`);
    }
    return this.#client;
  }

  /** Connects for the first time. Rejects with a sentence when no loader answers within `timeoutMs`. */
  async start(timeoutMs = START_TIMEOUT_MS): Promise<HelloResponse> {
    const until = performance.now() + timeoutMs;
    const refused = this.#options.spawn ? notRoot() : undefined;
    if (refused !== undefined) throw new NoLoader(refused, true);
    for (;;) {
      const failure = await this.#connect();
      if (this.#state.kind === "connected") {
        this.#checkWithout(this.#state.hello);
        return this.#state.hello;
      }
      if (performance.now() > until || failure.fatal) {
        const tail = this.#spawned ? loaderLogTail(this.#options.paths, this.#logFrom) : "";
        const log = tail === "" ? "" : ` The end of ${this.#options.paths.loaderLog}:\n${tail}`;
        const message = `No loader answers at ${this.#options.paths.loaderSocket}: ${failure.why.replace(/\.$/, "")}.${log}`;
        throw new NoLoader(message, failure.code === EX_UNAVAILABLE);
      }
      await new Promise((resolve) => setTimeout(resolve, FIRST_PAUSE_MS));
    }
  }

  /** A loader that was found does not become another one. */
  #checkWithout({ without: found }: HelloResponse): void {
    const { without: wanted } = this.#options;
    if (wanted === undefined || wanted.join() === [...found].sort().join()) return;
    const words = (names: readonly string[]) => (names.length === 0 ? "nothing" : names.join(", "));
    throw new NoLoader(
      `The loader that runs already leaves ${words(found)} unused, and not ${words(wanted)}. End it with clawsec down first.`,
      false,
    );
  }

  /** Sends a decision. While disconnected it is dropped: the loader asks again on the next connection. */
  decide(decision: Decision): void {
    this.#decide?.write({ message: { $case: "decision", value: decision } });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  async #connect(): Promise<Failure> {
    const { paths, log } = this.#options;
    const client = loaderClient(paths.loaderSocket);
    try {
      const request = { supervisorVersion: packageVersion() };
      const hello = await call(client, client.hello, request, HELLO_TIMEOUT_MS);
      if (this.#closed) {
        client.close();
        return { why: "the supervisor is stopping", fatal: true };
      }
      this.#client = client;
      this.#state = { kind: "connected", hello };
      if (!this.#unwritten) this.#pauseMs = FIRST_PAUSE_MS;
      log.info({ version: hello.loaderVersion, boot: hello.loaderBootId }, "connected to the loader");
      this.emit("connected", hello);
      this.#openStreams(client, hello.loaderBootId);
      return { why: "", fatal: false };
    } catch (error) {
      client.close();
      const why = sentence(error);
      this.#state = { kind: "disconnected", why };
      if (this.#exit !== undefined) {
        const how = this.#exit === null ? "a signal" : `exit code ${this.#exit}`;
        const exit = { why: `the loader ended with ${how}`, fatal: true, code: this.#exit ?? undefined };
        this.#exit = undefined;
        return exit;
      }
      const failure = this.#options.spawn && isUnavailable(error) ? this.#spawn() : undefined;
      return { why: failure ?? why, fatal: failure !== undefined };
    }
  }

  /** Starts a loader unless one that we started lives. A sentence when it cannot be started. */
  #spawn(): string | undefined {
    const { paths, log } = this.#options;
    if (runningLoader(paths) !== undefined) return undefined;
    try {
      this.#exit = undefined;
      this.#logFrom = loaderLogEnd(paths);
      const ended = (code: number | null) => {
        this.#exit = code;
      };
      const { pid } = spawnLoader(paths, ended, this.#options.without);
      this.#spawned = true;
      log.info({ pid, log: paths.loaderLog }, "started the loader");
      return undefined;
    } catch (error) {
      return sentence(error);
    }
  }

  #openStreams(client: LoaderClient, bootId: string): void {
    this.#watch(client);
    const decide = client.decide();
    const events = rawEvents(client);
    this.#decide = decide;
    this.#events = events;
    const lost = (what: string) => (error?: Error) => {
      if (this.#client === client)
        this.#lose(`${what}: ${error === undefined ? "the loader ended it" : sentence(error)}`);
    };
    decide.on("data", (message: LoaderMessage) => this.emit("message", message));
    decide.on("error", lost("the Decide stream broke"));
    decide.on("end", lost("the Decide stream ended"));
    // One that an earlier connection brought may be under way still.
    if (this.#ingesting) events.pause();
    events.on("data", (batch: Buffer) => this.#ingest(events, bootId, batch));
    events.on("error", lost("the Events stream broke"));
    events.on("end", lost("the Events stream ended"));
  }

  /**
   * The streams must be those of the loader that said Hello. grpc-js puts a call that was not sent yet on the next
   * connection, so a loader that is replaced at this moment would go unnoticed: any change of the connection ends it.
   */
  #watch(client: LoaderClient): void {
    const channel = client.getChannel();
    const changed = () => {
      if (this.#client === client) this.#lose("the connection broke");
    };
    if (channel.getConnectivityState(false) !== connectivityState.READY) setImmediate(changed);
    else channel.watchConnectivityState(connectivityState.READY, Number.POSITIVE_INFINITY, changed);
  }

  async #ingest(stream: ClientDuplexStream<EventAck, Buffer>, bootId: string, batch: Buffer): Promise<void> {
    this.#ingesting = true;
    stream.pause();
    try {
      const sequence = await this.#options.ingest(bootId, batch);
      if (this.#unwritten) this.#pauseMs = FIRST_PAUSE_MS;
      this.#unwritten = false;
      if (sequence > 0 && this.#events === stream) stream.write({ sequence });
    } catch (error) {
      this.#unwritten = true;
      // Not durable, so not acknowledged: the loader keeps the batch and sends it again after the reconnect.
      this.#options.log.error({ error: sentence(error) }, "the audit could not be written");
      if (this.#events === stream) this.#lose(`the audit could not be written: ${sentence(error)}`);
    } finally {
      this.#ingesting = false;
      this.#events?.resume();
    }
  }

  #lose(why: string): void {
    if (this.#closed || this.#state.kind === "disconnected") return;
    this.#drop();
    this.#state = { kind: "disconnected", why };
    this.#options.log.warn({ why }, "lost the loader; new questions are denied by it until it is back");
    this.emit("disconnected", why);
    this.#retry();
  }

  #retry(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(async () => {
      const { why } = await this.#connect();
      if (this.#state.kind === "connected" || this.#closed) return;
      this.#options.log.debug({ why }, "the loader does not answer yet");
      this.#retry();
    }, this.#pauseMs);
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }

  #drop(): void {
    const client = this.#client;
    this.#client = undefined;
    this.#decide?.cancel();
    this.#events?.cancel();
    this.#decide = undefined;
    this.#events = undefined;
    client?.close();
  }
}
