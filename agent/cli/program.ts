/** The command line: its commands, and how any of them ends. */
import { Command, CommanderError } from "commander";
import { escapedJson, escapeText } from "../common/escape.js";
import { packageVersion } from "../common/paths.js";
import { EXIT_HELP, Exit, exitOf } from "./exit-codes.js";
import type { Io } from "./io.js";

type Add = (program: Command, io: Io) => void;

/** The commands in the order of --help: what brings them, and the names that it adds. */
const COMMANDS: readonly { readonly names: readonly string[]; readonly load: () => Promise<Add> }[] = [
  { names: ["up", "down"], load: async () => (await import("./commands/up.js")).addUpCommands },
  { names: ["run"], load: async () => (await import("./commands/run.js")).addRunCommand },
  { names: ["exec"], load: async () => (await import("./commands/exec.js")).addExecCommand },
  {
    names: ["status", "ps", "reload"],
    load: async () => (await import("./commands/status.js")).addStatusCommands,
  },
  {
    names: ["holds", "approve", "deny"],
    load: async () => (await import("./commands/holds.js")).addHoldCommands,
  },
  { names: ["kill"], load: async () => (await import("./commands/kill.js")).addKillCommand },
  { names: ["audit"], load: async () => (await import("./commands/audit.js")).addAuditCommands },
  {
    names: ["policy", "explain"],
    load: async () => (await import("./commands/policy/index.js")).addPolicyCommands,
  },
  { names: ["doctor"], load: async () => (await import("./commands/doctor.js")).addDoctorCommand },
  { names: ["tui"], load: async () => (await import("./commands/tui.js")).addTuiCommand },
];

/**
 * The commands, writing to `io`: the one of this name alone, or all where it is undefined or no command's. Most of the
 * time that `clawsec kill` would take goes into loading what other commands need.
 */
export async function buildProgram(io: Io, name?: string): Promise<Command> {
  const program = new Command("clawsec")
    .description("Policy, approvals, audit and kill for AI agents, enforced from outside of them.")
    .version(packageVersion())
    .enablePositionalOptions()
    .showHelpAfterError("(add --help for the options)")
    .addHelpText("after", `\n${EXIT_HELP}`);
  const own = COMMANDS.find(({ names }) => name !== undefined && names.includes(name));
  for (const add of await Promise.all((own ? [own] : COMMANDS).map(({ load }) => load()))) add(program, io);
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
  const program = await buildProgram(io, args[0]);
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
