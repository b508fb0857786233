/** doctor: what this host can enforce, proved by the loader by doing it. */
import type { Command } from "commander";
import { CapabilityState, type ProbeResponse } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeText } from "../../common/escape.js";
import { call, loaderClient } from "../../common/grpc.js";
import { makeLog } from "../../common/log.js";
import { LoaderLink } from "../../supervisor/loader/link.js";
import { endLoader } from "../../supervisor/loader/process.js";
import { supervisorServes, withLoader, withSupervisor } from "../connect.js";
import { Exit } from "../exit-codes.js";
import { capabilityJson, stateOf } from "../format.js";
import { colourWord, type Io, print, printJson, withoutOf } from "../io.js";
import { table } from "../table.js";

const PROBE_TIMEOUT_MS = 60_000;

export function addDoctorCommand(program: Command, io: Io): void {
  program
    .command("doctor")
    .description("prove what this host can enforce; ends with 1 when something required is missing")
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Without a running loader it starts one for the time of the probe. The level says which of several mechanisms is used,
e.g. raw_tp for bpf.exec_verify where typed tracepoints cannot be. What the loader was told to leave unused (--without of
clawsec up, or CLAWSEC_WITHOUT) is named at the end.`,
    )
    .action(async (options: { json?: boolean }) => {
      const { capabilities, without } = await probe(io);
      const missing = capabilities.filter(
        ({ state, required }) => required && state !== CapabilityState.PRESENT,
      );
      if (options.json)
        printJson(io, { ok: missing.length === 0, capabilities: capabilities.map(capabilityJson), without });
      else print(io, report(io, { capabilities, without }, missing));
      if (missing.length > 0) io.exit = Exit.failed;
    });
}

async function probe(io: Io): Promise<ProbeResponse> {
  if (await supervisorServes(io)) {
    return withSupervisor(io, (client) => call(client, client.doctor, {}, PROBE_TIMEOUT_MS));
  }
  const found = await withLoader(io, (client) => call(client, client.probe, {}, PROBE_TIMEOUT_MS));
  return found ?? probeWithOwnLoader(io);
}

async function probeWithOwnLoader(io: Io): Promise<ProbeResponse> {
  const link = new LoaderLink({
    paths: io.paths,
    log: makeLog({ kind: "none" }),
    spawn: true,
    ...withoutOf(io, undefined),
    ingest: () => Promise.resolve(0),
  });
  try {
    await link.start();
    link.close();
    const client = loaderClient(io.paths.loaderSocket);
    try {
      return await call(client, client.probe, {}, PROBE_TIMEOUT_MS);
    } finally {
      client.close();
    }
  } finally {
    link.close();
    if (link.spawned) await endLoader(io.paths);
  }
}

function report(
  io: Io,
  { capabilities, without }: ProbeResponse,
  missing: readonly { readonly name: string }[],
): string {
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
  const unused =
    without.length === 0
      ? []
      : [`Left unused, because the loader was told so: ${without.map(escapeText).join(", ")}.`];
  const head = ["MECHANISM", "STATE", "", "LEVEL", "PROOF"];
  return [table(head, rows), "", ...remedies, ...unused, verdict].join("\n");
}
