/** doctor: what this host can enforce, proved by the loader by doing it. */
import type { Command } from "commander";
import { type Capability, CapabilityState } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeText } from "../../common/escape.js";
import { call, loaderClient } from "../../common/grpc.js";
import { makeLog } from "../../common/log.js";
import { LoaderLink } from "../../supervisor/loader/link.js";
import { endLoader } from "../../supervisor/loader/process.js";
import { supervisorServes, withLoader, withSupervisor } from "../connect.js";
import { Exit } from "../exit-codes.js";
import { capabilityJson, stateOf } from "../format.js";
import { colourWord, type Io, print, printJson } from "../io.js";
import { table } from "../table.js";

const PROBE_TIMEOUT_MS = 60_000;

export function addDoctorCommand(program: Command, io: Io): void {
  program
    .command("doctor")
    .description("prove what this host can enforce; ends with 1 when something required is missing")
    .option("--json", "one JSON document")
    .addHelpText("after", "\nWithout a running loader it starts one for the time of the probe.")
    .action(async (options: { json?: boolean }) => {
      const capabilities = await probe(io);
      const missing = capabilities.filter(
        ({ state, required }) => required && state !== CapabilityState.PRESENT,
      );
      if (options.json)
        printJson(io, { ok: missing.length === 0, capabilities: capabilities.map(capabilityJson) });
      else print(io, report(io, capabilities, missing));
      if (missing.length > 0) io.exit = Exit.failed;
    });
}

async function probe(io: Io): Promise<Capability[]> {
  if (await supervisorServes(io)) {
    return withSupervisor(
      io,
      async (client) => (await call(client, client.doctor, {}, PROBE_TIMEOUT_MS)).capabilities,
    );
  }
  const found = await withLoader(io, (client) => call(client, client.probe, {}, PROBE_TIMEOUT_MS));
  if (found !== undefined) return found.capabilities;
  return probeWithOwnLoader(io);
}

async function probeWithOwnLoader(io: Io): Promise<Capability[]> {
  const link = new LoaderLink({
    paths: io.paths,
    log: makeLog({ kind: "none" }),
    spawn: true,
    ingest: () => 0,
  });
  try {
    await link.start();
    link.close();
    const client = loaderClient(io.paths.loaderSocket);
    try {
      return (await call(client, client.probe, {}, PROBE_TIMEOUT_MS)).capabilities;
    } finally {
      client.close();
    }
  } finally {
    link.close();
    if (link.spawned) await endLoader(io.paths);
  }
}

function report(io: Io, capabilities: readonly Capability[], missing: readonly Capability[]): string {
  const rows = capabilities.map((capability) => [
    escapeText(capability.name),
    colourWord(io, stateOf(capability.state)),
    capability.required ? "required" : "",
    escapeText(capability.level),
    escapeText(capability.detail),
  ]);
  const remedies = capabilities
    .filter(({ state, remedy }) => state !== CapabilityState.PRESENT && remedy !== "")
    .map(({ name, remedy }) => `${escapeText(name)}: ${escapeText(remedy)}`);
  const verdict =
    missing.length === 0
      ? "This host can enforce policies."
      : `This host cannot enforce a policy: ${missing.map(({ name }) => escapeText(name)).join(", ")} missing.`;
  return [table(["MECHANISM", "STATE", "", "LEVEL", "PROOF"], rows), "", ...remedies, verdict].join("\n");
}
