// The main job, end to end: the real OpenClaw gateway in a clawsec sandbox, with a scripted language model as the only
// stand-in. `make demo` in a terminal asks you to approve; DEMO=auto (or no terminal) answers by itself.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { constants as osConstants } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { GatewayClient } from "../openclaw/gateway-client.js";
import { Clawsec } from "../support/clawsec.js";
import { ask, HealthWatch } from "../support/health.js";
import { firstLine, makeTestHosts, type TestHosts } from "../support/hosts.js";
import { attended, unattended } from "./ask.js";
import { STEPS, type Stage } from "./steps.js";
import { type StepResult, table } from "./table.js";
import { makeReachable, makeWorld, type World } from "./world.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const SANDBOX = "openclaw-demo";

interface KillReport {
  sandboxes: { name: string; processes: number; survivors: number; goneUs: number; networkCutUs: number }[];
}

async function main(): Promise<number> {
  if (process.getuid?.() !== 0) {
    console.error("The demo makes namespaces and cgroups and must be run as root. Run it with sudo.");
    return 1;
  }
  const auto = process.env.DEMO === "auto" || !process.stdin.isTTY;
  const slot = process.pid % 250;
  const runtime = `/run/clawsec-demo-${slot}`;
  const folder = mkdtempSync("/var/tmp/clawsec-demo-");
  makeReachable(folder);
  const state = join(folder, "state");
  mkdirSync(state, { recursive: true });
  mkdirSync(runtime, { recursive: true });
  const clawsec = new Clawsec(root, runtime, state);
  let hosts: TestHosts | undefined;
  let health: HealthWatch | undefined;
  let gateway: GatewayClient | undefined;
  let failed = true;
  let cleaning: Promise<void> | undefined;
  const cleanUp = () => {
    cleaning ??= (async () => {
      await health?.stop();
      gateway?.close();
      await clawsec.down();
      await hosts?.close();
      if (failed && process.env.DEMO_KEEP) console.error(`Left for you to look at: ${folder}`);
      else rmSync(folder, { recursive: true, force: true });
      rmSync(runtime, { recursive: true, force: true });
    })();
    return cleaning;
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => {
      console.error(`demo: ended by ${signal}; cleaning up`);
      void cleanUp().finally(() => process.exit(128 + osConstants.signals[signal]));
    });
  }
  try {
    say("OpenClaw: installing what is missing");
    const openclaw = execFileSync(join(root, "test/openclaw/install.sh"), {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    })
      .trim()
      .split("\n")
      .at(-1) as string;

    say("test hosts: model.test, allowed.test and other.test in a network namespace of the demo");
    hosts = await makeTestHosts(slot);
    const world = makeWorld(folder, root, openclaw, hosts);
    await startServers(hosts, world);

    say("clawsec up: supervisor and loader");
    await clawsec.up();

    say("clawsec run: the OpenClaw gateway, under policy/packs/openclaw.yaml with the test hosts added");
    const port = await startGateway(clawsec, world);
    const url = `http://127.0.0.1:${port}`;
    await ready(clawsec, url, 240_000);
    gateway = await GatewayClient.connect({ token: world.gatewayToken, port });
    say("warming up: a first turn, so that no step pays for OpenClaw's first-use set-up");
    await gateway.chatSend('warm up\n@@call exec {"command":"true"}', { timeoutMs: 240_000 });

    health = new HealthWatch(`${url}/healthz`);
    const stage: Stage = {
      clawsec,
      gateway,
      world,
      health,
      answer: auto ? unattended : attended,
      sandbox: SANDBOX,
      say: console.log,
    };
    const results: StepResult[] = [];
    for (const step of STEPS) {
      const result = await step(stage);
      results.push(result);
      say(line(result));
    }
    await health.stop();
    results.push(await kill(clawsec, url));
    say(line(results.at(-1) as StepResult));

    console.log(`\n${table(results)}\n`);
    const asExpected = results.filter((result) => result.asExpected).length;
    console.log(`demo: ${results.length} steps, ${asExpected} as expected`);
    failed = asExpected !== results.length;
    return failed ? 1 : 0;
  } finally {
    await cleanUp();
  }
}

/** The scripted model and the web servers of the test hosts. */
async function startServers(hosts: TestHosts, world: World): Promise<void> {
  const node = process.execPath;
  const { addresses } = hosts;
  const model = hosts.spawn(node, [
    join(root, "dist/test/openclaw/scripted-model.js"),
    "--host",
    addresses["model.test"],
    "--port",
    "18999",
    "--api-key-file",
    world.modelKeyFile,
  ]);
  const web = hosts.spawn(node, [
    join(root, "dist/test/support/host-server.js"),
    `${addresses["allowed.test"]}=allowed.test`,
    `${addresses["other.test"]}=other.test`,
  ]);
  await Promise.all([firstLine(model, 20_000), firstLine(web, 20_000)]);
}

/** Starts the sandbox; returns the host port on which the gateway is published. */
async function startGateway(clawsec: Clawsec, world: World): Promise<number> {
  const variables = Object.entries(world.variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const started = JSON.parse(
    await clawsec.must(
      "run",
      "--detach",
      "--json",
      "--name",
      SANDBOX,
      "--policy",
      world.policy,
      ...variables,
    ),
  ) as { sandbox: { publish: { hostPort: number }[] } };
  const port = started.sandbox.publish[0]?.hostPort;
  if (!port) throw new Error("The policy publishes no port, so the gateway cannot be reached.");
  return port;
}

async function ready(clawsec: Clawsec, url: string, timeoutMs: number): Promise<void> {
  const since = performance.now();
  while (!(await ask(`${url}/readyz`))) {
    const ps = JSON.parse(await clawsec.must("ps", "--json")) as {
      sandboxes: { name: string; state: string }[];
    };
    const running = ps.sandboxes.some(({ name, state }) => name === SANDBOX && /running/i.test(state));
    if (!running || performance.now() - since > timeoutMs) {
      const why = running ? `it was not ready within ${timeoutMs} ms` : "its sandbox has ended";
      const records = await clawsec.audit({ sandbox: SANDBOX, verdicts: [2], limit: 20 });
      const denials = records.map((record) => `  ${record.summary} [${record.rule}]`).join("\n");
      throw new Error(`The OpenClaw gateway did not start: ${why}. Denied so far:\n${denials}`);
    }
    await sleep(500);
  }
  say(`OpenClaw is ready after ${((performance.now() - since) / 1000).toFixed(1)} s`);
}

/** `clawsec kill`, and proof that nothing answers any more. */
async function kill(clawsec: Clawsec, url: string): Promise<StepResult> {
  const since = performance.now();
  const result = await clawsec.cli("kill", SANDBOX, "--json");
  const ms = performance.now() - since;
  const report = result.code === 0 ? (JSON.parse(result.stdout) as KillReport) : { sandboxes: [] };
  const killed = report.sandboxes.find(({ name }) => name === SANDBOX);
  const silent = !(await ask(`${url}/healthz`));
  const asExpected = killed !== undefined && killed.processes > 0 && killed.survivors === 0 && silent;
  return {
    number: "6",
    what: `clawsec kill ${SANDBOX}`,
    expected: "killed",
    verdict: asExpected ? "killed" : "NOT KILLED",
    rule: killed ? `${killed.processes} processes, ${killed.survivors} left` : "",
    layer: "loader",
    ms: killed ? killed.goneUs / 1000 : ms,
    asExpected,
    note: asExpected ? "" : oneLineOf(result.stderr || result.stdout),
  };
}

function oneLineOf(text: string): string {
  return text.replace(/\s+/g, " ").slice(0, 300);
}

function line(result: StepResult): string {
  const mark = result.asExpected ? "as expected" : "NOT AS EXPECTED";
  const by = [result.rule, result.layer].filter((text) => text !== "").join(", ");
  const note = result.note ? ` (${result.note})` : "";
  return `step ${result.number}: ${result.what}: ${result.verdict} (${by}) ${result.ms.toFixed(1)} ms, ${mark}${note}`;
}

function say(text: string): void {
  console.log(`demo: ${text}`);
}

process.exitCode = await main().catch((error: unknown) => {
  console.error(`demo: it could not go on. ${error instanceof Error ? error.message : String(error)}`);
  return 1;
});
