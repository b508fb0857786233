/** up, down. */
import { spawn } from "node:child_process";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { isLive } from "../../../proto/words.js";
import { call, sentence } from "../../common/grpc.js";
import { makeLog } from "../../common/log.js";
import { WITHOUT } from "../../common/without.js";
import { AlreadyRunning } from "../../supervisor/control/server.js";
import { endLoader, startTimeOf } from "../../supervisor/loader/process.js";
import { supervisorServes, withLoader, withSupervisor } from "../connect.js";
import { CliError, Exit } from "../exit-codes.js";
import { killLine } from "../format.js";
import { type Io, print, printJson, say, withoutOf } from "../io.js";
import { milliseconds, repeated, variable, without } from "../options.js";
import { start } from "./run.js";

interface UpOptions {
  policy: string[];
  var: Record<string, string>;
  without?: string[];
  detach?: boolean;
  json?: boolean;
}

/** How long a detached supervisor may take until it serves. */
const UP_TIMEOUT_MS = 80_000;

export function addUpCommands(program: Command, io: Io): void {
  program
    .command("up")
    .description("start the supervisor, and the loader when none runs")
    .option(
      "-p, --policy <file>",
      "also run the command of this policy, detached (may be repeated)",
      repeated,
      [],
    )
    .option("--var <name=value>", "a value for the policies' variables (may be repeated)", variable, {})
    .option(
      "--without <mechanisms>",
      `what the loader leaves unused, as if the kernel did not have it, with commas between: ${WITHOUT.join(", ")} (default: CLAWSEC_WITHOUT)`,
      without,
    )
    .option("-d, --detach", "in the background, log in <state>/supervisor.log")
    .option("--json", "with --detach: one JSON document")
    .action((options: UpOptions) => (options.detach ? upDetached(io, options) : up(io, options)));
  program
    .command("down")
    .description("stop every sandbox, the supervisor and the loader")
    .option(
      "--grace <time>",
      "what each command may take to end after SIGTERM (default: 5s)",
      milliseconds,
      5000,
    )
    .option("--json", "one JSON document")
    .action((options: { grace: number; json?: boolean }) => down(io, options.grace, options.json === true));
}

/** In the foreground, until SIGINT or SIGTERM. */
async function up(io: Io, options: UpOptions): Promise<void> {
  const log = makeLog({ kind: "stderr" }, io.environment);
  const left = new Promise<string>((done) => {
    process.once("SIGINT", () => done("SIGINT"));
    process.once("SIGTERM", () => done("SIGTERM"));
    io.signal?.addEventListener("abort", () => done("the end of the caller"), { once: true });
  });
  const { startSupervisor } = await import("../../supervisor/daemon.js");
  const supervisor = await startSupervisor({
    paths: io.paths,
    log,
    spawnLoader: true,
    ...withoutOf(io, options.without),
  });
  try {
    await startPolicies(io, options);
  } catch (error) {
    await supervisor.stop();
    throw error;
  }
  const why = await left;
  const live = supervisor.parts.sandboxes
    .all()
    .filter(({ info }) => info !== undefined && isLive(info.state));
  log.info(
    { why, sandboxes: live.length },
    live.length === 0 ? "stopping" : "stopping; the sandboxes go on, new questions are denied",
  );
  await supervisor.stop();
}

async function upDetached(io: Io, options: UpOptions): Promise<void> {
  if (await supervisorServes(io)) throw new AlreadyRunning(io.paths.controlSocket);
  const script = process.argv[1];
  if (script === undefined) throw new CliError(Exit.failed, "The CLI does not know its own path.");
  mkdirSync(io.paths.state, { recursive: true, mode: 0o700 });
  const log = openSync(io.paths.supervisorLog, "a", 0o600);
  const from = fstatSync(log).size;
  const child = spawn(process.execPath, [script, "up", ...withoutArguments(options)], {
    detached: true,
    cwd: "/",
    stdio: ["ignore", log, log],
    env: { ...process.env, ...io.environment },
  });
  closeSync(log);
  let ended: string | undefined;
  child.on("exit", (code, signal) => {
    ended = signal ?? `exit code ${code}`;
  });
  child.on("error", (error) => {
    ended = error.message;
  });
  child.unref();
  const until = performance.now() + UP_TIMEOUT_MS;
  while (!(await ready(io))) {
    if (ended !== undefined || performance.now() > until) {
      const why = ended === undefined ? "does not serve yet" : `ended (${ended})`;
      const exit = ended === `exit code ${Exit.hostCannot}` ? Exit.hostCannot : Exit.failed;
      const said = lastWords(io.paths.supervisorLog, from);
      throw new CliError(exit, `The supervisor ${why}${said}. Its log is ${io.paths.supervisorLog}.`);
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  const names = await startPolicies(io, options);
  if (options.json) printJson(io, { pid: child.pid, socket: io.paths.controlSocket, sandboxes: names });
  else print(io, `The supervisor serves ${io.paths.controlSocket} (pid ${child.pid}).`);
}

/** What a supervisor said at its end, as `: SENTENCE` without its full stop; empty when it said nothing. */
function lastWords(path: string, from: number): string {
  const lines = readFileSync(path).subarray(from).toString().split("\n");
  const said = lines.findLast((line) => line.startsWith("clawsec: "))?.slice("clawsec: ".length);
  return said === undefined ? "" : `: ${said.replace(/\.+$/, "")}`;
}

const withoutArguments = ({ without: names }: UpOptions) =>
  names === undefined ? [] : ["--without", names.join()];

/** Serving, and with its loader. */
async function ready(io: Io): Promise<boolean> {
  if (!(await supervisorServes(io))) return false;
  try {
    return await withSupervisor(
      io,
      async (client) => (await call(client, client.status, {}, 5000)).loaderConnected,
    );
  } catch {
    return false;
  }
}

async function startPolicies(io: Io, options: UpOptions): Promise<string[]> {
  const names: string[] = [];
  for (const policy of options.policy) {
    await withSupervisor(io, async (client) => {
      const request = { policy: resolve(policy), name: "", var: options.var, terminal: false, detach: true };
      const { sandbox, warnings } = await start(io, client, [], request);
      for (const warning of warnings) say(io, warning);
      if (sandbox !== undefined) names.push(sandbox.name);
    });
  }
  return names;
}

async function down(io: Io, graceMs: number, json: boolean): Promise<void> {
  const ended: { name: string; survivors: number }[] = [];
  const tell = (text: string) => json || print(io, text);
  let supervisorEnded = false;
  if (await supervisorServes(io)) {
    const pid = await withSupervisor(io, async (client) => {
      const status = await call(client, client.status, {}, 10_000);
      for (const { name, state } of status.sandboxes) {
        if (!isLive(state)) continue;
        const { sandboxes } = await call(client, client.stop, { name, graceMs }, graceMs + 60_000);
        ended.push(...sandboxes);
        for (const sandbox of sandboxes) tell(killLine(sandbox));
      }
      return status.pid;
    });
    supervisorEnded = await endProcess(pid);
    tell(
      supervisorEnded
        ? `The supervisor (pid ${pid}) has stopped.`
        : `The supervisor (pid ${pid}) did not stop.`,
    );
  } else {
    // What a supervisor that died has left behind.
    const report = await withLoader(io, (client) => {
      return call(client, client.killSandbox, { name: "", reason: "clawsec down" }, 60_000);
    });
    ended.push(...(report?.sandboxes ?? []));
    for (const sandbox of report?.sandboxes ?? []) tell(killLine(sandbox));
    tell("No supervisor was running.");
  }
  let loaderEnded = false;
  try {
    loaderEnded = await endLoader(io.paths);
  } catch (error) {
    say(io, `The loader was not stopped: ${sentence(error)}.`);
  }
  tell(loaderEnded ? "No loader is running any more." : "The loader did not stop.");
  if (json) printJson(io, { sandboxes: ended, supervisorEnded, loaderEnded });
  if (!loaderEnded || ended.some(({ survivors }) => survivors > 0)) io.exit = Exit.failed;
}

async function endProcess(pid: number, timeoutMs = 15_000): Promise<boolean> {
  const startTime = startTimeOf(pid);
  if (startTime === undefined) return true;
  process.kill(pid, "SIGTERM");
  const until = performance.now() + timeoutMs;
  while (startTimeOf(pid) === startTime) {
    if (performance.now() > until) return false;
    await new Promise((done) => setTimeout(done, 20));
  }
  return true;
}
