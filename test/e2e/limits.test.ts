// What a sandbox may use at most: each limit reached, beside something that stays below it.

import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CliResult } from "../support/clawsec.js";
import { Fixture } from "./fixture.js";

const fixture = new Fixture();
const { clawsec } = fixture;
const policy = join(fixture.folder, "limits.yaml");

beforeAll(async () => {
  writeFileSync(
    policy,
    `apiVersion: clawsec/v1
kind: Policy
metadata: { name: limits }
sandbox:
  user: { uid: 1000, gid: 1000, name: agent }
  home: /home/agent
  workspace: /home/agent
  mounts:
    - { source: /usr, target: /usr, mode: ro }
    - { type: tmpfs, target: /home/agent }
  limits: { memory: 128Mi, pids: 40, cpus: 0.25, openFiles: 64, tmpfs: 8Mi }
defaults: { exec: allow, network: deny }
`,
  );
  await fixture.start();
}, 120_000);
afterAll(() => fixture.stop(), 60_000);

let runs = 0;

async function run(script: string): Promise<CliResult> {
  runs += 1;
  return await clawsec.cli(
    "run",
    "--name",
    `limits-${runs}`,
    "--policy",
    policy,
    "--",
    "/bin/sh",
    "-c",
    script,
  );
}

test("processes: the fortieth cannot be made, twenty can", async () => {
  const start = (count: number) =>
    `i=0; while [ $i -lt ${count} ]; do sleep 60 & i=$((i+1)); echo $i; done; kill %1`;
  const many = await run(start(60));
  const made = many.stdout.trim().split("\n").length;
  expect(many.stderr).toMatch(/[Cc]annot fork/);
  expect(made).toBeGreaterThan(20);
  expect(made).toBeLessThan(40);
  const few = await run(start(20));
  expect(few.stdout.trim().split("\n")).toHaveLength(20);
  expect(few.stderr).not.toMatch(/[Cc]annot fork/);
}, 60_000);

test("memory: a program that wants more is killed, one that wants less is not", async () => {
  // tail keeps all of it until the end.
  const keep = (size: string) => `head -c ${size} /dev/zero | tail -c ${size} | wc -c`;
  expect((await run(keep("400M"))).stdout.trim()).toBe("0");
  expect((await run(keep("20M"))).stdout.trim()).toBe(`${20 << 20}`);
}, 60_000);

test("open files: the limit cannot be raised", async () => {
  expect((await run("ulimit -n")).stdout).toBe("64\n");
  const raised = await run("ulimit -n 65");
  expect(raised.code).not.toBe(0);
  expect((await run("ulimit -n 63 && ulimit -n")).stdout).toBe("63\n");
}, 60_000);

test("temporary files: more than the limit does not fit, less does", async () => {
  const write = (size: string) => `head -c ${size} /dev/zero > /tmp/file; stat -c %s /tmp/file`;
  const much = await run(write("20M"));
  expect(much.stderr).toContain("No space left");
  expect(Number(much.stdout)).toBeLessThanOrEqual(8 << 20);
  expect((await run(write("4M"))).stdout.trim()).toBe(`${4 << 20}`);
}, 60_000);

test("cpu: one that is used all the time is throttled, and a sleeping one is not", async () => {
  const start = async (name: string, ...command: string[]) =>
    await clawsec.must("run", "--detach", "--name", name, "--policy", policy, "--", ...command);
  await start("limits-busy", "/bin/sh", "-c", "while :; do :; done");
  await start("limits-idle", "/usr/bin/sleep", "600");
  for (let attempt = 0; throttled("limits-busy") < 5; attempt++) {
    if (attempt === 300) throw new Error("A quarter of a cpu was never throttled.");
    await sleep(100);
  }
  expect(throttled("limits-idle")).toBe(0);
  await clawsec.must("kill", "--all");
}, 90_000);

/** How often the kernel has kept a sandbox from running because of its cpu limit (cpu.stat; nr_throttled). */
function throttled(name: string): number {
  // With v1 the limit is in the hierarchy of the cpu controller, else in the only one.
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const v1 = mounts.find((line) => / - cgroup .*\bcpu\b(?!set)/.test(line));
  const mount = (v1 ?? mounts.find((line) => line.includes(" - cgroup2 ")))?.split(" ")[4];
  if (mount === undefined) throw new Error("No cgroup hierarchy is mounted.");
  const folders = readdirSync(mount)
    .filter((entry) => entry.startsWith("clawsec-"))
    .map((entry) => join(mount, entry, name))
    .filter((folder) => statSync(folder, { throwIfNoEntry: false })?.isDirectory());
  expect(folders).toHaveLength(1);
  const stat = readFileSync(join(folders[0] as string, "cpu.stat"), "utf8");
  return Number(/^nr_throttled (\d+)$/m.exec(stat)?.[1] ?? Number.NaN);
}
