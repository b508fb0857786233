/** policy show: the effective policy, flat, with where each part is written. */
import { type Command, Option } from "commander";
import type { Policy } from "../../../../policy/index.js";
import { type Io, printJson } from "../../io.js";
import { variable } from "../../options.js";
import { loadPolicy, type PolicyOptions, safe } from "./load.js";

export function addShow(policy: Command, io: Io): void {
  policy
    .command("show <file>")
    .description("print the effective policy: the file with all that it extends, flat")
    .addOption(
      new Option("--effective", "with everything filled in, each rule with its origin (the default)"),
    )
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
What is printed is a policy itself, with the same hash; examples in rules are left out.

Examples:
  clawsec policy show team.yaml --effective
  clawsec policy show builtin:default --var workspace=/srv/work > flat.yaml`,
    )
    .action(async (file: string, options: PolicyOptions) => {
      const { policy, sources } = await loadPolicy(file, options.var);
      if (options.json) {
        printJson(io, {
          file: policy.sourceFile,
          hash: policy.hash,
          sources: sources.map(({ reference, file }) => ({ reference, file })),
          policy: withoutLines(policy),
        });
      } else {
        const { renderPolicy } = await import("../../../../policy/show.js");
        // The reader refuses control characters in values; what else could hide text on a terminal is shown escaped.
        io.stdout.write(io.stdout.isTTY ? safe(renderPolicy(policy)) : renderPolicy(policy));
      }
    });
}

/** Origins as file, line and column; the text of the line is in the file. */
function withoutLines(policy: Policy): unknown {
  return JSON.parse(
    JSON.stringify(policy, (key, value) => (key === "sourceLine" || key === "length" ? undefined : value)),
  );
}
