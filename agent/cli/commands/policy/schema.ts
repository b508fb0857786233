/** policy schema: the JSON Schema for editors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { sentence } from "../../../common/grpc.js";
import { packageRoot } from "../../../common/paths.js";
import { CliError, Exit } from "../../exit-codes.js";
import { type Io, say } from "../../io.js";

export function addSchema(policy: Command, io: Io): void {
  policy
    .command("schema")
    .description("print the JSON Schema of policies, for editors")
    .option("--test", "that of test files instead")
    .addHelpText(
      "after",
      `
Example:
  clawsec policy schema > clawsec.schema.json
and, as the first line of a policy beside it:
  # yaml-language-server: $schema=./clawsec.schema.json`,
    )
    .action((options: { test?: boolean }) => {
      const name = options.test ? "clawsec-test.schema.json" : "clawsec.schema.json";
      let text: string;
      try {
        text = readFileSync(join(packageRoot(), "policy", "schema", name), "utf8");
      } catch (error) {
        throw new CliError(Exit.failed, `The schema cannot be read: ${sentence(error)}.`);
      }
      io.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
      if (io.stderr.isTTY) {
        say(io, "Save it beside the policy; editors find it by this line on top of the policy:");
        say(io, `# yaml-language-server: $schema=./${name}`);
      }
    });
}
