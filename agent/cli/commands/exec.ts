/** exec: one more command in a running sandbox, under what holds for all of it. */
import { constants } from "node:os";
import { status } from "@grpc/grpc-js";
import type { Command } from "commander";
import type { ControlClient } from "../../../proto/gen/clawsec/v1/control.js";
import { escapeText } from "../../common/escape.js";
import { isServiceError, sentence } from "../../common/grpc.js";
import { attach, Interrupted, ReaderGone } from "../attach.js";
import { withSupervisor } from "../connect.js";
import { type Io, say } from "../io.js";
import { withSignals } from "../signals.js";

interface ExecOptions {
  subject: string;
  tty?: boolean;
  interactive?: boolean;
}

/** Its sandbox took it along, or it was ended with whoever waited for it. */
const KILLED = 128 + constants.signals.SIGKILL;

export function addExecCommand(program: Command, io: Io): void {
  program
    .command("exec <sandbox> <command...>")
    .description("run one more command in a running sandbox")
    .usage("[options] <sandbox> [--] <command...>")
    .option("--subject <name>", "whose rules it has; default: those of the sandbox's main command", "")
    .option("-t, --tty", "give it a terminal")
    .option("-i, --interactive", "pass standard input on; else it has none")
    .passThroughOptions()
    .addHelpText(
      "after",
      `
The sandbox's init forks it, so it has the same filter, user, environment and limits as the main command, and its exec
is decided by the same rules: a denial ends with 126, a hold waits and says so on standard error.
stdout, stderr and signals are passed on. Ends with the command's exit code: 128 + n for signal n, 126 when it was
denied or cannot be run, 127 when it is not there. It ends when this command or the supervisor does.`,
    )
    .action((sandbox: string, command: string[], options: ExecOptions) =>
      withSignals((signals) =>
        withSupervisor(io, (client) => exec(io, client, sandbox, command, options, signals)),
      ),
    );
}

async function exec(
  io: Io,
  client: ControlClient,
  name: string,
  command: string[],
  options: ExecOptions,
  signals: Parameters<typeof attach>[1]["signals"],
): Promise<void> {
  const { stdin, stdout, stderr } = process;
  const terminal = options.tty === true;
  let started = false;
  try {
    const { code } = await attach(client, {
      name,
      terminal,
      signals,
      stdin,
      stdout,
      stderr,
      exec: {
        start: {
          args: command[0] === "--" ? command.slice(1) : command,
          subject: options.subject,
          terminal,
          term: terminal ? termOf(io) : "",
        },
        interactive: options.interactive === true,
        started: () => {
          started = true;
        },
        notice: (text) => say(io, escapeText(text)),
      },
    });
    io.exit = code;
  } catch (error) {
    if (error instanceof ReaderGone) {
      // As a command ends that writes into a closed pipe; its shell knows why.
      io.exit = 128 + constants.signals.SIGPIPE;
    } else if (error instanceof Interrupted) {
      say(io, error.message);
      io.exit = 128 + error.signal;
    } else if (started && isServiceError(error)) {
      const gone = error.code === status.UNAVAILABLE;
      const why = gone ? "the supervisor is gone, and the command was ended" : sentence(error);
      say(io, escapeText(why));
      io.exit = KILLED;
    } else {
      throw error;
    }
  }
}

/** The caller's terminal type, or one that everything knows. */
function termOf(io: Io): string {
  const term = io.environment.TERM ?? "";
  return /^[A-Za-z0-9._+-]{1,64}$/.test(term) ? term : "xterm-256color";
}
