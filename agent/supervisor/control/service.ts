/** The Control service: each method of the contract, and the file that does it. */
import type { Metadata } from "@grpc/grpc-js";
import { call as callLoader } from "../../common/grpc.js";
import { TERM_KEY } from "../../common/names.js";
import type { Parts } from "../parts.js";
import { attachSandbox } from "./attach.js";
import { type EncodedControlServer, followAudit } from "./audit.js";
import { callerGone } from "./caller.js";
import { exec } from "./exec.js";
import { explain } from "./explain.js";
import { unary } from "./handler.js";
import { answerHold, listHolds, watchHolds } from "./holds.js";
import { kill, stop } from "./kill.js";
import { connectedLoader } from "./loader.js";
import { reload } from "./reload.js";
import { run } from "./run.js";
import { statusOfSupervisor } from "./status.js";

const PROBE_TIMEOUT_MS = 60_000;

export function controlService(parts: Parts): EncodedControlServer {
  const { log, holds, holdRecords, audit, socket } = parts;
  return {
    status: unary(log, "Status", () => statusOfSupervisor(parts)),
    run: unary(log, "Run", async (request, call) => {
      const response = await run(parts, request, await socket.caller(call), termOf(call.metadata));
      // The caller may go before it attaches, or before it even has this answer.
      const sandbox = parts.sandboxes.get(response.sandbox?.name ?? "");
      socket.whenGone(call, () => callerGone(parts, sandbox));
      return response;
    }),
    wait: unary(log, "Wait", (request) => {
      const loader = connectedLoader(parts);
      return callLoader(loader, loader.waitSandbox, request);
    }),
    attachSandbox: (call) => attachSandbox(parts, call),
    exec: (call) => exec(parts, call),
    listHolds: (call) => void listHolds(holds, call),
    watchHolds: (call) => watchHolds(holds, call),
    answerHold: unary(log, "AnswerHold", async (request, call) => {
      const response = answerHold(holds, request, await socket.caller(call, request.via));
      // An answer that cannot be recorded is not given, and whoever gave it is told.
      await holdRecords.written(response.hold?.id ?? "");
      return response;
    }),
    kill: unary(log, "Kill", (request, call) => byCaller(call, (by) => kill(parts, request, by))),
    stop: unary(log, "Stop", (request, call) => byCaller(call, (by) => stop(parts, request, by))),
    queryAudit: unary(log, "QueryAudit", (request) => audit.query(request)),
    followAudit: (call) => followAudit(audit, call),
    reloadPolicy: unary(log, "ReloadPolicy", (request, call) => {
      return byCaller(call, (by) => reload(parts, request, by));
    }),
    explain: unary(log, "Explain", (request) => explain(parts, request)),
    doctor: unary(log, "Doctor", (request) => {
      const loader = connectedLoader(parts);
      return callLoader(loader, loader.probe, request, PROBE_TIMEOUT_MS);
    }),
  };

  async function byCaller<T>(call: { getPeer(): string }, action: (by: string) => Promise<T>): Promise<T> {
    return action(await socket.caller(call));
  }
}

/** A terminal type of the caller, or one that everything knows. */
function termOf(metadata: Metadata): string {
  const [term] = metadata.get(TERM_KEY);
  return typeof term === "string" && /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/.test(term)
    ? term
    : "xterm-256color";
}
