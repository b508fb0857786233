// The figures. Each one interleaves baseline and ours round by round, so that a busy moment hits both.

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type AuditRecord, RunRequest, type RunResponse } from "../../proto/gen/clawsec/v1/control.js";
import { type KillReport, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import type { Clawsec } from "../support/clawsec.js";
import type { Baseline } from "./baseline.js";
import { type Figure, figure } from "./stats.js";

const run = promisify(execFile);

/** Where things are in this run. */
export interface Setting {
  readonly clawsec: Clawsec;
  readonly baseline: Baseline;
  readonly policy: string;
  readonly variables: Readonly<Record<string, string>>;
  /** The bench program, as the host and as the sandbox see it. */
  readonly hostProgram: string;
  readonly program: string;
  readonly server: { readonly address: string; readonly name: string; readonly port: number };
  readonly say: (text: string) => void;
}

let runs = 0;

/** Runs a command in a new sandbox; returns what it printed. */
export async function gated(setting: Setting, args: readonly string[], name?: string): Promise<string> {
  const variables = Object.entries(setting.variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  runs += 1;
  return await setting.clawsec.must(
    "run",
    "--name",
    name ?? `bench-${runs}`,
    "--policy",
    setting.policy,
    ...variables,
    "--",
    ...args,
  );
}

/**
 * Proves that a denial happens for exec and for network.
 * @throws when one of them does not: a mechanism that is off must not look fast.
 */
export async function proveDenials(setting: Setting): Promise<void> {
  const script = [
    "/usr/bin/shred --version >/dev/null 2>&1 && echo EXEC-RAN",
    `${setting.program} round-trip denied.test ${setting.server.port} 1 >/dev/null 2>&1 && echo NETWORK-WENT-OUT`,
    "/usr/bin/true && echo ALLOWED-RAN",
  ].join("; ");
  const output = await gated(setting, ["/bin/sh", "-c", script]);
  if (output.trim() !== "ALLOWED-RAN") {
    throw new Error(
      `The sandbox does not deny what it must, so no figure is taken. It printed: ${output.trim()}`,
    );
  }
  setting.say("denials proved: an exec and a connection were refused beside an allowed exec");
}

/** fork+exec+wait of `true` in the sandbox, with and without the gate: the dynamic one of the host, and a static one. */
export async function spawnFigure(
  setting: Setting,
  kind: "dynamic" | "static",
  rounds = 8,
  each = 250,
): Promise<Figure> {
  const command = [
    setting.program,
    "spawn",
    `${each}`,
    kind === "dynamic" ? "/usr/bin/true" : "/opt/bench/true",
  ];
  const { bare, ours } = await pairs(setting, setting.baseline, command, rounds);
  const name = `fork+exec+wait of ${kind} true`;
  return figure(name, "us", "runc with the same bundle, no gate", bare, ours);
}

/** What a command of the bench program measured without the gate and with it, in microseconds, after one round unmeasured. */
export async function pairs(
  setting: Setting,
  baseline: Baseline,
  command: readonly string[],
  rounds: number,
): Promise<{ bare: number[]; ours: number[] }> {
  // Once each beforehand: caches of the host are warm for both.
  await baseline.run(command);
  await gated(setting, command);
  const [bare, ours]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const pair = [
      async () => bare.push(...micros(await baseline.run(command))),
      async () => ours.push(...micros(await gated(setting, command))),
    ];
    // Who is first alternates: what one leaves in caches must not be the other's gain.
    for (const one of round % 2 === 0 ? pair : pair.reverse()) await one();
  }
  return { bare, ours };
}

/**
 * Execs that the supervisor is asked about, each with other arguments: fork+exec+wait without the gate and with it, and
 * what the loader says how long a decision took, from the call to its answer, by its own table and by the supervisor.
 */
export async function askedFigures(setting: Setting, rounds = 8, each = 250): Promise<Figure[]> {
  const [bare, ours]: number[][] = [[], []];
  const latencies: Record<"measured" | "asked", number[]> = { measured: [], asked: [] };
  const program = "/opt/bench/true";
  const bareCommand = [setting.program, "spawn", `${each}`, program, "asked", "{}"];
  for (let round = 0; round < rounds; round++) {
    bare?.push(...micros(await setting.baseline.run(bareCommand)));
    const name = `bench-asked-${round}`;
    const spawns = `${setting.program} spawn ${each} ${program}`;
    const both = `${spawns} > /dev/null && ${spawns} asked ${round}-{}`;
    ours?.push(...micros(await gated(setting, ["/bin/sh", "-c", both], name)));
    for (const rule of ["measured", "asked"] as const) {
      const records = await decided(setting, name, `exec/${rule}`, each);
      latencies[rule].push(...records.filter(({ summary }) => summary.includes(program)).map(latencyOf));
    }
  }
  const what = `${program} with arguments of its own each time`;
  return [
    figure(`fork+exec+wait of ${what}`, "us", "runc with the same bundle, no gate", bare ?? [], ours ?? []),
    figure("decision about an exec", "us", "by the loader's table", latencies.measured, latencies.asked),
  ];
}

/** What was decided by a rule in a sandbox that has ended: the audit comes some time after it. */
export async function decided(
  setting: Setting,
  sandbox: string,
  rule: string,
  least: number,
): Promise<AuditRecord[]> {
  const until = performance.now() + 10_000;
  for (;;) {
    const records = await setting.clawsec.audit({ sandbox, kinds: ["exec"], text: rule, limit: 10_000 });
    const own = records.filter((record) => record.rule === rule);
    if (own.length >= least) return own;
    if (performance.now() > until)
      throw new Error(`Only ${own.length} decisions by ${rule} are in the audit.`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** How long a decision took, in microseconds, as the loader says. */
export function latencyOf({ latencyUs }: AuditRecord): number {
  return latencyUs;
}

/** Round trip of one byte through the gate, against a direct veth. */
export async function roundTripFigure(setting: Setting, rounds = 4, each = 2000): Promise<Figure> {
  const { server } = setting;
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const direct = ["round-trip", server.address, `${server.port}`, `${each}`];
    bare?.push(...micros((await run(setting.hostProgram, direct, { maxBuffer: 64 << 20 })).stdout));
    const args = [setting.program, "round-trip", server.name, `${server.port}`, `${each}`];
    ours?.push(...micros(await gated(setting, args)));
  }
  return figure("egress round trip", "us", "direct veth", bare ?? [], ours ?? []);
}

/** Throughput through the gate, against a direct veth. */
export async function throughputFigure(setting: Setting, rounds = 8, bytes = 1 << 30): Promise<Figure> {
  const { server } = setting;
  const perSecond = (nanoseconds: string) => bytes / Number(nanoseconds);
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const direct = await run(setting.hostProgram, ["fetch", server.address, `${server.port}`, `${bytes}`]);
    bare?.push(perSecond(direct.stdout));
    ours?.push(
      perSecond(await gated(setting, [setting.program, "fetch", server.name, `${server.port}`, `${bytes}`])),
    );
  }
  return figure("egress throughput", "GB/s", "direct veth", bare ?? [], ours ?? []);
}

/** From the request to the first user instruction. */
export async function startFigure(setting: Setting, rounds = 20): Promise<Figure> {
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    let since = process.hrtime.bigint();
    bare?.push(Number(BigInt((await setting.baseline.run([setting.program, "now"])).trim()) - since) / 1e6);
    const name = `bench-start-${round}`;
    since = process.hrtime.bigint();
    await request(setting, name, [setting.program, "now"], false);
    ours?.push(Number(BigInt((await output(setting, name)).trim()) - since) / 1e6);
  }
  return figure(
    "start to first user instruction",
    "ms",
    "runc run with the same bundle",
    bare ?? [],
    ours ?? [],
  );
}

/** From the answer given to the first instruction of the held program, against exec without a hold. */
export async function holdFigure(setting: Setting, rounds = 100): Promise<Figure> {
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const since = process.hrtime.bigint();
    const { stdout } = await run(setting.hostProgram, ["now"]);
    bare?.push(Number(BigInt(stdout.trim()) - since) / 1e6);
    const name = `bench-hold-${round}`;
    const hold = setting.clawsec.nextHold(name, 30_000);
    await request(setting, name, ["/bin/sh", "-c", `${setting.program}-held now`], false);
    const { id } = await hold;
    const answered = process.hrtime.bigint();
    await answer(setting, id);
    ours?.push(Number(BigInt((await output(setting, name)).trim()) - answered) / 1e6);
  }
  return figure(
    "hold answered to process resumed",
    "ms",
    "fork and exec on the host, no hold",
    bare ?? [],
    ours ?? [],
  );
}

/** Kill of 1,000 processes, until nothing is left. */
export async function killFigure(setting: Setting, rounds = 6, processes = 1000): Promise<Figure> {
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    bare?.push(await setting.baseline.kill([setting.program, "forks", `${processes}`]));
    const name = `bench-kill-${round}`;
    await request(setting, name, [setting.program, "forks", `${processes}`], true);
    await line(setting, name);
    const report = await kill(setting, name);
    const killed = report.sandboxes[0];
    if (killed?.survivors !== 0 || killed.processes < processes) {
      throw new Error(`The kill was not one of ${processes} processes: ${JSON.stringify(report)}`);
    }
    ours?.push(killed.goneUs / 1000);
  }
  return figure(
    "kill of 1,000 processes",
    "ms",
    "runc kill of the same, until runc run returns",
    bare ?? [],
    ours ?? [],
  );
}

// ------------------------------------------------------- the Control service

function request(
  setting: Setting,
  name: string,
  command: readonly string[],
  detached: boolean,
): Promise<RunResponse> {
  const message = RunRequest.fromPartial({
    name,
    policyPath: setting.policy,
    command: [...command],
    detached,
    variables: { ...setting.variables },
  });
  return new Promise((resolve, reject) => {
    setting.clawsec.control.run(message, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function kill(setting: Setting, name: string): Promise<KillReport> {
  return new Promise((resolve, reject) => {
    const message = { name, all: false, reason: "benchmark" };
    setting.clawsec.control.kill(message, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function answer(setting: Setting, id: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const message = { id, verdict: Verdict.ALLOW, reason: "", via: "bench" };
    setting.clawsec.control.answerHold(message, (error) => (error ? reject(error) : resolve()));
  });
}

/** All that the main command prints. */
function output(setting: Setting, name: string): Promise<string> {
  return attach(setting, name, (text, ended) => (ended ? text : undefined));
}

/** Its first line. */
function line(setting: Setting, name: string): Promise<string> {
  return attach(setting, name, (text) => (text.includes("\n") ? text : undefined));
}

function attach(
  setting: Setting,
  name: string,
  done: (text: string, ended: boolean) => string | undefined,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = setting.clawsec.control.attachSandbox();
    let text = "";
    const look = (ended: boolean) => {
      const result = done(text, ended);
      if (result === undefined) return;
      resolve(result);
      stream.cancel();
    };
    stream.on("data", ({ output: part }) => {
      if (part?.$case === "stdout") text += Buffer.from(part.value).toString();
      look(part?.$case === "exit");
    });
    stream.on("error", (error) => reject(error));
    stream.write({
      name,
      stdin: Buffer.alloc(0),
      stdinEof: true,
      resize: undefined,
      signal: 0,
      exec: undefined,
    });
  });
}

/** The nanoseconds that the bench program printed, as microseconds. */
export function micros(text: string): number[] {
  return (JSON.parse(text) as number[]).map((nanoseconds) => nanoseconds / 1000);
}
