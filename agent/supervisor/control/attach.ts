/** AttachSandbox: carries bytes between a tool and the loader, no faster than the slower of the two reads. */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { AttachInput, AttachOutput } from "../../../proto/gen/clawsec/v1/loader.js";
import { statusOf } from "../../common/grpc.js";
import type { Parts } from "../parts.js";
import { callerGone } from "./caller.js";
import { connectedLoader } from "./loader.js";

export function attachSandbox(parts: Parts, call: ServerDuplexStream<AttachInput, AttachOutput>): void {
  let loader: ReturnType<typeof connectedLoader>;
  try {
    loader = connectedLoader(parts);
  } catch (error) {
    call.emit("error", statusOf(error));
    return;
  }
  const inner = loader.attach();
  let name = "";
  let over = false;
  call.on("data", (input: AttachInput) => {
    name ||= input.name;
    if (!over && !inner.write(input)) {
      call.pause();
      inner.once("drain", () => call.resume());
    }
  });
  inner.on("data", (output: AttachOutput) => {
    if (output.output?.$case === "exit") over = true;
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
    call.emit("error", statusOf(error));
  });
  call.on("cancelled", () => {
    inner.cancel();
    if (over) return;
    over = true;
    callerGone(parts, parts.sandboxes.get(name));
  });
}
