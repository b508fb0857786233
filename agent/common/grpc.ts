/** Small bridges between grpc-js's callbacks and promises, and its errors and sentences. */
import {
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { ControlClient } from "../../proto/gen/clawsec/v1/control.js";
import { type EventAck, LoaderClient, LoaderService } from "../../proto/gen/clawsec/v1/loader.js";

/** Longest message either way: a sandbox's OCI configuration and secrets fit with room. */
const MESSAGE_BYTES = 32 * 1024 * 1024;

const OPTIONS = {
  "grpc.max_receive_message_length": MESSAGE_BYTES,
  "grpc.max_send_message_length": MESSAGE_BYTES,
  // The peer is a unix socket: no proxy variable of the environment may send it elsewhere.
  "grpc.enable_http_proxy": 0,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2000,
  // Two clients of one process to one socket must not share a connection: a peer is told by its connection.
  "grpc.use_local_subchannel_pool": 1,
};

export const SERVER_OPTIONS = {
  "grpc.max_receive_message_length": MESSAGE_BYTES,
  "grpc.max_send_message_length": MESSAGE_BYTES,
};

/** A client of the supervisor's Control service. */
export function controlClient(socket: string): ControlClient {
  return new ControlClient(`unix:${socket}`, credentials.createInsecure(), OPTIONS);
}

/** A client of the loader. */
export function loaderClient(socket: string): LoaderClient {
  return new LoaderClient(`unix:${socket}`, credentials.createInsecure(), OPTIONS);
}

/** The loader's Events with each EventBatch as it came, for whoever decodes it elsewhere. */
export function rawEvents(client: LoaderClient): ClientDuplexStream<EventAck, Buffer> {
  const { path, requestSerialize } = LoaderService.events;
  return client.makeBidiStreamRequest(path, requestSerialize, (batch) => batch);
}

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline?: number },
  callback: (error: ServiceError | null, response: Response) => void,
) => unknown;

/** Calls a unary method. `timeoutMs` undefined waits as long as it takes. */
export function call<Request, Response>(
  client: object,
  method: Unary<Request, Response>,
  request: Request,
  timeoutMs?: number,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const options = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
    method.call(client, request, new Metadata(), options, (error, response) => {
      if (error) reject(error);
      else resolve(response);
    });
  });
}

/** Everything that a stream says until it ends. Rejects when it ends with an error. */
export async function all<T>(stream: ClientReadableStream<T>): Promise<T[]> {
  const messages: T[] = [];
  for await (const message of stream) messages.push(message as T);
  return messages;
}

/** True for an error that carries a gRPC status. */
export function isServiceError(error: unknown): error is ServiceError {
  return (
    error instanceof Error && typeof (error as Partial<ServiceError>).code === "number" && "details" in error
  );
}

/** True when nobody answered at the socket. */
export function isUnavailable(error: unknown): boolean {
  return isServiceError(error) && error.code === status.UNAVAILABLE;
}

/** The words of an error for people: a gRPC error's details without its code. */
export function sentence(error: unknown): string {
  if (isServiceError(error)) return error.details || error.message;
  return error instanceof Error ? error.message : String(error);
}

/** An error that a gRPC handler answers with. */
export class Refusal extends Error {
  readonly code: status;

  constructor(code: status, message: string) {
    super(message);
    this.name = "Refusal";
    this.code = code;
  }
}

/** What a handler answers for an error: a refusal keeps its code, a peer's status passes, anything else is INTERNAL. */
export function statusOf(error: unknown): { code: status; details: string } {
  if (error instanceof Refusal) return { code: error.code, details: error.message };
  if (isServiceError(error)) return { code: error.code, details: error.details };
  return { code: status.INTERNAL, details: sentence(error) };
}
