/** Carries bytes between a tool and the loader, no faster than the slower of the two reads. */
import type { ClientDuplexStream, ServerDuplexStream } from "@grpc/grpc-js";
import type { AttachInput, AttachOutput } from "../../../proto/gen/clawsec/v1/loader.js";
import { statusOf } from "../../common/grpc.js";

/** A tool's side of a stream. */
export type Caller = ServerDuplexStream<AttachInput, AttachOutput>;

/** The loader's side. */
export type Callee = ClientDuplexStream<AttachInput, AttachOutput>;

/** What happens on the way. */
export interface Passing {
  /** Each message of the loader, before it is passed on. */
  output?(output: AttachOutput): void;
  /** The loader's side ended with an error, which the caller is told. */
  failed?(error: Error): void;
  /** The caller went away before the end; the loader's side is cancelled. */
  gone(): void;
}

/** Carries until either side ends. */
export function relay(call: Caller, inner: Callee, passing: Passing): void {
  let over = false;
  call.on("data", (input: AttachInput) => {
    if (!over && !inner.write(input)) {
      call.pause();
      inner.once("drain", () => call.resume());
    }
  });
  inner.on("data", (output: AttachOutput) => {
    if (output.output?.$case === "exit") over = true;
    passing.output?.(output);
    if (!call.write(output)) {
      inner.pause();
      call.once("drain", () => inner.resume());
    }
  });
  call.on("end", () => inner.end());
  inner.on("end", () => {
    over = true;
    call.end();
  });
  inner.on("error", (error) => {
    if (over) return;
    over = true;
    passing.failed?.(error);
    call.emit("error", statusOf(error));
  });
  const gone = () => {
    inner.cancel();
    if (over) return;
    over = true;
    passing.gone();
  };
  if (call.cancelled) gone();
  else call.on("cancelled", gone);
}
