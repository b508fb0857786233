/** explain (by the supervisor, or locally as policy explain): rule by rule, the layer that enforces it. */
import { resolve } from "node:path";
import type { Command } from "commander";
import type { ExplainRow } from "../../../../policy/index.js";
import { call } from "../../../common/grpc.js";
import { withSupervisor } from "../../connect.js";
import { CliError, Exit, policyError } from "../../exit-codes.js";
import { type Io, print, printJson, say } from "../../io.js";
import { variable } from "../../options.js";
import {
  CAPABILITIES,
  compileLocally,
  hostCapabilities,
  loadPolicy,
  type PolicyOptions,
  safe,
} from "./load.js";

/** The command that asks the supervisor. */
export function addSupervisorExplain(program: Command, io: Io): void {
  program
    .command("explain [file]")
    .description("rule by rule: the layer that enforces it on this host, and why no cheaper one")
    .option("--name <sandbox>", "the policy of a running sandbox instead of a file", "")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--json", "one JSON document")
    .action((file: string | undefined, options: PolicyOptions & { name: string }) => {
      if ((file === undefined) === (options.name === "")) {
        throw new CliError(Exit.usage, "Name a policy file, or a sandbox with --name.");
      }
      return withSupervisor(io, async (client) => {
        const policyPath = file === undefined ? "" : resolve(file);
        const request = { policyPath, name: options.name, variables: options.var };
        const { rules } = await call(client, client.explain, request, 60_000).catch((error: unknown) => {
          throw policyError(error);
        });
        await show(io, rules, options.json);
      });
    });
}

/** The command that needs no supervisor. */
export function addExplain(policy: Command, io: Io): void {
  policy
    .command("explain <file>")
    .description(
      "rule by rule: the layer that enforces it on this host, and why no cheaper one; no supervisor needed",
    )
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Ends with 3 when the policy has errors, and with 5 when this host cannot enforce it.

Examples:
  clawsec policy explain policy.yaml
  clawsec doctor --json > host.json && clawsec policy explain policy.yaml --capabilities host.json`,
    )
    .action(async (file: string, options: PolicyOptions & { capabilities?: string }) => {
      const { policy } = await loadPolicy(file, options.var);
      const capabilities = await hostCapabilities(io, options.capabilities);
      if (capabilities === undefined) {
        throw new CliError(
          Exit.failed,
          "It is not known what this host can enforce: no loader runs, or you may not ask it. Give --capabilities FILE, as clawsec doctor --json prints it.",
        );
      }
      const { explain, diagnostics, artefacts } = await compileLocally(io, policy, capabilities);
      const { renderDiagnostics } = await import("../../../../policy/index.js");
      await show(io, explain, options.json);
      if (diagnostics.length > 0) say(io, renderDiagnostics(diagnostics));
      if (artefacts === undefined) io.exit = Exit.hostCannot;
    });
}

async function show(io: Io, rules: readonly ExplainRow[], json: boolean | undefined): Promise<void> {
  if (json) {
    printJson(io, { rules });
    return;
  }
  const { renderExplain } = await import("../../../../policy/index.js");
  print(io, safe(renderExplain(rules)));
}
