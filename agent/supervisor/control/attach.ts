/** AttachSandbox: the streams of a sandbox's main command. */
import type { AttachInput } from "../../../proto/gen/clawsec/v1/loader.js";
import { statusOf } from "../../common/grpc.js";
import type { Parts } from "../parts.js";
import { callerGone } from "./caller.js";
import { connectedLoader } from "./loader.js";
import { type Caller, relay } from "./relay.js";

export function attachSandbox(parts: Parts, call: Caller): void {
  let loader: ReturnType<typeof connectedLoader>;
  try {
    loader = connectedLoader(parts);
  } catch (error) {
    call.emit("error", statusOf(error));
    return;
  }
  let name = "";
  call.once("data", (first: AttachInput) => {
    name = first.name;
  });
  relay(call, loader.attach(), { gone: () => callerGone(parts, parts.sandboxes.get(name)) });
}
