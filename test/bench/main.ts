// `make bench`: proves that denials happen, takes every figure, writes one JSON to test/bench/results/.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Clawsec } from "../support/clawsec.js";
import { firstLine, makeTestHosts } from "../support/hosts.js";
import { Baseline } from "./baseline.js";
import {
  holdFigure,
  killFigure,
  proveDenials,
  roundTripFigure,
  type Setting,
  spawnFigure,
  startFigure,
  throughputFigure,
} from "./measures.js";
import type { Figure } from "./stats.js";

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
    const variables = { program, range: hosts.range, address, denied: hosts.addresses["other.test"] };
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
    await proveDenials(setting);
    const figures: Figure[] = [];
    for (const measure of [
      spawnFigure,
      roundTripFigure,
      throughputFigure,
      startFigure,
      holdFigure,
      killFigure,
    ]) {
      const result = await measure(setting);
      figures.push(result);
      const { name, unit, baseline: before, ours, ratio } = result;
      setting.say(
        `${name}: baseline p50 ${before.p50} p99 ${before.p99} n ${before.n}; ours p50 ${ours.p50} p99 ${ours.p99} ` +
          `n ${ours.n} ${unit}; ratio ${ratio}`,
      );
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
