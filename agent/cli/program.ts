/** The command line: its commands, and how any of them ends. */
import { Command, CommanderError } from "commander";
import { escapedJson, escapeText } from "../common/escape.js";
import { packageVersion } from "../common/paths.js";
import { addAuditCommands } from "./commands/audit.js";
import { addDoctorCommand } from "./commands/doctor.js";
import { addExecCommand } from "./commands/exec.js";
import { addHoldCommands } from "./commands/holds.js";
import { addKillCommand } from "./commands/kill.js";
import { addPolicyCommands } from "./commands/policy/index.js";
import { addRunCommand } from "./commands/run.js";
import { addStatusCommands } from "./commands/status.js";
import { addTuiCommand } from "./commands/tui.js";
import { addUpCommands } from "./commands/up.js";
import { EXIT_HELP, Exit, exitOf } from "./exit-codes.js";
import type { Io } from "./io.js";

/** All commands, writing to `io`. */
export function buildProgram(io: Io): Command {
  const program = new Command("clawsec")
    .description("Policy, approvals, audit and kill for AI agents, enforced from outside of them.")
    .version(packageVersion())
    .enablePositionalOptions()
    .showHelpAfterError("(add --help for the options)")
    .addHelpText("after", `\n${EXIT_HELP}`);
  addUpCommands(program, io);
  addRunCommand(program, io);
  addExecCommand(program, io);
  addStatusCommands(program, io);
  addHoldCommands(program, io);
  addKillCommand(program, io);
  addAuditCommands(program, io);
  addPolicyCommands(program, io);
  addDoctorCommand(program, io);
  addTuiCommand(program, io);
  for (const command of everyCommand(program)) {
    command.exitOverride().configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    });
    // Defaults are said in words where there is one to say.
    command.configureHelp({
      optionDescription: ({ description, argChoices }) =>
        argChoices === undefined ? description : `${description} (${argChoices.join(", ")})`,
    });
    if (command !== program) command.addHelpText("after", "\nExit codes: see clawsec --help.");
  }
  return program;
}

/** Runs one command line (without node and the script). Returns the exit code; never throws. */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const program = buildProgram(io);
  try {
    await program.parseAsync([...args], { from: "user" });
    return io.exit;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version are asked for; everything else is a wrong command line, and commander has said so.
      return error.exitCode === 0 ? Exit.ok : Exit.usage;
    }
    const { exit, message } = exitOf(error);
    const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
    if (own.includes("--json")) io.stderr.write(`${escapedJson({ error: { exit, message } })}\n`);
    else io.stderr.write(`clawsec: ${message.split("\n").map(escapeLine).join("\n")}\n`);
    return exit;
  }
}

/** Backslashes of diagnostics stay as they are; only what could move a terminal is escaped. */
function escapeLine(line: string): string {
  return line.split("\\").map(escapeText).join("\\");
}

function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}
