/** policy compile: what the loader would apply, as files. */
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { sentence } from "../../../common/grpc.js";
import { CliError, Exit } from "../../exit-codes.js";
import { type Io, print, printJson, say } from "../../io.js";
import { variable } from "../../options.js";
import {
  CAPABILITIES,
  compileLocally,
  counted,
  hostCapabilities,
  loadPolicy,
  type PolicyOptions,
  safe,
} from "./load.js";

interface CompileOptions extends PolicyOptions {
  readonly out: string;
  readonly name?: string;
  readonly force?: boolean;
  readonly capabilities?: string;
}

export function addCompile(policy: Command, io: Io): void {
  policy
    .command("compile <file>")
    .description("write what the loader would apply on this host, one file a layer")
    .requiredOption("--out <dir>", "a folder that is empty or not there yet")
    .option("--name <name>", "name of the sandbox, for its host name")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--force", "write into a folder that has files; those of the same name are replaced")
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
The same policy on the same host gives the same bytes. manifest.json names the files with their SHA-256.
Ends with 3 when the policy has errors, and with 5 when this host cannot enforce it.

Example:
  clawsec policy compile policy.yaml --out compiled && diff -r compiled reviewed`,
    )
    .action((file: string, options: CompileOptions) => compile(io, file, options));
}

async function compile(io: Io, file: string, options: CompileOptions): Promise<void> {
  const out = resolve(options.out);
  const { policy } = await loadPolicy(file, options.var);
  const capabilities = await hostCapabilities(io, options.capabilities);
  if (capabilities === undefined) {
    throw new CliError(
      Exit.failed,
      "It is not known what this host can enforce: no loader runs, or you may not ask it. Give --capabilities FILE, as clawsec doctor --json prints it.",
    );
  }
  if (!options.force && entriesOf(out) > 0) {
    throw new CliError(
      Exit.failed,
      `The folder ${out} is not empty. Name another, or say --force to replace files in it.`,
    );
  }
  const { artefacts, diagnostics } = await compileLocally(io, policy, capabilities, options.name);
  const { artefactFiles, renderDiagnostics } = await import("../../../../policy/index.js");
  if (artefacts === undefined) throw new CliError(Exit.hostCannot, renderDiagnostics(diagnostics));
  const files = artefactFiles(artefacts);
  try {
    mkdirSync(out, { recursive: true });
    for (const [name, text] of files) writeFileSync(join(out, name), text);
  } catch (error) {
    throw new CliError(Exit.failed, `The files cannot be written to ${out}: ${sentence(error)}.`);
  }
  if (diagnostics.length > 0) say(io, renderDiagnostics(diagnostics));
  if (options.json) printJson(io, { out, hash: policy.hash, files: [...files.keys()] });
  else print(io, `${safe(out)}: ${counted(files.size, "file")}, policy ${policy.hash.slice(0, 12)}`);
}

function entriesOf(folder: string): number {
  try {
    return readdirSync(folder).length;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw new CliError(Exit.failed, `The folder ${folder} cannot be used: ${sentence(error)}.`);
  }
}
