/** policy check, explain. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Diagnostic } from "../../../policy/index.js";
import type { Capability } from "../../../proto/gen/clawsec/v1/loader.js";
import { call, sentence } from "../../common/grpc.js";
import { packageVersion } from "../../common/paths.js";
import { withLoader, withSupervisor } from "../connect.js";
import { CliError, Exit, policyError } from "../exit-codes.js";
import { type Io, print, printJson, say } from "../io.js";
import { variable } from "../options.js";

interface CheckOptions {
  var: Record<string, string>;
  json?: boolean;
}

export function addPolicyCommands(program: Command, io: Io): void {
  program
    .command("policy")
    .description("work on policies")
    .command("check <file>")
    .description("find the errors of a policy; works without any daemon")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      "\nWhere a loader runs, it is also compiled for this host. Ends with 3 when it has errors.",
    )
    .action((file: string, options: CheckOptions) => check(io, file, options));
  program
    .command("explain [file]")
    .description("rule by rule: the layer that enforces it on this host, and why no cheaper one")
    .option("--name <sandbox>", "the policy of a running sandbox instead of a file", "")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--json", "one JSON document")
    .action((file: string | undefined, options: CheckOptions & { name: string }) => {
      if ((file === undefined) === (options.name === "")) {
        throw new CliError(Exit.usage, "Name a policy file, or a sandbox with --name.");
      }
      return withSupervisor(io, async (client) => {
        const policyPath = file === undefined ? "" : resolve(file);
        const request = { policyPath, name: options.name, variables: options.var };
        const { rules } = await call(client, client.explain, request, 60_000).catch((error: unknown) => {
          throw policyError(error);
        });
        if (options.json) printJson(io, { rules });
        else print(io, (await import("../../../policy/index.js")).renderExplain(rules));
      });
    });
}

async function check(io: Io, file: string, options: CheckOptions): Promise<void> {
  const path = resolve(file);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new CliError(Exit.failed, `The policy ${path} cannot be read: ${sentence(error)}.`);
  }
  // Loaded only here: the compiler is not for every command.
  const { parsePolicy, renderDiagnostics } = await import("../../../policy/index.js");
  const { compileHere } = await import("../../supervisor/sandboxes/compile.js");
  const { policy, diagnostics } = parsePolicy(text, path, { variables: options.var });
  const found: Diagnostic[] = [...diagnostics];
  const capabilities = policy === undefined ? undefined : await hostCapabilities(io);
  if (policy !== undefined && capabilities !== undefined) {
    const inputs = policy.sandbox.command.length === 0 ? { command: ["/bin/sh"] } : {};
    found.push(...compileHere(policy, capabilities, io.paths, inputs).diagnostics);
  }
  const errors = found.filter(({ severity }) => severity === "error").length;
  if (options.json) {
    const shown = found.map(({ origin: { sourceLine: _, ...origin }, ...rest }) => ({ ...rest, origin }));
    printJson(io, {
      file: path,
      valid: errors === 0,
      compiledForHost: capabilities !== undefined,
      name: policy?.name ?? null,
      hash: policy?.hash ?? null,
      diagnostics: shown,
    });
  } else {
    if (found.length > 0) print(io, renderDiagnostics(found));
    const host = capabilities === undefined ? " (not compiled for this host: no loader runs)" : "";
    if (errors === 0) print(io, `${path}: no errors${host}`);
    else say(io, `${path}: ${errors} ${errors === 1 ? "error" : "errors"}`);
  }
  if (errors > 0) io.exit = Exit.policy;
}

/** What the host can enforce, when a loader can be asked by whoever calls; undefined otherwise. */
async function hostCapabilities(io: Io): Promise<readonly Capability[] | undefined> {
  try {
    const request = { supervisorVersion: packageVersion() };
    return (await withLoader(io, (client) => call(client, client.hello, request, 5000)))?.capabilities;
  } catch {
    return undefined;
  }
}
