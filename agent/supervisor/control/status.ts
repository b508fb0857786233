/** Status: what runs here, as far as it can be known now. */
import type { StatusResponse } from "../../../proto/gen/clawsec/v1/control.js";
import type { SandboxInfo } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeText } from "../../common/escape.js";
import { call, sentence } from "../../common/grpc.js";
import { packageVersion } from "../../common/paths.js";
import type { Parts } from "../parts.js";

const LIST_TIMEOUT_MS = 3000;

export async function statusOfSupervisor(parts: Parts): Promise<StatusResponse> {
  const { state } = parts.link;
  let loader = state.kind === "connected" ? "connected" : escapeText(`not connected: ${state.why}`);
  let sandboxes: SandboxInfo[] | undefined;
  if (state.kind === "connected") {
    try {
      const client = parts.link.client();
      ({ sandboxes } = await call(client, client.listSandboxes, {}, LIST_TIMEOUT_MS));
      for (const info of sandboxes) parts.sandboxes.seen(info);
    } catch (error) {
      loader = `connected, but it does not list its sandboxes: ${escapeText(sentence(error))}`;
    }
  }
  const known = parts.sandboxes.all().flatMap(({ info }) => (info === undefined ? [] : [info]));
  return {
    version: packageVersion(),
    pid: process.pid,
    startedUs: parts.startedUs,
    loader,
    loaderConnected: state.kind === "connected",
    sandboxes: sandboxes ?? known,
    openHolds: parts.holds.list().length,
    auditRecords: parts.audit.count(),
    lostEvents: parts.audit.lost(),
    health: parts.health.all(),
  };
}
