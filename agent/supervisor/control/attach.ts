/** AttachSandbox: carries bytes between a tool and the loader, no faster than the slower of the two reads. */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import type { AttachInput, AttachOutput } from "../../../proto/gen/clawsec/v1/loader.js";
import { sentence, statusOf, call as unaryCall } from "../../common/grpc.js";
import type { Parts } from "../parts.js";
import { connectedLoader } from "./loader.js";

/** What the main command may take to end after SIGTERM when its caller is gone. */
const GRACE_MS = 2000;

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
    callerGone(parts, name);
  });
}

/** A command that was not started detached ends with its caller. */
function callerGone(parts: Parts, name: string): void {
  const sandbox = parts.sandboxes.get(name);
  if (sandbox === undefined || sandbox.record.detached) return;
  parts.log.info({ sandbox: name }, "the caller is gone; its sandbox is stopped");
  Promise.resolve()
    .then(() => connectedLoader(parts))
    .then((loader) => unaryCall(loader, loader.stopSandbox, { name, graceMs: GRACE_MS }, 60_000))
    .catch((error: unknown) =>
      parts.log.warn({ sandbox: name, error: sentence(error) }, "a sandbox was not stopped"),
    );
}
