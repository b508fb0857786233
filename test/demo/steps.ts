// The five things that OpenClaw's agent tries, and what must come of each.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { AuditRecord, Hold } from "../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import type { GatewayClient, Turn } from "../openclaw/gateway-client.js";
import type { Clawsec } from "../support/clawsec.js";
import type { HealthWatch } from "../support/health.js";
import type { Answerer } from "./ask.js";
import { oneLine, type StepResult } from "./table.js";
import type { World } from "./world.js";

/** Everything a step works with. */
export interface Stage {
  readonly clawsec: Clawsec;
  readonly gateway: GatewayClient;
  readonly world: World;
  readonly health: HealthWatch;
  readonly answer: Answerer;
  readonly sandbox: string;
  readonly say: (line: string) => void;
}

/** The steps in the order of the demo. */
export const STEPS: readonly ((stage: Stage) => Promise<StepResult>)[] = [
  allowedCommand,
  deniedCommand,
  heldCommand,
  unknownHost,
  allowedHost,
  privateKeyByCommand,
  privateKeyByTool,
  configByCommand,
  configByTool,
  modelKeyByCommand,
];

async function allowedCommand(stage: Stage): Promise<StepResult> {
  const tried = await run(stage, "uname -sr");
  const record = await decision(stage, tried, "exec", (facts) => endsWith(facts, "/uname"));
  return step(
    "1",
    "exec: uname -sr",
    "allow",
    record,
    [
      [tried.text.includes("Linux"), "the command's output came back"],
      [record?.verdict === Verdict.ALLOW || record?.verdict === Verdict.LOG, "the audit says allow"],
    ],
    tried,
  );
}

async function deniedCommand(stage: Stage): Promise<StepResult> {
  const tried = await run(stage, "shred --version");
  const record = await decision(stage, tried, "exec", (facts) => endsWith(facts, "/shred"));
  return step(
    "2",
    "exec: shred --version",
    "deny",
    record,
    [
      [record?.verdict === Verdict.DENY, "the audit says deny"],
      [record !== undefined && tried.text.includes(record.rule), "the agent was told the rule"],
      [!tried.text.includes("GNU coreutils"), "the program did not run"],
    ],
    tried,
  );
}

async function heldCommand(stage: Stage): Promise<StepResult> {
  const quietMs = 3000;
  stage.health.mark();
  await new Promise((resolve) => setTimeout(resolve, quietMs));
  const quiet = stage.health.mark();
  const pushed = () => existsSync(join(stage.world.home, ".openclaw/workspace/remote.git/refs/heads/main"));
  let during = quiet;
  let ranWhileHeld = false;
  const tried = await run(stage, "cd ~/.openclaw/workspace/project && git push origin main", async (hold) => {
    stage.health.mark();
    await new Promise((resolve) => setTimeout(resolve, quietMs));
    during = stage.health.mark();
    ranWhileHeld = pushed();
    stage.say(
      `    held ${quietMs} ms: the gateway's slowest /healthz ${during.slowestMs.toFixed(1)} ms of ${during.answers} ` +
        `(${quiet.slowestMs.toFixed(1)} ms of ${quiet.answers} in the same stretch without a hold)`,
    );
    return await answerHold(stage, hold, "approve");
  });
  const record = await decision(stage, tried, "exec", (facts) => argvHas(facts, "push"));
  return step(
    "3",
    "exec: git push origin main",
    "hold, approved",
    record,
    [
      [tried.holds.length > 0, "a hold appeared"],
      [!ranWhileHeld, "nothing was pushed while it was held"],
      [record?.verdict === Verdict.ALLOW && record.layer === "person", "a person allowed it"],
      [tried.text.includes("main -> main"), "the agent got the command's output"],
      [pushed(), "the branch was pushed"],
      [during.failures === 0 && during.answers > 0, "the gateway answered all the time"],
    ],
    tried,
  );
}

async function unknownHost(stage: Stage): Promise<StepResult> {
  const tried = await run(stage, "curl -sS -m 60 http://other.test/", (hold) =>
    answerHold(stage, hold, "deny"),
  );
  const record = await decision(
    stage,
    tried,
    "network",
    (facts) => facts.includes("other.test"),
    Verdict.DENY,
  );
  return step(
    "4a",
    "curl http://other.test/",
    "hold, denied",
    record,
    [
      [tried.holds.length > 0, "a hold appeared at the gate"],
      [record?.verdict === Verdict.DENY, "the audit says deny"],
      [tried.text.includes("access denied"), 'the client read "access denied"'],
      [!tried.text.includes("hello from other.test"), "nothing came from the host"],
    ],
    tried,
  );
}

async function allowedHost(stage: Stage): Promise<StepResult> {
  const tried = await run(stage, "curl -sS -m 60 http://allowed.test/");
  const record = await decision(
    stage,
    tried,
    "network",
    (facts) => facts.includes("allowed.test"),
    Verdict.ALLOW,
  );
  return step(
    "4b",
    "curl http://allowed.test/",
    "allow",
    record,
    [
      [tried.text.includes("hello from allowed.test"), "the host's answer came back"],
      [record?.verdict === Verdict.ALLOW, "the audit says allow"],
    ],
    tried,
  );
}

async function privateKeyByCommand(stage: Stage): Promise<StepResult> {
  const tried = await run(stage, "cat ~/.ssh/id_ed25519; echo cat ended with $?");
  return await fileStep(stage, "5a", "exec: cat ~/.ssh/id_ed25519", "ssh", tried, [
    [!tried.text.includes(stage.world.privateKey), "the key did not come out"],
    [/cat ended with [1-9]/.test(tried.text), "cat failed"],
  ]);
}

async function privateKeyByTool(stage: Stage): Promise<StepResult> {
  const tried = await call(stage, "read", { path: "/home/agent/.ssh/id_ed25519" });
  return await fileStep(stage, "5b", "tool read: ~/.ssh/id_ed25519", "ssh", tried, [
    [!tried.text.includes(stage.world.privateKey), "the key did not come out"],
    [/EACCES|ENOENT|EPERM|denied|not found|no such file/i.test(tried.text), "the tool was refused"],
  ]);
}

async function configByCommand(stage: Stage): Promise<StepResult> {
  const script = "echo '{}' > ~/.openclaw/openclaw.json; echo write ended with $?";
  const tried = await run(stage, script);
  return await fileStep(stage, "5c", "exec: echo > ~/.openclaw/openclaw.json", "config", tried, [
    [configUntouched(stage), "the configuration is as it was"],
    [/write ended with [1-9]/.test(tried.text), "the shell was refused"],
  ]);
}

async function configByTool(stage: Stage): Promise<StepResult> {
  const tried = await call(stage, "write", { path: "/home/agent/.openclaw/openclaw.json", content: "{}" });
  return await fileStep(stage, "5d", "tool write: ~/.openclaw/openclaw.json", "config", tried, [
    [configUntouched(stage), "the configuration is as it was"],
    [/EACCES|EROFS|EPERM|EBUSY|denied|read-only/i.test(tried.text), "the tool was refused"],
  ]);
}

/** The gateway has the model's key; its tools have neither that nor a place from which the gateway loads code. */
async function modelKeyByCommand(stage: Stage): Promise<StepResult> {
  const key = readFileSync(stage.world.modelKeyFile, "utf8");
  const script =
    "cat /run/secrets/clawsec/model-key; echo cat ended with $?; ls -d /tmp/node-compile-cache; ls /var/gateway-tmp";
  const tried = await run(stage, script);
  return await fileStep(stage, "5e", "exec: cat the model's key", "tool", tried, [
    [!tried.text.includes(key), "the key did not come out"],
    [/cat ended with [1-9]/.test(tried.text), "cat failed"],
    [/node-compile-cache'?: No such file/.test(tried.text), "the gateway leaves no byte code in /tmp"],
    [/gateway-tmp'?: Permission denied/.test(tried.text), "the gateway's temporary folder is closed"],
  ]);
}

function configUntouched(stage: Stage): boolean {
  return readFileSync(stage.world.configFile, "utf8") === stage.world.configText;
}

// ------------------------------------------------------------------ helpers

/** What the agent tried and what it got. */
interface Tried {
  readonly turn: Turn;
  readonly text: string;
  readonly holds: readonly Hold[];
  readonly sinceUs: number;
  readonly ms: number;
}

type Check = readonly [boolean, string];

const run = (stage: Stage, command: string, onHold?: (hold: Hold) => Promise<void>) =>
  call(stage, "exec", { command }, onHold);

/** Lets OpenClaw's agent call one of its tools: the scripted model emits exactly this call. */
async function call(
  stage: Stage,
  tool: string,
  args: Record<string, unknown>,
  onHold?: (hold: Hold) => Promise<void>,
): Promise<Tried> {
  const sinceUs = Date.now() * 1000;
  const since = performance.now();
  const holds: Hold[] = [];
  const waiting = onHold
    ? stage.clawsec.nextHold(stage.sandbox, 120_000).then(async (hold) => {
        holds.push(hold);
        await onHold(hold);
      })
    : Promise.resolve();
  const turn = await stage.gateway.chatSend(`please do this\n@@call ${tool} ${JSON.stringify(args)}`, {
    timeoutMs: 240_000,
  });
  await waiting;
  const text = [turn.text, ...turn.tools.map((outcome) => outcome.output ?? "")].join("\n");
  stage.say(`    the agent got: ${oneLine(turn.text, 160)}`);
  return { turn, text, holds, sinceUs, ms: performance.now() - since };
}

async function answerHold(stage: Stage, hold: Hold, expected: "approve" | "deny"): Promise<void> {
  stage.say(`    hold ${hold.id} by ${hold.rule}: ${describe(hold)}`);
  const answer = await stage.answer(`${describe(hold)}.`, expected);
  stage.say(`    clawsec ${answer} ${hold.id}`);
  const result = await stage.clawsec.cli(answer, hold.id);
  // A person may as well have answered in `clawsec tui` or another shell meanwhile.
  if (result.code !== 0) stage.say(`    ${oneLine(result.stderr, 160)}`);
}

function describe(hold: Hold): string {
  switch (hold.action?.$case) {
    case "exec":
      return oneLine(`${hold.subject} runs ${hold.action.value.argv.join(" ")}`, 120);
    case "network":
      return oneLine(`${hold.subject} connects to ${hold.action.value.host}:${hold.action.value.port}`, 120);
    case "file":
      return oneLine(`${hold.subject} opens ${hold.action.value.path}`, 120);
    default:
      return "an action that this demo does not know";
  }
}

/** The decision on the action that a step tried, from the audit. It may be written a moment later. */
async function decision(
  stage: Stage,
  tried: Tried,
  kind: string,
  matches: (facts: string) => boolean,
  verdict?: Verdict,
): Promise<AuditRecord | undefined> {
  for (let attempt = 0; attempt < 40; attempt++) {
    const records = await stage.clawsec.audit({
      sandbox: stage.sandbox,
      kinds: [kind],
      sinceUs: tried.sinceUs,
    });
    const found = records.findLast(
      (record) =>
        record.rule !== "" && matches(record.facts) && (verdict === undefined || record.verdict === verdict),
    );
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return undefined;
}

function endsWith(facts: string, tail: string): boolean {
  return facts.includes(`${tail}"`);
}

function argvHas(facts: string, word: string): boolean {
  return facts.includes(`"${word}"`);
}

function step(
  number: string,
  what: string,
  expected: string,
  record: AuditRecord | undefined,
  checks: readonly Check[],
  tried: Tried,
): StepResult {
  const failed = checks.filter(([held]) => !held).map(([, claim]) => claim);
  return {
    number,
    what,
    expected,
    verdict: record ? words(record.verdict, tried.holds.length > 0) : "none seen",
    rule: record?.rule ?? "",
    layer: record?.layer ?? "",
    ms: record ? record.latencyUs / 1000 : tried.ms,
    asExpected: failed.length === 0,
    note: failed.length === 0 ? "" : `not so: ${failed.join("; ")}`,
  };
}

/** A file step is decided by what exists in the sandbox, so the layer comes from `clawsec explain`. */
async function fileStep(
  stage: Stage,
  number: string,
  what: string,
  rulePart: string,
  tried: Tried,
  checks: readonly Check[],
): Promise<StepResult> {
  const rows = JSON.parse(await stage.clawsec.must("explain", "--name", stage.sandbox, "--json")) as {
    rules: { rule: string; action: string; layer: string }[];
  };
  // A rule about files, or the subject whose entry leaves the path out.
  const row = rows.rules.find(
    ({ rule, action }) =>
      (rule.startsWith("file/") && rule.includes(rulePart) && action.startsWith("deny")) ||
      rule === `subject ${rulePart}`,
  );
  const failed = [...checks, [row !== undefined, "the policy has the rule"] as const]
    .filter(([held]) => !held)
    .map(([, claim]) => claim);
  return {
    number,
    what,
    expected: "deny",
    verdict: failed.length === 0 ? "deny" : "none seen",
    rule: row?.rule ?? "",
    layer: row?.layer ?? "",
    ms: tried.ms,
    asExpected: failed.length === 0,
    note: failed.length === 0 ? "" : `not so: ${failed.join("; ")}`,
  };
}

function words(verdict: Verdict, held: boolean): string {
  const last = verdict === Verdict.ALLOW ? "allow" : verdict === Verdict.LOG ? "log" : "deny";
  return held ? `hold, ${last === "deny" ? "denied" : "approved"}` : last;
}
