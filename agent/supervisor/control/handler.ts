/** From promises to gRPC handlers: an error becomes a status with a sentence. */
import type { handleUnaryCall, ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import { statusOf } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";

/** A unary handler of an async function. */
export function unary<Request, Response>(
  log: Logger,
  name: string,
  handle: (request: Request, call: ServerUnaryCall<Request, Response>) => Promise<Response> | Response,
): handleUnaryCall<Request, Response> {
  return (call: ServerUnaryCall<Request, Response>, callback: sendUnaryData<Response>) => {
    Promise.resolve()
      .then(() => handle(call.request, call))
      .then(
        (response) => callback(null, response),
        (error: unknown) => {
          const status = statusOf(error);
          log.debug({ method: name, ...status }, "a request was refused");
          callback(status);
        },
      );
  };
}
