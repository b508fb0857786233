/** audit search, audit tail, audit tree. */
import { type Command, InvalidArgumentError } from "commander";
import { type AuditRecord, QueryAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import type { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { verdictOf, verdictWord } from "../../../proto/words.js";
import { escapeText } from "../../common/escape.js";
import { call } from "../../common/grpc.js";
import { KINDS } from "../../supervisor/audit/record.js";
import { withSupervisor } from "../connect.js";
import { clock, recordJson } from "../format.js";
import { colourWord, type Io, print, printJson, say } from "../io.js";
import { follow } from "../stream.js";
import { table } from "../table.js";
import { instantUs } from "../when.js";
import { addAuditTree } from "./audit-tree.js";

/** As rules have them (policy/model.ts). */
const SEVERITIES = ["info", "low", "medium", "high", "critical"] as const;

interface SearchOptions {
  sandbox: string;
  kind: string[];
  verdict: Verdict[];
  severity: string[];
  tag: string;
  exec: string;
  ancestor: string;
  since: number;
  until: number;
  after: number;
  limit: number;
  json?: boolean;
}

export function addAuditCommands(program: Command, io: Io): void {
  const audit = program.command("audit").description("what happened");
  audit
    .command("search [text]")
    .description("find records; the newest that match, oldest first")
    .option("--sandbox <name>", "only of this sandbox", "")
    .option("--kind <kind>", `only of this kind (may be repeated): ${KINDS.join(", ")}`, kindList, [])
    .option(
      "--verdict <verdict>",
      "only with this verdict (may be repeated): allow, deny, hold, log",
      verdictList,
      [],
    )
    .option(
      "--severity <severity>",
      `only of rules of this severity (may be repeated): ${SEVERITIES.join(", ")}`,
      severityList,
      [],
    )
    .option("--tag <tag>", "only of rules with this tag", "")
    .option("--exec <id>", "only of this exec: its own record, its exit, and what its image did", "")
    .option("--ancestor <id>", "only of what this exec led to, however far", "")
    .option("--since <when>", "from then on: 10m, 2h, 3d ago, or an ISO time", instantUs, 0)
    .option("--until <when>", "up to then", instantUs, 0)
    .option("--after <id>", "only records with a larger id", whole, 0)
    .option("--limit <n>", "at most so many, up to 10000", whole, 100)
    .option("--json", "one JSON document")
    .action((text: string | undefined, options: SearchOptions) =>
      withSupervisor(io, async (client) => {
        const { records, truncated } = await call(
          client,
          client.queryAudit,
          requestOf(text ?? "", options),
          60_000,
        );
        if (options.json) {
          printJson(io, { records: records.map(recordJson), truncated });
          return;
        }
        if (records.length === 0) print(io, "No record matches.");
        else
          print(
            io,
            table(
              HEAD,
              records.map((record) => cells(io, record)),
            ),
          );
        if (truncated) say(io, "Older ones matched, too; see --limit and --until.");
      }),
    );
  audit
    .command("tail")
    .description("the last records, and then each as it is written")
    .option("--sandbox <name>", "only of this sandbox", "")
    .option("--kind <kind>", "only of this kind (may be repeated)", kindList, [])
    .option("-n, --lines <n>", "begin with so many of the last", whole, 10)
    .option("--no-follow", "end after the last")
    .option("--json", "one JSON document a line")
    .action((options: { sandbox: string; kind: string[]; lines: number; follow: boolean; json?: boolean }) =>
      withSupervisor(io, async (client) => {
        const show = (record: AuditRecord) => {
          if (options.json) printJson(io, recordJson(record));
          else print(io, cells(io, record).join("  "));
        };
        const base = { sandbox: options.sandbox, kinds: options.kind };
        // The newest of any kind: where following begins when nothing matches yet.
        const newest = QueryAuditRequest.fromPartial({ limit: 1 });
        const any = await call(client, client.queryAudit, newest, 60_000);
        let last = any.records[0]?.id ?? 0;
        if (options.lines > 0) {
          const request = QueryAuditRequest.fromPartial({ ...base, limit: options.lines });
          const { records } = await call(client, client.queryAudit, request, 60_000);
          for (const record of records) show(record);
          last = Math.max(last, ...records.map(({ id }) => id));
        }
        if (options.follow)
          await follow<AuditRecord>(io, client.followAudit({ ...base, afterId: last }), show);
      }),
    );
  addAuditTree(audit, io);
}

const HEAD = ["ID", "TIME", "SANDBOX", "SUBJECT", "KIND", "VERDICT", "RULE", "WHAT"];

function cells(io: Io, record: AuditRecord): string[] {
  return [
    String(record.id),
    clock(record.timeUs),
    escapeText(record.sandbox) || "-",
    escapeText(record.subject) || "-",
    escapeText(record.kind),
    colourWord(io, verdictWord(record.verdict)) || "-",
    escapeText(record.rule) || "-",
    // The summary is escaped by the contract.
    record.summary,
  ];
}

function requestOf(text: string, options: SearchOptions): QueryAuditRequest {
  return {
    text,
    sandbox: options.sandbox,
    kinds: options.kind,
    verdicts: options.verdict,
    severities: options.severity,
    tag: options.tag,
    execId: options.exec,
    ancestor: options.ancestor,
    beforeId: 0,
    sinceUs: options.since,
    untilUs: options.until,
    afterId: options.after,
    limit: options.limit,
  };
}

function kindList(value: string, before: string[]): string[] {
  if (!(KINDS as readonly string[]).includes(value))
    throw new InvalidArgumentError(`One of ${KINDS.join(", ")}.`);
  return [...before, value];
}

function verdictList(value: string, before: Verdict[]): Verdict[] {
  const verdict = verdictOf(value);
  if (verdict === undefined) throw new InvalidArgumentError("One of allow, deny, hold, log.");
  return [...before, verdict];
}

function severityList(value: string, before: string[]): string[] {
  if (!(SEVERITIES as readonly string[]).includes(value))
    throw new InvalidArgumentError(`One of ${SEVERITIES.join(", ")}.`);
  return [...before, value];
}

function whole(value: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0)
    throw new InvalidArgumentError("A whole number, 0 or more.");
  return number;
}
