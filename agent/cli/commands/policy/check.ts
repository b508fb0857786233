/** policy check: all that is wrong with a policy, and what is probably not meant. */
import type { Command } from "commander";
import type { Diagnostic } from "../../../../policy/index.js";
import { hostView } from "../../../common/host.js";
import { Exit } from "../../exit-codes.js";
import { type Io, print, printJson, say } from "../../io.js";
import { variable } from "../../options.js";
import {
  CAPABILITIES,
  compileLocally,
  counted,
  diagnosticJson,
  hostCapabilities,
  type PolicyOptions,
  readPolicy,
  safe,
} from "./load.js";
import { lintOwnCommands } from "./own-commands.js";

interface CheckOptions extends PolicyOptions {
  readonly strict?: boolean;
  readonly capabilities?: string;
}

export function addCheck(policy: Command, io: Io): void {
  policy
    .command("check <file>")
    .description("find the errors of a policy; works without any daemon")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--strict", "warnings fail, too")
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Where a loader runs, or with --capabilities, it is also compiled for this host; else what no host can
enforce is an error. Warnings say what is probably not meant: rules that never decide, permissions for
everything, paths that are not there.
Ends with 3 when it has errors (with --strict: or warnings).

Examples:
  clawsec policy check policy.yaml
  clawsec policy check --var workspace=/srv/work --strict builtin:default`,
    )
    .action((file: string, options: CheckOptions) => check(io, file, options));
}

async function check(io: Io, file: string, options: CheckOptions): Promise<void> {
  const { policy, path, diagnostics } = await readPolicy(file, options.var);
  const { refusedAnywhere, renderDiagnostics } = await import("../../../../policy/index.js");
  const { lint } = await import("../../../../policy/lint/lint.js");
  const found: Diagnostic[] = [...diagnostics];
  const capabilities = await hostCapabilities(io, options.capabilities);
  if (policy !== undefined) {
    found.push(
      ...(capabilities === undefined
        ? refusedAnywhere(policy)
        : (await compileLocally(io, policy, capabilities)).diagnostics),
    );
    found.push(...lint(policy, { host: hostView() }), ...(await lintOwnCommands(policy)));
  }
  const errors = found.filter(({ severity }) => severity === "error").length;
  const warnings = found.length - errors;
  const fails = errors > 0 || (options.strict === true && warnings > 0);
  const compiled = policy !== undefined && capabilities !== undefined;
  if (options.json) {
    printJson(io, {
      file: path,
      valid: errors === 0,
      compiledForHost: compiled,
      name: policy?.name ?? null,
      hash: policy?.hash ?? null,
      errors,
      warnings,
      diagnostics: found.map(diagnosticJson),
    });
  } else {
    if (found.length > 0) print(io, renderDiagnostics(found));
    const host = compiled ? "" : " (what this host lacks was not looked for: no loader runs)";
    const more = warnings === 0 ? "" : `, ${counted(warnings, "warning")}`;
    const summary = `${safe(path)}: ${errors === 0 ? "no errors" : counted(errors, "error")}${more}`;
    if (fails) say(io, summary);
    else print(io, summary + host);
  }
  if (fails) io.exit = Exit.policy;
}
