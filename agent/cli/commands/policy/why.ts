/** policy why: what the policy says of one action, by which rule, and what would change it. */
import { type Command, Option } from "commander";
import type { Action, Evaluation } from "../../../../policy/index.js";
import { CODES, PROTOCOLS } from "../../../../policy/language/names.js";
import type { ExecCodeName, ProtocolName } from "../../../../policy/model.js";
import { EXEC_CODES } from "../../../../policy/read/action.js";
import type { Why } from "../../../../policy/why.js";
import { NetworkProtocol } from "../../../../proto/gen/clawsec/v1/loader.js";
import { verdictWord } from "../../../../proto/words.js";
import { actionJson, actionLine } from "../../../common/action.js";
import { escapeText } from "../../../common/escape.js";
import { colourWord, type Io, print, printJson } from "../../io.js";
import { repeated, variable } from "../../options.js";
import { instantUs } from "../../when.js";
import { type AskedOptions, askedOf, firstBytes } from "./asked.js";
import {
  CAPABILITIES,
  compileLocally,
  hostCapabilities,
  loadPolicy,
  type PolicyOptions,
  safe,
} from "./load.js";
import { layersOf } from "./test.js";

interface WhyOptions extends PolicyOptions, AskedOptions {
  readonly at?: number;
  readonly all?: boolean;
  readonly capabilities?: string;
}

/** What a rule is about, rather than a condition of it. */
const OWN_FACTS: ReadonlySet<string> = new Set(["executable", "script", "path", "host", "cidr"]);

/** Near misses that are shown; all are in the JSON. */
const SHOWN_MISSES = 8;

export function addWhy(policy: Command, io: Io): void {
  policy
    .command("why <file> <action...>")
    .description("what the policy says of one action, and what would change that")
    .option("--subject <name>", "who does it (default: the policy's first subject)")
    .option("--cwd <path>", "exec: the working directory (default: the workspace)")
    .option("--script <path>", "exec: the script, when the program named is its interpreter")
    .addOption(
      new Option("--code <code>", "exec: what the program runs, when it is an interpreter").choices(CODES),
    )
    .addOption(
      new Option("--protocol <protocol>", "connect: what the first bytes turn out to be").choices(PROTOCOLS),
    )
    .option("--parent <path>", "exec: the program that calls")
    .option("--ancestor <path>", "exec: a program that led to the caller (may be repeated)", repeated, [])
    .option("--env <name>", "exec: a variable that is set (may be repeated)", repeated, [])
    .option("--at <time>", "when: an ISO time, or 2h for two hours ago (default: now)", instantUs)
    .option("--all", "every rule with what it found, not only those that nearly matched")
    .option("--var <name=value>", "a value for one of its variables (may be repeated)", variable, {})
    .option(...CAPABILITIES)
    .option("--json", "one JSON document")
    .addHelpText(
      "after",
      `
Actions:
  exec -- PROGRAM ARGUMENTS        a program without "/" is looked for as in the sandbox: its PATH, mounts,
                                   links and #! lines, on this host
  open|create|delete|truncate|chmod PATH
  rename|link PATH PATH
  connect HOST:PORT
  lookup HOST
  http METHOD http://HOST/PATH

Ends with 0 whatever the verdict, and with 1 when the program cannot be found.

Examples:
  clawsec policy why policy.yaml exec -- git push origin main
  clawsec policy why policy.yaml --subject tool delete /home/agent/.env
  clawsec policy why policy.yaml http GET http://example.com/v1/x`,
    )
    .action((file: string, words: string[], options: WhyOptions) => showWhy(io, file, words, options));
}

async function showWhy(io: Io, file: string, words: readonly string[], options: WhyOptions): Promise<void> {
  const { policy } = await loadPolicy(file, options.var);
  const { action, note } = askedOf(policy, words, options);
  const { why } = await import("../../../../policy/why.js");
  const timeMs = options.at === undefined ? Date.now() : Math.floor(options.at / 1000);
  // As for the first action of a sandbox: nothing has used up a rate.
  const reason = why(policy, action, { timeMs, used: () => 0 });
  const evaluate = (other: Action): Evaluation => why(policy, other, { timeMs, used: () => 0 }).evaluation;
  const otherwise = options.code === undefined ? byCode(action, reason.evaluation, evaluate) : [];
  const connected = options.protocol === undefined ? byProtocol(action, reason.evaluation, evaluate) : [];
  const capabilities = await hostCapabilities(io, options.capabilities);
  const rows = capabilities && (await compileLocally(io, policy, capabilities)).explain;
  const layer = rows === undefined ? undefined : layersOf(rows, reason.evaluation.rule);
  if (options.json) {
    printJson(io, {
      subject: action.subject,
      action: actionJson(action.action),
      note,
      ...evaluationJson(reason.evaluation),
      layer: layer ?? null,
      steps: reason.steps,
      without: reason.without === undefined ? null : evaluationJson(reason.without),
      nearMisses: reason.nearMisses,
      byCode: Object.fromEntries(otherwise.map(([code, evaluation]) => [code, evaluationJson(evaluation)])),
      byProtocol: Object.fromEntries(
        connected.map(([name, evaluation]) => [name, evaluationJson(evaluation)]),
      ),
    });
    return;
  }
  print(io, `${action.subject}: ${actionLine(action.action)}`);
  if (note !== "") print(io, `note: ${safe(note)}`);
  print(io, verdictLines(io, reason.evaluation, layer));
  for (const [code, { verdict, rule }] of otherwise)
    print(io, safe(`if its arguments make it run ${CODE_WORDS[code]}: ${verdictWord(verdict)} by ${rule}`));
  for (const [protocol, { verdict, rule }] of connected) {
    const words = `if its first bytes are ${PROTOCOL_WORDS[protocol]}: ${verdictWord(verdict)} by ${rule}`;
    print(io, safe(words));
  }
  for (const line of changes(reason)) print(io, safe(line));
  if (options.all) {
    print(io, "");
    for (const { rule, matched, why } of reason.steps)
      print(io, safe(`  ${rule}: ${matched ? "matches" : `differs in ${why}`}`));
  }
}

const CODE_WORDS: Readonly<Record<ExecCodeName, string>> = {
  file: "a file (--code file, --script)",
  inline: "inline code (--code inline)",
  module: "a module (--code module)",
  stream: "what it reads from a stream (--code stream)",
};

/**
 * What the policy says otherwise of the same program where it is an interpreter: which code its arguments name, the
 * loader finds out at run time and nobody here.
 */
export function byCode(
  { subject, process, action }: Action,
  said: Evaluation,
  evaluate: (action: Action) => Evaluation,
): [ExecCodeName, Evaluation][] {
  if (action?.$case !== "exec" || action.value.script !== "") return [];
  return CODES.map((code): [ExecCodeName, Evaluation] => {
    const value = { ...action.value, code: EXEC_CODES[code] };
    return [code, evaluate({ subject, process, action: { $case: "exec", value } })];
  }).filter(([, { verdict, rule }]) => verdict !== said.verdict || rule !== said.rule);
}

const PROTOCOL_WORDS: Readonly<Record<ProtocolName, string>> = {
  tls: "TLS for that host (--protocol tls)",
  http: "HTTP for that host (--protocol http)",
  other: "neither TLS nor HTTP (--protocol other)",
};

/** What the policy says otherwise of the same connection when its first bytes are known. */
function byProtocol(
  { subject, process, action }: Action,
  said: Evaluation,
  evaluate: (action: Action) => Evaluation,
): [ProtocolName, Evaluation][] {
  if (action?.$case !== "network" || action.value.protocol !== NetworkProtocol.TCP) return [];
  if (action.value.httpMethod !== "") return [];
  return PROTOCOLS.map((protocol): [ProtocolName, Evaluation] => {
    const value = { ...action.value, ...firstBytes(protocol, action.value.host) };
    return [protocol, evaluate({ subject, process, action: { $case: "network", value } })];
  }).filter(([, { verdict, rule }]) => verdict !== said.verdict || rule !== said.rule);
}

function verdictLines(io: Io, evaluation: Evaluation, layer: string | undefined): string {
  const { origin, because, message, hold, observed, enterSubject } = evaluation;
  const at = origin === undefined ? "" : ` (${origin.file}:${origin.line})`;
  const lines = [`${colourWord(io, verdictWord(evaluation.verdict))} by ${safe(evaluation.rule + at)}`];
  if (because !== "") lines.push(`because: ${safe(because)}`);
  if (message !== "") lines.push(`message: ${escapeText(message)}`);
  if (hold !== undefined)
    lines.push(`waits ${hold.timeoutMs / 1000} s for an answer, then ${hold.onTimeout}`);
  if (observed !== undefined)
    lines.push(`observed: ${safe(observed.rule)} would have said ${verdictWord(observed.verdict)}`);
  if (enterSubject !== "") lines.push(`enters the subject ${safe(enterSubject)}`);
  if (layer === undefined) lines.push("layer: not known; no loader runs, and no --capabilities were given");
  else if (layer !== "") lines.push(`layer: ${safe(layer)}`);
  return lines.join("\n");
}

/** What would decide otherwise. */
function changes({ evaluation, without, nearMisses }: Why): string[] {
  const lines: string[] = [];
  if (without !== undefined) {
    const same = without.verdict === evaluation.verdict ? "also " : "";
    lines.push(`without ${evaluation.rule}: ${same}${verdictWord(without.verdict)} by ${without.rule}`);
  }
  // A rule about another program or host is not near; one about this program with other arguments is.
  const near = nearMisses.filter(({ fact }) => !OWN_FACTS.has(fact));
  for (const { rule, fact, is, wants } of near.slice(0, SHOWN_MISSES))
    lines.push(
      `${rule} nearly matches: ${fact} is ${is === "" ? "not there" : cut(is)}, it wants ${cut(wants)}`,
    );
  const more = nearMisses.length - Math.min(near.length, SHOWN_MISSES);
  if (more > 0)
    lines.push(`${more} more ${more === 1 ? "rule differs" : "rules differ"} in one fact; see --json`);
  return lines;
}

function cut(text: string): string {
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function evaluationJson(evaluation: Evaluation): object {
  const { verdict, rule, because, message, hold, observed, enterSubject, severity, tags, origin } =
    evaluation;
  return {
    verdict: verdictWord(verdict),
    rule,
    origin: origin === undefined ? null : { file: origin.file, line: origin.line, column: origin.column },
    because,
    message,
    hold: hold ?? null,
    enterSubject,
    observed: observed === undefined ? null : { verdict: verdictWord(observed.verdict), rule: observed.rule },
    severity,
    tags,
  };
}
