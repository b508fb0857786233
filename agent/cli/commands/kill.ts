/** kill: through the supervisor; without it straight to the loader; without that by cgroup. */
import { status } from "@grpc/grpc-js";
import type { Command } from "commander";
import type { KillReport } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeText } from "../../common/escape.js";
import { call, isServiceError } from "../../common/grpc.js";
import { supervisorServes, withLoader, withSupervisor } from "../connect.js";
import { CliError, Exit } from "../exit-codes.js";
import { killLine } from "../format.js";
import { type Io, print, printJson, say } from "../io.js";
import { killCgroup, sandboxCgroups } from "../kill-cgroup.js";

/** A part that does not answer a kill within this time is passed by. */
const TIMEOUT_MS = 10_000;

type Via = "supervisor" | "loader" | "cgroup";

export function addKillCommand(program: Command, io: Io): void {
  program
    .command("kill [name]")
    .description("end a sandbox at once: network cut, secrets emptied, SIGKILL, until nothing is left")
    .option("--all", "every sandbox")
    .option("--reason <text>", "why, for the audit", "")
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      "\nWorks without the supervisor (straight to the loader) and without the loader (by cgroup.kill; it says so).",
    )
    .action(async (name: string | undefined, options: { all?: boolean; reason: string; json?: boolean }) => {
      if ((name === undefined) !== (options.all === true)) {
        throw new CliError(Exit.usage, "Name one sandbox, or give --all.");
      }
      const { via, report } = await kill(io, name ?? "", options.reason, options.json === true);
      const survivors = report.sandboxes.reduce((sum, sandbox) => sum + sandbox.survivors, 0);
      if (options.json) printJson(io, { via, sandboxes: report.sandboxes, survivors });
      else if (report.sandboxes.length === 0) print(io, "Nothing to kill.");
      else
        for (const sandbox of report.sandboxes)
          print(io, killLine({ ...sandbox, name: escapeText(sandbox.name) }));
      if (survivors > 0) io.exit = Exit.failed;
    });
}

async function kill(
  io: Io,
  name: string,
  reason: string,
  quiet: boolean,
): Promise<{ via: Via; report: KillReport }> {
  const tell = (text: string) => quiet || say(io, text);
  const attempts: [Via, () => Promise<KillReport | undefined>][] = [
    ["supervisor", () => bySupervisor(io, name, reason)],
    ["loader", () => byLoader(io, name, reason)],
  ];
  for (const [via, attempt] of attempts) {
    try {
      const report = await attempt();
      if (report !== undefined) return { via, report };
      tell(`No ${via} answers; going on without it.`);
    } catch (error) {
      if (isServiceError(error) && error.code === status.NOT_FOUND) throw error;
      tell(
        `The ${via} failed (${escapeText(error instanceof Error ? error.message : String(error))}); going on without it.`,
      );
    }
  }
  return { via: "cgroup", report: await byCgroup(io, name, tell) };
}

async function bySupervisor(io: Io, name: string, reason: string): Promise<KillReport | undefined> {
  if (!(await supervisorServes(io))) return undefined;
  return withSupervisor(io, (client) =>
    call(client, client.kill, { name, all: name === "", reason }, TIMEOUT_MS),
  );
}

function byLoader(io: Io, name: string, reason: string): Promise<KillReport | undefined> {
  const words = `clawsec kill without a supervisor${reason === "" ? "" : `: ${reason}`}`;
  return withLoader(io, (client) => call(client, client.killSandbox, { name, reason: words }, TIMEOUT_MS));
}

async function byCgroup(io: Io, name: string, tell: (text: string) => unknown): Promise<KillReport> {
  const cgroups = sandboxCgroups(io.paths);
  const chosen = name === "" ? [...cgroups] : [...cgroups].filter(([sandbox]) => sandbox === name);
  if (name !== "" && chosen.length === 0) {
    throw new CliError(Exit.failed, `No sandbox of the name ${name} has a cgroup here; nothing of it runs.`);
  }
  tell(
    "Neither supervisor nor loader: killing by cgroup. This is not in the audit, and network namespaces stay.",
  );
  const sandboxes: KillReport["sandboxes"] = [];
  for (const [sandbox, folder] of chosen) sandboxes.push(await killCgroup(sandbox, folder));
  return { sandboxes };
}
