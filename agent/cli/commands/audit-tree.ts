/** audit tree. */
import type { Command } from "commander";
import {
  type AuditRecord,
  type ControlClient,
  QueryAuditRequest,
} from "../../../proto/gen/clawsec/v1/control.js";
import { verdictWord } from "../../../proto/words.js";
import { call } from "../../common/grpc.js";
import { withSupervisor } from "../connect.js";
import { decisionOn, type ExecNode, execTree, isInit, nodeLine, stateOf } from "../exec-tree.js";
import { recordJson } from "../format.js";
import { colourWord, type Io, print, printJson, say } from "../io.js";

/** Records of one request. */
const PAGE = 5000;
/** Records of one tree. */
const MOST = 200_000;
/** Levels that are drawn as such. */
const LEVELS = 40;

interface TreeOptions {
  exec: string;
  json?: boolean;
}

/** Adds `audit tree` to the audit commands. */
export function addAuditTree(audit: Command, io: Io): void {
  audit
    .command("tree [sandbox]")
    .description("the programs of a sandbox's last session as a tree; without a name, of the newest one")
    .option(
      "--exec <id>",
      "only this exec and what it led to; the init of an older session shows that session",
      "",
    )
    .option("--json", "one JSON document")
    .action((sandbox: string | undefined, options: TreeOptions) =>
      withSupervisor(io, async (client) => {
        const name = sandbox ?? (options.exec === "" ? await newestSandbox(client) : "");
        const { records, truncated } =
          options.exec === "" ? await session(client, name) : await subtree(client, name, options.exec);
        const nodes = execTree(records);
        const lost = await losses(client, records);
        if (options.json) {
          printJson(io, {
            sandbox: nodes[0]?.record.sandbox ?? name,
            execs: nodes.map(nodeJson),
            lost,
            truncated,
          });
          return;
        }
        if (nodes.length === 0) print(io, "No exec is on record.");
        for (const line of draw(nodes, (node) => nodeLine(node, (word) => colourWord(io, word))))
          print(io, line);
        if (truncated) say(io, `The records are more than ${MOST}; the oldest are left out.`);
        if (lost > 0) say(io, `${lost} events were lost meanwhile; see: clawsec audit search --kind lost`);
      }),
    );
}

/** Lines with the branches of the tree in front. */
export function draw(nodes: readonly ExecNode[], text: (node: ExecNode) => string): string[] {
  // For each level: whether a node of it is still to come, below the one that is drawn.
  const more: boolean[] = [];
  const left = new Map<ExecNode, number>();
  const path: ExecNode[] = [];
  return nodes.map((node) => {
    path.length = node.depth;
    const parent = path[node.depth - 1];
    path.push(node);
    if (parent === undefined) return text(node);
    const drawn = (left.get(parent) ?? 0) + 1;
    left.set(parent, drawn);
    more[node.depth] = drawn < parent.children.length;
    const first = Math.max(1, node.depth - LEVELS);
    let front = first > 1 ? `(${first - 1} levels) ` : "";
    for (let level = first; level < node.depth; level++) front += more[level] ? "│  " : "   ";
    return `${front}${more[node.depth] ? "├─ " : "└─ "}${text(node)}`;
  });
}

function nodeJson(node: ExecNode): unknown {
  const { record, exit, forks, depth } = node;
  const decision = decisionOn(node);
  return {
    depth,
    execId: record.execId,
    parent: record.parents[0] ?? "",
    state: stateOf(node),
    pid: record.pid,
    subject: record.subject,
    verdict: verdictWord(decision.verdict),
    rule: decision.rule,
    layer: decision.layer,
    latencyUs: decision.latencyUs,
    startedUs: record.timeUs,
    endedUs: exit?.endedUs ?? 0,
    exit: exit?.exit === undefined ? null : { code: exit.exit.code, signal: exit.exit.signal },
    forks,
    record: recordJson(record),
  };
}

function query(client: ControlClient, request: Partial<QueryAuditRequest>) {
  return call(client, client.queryAudit, QueryAuditRequest.fromPartial(request), 60_000);
}

async function newestSandbox(client: ControlClient): Promise<string> {
  const { records } = await query(client, { kinds: ["exec"], limit: 1 });
  return records[0]?.sandbox ?? "";
}

interface Found {
  readonly records: AuditRecord[];
  readonly truncated: boolean;
}

/** Pages back through what matches, until `begins` says of a record that it is the first one wanted. */
async function pageBack(
  client: ControlClient,
  request: Partial<QueryAuditRequest>,
  begins: (record: AuditRecord) => boolean,
): Promise<Found> {
  let records: AuditRecord[] = [];
  for (;;) {
    const beforeId = records[0]?.id ?? 0;
    const page = await query(client, { ...request, beforeId, limit: PAGE });
    const first = page.records.findLastIndex(begins);
    records = [...page.records.slice(Math.max(0, first)), ...records];
    if (first >= 0 || !page.truncated) return { records, truncated: false };
    if (records.length >= MOST) return { records, truncated: true };
  }
}

/** The last session: from its init on. */
function session(client: ControlClient, sandbox: string): Promise<Found> {
  return pageBack(client, { sandbox, kinds: ["exec", "exit"] }, isInit);
}

async function subtree(client: ControlClient, sandbox: string, execId: string): Promise<Found> {
  const kinds = ["exec", "exit"];
  const own = await query(client, { sandbox, kinds, execId, limit: PAGE });
  const rest = await pageBack(client, { sandbox, kinds, ancestor: execId }, () => false);
  return { records: [...own.records, ...rest.records], truncated: own.truncated || rest.truncated };
}

/** Events that were lost, of whatever sandbox, since the first of these records. */
async function losses(client: ControlClient, records: readonly AuditRecord[]): Promise<number> {
  const sinceUs = records[0]?.timeUs ?? 0;
  if (sinceUs === 0) return 0;
  const { records: lost } = await query(client, { kinds: ["lost"], sinceUs, limit: PAGE });
  return lost.reduce((sum, { facts }) => sum + countOf(facts), 0);
}

function countOf(facts: string): number {
  const { lost, count } = JSON.parse(facts) as { lost?: { count?: unknown }; count?: unknown };
  return Number(lost?.count ?? count ?? 0) || 0;
}
