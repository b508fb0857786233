/** Kill and Stop: passed to the loader, and written down whatever came of it. */
import { status } from "@grpc/grpc-js";
import type { KillRequest } from "../../../proto/gen/clawsec/v1/control.js";
import { KillReport, type StopSandboxRequest } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeTo } from "../../common/escape.js";
import { call, Refusal, sentence } from "../../common/grpc.js";
import { nowUs } from "../../common/time.js";
import { ownRecord } from "../audit/record.js";
import type { Parts } from "../parts.js";
import { connectedLoader } from "./loader.js";

/** Longer than any kill takes; the kill itself is not ended by it. */
const KILL_TIMEOUT_MS = 60_000;

export async function kill(parts: Parts, request: KillRequest, by: string): Promise<KillReport> {
  if (request.name === "" && !request.all) {
    throw new Refusal(status.INVALID_ARGUMENT, "Name a sandbox, or ask for all of them.");
  }
  const name = request.all ? "" : request.name;
  const reason = request.reason === "" ? by : `${by}: ${request.reason}`;
  return recorded(parts, "killed", name, reason, () => {
    const loader = connectedLoader(parts);
    return call(loader, loader.killSandbox, { name, reason }, KILL_TIMEOUT_MS);
  });
}

export async function stop(parts: Parts, request: StopSandboxRequest, by: string): Promise<KillReport> {
  return recorded(parts, "stopped", request.name, by, () => {
    const loader = connectedLoader(parts);
    return call(loader, loader.stopSandbox, request, request.graceMs + KILL_TIMEOUT_MS);
  });
}

/** A kill that cannot be recorded is done all the same: it is the one action that only takes away. */
async function recorded(
  parts: Parts,
  word: string,
  name: string,
  by: string,
  action: () => Promise<KillReport>,
): Promise<KillReport> {
  const what = name === "" ? "all sandboxes" : name;
  try {
    const report = await action();
    for (const sandbox of report.sandboxes) {
      await note(
        parts,
        sandbox.name,
        `${word} by ${by}: ${sandbox.processes} processes, ${sandbox.survivors} survivors`,
        {
          by,
          ...(KillReport.toJSON({ sandboxes: [sandbox] }) as object),
        },
      );
    }
    return report;
  } catch (error) {
    await note(parts, name, `${what} could not be ${word} for ${by}: ${sentence(error)}`, { by });
    throw error;
  }
}

async function note(parts: Parts, sandbox: string, summary: string, facts: unknown): Promise<void> {
  try {
    await parts.audit.append(
      ownRecord({ kind: "kill", timeUs: nowUs(), sandbox, summary: escapeTo(summary, 500) }, facts),
    );
  } catch (error) {
    parts.log.error({ error: sentence(error), summary }, "a kill could not be recorded");
  }
}
