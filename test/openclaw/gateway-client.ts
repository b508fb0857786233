// A client of the OpenClaw gateway: WebSocket, protocol 4, only what a test
// needs to run turns. It speaks as `gateway-client` in mode `backend`, the one
// client that OpenClaw lets in without a paired device, and only when it comes
// directly over loopback and shows the shared token.

import { randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import { WebSocket } from "ws";

const PROTOCOL = 4;
// `chat.send` runs with the scopes of its caller: a turn whose caller lacks
// operator.approvals cannot register an exec approval at all.
const SCOPES = ["operator.admin"];
// `tool-events` makes the gateway stream tool calls and results to this client.
const CAPS = ["tool-events"];

export interface GatewayOptions {
  readonly token: string;
  /** 127.0.0.1 unless told: the gateway trusts no other address for this client. */
  readonly host?: string;
  readonly port?: number;
  readonly connectTimeoutMs?: number;
}

export interface GatewayEvent {
  readonly at: number;
  readonly event: string;
  readonly payload: Record<string, unknown>;
}

export interface ToolOutcome {
  readonly callId: string;
  readonly tool: string;
  readonly args: unknown;
  /** Text of the result as OpenClaw shows it to clients; undefined if the turn ended first. */
  readonly output: string | undefined;
  readonly isError: boolean;
  /** The result as received, with exit codes and the like. */
  readonly raw: unknown;
}

export interface Turn {
  readonly runId: string;
  readonly text: string;
  readonly tools: readonly ToolOutcome[];
  readonly events: readonly GatewayEvent[];
  readonly durationMs: number;
}

export interface TurnOptions {
  readonly sessionKey?: string;
  readonly timeoutMs?: number;
}

interface Pending {
  readonly method: string;
  readonly resolve: (payload: Record<string, unknown>) => void;
  readonly reject: (error: Error) => void;
}

export class GatewayError extends Error {
  readonly code: string;
  constructor(message: string, code: string) {
    super(message);
    this.name = "GatewayError";
    this.code = code;
  }
}

export class GatewayClient {
  readonly #socket: WebSocket;
  readonly #pending = new Map<string, Pending>();
  readonly #listeners = new Set<(event: GatewayEvent) => void>();
  readonly #closeListeners = new Set<(error: Error) => void>();
  #closed: Error | undefined;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data) => this.#receive(String(data)));
    socket.on("close", (code, reason) => this.#end(closedError(code, String(reason))));
    socket.on("error", (error) =>
      this.#end(new GatewayError(`The connection to the gateway failed: ${error.message}.`, "SOCKET")),
    );
  }

  /** Connects and authenticates. Retries nothing: use {@link waitUntilReady} first. */
  static async connect(options: GatewayOptions): Promise<GatewayClient> {
    const url = `ws://${options.host ?? "127.0.0.1"}:${options.port ?? 18789}/`;
    const timeoutMs = options.connectTimeoutMs ?? 15_000;
    const socket = new WebSocket(url, { handshakeTimeout: timeoutMs, maxPayload: 64 * 1024 * 1024 });
    const client = new GatewayClient(socket);
    try {
      // The gateway speaks first; a client that does not wait is refused.
      await client.#once(
        "connect.challenge",
        timeoutMs,
        `${url} sent no connect.challenge; is it an OpenClaw gateway?`,
      );
      await client.request(
        "connect",
        {
          minProtocol: PROTOCOL,
          maxProtocol: PROTOCOL,
          client: { id: "gateway-client", version: "1.0.0", platform: "linux", mode: "backend" },
          role: "operator",
          scopes: SCOPES,
          caps: CAPS,
          commands: [],
          permissions: {},
          auth: { token: options.token },
          locale: "en-US",
          userAgent: "clawsec-test/0",
        },
        timeoutMs,
      );
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** One request and its answer. */
  request(method: string, params: unknown, timeoutMs = 30_000): Promise<Record<string, unknown>> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = randomUUID();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new GatewayError(`The gateway did not answer ${method} within ${timeoutMs} ms.`, "TIMEOUT"));
      }, timeoutMs);
      this.#pending.set(id, {
        method,
        resolve: (payload) => {
          clearTimeout(timer);
          resolve(payload);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.#socket.send(JSON.stringify({ type: "req", id, method, params }));
    });
  }

  /**
   * Sends one user message and waits until the agent's turn has ended.
   * The timeout covers the whole turn: a held tool call waits for a person.
   */
  async chatSend(message: string, options: TurnOptions = {}): Promise<Turn> {
    const started = Date.now();
    const timeoutMs = options.timeoutMs ?? 120_000;
    const runId = randomUUID();
    const turn = new TurnRecorder(runId);

    return await new Promise<Turn>((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        stop();
        this.#closeListeners.delete(fail);
        settle();
      };
      const fail = (error: Error) => finish(() => reject(error));
      const timer = setTimeout(
        () =>
          fail(
            new GatewayError(
              `The turn did not end within ${timeoutMs} ms; seen so far: ${turn.summary()}.`,
              "TIMEOUT",
            ),
          ),
        timeoutMs,
      );
      const stop = this.onEvent((event) => {
        const end = turn.take(event);
        switch (end?.kind) {
          case undefined:
            return;
          case "final":
            return finish(() => resolve(turn.result(end.text, Date.now() - started)));
          case "failed":
            return fail(new GatewayError(end.message, "TURN_FAILED"));
        }
      });
      this.#closeListeners.add(fail);
      // The idempotency key becomes the run's id, so events that arrive before
      // the acknowledgement can be told apart from other runs'.
      this.request("chat.send", {
        sessionKey: options.sessionKey ?? "main",
        message,
        idempotencyKey: runId,
      }).catch(fail);
    });
  }

  /** Returns a function that stops listening. */
  onEvent(listener: (event: GatewayEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#socket.close();
    // A gateway that was frozen or killed never completes the closing handshake.
    const force = setTimeout(() => this.#socket.terminate(), 1000);
    this.#socket.once("close", () => clearTimeout(force));
  }

  #receive(text: string): void {
    const frame = JSON.parse(text) as Frame;
    if (frame.type === "event") {
      const event: GatewayEvent = { at: Date.now(), event: frame.event, payload: frame.payload ?? {} };
      for (const listener of [...this.#listeners]) listener(event);
      return;
    }
    if (frame.type !== "res") return;
    const pending = this.#pending.get(frame.id);
    if (pending === undefined) return;
    this.#pending.delete(frame.id);
    if (frame.ok) pending.resolve(frame.payload ?? {});
    else {
      const code = frame.error?.details?.code ?? frame.error?.code ?? "UNKNOWN";
      pending.reject(
        new GatewayError(
          `The gateway refused ${pending.method}: ${frame.error?.message ?? "no reason given"} (${code}).`,
          code,
        ),
      );
    }
  }

  #once(name: string, timeoutMs: number, otherwise: string): Promise<GatewayEvent> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        done();
        reject(new GatewayError(otherwise, "TIMEOUT"));
      }, timeoutMs);
      const fail = (error: Error) => {
        done();
        reject(error);
      };
      const stop = this.onEvent((event) => {
        if (event.event === name) {
          done();
          resolve(event);
        }
      });
      const done = () => {
        clearTimeout(timer);
        stop();
        this.#closeListeners.delete(fail);
      };
      this.#closeListeners.add(fail);
    });
  }

  #end(error: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    for (const listener of [...this.#closeListeners]) listener(error);
  }
}

type Frame =
  | { readonly type: "event"; readonly event: string; readonly payload?: Record<string, unknown> }
  | {
      readonly type: "res";
      readonly id: string;
      readonly ok: boolean;
      readonly payload?: Record<string, unknown>;
      readonly error?: {
        readonly code?: string;
        readonly message?: string;
        readonly details?: { readonly code?: string };
      };
    };

type TurnEnd =
  | { readonly kind: "final"; readonly text: string }
  | { readonly kind: "failed"; readonly message: string };

/** Collects what belongs to one run from the stream of all events. */
class TurnRecorder {
  readonly #runId: string;
  readonly #events: GatewayEvent[] = [];
  readonly #tools = new Map<string, ToolOutcome>();

  constructor(runId: string) {
    this.#runId = runId;
  }

  take(event: GatewayEvent): TurnEnd | undefined {
    if (event.payload.runId !== this.#runId) return undefined;
    this.#events.push(event);
    if (event.event === "agent" && event.payload.stream === "tool")
      this.#takeTool(record(event.payload.data));
    if (event.event !== "chat") return undefined;
    switch (event.payload.state) {
      case "final":
        return { kind: "final", text: contentText(event.payload.message) };
      case "aborted":
        return {
          kind: "failed",
          message: `The turn was aborted: ${event.payload.errorMessage ?? event.payload.stopReason ?? "no reason given"}.`,
        };
      case "error":
        return {
          kind: "failed",
          message: `The turn failed: ${event.payload.errorMessage ?? "no reason given"}.`,
        };
      default:
        return undefined;
    }
  }

  #takeTool(data: Record<string, unknown>): void {
    const callId = String(data.toolCallId ?? "?");
    const before = this.#tools.get(callId);
    const done = data.phase === "result";
    this.#tools.set(callId, {
      callId,
      tool: String(data.name ?? before?.tool ?? "?"),
      args: data.args ?? before?.args,
      output: done ? contentText(data.result) : before?.output,
      isError: done ? data.isError === true : (before?.isError ?? false),
      raw: done ? data.result : before?.raw,
    });
  }

  result(text: string, durationMs: number): Turn {
    return { runId: this.#runId, text, tools: [...this.#tools.values()], events: this.#events, durationMs };
  }

  summary(): string {
    if (this.#events.length === 0) return "no event at all";
    const open = [...this.#tools.values()]
      .filter((tool) => tool.output === undefined)
      .map((tool) => tool.tool);
    return `${this.#events.length} events, ${this.#tools.size} tool calls${open.length === 0 ? "" : `, still running: ${open.join(", ")}`}`;
  }
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** The text of a message or tool result, whose content is a string or a list of parts. */
function contentText(value: unknown): string {
  if (typeof value === "string") return value;
  const content = record(value).content ?? record(value).text;
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => String(record(part).text ?? "")).join("");
}

function closedError(code: number, reason: string): GatewayError {
  return new GatewayError(
    `The gateway closed the connection (${code}${reason === "" ? "" : `: ${reason}`}).`,
    "CLOSED",
  );
}

/** Waits for /readyz; the error says what the gateway was still missing. */
export async function waitUntilReady(
  options: { host?: string; port?: number; timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<number> {
  const started = Date.now();
  const timeoutMs = options.timeoutMs ?? 120_000;
  let last = "it did not answer";
  while (Date.now() - started < timeoutMs) {
    options.signal?.throwIfAborted();
    const answer = await get(options.host ?? "127.0.0.1", options.port ?? 18789, "/readyz").catch(
      (error: Error) => error,
    );
    if (answer instanceof Error) last = `it did not answer (${answer.message})`;
    else if (answer.status === 200) return Date.now() - started;
    else last = `it answered ${answer.status} ${answer.body.slice(0, 200)}`;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new GatewayError(`The gateway was not ready within ${timeoutMs} ms: ${last}.`, "TIMEOUT");
}

// node:http rather than fetch: fetch would keep the connection in a pool, and
// a gateway that is shutting down waits for open connections.
function get(host: string, port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host, port, path, agent: false, timeout: 5000 }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        body += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", reject);
    request.end();
  });
}
