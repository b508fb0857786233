/** A command that was not started detached ends with its caller, at whatever moment the caller goes. */

import { isLive } from "../../../proto/words.js";
import { call, sentence } from "../../common/grpc.js";
import type { Parts } from "../parts.js";
import type { Sandbox } from "../sandboxes/registry.js";
import { connectedLoader } from "./loader.js";

/** What the main command may take to end after SIGTERM. */
const GRACE_MS = 2000;

/** Stops a sandbox whose caller is gone, unless it was detached, has ended, or another one has its name by now. */
export function callerGone(parts: Parts, sandbox: Sandbox | undefined): void {
  if (sandbox === undefined || sandbox.record.detached) return;
  const { name } = sandbox.record;
  const now = parts.sandboxes.get(name);
  if (now?.info === undefined || now.info.createdUs !== sandbox.info?.createdUs || !isLive(now.info.state))
    return;
  if (parts.link.state.kind !== "connected") return;
  parts.log.info({ sandbox: name }, "the caller is gone; its sandbox is stopped");
  const loader = connectedLoader(parts);
  call(loader, loader.stopSandbox, { name, graceMs: GRACE_MS }, 60_000).catch((error: unknown) => {
    parts.log.warn(
      { sandbox: name, error: sentence(error) },
      "a sandbox whose caller is gone was not stopped",
    );
  });
}
