// `make bench`: proves that denials happen, takes every figure, writes one JSON to test/bench/results/.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Clawsec } from "../support/clawsec.js";
import { firstLine, makeTestHosts } from "../support/hosts.js";
import { busyFigure, ingestFigures } from "./audit-measures.js";
import { Baseline } from "./baseline.js";
import {
  askedFigures,
  holdFigure,
  killFigure,
  proveDenials,
  roundTripFigure,
  type Setting,
  spawnFigure,
  startFigure,
  throughputFigure,
} from "./measures.js";
import {
  compileFigure,
  decisionFigure,
  lowerFigure,
  residentKiB,
  SIZES,
  tableBytes,
  writePolicy,
} from "./policy-measures.js";
import { type Figure, figure } from "./stats.js";
import { layOutWork, workFigure } from "./work-measures.js";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const PORT = 7000;

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error("The benchmarks make sandboxes and must be run as root.");
  const slot = process.pid % 250;
  const runtime = `/run/clawsec-bench-${slot}`;
  const folder = mkdtempSync("/var/tmp/clawsec-bench-");
  const state = join(folder, "state");
  mkdirSync(state);
  mkdirSync(runtime, { recursive: true });
  const program = join(root, "bpf/target/release/clawsec-bench");
  const clawsec = new Clawsec(root, runtime, state);
  const hosts = await makeTestHosts(slot);
  let baseline: Baseline | undefined;
  try {
    const address = hosts.addresses["allowed.test"];
    await firstLine(hosts.spawn(program, ["serve", `${address}:${PORT}`]), 20_000);
    await clawsec.up();
    const policy = join(root, "test/bench/policy.yaml");
    const staticTrue = join(folder, "true");
    writeFileSync(join(folder, "true.c"), "int main(void) { return 0; }\n");
    execFileSync("gcc", ["-static", "-O2", "-o", staticTrue, join(folder, "true.c")]);
    const variables = {
      program,
      staticTrue,
      range: hosts.range,
      address,
      denied: hosts.addresses["other.test"],
    };
    const names = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
    // A sandbox that lives as long as the benchmarks do: its bundle is what the baseline runs.
    await clawsec.must(
      "run",
      "--detach",
      "--name",
      "bench-bundle",
      "--policy",
      policy,
      ...names,
      "--",
      "/usr/bin/sleep",
      "3600",
    );
    baseline = new Baseline(join(runtime, "sandboxes/bench-bundle/bundle"));
    const setting: Setting = {
      clawsec,
      baseline,
      policy,
      variables,
      hostProgram: program,
      program: "/opt/bench/clawsec-bench",
      server: { address, name: "allowed.test", port: PORT },
      say: (text) => console.log(`bench: ${text}`),
    };
    const figures = policyFigures(folder);
    for (const result of figures) setting.say(line(result));
    await proveDenials(setting);
    figures.push(await tableFigure(clawsec, folder, runtime));
    setting.say(line(figures.at(-1) as Figure));
    for (const measure of [
      (of: Setting) => spawnFigure(of, "dynamic"),
      (of: Setting) => spawnFigure(of, "static"),
      askedFigures,
      busyFigure,
      () => ingestFigures(folder),
      roundTripFigure,
      throughputFigure,
      startFigure,
      holdFigure,
      killFigure,
    ]) {
      for (const result of [await measure(setting)].flat()) {
        figures.push(result);
        setting.say(line(result));
      }
    }
    for await (const result of workFigures(setting, folder, runtime)) {
      figures.push(result);
      setting.say(line(result));
    }
    console.log(`bench: written to ${write(figures)}`);
  } finally {
    baseline?.close();
    await clawsec.down();
    await hosts.close();
    rmSync(folder, { recursive: true, force: true });
    rmSync(runtime, { recursive: true, force: true });
  }
}

function line({ name, unit, baseline, ours, ratio, ratioP99 }: Figure): string {
  return (
    `${name}: baseline p50 ${baseline.p50} p99 ${baseline.p99} n ${baseline.n}; ours p50 ${ours.p50} p99 ${ours.p99} ` +
    `n ${ours.n} ${unit}; ratio ${ratio}, of the p99 ${ratioP99}`
  );
}

/** Reading, compiling, deciding: what needs no sandbox. */
function policyFigures(folder: string): Figure[] {
  const files = join(folder, "files");
  mkdirSync(files);
  return [
    ...SIZES.map((rules) => compileFigure(rules, files, rules > 1000 ? 12 : 30)),
    ...SIZES.map((rules) => lowerFigure(rules, files, rules > 1000 ? 12 : 30)),
    ...(["exec", "network"] as const).flatMap((section) => [
      decisionFigure("evaluator", section, files),
      decisionFigure("question to decision", section, files),
    ]),
  ];
}

/** Real work, in a sandbox of a policy of its own. */
async function* workFigures(setting: Setting, folder: string, runtime: string): AsyncGenerator<Figure> {
  const { clawsec } = setting;
  const work = join(folder, "work");
  mkdirSync(work);
  const pieces = await layOutWork(root, work);
  const policy = join(root, "test/bench/work.policy.yaml");
  const variables = { program: setting.hostProgram, checkout: root, work };
  const names = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const command = ["--", "/usr/bin/sleep", "3600"];
  await clawsec.must("run", "--detach", "--name", "bench-work", "--policy", policy, ...names, ...command);
  const baseline = new Baseline(join(runtime, "sandboxes/bench-work/bundle"));
  try {
    const own = { ...setting, policy, variables };
    for (const piece of pieces) yield await workFigure(own, baseline, piece);
  } finally {
    baseline.close();
  }
}

/** What the tables of 10,000 rules cost the loader, against those of 10. */
async function tableFigure(clawsec: Clawsec, folder: string, runtime: string): Promise<Figure> {
  const files = join(folder, "files");
  const loader = Number(readFileSync(join(runtime, "loader.pid"), "utf8"));
  const [small, large] = [writePolicy(10, files, folder), writePolicy(10_000, files, folder)];
  const command = ["--", "/usr/bin/sleep", "600"];
  await clawsec.must("run", "--detach", "--name", "bench-tables", "--policy", small, ...command);
  const [bare, ours]: number[][] = [[], []];
  for (let round = 0; round < 5; round++) {
    await clawsec.must("reload", "bench-tables", "--policy", small);
    bare?.push(residentKiB(loader));
    await clawsec.must("reload", "bench-tables", "--policy", large);
    ours?.push(residentKiB(loader));
  }
  await clawsec.must("kill", "bench-tables");
  const sizes = SIZES.map((rules) => `${rules} rules ${tableBytes(rules, files)} bytes`).join(", ");
  console.log(`bench: tables as they are sent to the loader: ${sizes}`);
  return figure(
    "memory of the loader with the tables of 10,000 rules",
    "KiB",
    "with those of 10 rules",
    bare ?? [],
    ours ?? [],
  );
}

function write(figures: readonly Figure[]): string {
  const time = new Date();
  const result = {
    time: time.toISOString(),
    commit: execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" }).trim(),
    script: "test/bench/main.ts",
    machine: {
      cpu: cpus()[0]?.model ?? "unknown",
      cores: availableParallelism(),
      kernel: release(),
      memoryKiB: Number(/MemTotal:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0),
      load: loadavg().map((value) => Number(value.toFixed(2))),
    },
    figures,
  };
  const folder = join(root, "test/bench/results");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${time.toISOString().replace(/[:.]/g, "-")}.json`);
  writeFileSync(file, `${JSON.stringify(result, null, 2)}\n`);
  return file;
}

await main().catch((error: unknown) => {
  console.error(`bench: it could not go on. ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
});
