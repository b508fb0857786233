/** policy fmt: one layout for policy and test files; what they mean stays the same. */
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { sentence } from "../../../common/grpc.js";
import { fileBase, readSource } from "../../../common/sources.js";
import { CliError, Exit } from "../../exit-codes.js";
import { type Io, print, printJson, say } from "../../io.js";
import { diagnosticJson, safe } from "./load.js";

interface FmtOptions {
  readonly check?: boolean;
  readonly stdout?: boolean;
  readonly json?: boolean;
}

export function addFmt(policy: Command, io: Io): void {
  policy
    .command("fmt <file...>")
    .description("lay out policy files; comments and meaning stay")
    .option("--check", "change nothing; end with 1 when a file is laid out otherwise")
    .option("--stdout", "print instead of writing the file")
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Keys come in one order, two spaces a level; short rules in braces stay so. A file whose meaning would
change is left as it is. Ends with 3 when a file cannot be read as YAML of a policy.

Examples:
  clawsec policy fmt policy.yaml policy.test.yaml
  clawsec policy fmt --check policies/*.yaml`,
    )
    .action((files: string[], options: FmtOptions) => fmt(io, files, options));
}

async function fmt(io: Io, files: readonly string[], options: FmtOptions): Promise<void> {
  const { formatPolicy } = await import("../../../../policy/format.js");
  const { renderDiagnostics } = await import("../../../../policy/index.js");
  if (options.stdout && options.json) throw new CliError(Exit.usage, "Give --stdout or --json, not both.");
  const results: unknown[] = [];
  for (const name of files) {
    const path = resolve(name);
    const source = readSource(path);
    if ("error" in source) throw new CliError(Exit.failed, `The policy ${source.error}.`);
    const { text, diagnostics } = formatPolicy(source.text, path);
    const changed = text !== undefined && text !== source.text;
    if (text === undefined) {
      io.exit = Exit.policy;
      if (!options.json) say(io, renderDiagnostics(diagnostics));
    } else {
      if (changed) await sameHash(path, source.text, text);
      if (options.stdout) io.stdout.write(io.stdout.isTTY ? safe(text) : text);
      else if (changed && options.check) {
        if (io.exit === Exit.ok) io.exit = Exit.failed;
        if (!options.json) print(io, `${safe(path)}: not formatted`);
      } else if (changed) {
        replace(path, text);
        if (!options.json) print(io, `${safe(path)}: formatted`);
      }
    }
    results.push({ file: path, changed, diagnostics: diagnostics.map(diagnosticJson) });
  }
  if (options.json) printJson(io, { files: results });
}

/** The last word on what the file means, where it is a policy that can be read without values for variables. */
async function sameHash(path: string, before: string, after: string): Promise<void> {
  const { parsePolicy } = await import("../../../../policy/index.js");
  const hash = (text: string) => parsePolicy(text, path, { base: fileBase }).policy?.hash;
  if (hash(before) !== hash(after))
    throw new CliError(Exit.failed, `${path} is left as it is: formatted, its meaning would change.`);
}

/** Writes beside the file and renames, so that nobody ever reads half of it. Owner and mode stay. */
function replace(path: string, text: string): void {
  let beside: string | undefined;
  try {
    // A link stays a link.
    const target = realpathSync(path);
    const { mode, uid, gid } = statSync(target);
    beside = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}`);
    writeFileSync(beside, text, { flag: "wx", mode: 0o600 });
    const made = statSync(beside);
    if (made.uid !== uid || made.gid !== gid) chownSync(beside, uid, gid);
    chmodSync(beside, mode & 0o7777);
    renameSync(beside, target);
  } catch (error) {
    if (beside !== undefined) rmSync(beside, { force: true });
    throw new CliError(Exit.failed, `${path} cannot be written: ${sentence(error)}.`);
  }
}
