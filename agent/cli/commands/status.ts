/** status, ps, reload. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { type Health, HealthState } from "../../../proto/gen/clawsec/v1/control.js";
import type { SandboxInfo } from "../../../proto/gen/clawsec/v1/loader.js";
import { healthWord, isLive, stateWord } from "../../../proto/words.js";
import { escapeText } from "../../common/escape.js";
import { call } from "../../common/grpc.js";
import { withSupervisor } from "../connect.js";
import { CliError, Exit } from "../exit-codes.js";
import { clock, duration, sandboxJson } from "../format.js";
import { colour, colourWord, type Io, print, printJson, say } from "../io.js";
import { table } from "../table.js";

const TIMEOUT_MS = 15_000;

export function addStatusCommands(program: Command, io: Io): void {
  program
    .command("status")
    .description("the supervisor, the loader, and what waits")
    .option("--json", "one JSON document")
    .action((options: { json?: boolean }) =>
      withSupervisor(io, async (client) => {
        const status = await call(client, client.status, {}, TIMEOUT_MS);
        if (options.json) {
          const { health, ...rest } = status;
          const sandboxes = status.sandboxes.map((info) => sandboxJson(info, health[info.name]));
          printJson(io, { ...rest, sandboxes });
          return;
        }
        const lost = Object.entries(status.lostEvents).map(([way, count]) => `${count} ${escapeText(way)}`);
        const live = status.sandboxes.filter(({ state }) => isLive(state)).length;
        const up = duration(Date.now() * 1000 - status.startedUs);
        const rows: [string, string][] = [
          ["supervisor", `${escapeText(status.version)}, pid ${status.pid}, up ${up}`],
          ["loader", colour(io, status.loaderConnected ? "green" : "red", escapeText(status.loader))],
          ["sandboxes", `${live} live${unhealthy(io, status.health)}`],
          ["holds", String(status.openHolds)],
          ["audit", `${status.auditRecords} records`],
          ["lost", lost.length === 0 ? "nothing" : colour(io, "red", lost.join(", "))],
        ];
        for (const [name, value] of rows) print(io, `${name.padEnd(10)}  ${value}`);
      }),
    );
  program
    .command("ps")
    .description("list the sandboxes")
    .option("--all", "also those that have ended")
    .option("--json", "one JSON document")
    .action((options: { all?: boolean; json?: boolean }) =>
      withSupervisor(io, async (client) => {
        const { sandboxes, health } = await call(client, client.status, {}, TIMEOUT_MS);
        const shown = sandboxes.filter(({ state }) => options.all || isLive(state));
        if (options.json)
          printJson(io, { sandboxes: shown.map((info) => sandboxJson(info, health[info.name])) });
        else if (shown.length === 0) print(io, options.all ? "No sandbox." : "No sandbox runs.");
        else {
          const rows = shown.map((info) => cells(io, info, health[info.name]));
          print(io, [table(HEAD, rows), ...troubles(health)].join("\n"));
        }
      }),
    );
  program
    .command("reload [names...]")
    .description("compile the policy files of sandboxes again and apply them; a bad one changes nothing")
    .option("--all", "every sandbox that runs")
    .option("-p, --policy <file>", "another file than the one they were started with")
    .option("--json", "one JSON document")
    .action((names: string[], options: { policy?: string; all?: boolean; json?: boolean }) =>
      withSupervisor(io, async (client) => {
        const policyPath = options.policy === undefined ? "" : resolve(options.policy);
        const all = options.all ?? false;
        if (all === names.length > 0) throw new CliError(Exit.usage, "Name sandboxes, or say --all.");
        const response = await call(client, client.reloadPolicy, { names, all, policyPath }, 60_000);
        if (options.json) printJson(io, response);
        else if (!response.applied) {
          const epochs = response.sandboxes.map(({ name, epoch }) => `${name} runs under epoch ${epoch}`);
          throw new CliError(
            Exit.policy,
            `${response.diagnostics}\n\nNothing has changed: ${epochs.join(", ")}.`,
          );
        } else {
          if (response.diagnostics !== "") say(io, response.diagnostics);
          if (response.sandboxes.length === 0) print(io, "No sandbox runs.");
          for (const { name, epoch, policyHash, needsRestart } of response.sandboxes) {
            print(io, `${name}: epoch ${epoch}, policy ${policyHash.slice(0, 12)}`);
            for (const part of needsRestart) print(io, `${name} needs a restart: ${escapeText(part)}`);
          }
        }
        if (!response.applied) io.exit = Exit.policy;
      }),
    );
}

const HEAD = ["NAME", "STATE", "SINCE", "PROCESSES", "EPOCH", "POLICY", "PUBLISHED"];

/** ", 1 unhealthy", or nothing. */
function unhealthy(io: Io, health: Readonly<Record<string, Health>>): string {
  const count = Object.values(health).filter(({ state }) => state === HealthState.UNHEALTHY).length;
  return count === 0 ? "" : `, ${colour(io, "red", `${count} unhealthy`)}`;
}

/** Why the last check of a sandbox failed, one line each. */
function troubles(health: Readonly<Record<string, Health>>): string[] {
  return Object.entries(health)
    .filter(([, { detail }]) => detail !== "")
    .map(([name, { state, detail }]) => {
      // The supervisor has escaped it.
      return `${escapeText(name)} is ${healthWord(state)}; its last health check: ${detail}`;
    });
}

function cells(io: Io, info: SandboxInfo, health?: Health): string[] {
  const checked = health === undefined ? "" : ` (${colourWord(io, healthWord(health.state))})`;
  const exit = info.exit === undefined || isLive(info.state) ? "" : ` (${info.exit.code})`;
  const published = info.publish.map(
    ({ hostIp, hostPort, sandboxPort }) => `${hostIp}:${hostPort}->${sandboxPort}`,
  );
  return [
    escapeText(info.name),
    colourWord(io, stateWord(info.state)) + exit + checked,
    clock(info.endedUs || info.startedUs || info.createdUs),
    String(info.processes),
    String(info.epoch),
    escapeText(info.policyHash.slice(0, 12)),
    escapeText(published.join(" ")),
  ];
}
