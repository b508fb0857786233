/** holds, approve, deny. */
import type { Command } from "commander";
import { type Hold, type HoldChange, HoldChangeKind } from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { outcomeWord } from "../../../proto/words.js";
import { actionLine } from "../../common/action.js";
import { escapeText, escapeTo } from "../../common/escape.js";
import { all, call } from "../../common/grpc.js";
import { withSupervisor } from "../connect.js";
import { duration, holdJson } from "../format.js";
import { colourWord, type Io, print, printJson } from "../io.js";
import { follow } from "../stream.js";
import { table } from "../table.js";

const TIMEOUT_MS = 10_000;

export function addHoldCommands(program: Command, io: Io): void {
  program
    .command("holds")
    .description("list what waits for a person")
    .option("--sandbox <name>", "only of this sandbox", "")
    .option("--all", "also those that have ended, newest first, at most 200")
    .option("--watch", "go on: one line for each change")
    .option("--json", "one JSON document; with --watch one line each")
    .action((options: { sandbox: string; all?: boolean; watch?: boolean; json?: boolean }) =>
      withSupervisor(io, async (client) => {
        if (options.watch) {
          await follow<HoldChange>(io, client.watchHolds({ sandbox: options.sandbox }), ({ kind, hold }) => {
            if (hold === undefined) return;
            if (options.json) printJson(io, { change: changeWord(kind), hold: holdJson(hold) });
            else print(io, `${changeWord(kind).padEnd(7)}  ${holdCells(io, hold).join("  ")}`);
          });
          return;
        }
        const request = { sandbox: options.sandbox, ended: options.all ?? false };
        const holds = await all(client.listHolds(request, { deadline: Date.now() + TIMEOUT_MS }));
        if (options.json) printJson(io, { holds: holds.map(holdJson) });
        else if (holds.length === 0) print(io, "Nothing waits.");
        else {
          const head = ["HOLD", "STATE", "LEFT", "ASKED", "SANDBOX", "SUBJECT", "RULE", "ACTION"];
          print(
            io,
            table(
              head,
              holds.map((hold) => holdCells(io, hold)),
            ),
          );
        }
      }),
    );
  answer(program, io, "approve", Verdict.ALLOW, "let a held action happen, once");
  answer(program, io, "deny", Verdict.DENY, "refuse a held action");
}

function answer(program: Command, io: Io, name: string, verdict: Verdict, description: string): void {
  program
    .command(`${name} <id>`)
    .description(description)
    .option("--reason <text>", "why; goes into the audit, and to the one who asked", "")
    .option("--json", "one JSON document")
    .action((id: string, options: { reason: string; json?: boolean }) =>
      withSupervisor(io, async (client) => {
        const request = { id, verdict, reason: options.reason, via: "cli" };
        const { hold } = await call(client, client.answerHold, request, TIMEOUT_MS);
        if (hold === undefined) return;
        if (options.json) printJson(io, { hold: holdJson(hold) });
        else print(io, `${colourWord(io, outcomeWord(hold.outcome))} ${hold.id}: ${actionLine(hold.action)}`);
      }),
    );
}

function holdCells(io: Io, hold: Hold): string[] {
  return [
    escapeTo(hold.id, 16),
    colourWord(io, outcomeWord(hold.outcome)),
    hold.endedUs === 0 ? duration(hold.deadlineUs - Date.now() * 1000) : "-",
    String(hold.asked),
    escapeText(hold.sandbox),
    escapeText(hold.subject),
    escapeText(hold.rule),
    actionLine(hold.action) + (hold.because === "" ? "" : `  (${escapeTo(hold.because, 200)})`),
  ];
}

function changeWord(kind: HoldChangeKind): string {
  switch (kind) {
    case HoldChangeKind.OPENED:
      return "opened";
    case HoldChangeKind.UPDATED:
      return "updated";
    case HoldChangeKind.ENDED:
      return "ended";
    default:
      return "unknown";
  }
}
