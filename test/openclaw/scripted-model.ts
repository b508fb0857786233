// The scripted language model: an HTTP server that speaks enough of the
// OpenAI chat-completions protocol for OpenClaw to run real turns against it,
// and whose "thinking" is a script in the user's own message:
//
//     @@call exec {"command":"id"}
//     @@call read {"path":"notes.md"}
//
// Each line becomes one tool call. The model emits the n-th call while n tool
// results follow the script, and then answers `DONE <last tool result>`. So a
// test decides exactly what a compromised or obedient agent would do, and the
// whole path from OpenClaw's tool down to the kernel is the real one.
//
// By hand:  node test/openclaw/scripted-model.ts --port 18999 --api-key-file key.txt

import { timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";

export const MODEL_ID = "scripted";

export interface ScriptedModelOptions {
  readonly host?: string;
  /** 0 takes a free port. */
  readonly port?: number;
  /** If given, every request must carry `Authorization: Bearer <apiKey>`. */
  readonly apiKey?: string;
  /** Called for each request, after the answer was chosen. */
  readonly onRequest?: (request: ModelRequest) => void;
}

/** What a test may want to know about a request that reached the model. */
export interface ModelRequest {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly host: string | undefined;
  readonly userAgent: string | undefined;
  /** As received: tests check which key, or which placeholder, arrived. */
  readonly authorization: string | undefined;
  readonly remoteAddress: string | undefined;
  readonly status: number;
  /** The names of the tools offered by the agent; empty for other paths. */
  readonly tools: readonly string[];
  /** The results of the script's calls so far, as the model was shown them. */
  readonly toolResults: readonly string[];
  readonly answer: ModelAnswer | undefined;
}

export type ModelAnswer =
  | { readonly kind: "call"; readonly id: string; readonly tool: string; readonly args: string }
  | { readonly kind: "text"; readonly text: string };

export interface ScriptedModel {
  /** Base URL as a provider wants it, with `/v1`. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly requests: readonly ModelRequest[];
  close(): Promise<void>;
}

// OpenClaw's first request is about 60 KB; a long session stays far below this.
const MAX_BODY = 32 * 1024 * 1024;
// Enough for a test to see a whole error text, short enough to read in a log.
const MAX_QUOTED_RESULT = 4000;

export async function startScriptedModel(options: ScriptedModelOptions = {}): Promise<ScriptedModel> {
  const host = options.host ?? "127.0.0.1";
  const requests: ModelRequest[] = [];

  const server = createServer((request, response) => {
    void handle(request, response, options.apiKey).then((seen) => {
      requests.push(seen);
      options.onRequest?.(seen);
    });
  });
  // A held tool call may keep the agent silent for minutes between requests.
  server.keepAliveTimeout = 0;

  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port ?? 0, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  const authority = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;

  return {
    url: `http://${authority}/v1`,
    host,
    port,
    requests,
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()));
        server.closeAllConnections();
      }),
  };
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  apiKey: string | undefined,
): Promise<ModelRequest> {
  const path = (request.url ?? "/").split("?")[0] ?? "/";
  const seen = {
    at: Date.now(),
    method: request.method ?? "GET",
    path,
    host: request.headers.host,
    userAgent: request.headers["user-agent"],
    authorization: request.headers.authorization,
    remoteAddress: request.socket.remoteAddress,
    tools: [] as readonly string[],
    toolResults: [] as readonly string[],
    answer: undefined as ModelAnswer | undefined,
  };

  if (apiKey !== undefined && !bearerIs(request.headers.authorization, apiKey)) {
    request.resume();
    sendJson(response, 401, {
      error: {
        message: "Incorrect API key provided.",
        type: "invalid_request_error",
        code: "invalid_api_key",
      },
    });
    return { ...seen, status: 401 };
  }
  if (request.method === "GET" && path === "/v1/models") {
    sendJson(response, 200, {
      object: "list",
      data: [{ id: MODEL_ID, object: "model", created: 0, owned_by: "clawsec" }],
    });
    return { ...seen, status: 200 };
  }
  if (request.method !== "POST" || path !== "/v1/chat/completions") {
    request.resume();
    sendJson(response, 404, {
      error: {
        message: `The scripted model has no ${request.method} ${path}.`,
        type: "invalid_request_error",
      },
    });
    return { ...seen, status: 404 };
  }

  let body: ChatRequest;
  try {
    body = JSON.parse(await readBody(request)) as ChatRequest;
  } catch (error) {
    sendJson(response, 400, {
      error: { message: `Bad request body: ${(error as Error).message}`, type: "invalid_request_error" },
    });
    return { ...seen, status: 400 };
  }
  const messages = body.messages ?? [];
  const answer = chooseAnswer(messages);
  if (body.stream === true) sendStream(response, answer);
  else sendWhole(response, answer);
  return {
    ...seen,
    status: 200,
    tools: (body.tools ?? []).map((tool) => tool.function?.name ?? "?"),
    toolResults: runningScript(messages)?.results ?? [],
    answer,
  };
}

// ---- what to answer ---------------------------------------------------------

interface ChatMessage {
  readonly role: string;
  readonly content?: string | null | readonly { readonly type: string; readonly text?: string }[];
  readonly tool_calls?: readonly unknown[];
}

interface ChatRequest {
  readonly stream?: boolean;
  readonly messages?: readonly ChatMessage[];
  readonly tools?: readonly { readonly function?: { readonly name?: string } }[];
}

interface Script {
  readonly calls: readonly { readonly tool: string; readonly json: string }[];
  readonly results: readonly string[];
}

// OpenClaw puts a time stamp in brackets before the first line of a message.
const CALL_LINE = /^\s*(?:\[[^\]]*\]\s*)?@@call\s+(\S+)\s*(.*)$/;

/** A message that makes the model call these tools, in this order. */
export function script(...calls: readonly (readonly [tool: string, args: unknown])[]): string {
  // JSON.stringify never emits a raw newline, so a call is always one line.
  return [
    "Please run the script.",
    ...calls.map(([tool, args]) => `@@call ${tool} ${JSON.stringify(args)}`),
  ].join("\n");
}

/** Exported for its unit tests: the whole behaviour of the model. */
export function chooseAnswer(messages: readonly ChatMessage[]): ModelAnswer {
  const script = runningScript(messages);
  if (script === undefined) return { kind: "text", text: "OK: nothing was scripted." };

  const next = script.calls[script.results.length];
  if (next === undefined) {
    const last = script.results.at(-1) ?? "";
    return { kind: "text", text: `DONE ${last.slice(0, MAX_QUOTED_RESULT)}` };
  }
  const args = next.json === "" ? "{}" : next.json;
  try {
    JSON.parse(args);
  } catch (error) {
    return {
      kind: "text",
      text: `SCRIPT ERROR in call ${script.results.length + 1} (${next.tool}): ${(error as Error).message}`,
    };
  }
  // An id must be unique within the conversation, or OpenClaw merges results.
  return { kind: "call", id: `call_${messages.length}_${script.results.length}`, tool: next.tool, args };
}

/**
 * The last user message with script lines, unless it was answered already.
 * Not simply the last user message: OpenClaw appends one of its own with
 * run-time context after the prompt.
 */
function runningScript(messages: readonly ChatMessage[]): Script | undefined {
  for (let at = messages.length - 1; at >= 0; at--) {
    const message = messages[at];
    if (message === undefined) return undefined;
    if (message.role === "assistant" && (message.tool_calls?.length ?? 0) === 0) return undefined;
    if (message.role !== "user") continue;
    const calls = textOf(message)
      .split("\n")
      .flatMap((line) => {
        const match = CALL_LINE.exec(line);
        return match === null ? [] : [{ tool: match[1] ?? "", json: (match[2] ?? "").trim() }];
      });
    if (calls.length === 0) continue;
    const results = messages
      .slice(at + 1)
      .filter((later) => later.role === "tool")
      .map(textOf);
    return { calls, results };
  }
  return undefined;
}

function textOf(message: ChatMessage): string {
  if (typeof message.content === "string") return message.content;
  return (message.content ?? []).map((part) => part.text ?? "").join("\n");
}

// ---- the wire ---------------------------------------------------------------

const USAGE = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };

function sendStream(response: ServerResponse, answer: ModelAnswer): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const base = {
    id: "chatcmpl-scripted",
    object: "chat.completion.chunk",
    created: Math.floor(Date.now() / 1000),
    model: MODEL_ID,
  };
  const emit = (data: unknown) => response.write(`data: ${JSON.stringify(data)}\n\n`);
  const delta =
    answer.kind === "call"
      ? { role: "assistant", content: null, tool_calls: [{ index: 0, ...toolCall(answer) }] }
      : { role: "assistant", content: answer.text };
  emit({ ...base, choices: [{ index: 0, delta, finish_reason: null }] });
  emit({ ...base, choices: [{ index: 0, delta: {}, finish_reason: finishReason(answer) }] });
  emit({ ...base, choices: [], usage: USAGE });
  response.end("data: [DONE]\n\n");
}

function sendWhole(response: ServerResponse, answer: ModelAnswer): void {
  const message =
    answer.kind === "call"
      ? { role: "assistant", content: null, tool_calls: [toolCall(answer)] }
      : { role: "assistant", content: answer.text };
  sendJson(response, 200, {
    id: "chatcmpl-scripted",
    object: "chat.completion",
    created: Math.floor(Date.now() / 1000),
    model: MODEL_ID,
    choices: [{ index: 0, message, finish_reason: finishReason(answer) }],
    usage: USAGE,
  });
}

function toolCall(answer: ModelAnswer & { kind: "call" }) {
  return { id: answer.id, type: "function", function: { name: answer.tool, arguments: answer.args } };
}

function finishReason(answer: ModelAnswer): string {
  return answer.kind === "call" ? "tool_calls" : "stop";
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Error(`larger than ${MAX_BODY} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function bearerIs(header: string | undefined, apiKey: string): boolean {
  const want = Buffer.from(`Bearer ${apiKey}`);
  const got = Buffer.from(header ?? "");
  return want.length === got.length && timingSafeEqual(want, got);
}

// ---- by hand ----------------------------------------------------------------

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      host: { type: "string", default: "127.0.0.1" },
      port: { type: "string", default: "18999" },
      "api-key-file": { type: "string" },
      quiet: { type: "boolean", default: false },
    },
  });
  const keyFile = values["api-key-file"];
  const apiKey = keyFile === undefined ? undefined : readFileSync(keyFile, "utf8").trim();
  const model = await startScriptedModel({
    host: values.host,
    port: Number(values.port),
    ...(apiKey === undefined ? {} : { apiKey }),
    onRequest: (request) => {
      if (values.quiet) return;
      const did =
        request.answer === undefined
          ? ""
          : request.answer.kind === "call"
            ? ` -> call ${request.answer.tool} ${request.answer.args}`
            : ` -> ${JSON.stringify(request.answer.text.slice(0, 200))}`;
      console.log(`${request.method} ${request.path} ${request.status}${did}`);
    },
  });
  // Whoever started us waits for this line.
  console.log(`scripted model listens on ${model.url}`);
  const stop = () => void model.close().then(() => process.exit(0));
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
}

if (import.meta.main) await main();
