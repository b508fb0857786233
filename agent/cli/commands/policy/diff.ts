/** policy diff: where two policies decide differently. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { Change, ChangeGroup } from "../../../../policy/diff/diff.js";
import type { Policy } from "../../../../policy/index.js";
import type { Capability } from "../../../../proto/gen/clawsec/v1/loader.js";
import { actionJson, actionLine } from "../../../common/action.js";
import { call, sentence } from "../../../common/grpc.js";
import { withSupervisor } from "../../connect.js";
import { CliError, Exit } from "../../exit-codes.js";
import { colour, type Io, print, printJson, say } from "../../io.js";
import { variable } from "../../options.js";
import {
  CAPABILITIES,
  compileLocally,
  counted,
  hostCapabilities,
  loadPolicy,
  type PolicyOptions,
  safe,
} from "./load.js";
import { type Recorded, recordedProbes } from "./recorded.js";

interface DiffOptions extends PolicyOptions {
  readonly audit?: string;
  readonly recorded?: boolean;
  readonly name?: string;
  readonly capabilities?: string;
}

/** Examples of a group that are shown, and those in the JSON. */
const SHOWN = 3;
const SHOWN_JSON = 100;

export function addDiff(policy: Command, io: Io): void {
  policy
    .command("diff <before> <after>")
    .description("where two policies decide differently, over recorded and over generated actions")
    .option(
      "--var <name=value>",
      "a value for a variable that either declares (may be repeated)",
      variable,
      {},
    )
    .option(
      "--audit <file>",
      "recorded actions, as clawsec audit search --json or audit tail --json prints them",
    )
    .option("--recorded", "recorded actions of all sandboxes, from the running supervisor")
    .option("--name <sandbox>", "recorded actions of this sandbox, from the running supervisor")
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Generated actions are made from the patterns of both policies: what each rule matches, and what it
misses by little. No difference found is no proof that there is none. Where the host is known, it is
also said what of the second cannot be applied to a sandbox that runs under the first.

Ends with 0 when no verdict differs, with 1 when some do, and with 3 when a policy has errors.

Examples:
  clawsec policy diff policy.yaml new.yaml
  clawsec audit search --limit 10000 --json > audit.json && clawsec policy diff a.yaml b.yaml --audit audit.json`,
    )
    .action((before: string, after: string, options: DiffOptions) => diff(io, before, after, options));
}

async function diff(io: Io, first: string, second: string, options: DiffOptions): Promise<void> {
  const [before, after] = await loadBoth(first, second, options.var);
  const recorded = await recordedOf(io, options);
  const { makeProbes } = await import("../../../../policy/diff/probes.js");
  const { diffVerdicts } = await import("../../../../policy/diff/diff.js");
  const { probes, complete } = makeProbes(before, after);
  const byAudit = diffVerdicts(before, after, recorded?.probes ?? []);
  const byProbes = diffVerdicts(before, after, probes);
  const capabilities = await hostCapabilities(io, options.capabilities);
  const restart = capabilities && (await staticParts(io, before, after, capabilities));
  const changes = [...byAudit, ...byProbes].some((group) => group.changes.length > 0);
  if (options.json) {
    printJson(io, {
      same: before.hash === after.hash,
      before: { file: before.sourceFile, hash: before.hash },
      after: { file: after.sourceFile, hash: after.hash },
      recorded:
        recorded === undefined ? null : { actions: recorded.probes.length, groups: byAudit.map(groupJson) },
      generated: { actions: probes.length, complete, groups: byProbes.map(groupJson) },
      needsRestart: restart ?? null,
    });
  } else {
    if (before.hash === after.hash) print(io, "The two policies are the same.");
    if (recorded !== undefined) {
      print(io, `${counted(recorded.probes.length, "recorded action")}: ${total(byAudit)}`);
      for (const group of byAudit) print(io, groupLines(io, group));
      if (recorded.unread > 0)
        say(
          io,
          `${counted(recorded.unread, "record")} had no action, or not a whole one, in the form of this version.`,
        );
    }
    const all = complete ? "" : " (more rules than probes: not all are asked about fully)";
    print(io, `${counted(probes.length, "generated action")}: ${total(byProbes)}${all}`);
    for (const group of byProbes) print(io, groupLines(io, group));
    if (restart === undefined)
      print(io, "What needs a new sandbox is not known: no loader runs, and no --capabilities were given.");
    else if (restart.length === 0) print(io, "All of it can be applied to a running sandbox.");
    else for (const part of restart) print(io, safe(part));
  }
  if (changes) io.exit = Exit.failed;
}

/** A variable is for the policies that declare it, and must be for one of them. */
async function loadBoth(
  first: string,
  second: string,
  variables: Readonly<Record<string, string>>,
): Promise<[Policy, Policy]> {
  const declared = await Promise.all([first, second].map((name) => declares(name, Object.keys(variables))));
  for (const name of Object.keys(variables)) {
    if (!declared.some((names) => names.includes(name)))
      throw new CliError(Exit.usage, `Neither policy declares the variable "${name}".`);
  }
  const given = (names: readonly string[] = []) =>
    Object.fromEntries(Object.entries(variables).filter(([name]) => names.includes(name)));
  const before = await loadPolicy(first, given(declared[0]));
  const after = await loadPolicy(second, given(declared[1]));
  return [before.policy, after.policy];
}

/** Which of the names the policy, or one that it extends, declares. */
async function declares(name: string, names: readonly string[]): Promise<string[]> {
  const { readPolicy } = await import("./load.js");
  const known: string[] = [];
  for (const one of names) {
    const { diagnostics } = await readPolicy(name, { [one]: "" });
    const unknown = diagnostics.some(
      ({ code, message }) => code === "unknown-variable" && message.includes(`given for "${one}"`),
    );
    if (!unknown) known.push(one);
  }
  return known;
}

async function recordedOf(io: Io, options: DiffOptions): Promise<Recorded | undefined> {
  if (options.audit !== undefined) {
    if (options.recorded || options.name !== undefined)
      throw new CliError(Exit.usage, "Give --audit, or --recorded or --name, not both.");
    let text: string;
    try {
      text = readFileSync(resolve(options.audit), "utf8");
    } catch (error) {
      throw new CliError(Exit.failed, `The audit ${options.audit} cannot be read: ${sentence(error)}.`);
    }
    return recordedProbes(documents(text, options.audit));
  }
  if (!options.recorded && options.name === undefined) return undefined;
  return withSupervisor(io, async (client) => {
    const request = {
      sandbox: options.name ?? "",
      kinds: ["exec", "file", "network"],
      verdicts: [],
      text: "",
      sinceUs: 0,
      untilUs: 0,
      afterId: 0,
      limit: 10_000,
      severities: [],
      tag: "",
      execId: "",
      ancestor: "",
      beforeId: 0,
    };
    const { records, truncated } = await call(client, client.queryAudit, request, 60_000);
    if (truncated) say(io, `Only the last ${records.length} records are asked about.`);
    return recordedProbes(records.map(({ facts, timeUs }) => ({ facts: JSON.parse(facts), timeUs })));
  });
}

/** The records in one document ({"records": [...]}), or in one document a line. */
function documents(text: string, file: string): unknown[] {
  try {
    const whole = text.trimStart().startsWith('{"records"') ? JSON.parse(text) : undefined;
    if (whole !== undefined) return Array.isArray(whole.records) ? whole.records : [];
    return text
      .split("\n")
      .filter((line) => line.trim() !== "")
      .map((line) => JSON.parse(line));
  } catch (error) {
    throw new CliError(
      Exit.failed,
      `${file} is not an audit as clawsec audit search --json prints it: ${sentence(error)}.`,
    );
  }
}

/** What of the second needs a new sandbox; or why one of them cannot be compiled here. */
async function staticParts(
  io: Io,
  before: Policy,
  after: Policy,
  capabilities: readonly Capability[],
): Promise<string[]> {
  const { needsRestart, renderDiagnostics } = await import("../../../../policy/index.js");
  // A sandbox keeps its name, whatever the policies are called.
  const [a, b] = [
    await compileLocally(io, before, capabilities, before.name),
    await compileLocally(io, after, capabilities, before.name),
  ];
  for (const { artefacts, diagnostics } of [a, b])
    if (artefacts === undefined) return [`This host cannot enforce it:\n${renderDiagnostics(diagnostics)}`];
  return a.artefacts && b.artefacts ? needsRestart(a.artefacts, b.artefacts) : [];
}

function total(groups: readonly ChangeGroup[]): string {
  const changes = groups.reduce((sum, group) => sum + group.changes.length, 0);
  return changes === 0 ? "no verdict differs" : counted(changes, "verdict differs", "verdicts differ");
}

function groupLines(io: Io, { from, to, direction, changes }: ChangeGroup): string {
  const mark = direction === "looser" ? colour(io, "red", " LOOSER") : "";
  const head = `${safe(`${from} -> ${to}`)}: ${counted(changes.length, "action")}${mark}`;
  return [head, ...telling(changes, SHOWN).map((change) => `  e.g. ${changeLine(change)}`)].join("\n");
}

/** Those that differ in the rules that decided, before those that do not. */
function telling(changes: readonly Change[], limit: number): Change[] {
  const byRules = new Map<string, Change>();
  for (const change of changes) {
    const key = `${change.before.rule} ${change.after.rule}`;
    if (!byRules.has(key)) byRules.set(key, change);
  }
  return [...new Set([...byRules.values(), ...changes])].slice(0, limit);
}

function changeLine({ action, timeMs, before, after }: Change): string {
  const at = timeMs === undefined ? "" : `, ${new Date(timeMs).toISOString().slice(0, 16)}Z`;
  const what = `${action.action?.$case ?? ""} ${actionLine(action.action)}`;
  return `${what} (${safe(`${action.subject}${at}: ${before.rule} -> ${after.rule}`)})`;
}

function groupJson({ from, to, direction, changes }: ChangeGroup): object {
  return {
    from,
    to,
    direction,
    count: changes.length,
    examples: telling(changes, SHOWN_JSON).map(({ action, timeMs, before, after }) => ({
      subject: action.subject,
      action: actionJson(action.action),
      at: timeMs === undefined ? null : new Date(timeMs).toISOString(),
      before,
      after,
    })),
  };
}
