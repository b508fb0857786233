/** run: a command in a sandbox, as if it were run here. */
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { constants } from "node:os";
import { resolve } from "node:path";
import { Metadata } from "@grpc/grpc-js";
import type { Command } from "commander";
import type { ControlClient, RunResponse } from "../../../proto/gen/clawsec/v1/control.js";
import { escapeText } from "../../common/escape.js";
import { call } from "../../common/grpc.js";
import { makeLog } from "../../common/log.js";
import { SANDBOX_NAME, TERM_KEY } from "../../common/names.js";
import { defaultPolicy } from "../../common/paths.js";
import { notRoot } from "../../supervisor/loader/process.js";
import { attach, Interrupted, ReaderGone } from "../attach.js";
import { supervisorServes, withSupervisor } from "../connect.js";
import { CliError, Exit, policyError } from "../exit-codes.js";
import { sandboxJson } from "../format.js";
import { type Io, print, printJson, say, withoutOf } from "../io.js";
import { variable } from "../options.js";
import { type ForwardedSignals, withSignals } from "../signals.js";

interface RunOptions {
  policy?: string;
  name: string;
  var: Record<string, string>;
  tty?: boolean;
  detach?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export function addRunCommand(program: Command, io: Io): void {
  program
    .command("run [command...]")
    .description("run a command in a sandbox under a policy")
    .usage("[options] [--] [command...]")
    .option("-p, --policy <file>", "the policy; default: any command in the current folder, without network")
    .option(
      "--name <name>",
      "name of the sandbox; default: the policy's name, run-XXXXXX without --policy",
      "",
    )
    .option("--var <name=value>", "a value for one of the policy's variables (may be repeated)", variable, {})
    .option("-t, --tty", "give it a terminal")
    .option("-d, --detach", "do not wait for it (needs a running supervisor)")
    .option("-q, --quiet", "no warnings")
    .option("--json", "with --detach: the sandbox as one JSON document")
    .passThroughOptions()
    .addHelpText(
      "after",
      `
Uses the running supervisor, or starts one for the time of the run (log: <state>/supervisor.log).
Without a command it runs the policy's sandbox.command. stdin, stdout, stderr and signals are passed on.
Ends with the command's exit code, 128 + n for signal n.`,
    )
    .action((command: string[], options: RunOptions) => run(io, command, options));
}

async function run(io: Io, command: string[], options: RunOptions): Promise<void> {
  if (options.json && !options.detach) {
    throw new CliError(Exit.usage, "run --json is for --detach: otherwise standard output is the command's.");
  }
  if (options.name !== "" && !SANDBOX_NAME.test(options.name)) {
    throw new CliError(
      Exit.usage,
      "A sandbox's name has lower-case letters, digits and inner hyphens, at most 40.",
    );
  }
  if (options.tty && options.detach) throw new CliError(Exit.usage, "Give --tty or --detach, not both.");
  if (await supervisorServes(io)) {
    await withSignals((signals) =>
      withSupervisor(io, (client) => runWith(io, client, command, options, signals)),
    );
    return;
  }
  if (options.detach) {
    throw new CliError(
      Exit.noSupervisor,
      "A detached sandbox needs a running supervisor. Start one with clawsec up --detach.",
    );
  }
  const refused = notRoot();
  if (refused !== undefined) throw new CliError(Exit.hostCannot, refused);
  const log = makeLog({ kind: "file", path: io.paths.supervisorLog }, io.environment);
  await withSignals(async (signals) => {
    // Loaded only here: databases and the compiler are not for every command.
    const { startSupervisor } = await import("../../supervisor/daemon.js");
    const supervisor = await startSupervisor({
      paths: io.paths,
      log,
      spawnLoader: true,
      ...withoutOf(io, undefined),
    });
    try {
      await withSupervisor(io, (client) => runWith(io, client, command, options, signals));
    } finally {
      await supervisor.stop();
    }
  });
}

async function runWith(
  io: Io,
  client: ControlClient,
  command: string[],
  options: RunOptions,
  signals: ForwardedSignals,
): Promise<void> {
  if (signals.end !== undefined) {
    io.exit = 128 + signals.end;
    return;
  }
  const response = await start(io, client, command, options);
  if (!options.quiet) {
    for (const cleaned of response.cleaned) say(io, escapeText(cleaned));
    // Diagnostics are of several lines and escaped where they are made.
    for (const warning of response.warnings) say(io, warning);
  }
  const sandbox = response.sandbox;
  if (sandbox === undefined)
    throw new CliError(Exit.failed, "The supervisor started nothing and did not say why.");
  if (options.detach) {
    if (options.json) printJson(io, { sandbox: sandboxJson(sandbox) });
    else print(io, sandbox.name);
    return;
  }
  const { name } = sandbox;
  const { stdin, stdout, stderr } = process;
  const terminal = options.tty === true;
  try {
    const exit = await attach(client, { name, terminal, signals, stdin, stdout, stderr });
    io.exit = exit.code;
  } catch (error) {
    // The command has no caller any more. It must be gone before a supervisor of our own is.
    const request = { name, all: false, reason: "the attachment of clawsec run broke" };
    const isEnded = await call(client, client.kill, request, 30_000).then(
      () => true,
      () => false,
    );
    if (!isEnded) say(io, `The sandbox ${name} may go on; clawsec kill ${name} ends it.`);
    if (error instanceof Interrupted) {
      say(io, error.message);
      io.exit = 128 + error.signal;
      return;
    }
    if (!(error instanceof ReaderGone)) throw error;
    // As a command ends that writes into a closed pipe; its shell knows why.
    io.exit = 128 + constants.signals.SIGPIPE;
  }
}

/** What the default policy wants to know: the folder to work in, and as whom. */
function here(): Record<string, string> {
  const workspace = process.cwd();
  const { uid, gid } = statSync(workspace);
  // The folder's owner can write to it; root is no sandbox's user, and the policy has its own default then.
  return uid === 0 ? { workspace } : { workspace, uid: String(uid), gid: String(gid) };
}

/** Asks the supervisor to compile and start. */
export function start(
  io: Io,
  client: ControlClient,
  command: string[],
  options: Pick<RunOptions, "policy" | "name" | "var" | "tty" | "detach">,
): Promise<RunResponse> {
  const metadata = new Metadata();
  const term = io.environment.TERM;
  if (term !== undefined && /^[\x21-\x7e]+$/.test(term)) metadata.set(TERM_KEY, term);
  const request = {
    // The default policy is for any number of commands at a time; a policy of the user's own names its sandbox.
    name: options.name || (options.policy === undefined ? `run-${randomBytes(3).toString("hex")}` : ""),
    policyPath: options.policy === undefined ? defaultPolicy() : resolve(options.policy),
    command,
    terminal: options.tty === true,
    detached: options.detach === true,
    variables: { ...(options.policy === undefined ? here() : {}), ...options.var },
  };
  return new Promise((done, fail) => {
    client.run(request, metadata, { deadline: Date.now() + 120_000 }, (error, response) => {
      if (error) fail(policyError(error));
      else done(response);
    });
  });
}
