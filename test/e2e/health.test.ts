// A sandbox's health check: a command under the sandbox's own rules, said in ps and the audit, and ended with the sandbox.

import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Fixture } from "./fixture.js";

const fixture = new Fixture();
const { clawsec } = fixture;

beforeAll(() => fixture.start(), 120_000);
afterEach(async () => {
  await clawsec.must("kill", "--all");
});
afterAll(() => fixture.stop(), 60_000);

function policy(name: string, check: string): string {
  const path = join(fixture.folder, `${name}.yaml`);
  writeFileSync(
    path,
    `apiVersion: clawsec/v1
kind: Policy
metadata: { name: ${name} }
sandbox:
  command: [/usr/bin/sleep, "1000"]
  user: { uid: 1000, gid: 1000, name: agent }
  home: /workspace
  workspace: /workspace
  mounts:
    - { source: /usr, target: /usr, mode: ro }
    - { source: ${fixture.workspace}, target: /workspace, mode: rw }
  healthCheck: { ${check} }
subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /usr/bin/env }]
exec:
  - { id: no-shred, executable: /usr/bin/shred, action: deny, message: files are not shredded here }
  - { id: main-only, subject: tool, executable: /usr/bin/nproc, action: deny }
  - { id: ask-factor, executable: /usr/bin/factor, action: hold }
  - { id: rest, executable: "/usr/bin/**", action: allow }
`,
  );
  return path;
}

async function start(name: string, check: string): Promise<void> {
  await clawsec.must("run", "--detach", "--policy", policy(name, check));
}

interface Health {
  state: string;
  failures: number;
  detail: string;
  rule: string;
}

async function health(name: string): Promise<Health | null | undefined> {
  const { sandboxes } = JSON.parse(await clawsec.must("ps", "--json"));
  return sandboxes.find((each: { name: string }) => each.name === name)?.health;
}

async function becomes(name: string, state: string): Promise<Health> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const now = await health(name);
    if (now?.state === state) return now;
    await sleep(100);
  }
  throw new Error(`${name} never became ${state}: ${JSON.stringify(await health(name))}`);
}

async function changes(name: string): Promise<string[]> {
  const records = await clawsec.audit({ sandbox: name, kinds: ["sandbox"], text: "health check" });
  return records.map(({ summary }) => summary);
}

/** How many processes of the host have just these arguments. */
function running(...argv: string[]): number {
  const wanted = argv.map((argument) => `${argument}\0`).join("");
  const is = (pid: string) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1") === wanted;
    } catch {
      // It ended meanwhile.
      return false;
    }
  };
  return readdirSync("/proc").filter(is).length;
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (done()) return;
    await sleep(50);
  }
  throw new Error(`It did not happen: ${what}.`);
}

test("a check runs as the sandbox's user and says healthy, unhealthy after its retries, and healthy again", async () => {
  const up = join(fixture.workspace, "up");
  writeFileSync(up, "");
  // By rename, since the next check begins the file again.
  const script = "id -u > seen.new; mv seen.new seen; test -e up || { echo the file is gone >&2; exit 3; }";
  await start("well", `command: [/usr/bin/sh, -c, "${script}"], interval: 200ms, retries: 2`);
  await becomes("well", "healthy");
  expect(fixture.left("seen")).toBe("1000\n");
  expect(await clawsec.must("ps")).toMatch(/^well +running \(healthy\) /m);
  rmSync(up);
  const sick = await becomes("well", "unhealthy");
  expect(sick).toMatchObject({ rule: "", detail: "ended with code 3: the file is gone" });
  expect(sick.failures).toBeGreaterThanOrEqual(2);
  expect(await clawsec.must("ps")).toContain(
    "well is unhealthy; its last health check: ended with code 3: the file is gone",
  );
  writeFileSync(up, "");
  expect(await becomes("well", "healthy")).toMatchObject({ failures: 0, detail: "" });
  expect(await changes("well")).toEqual([
    "health check: healthy",
    "health check: unhealthy: ended with code 3: the file is gone",
    "health check: healthy",
  ]);
});

test("a check that a rule denies is unhealthy at once and says by which, beside one that is allowed", async () => {
  await start("shut", "command: [/usr/bin/shred, --version], interval: 200ms");
  await start("open", "command: [/usr/bin/nproc], interval: 200ms");
  expect(await becomes("shut", "unhealthy")).toMatchObject({
    rule: "exec/no-shred",
    detail: "denied by rule exec/no-shred: files are not shredded here",
  });
  expect(await changes("shut")).toEqual([
    "health check: unhealthy: denied by rule exec/no-shred: files are not shredded here",
  ]);
  await becomes("open", "healthy");
  // As another subject it has that one's rules.
  await start("tools", "command: [/usr/bin/nproc], subject: tool, interval: 200ms");
  expect(await becomes("tools", "unhealthy")).toMatchObject({ rule: "exec/main-only" });
  expect(await fixture.records("tools", "exec/main-only")).not.toEqual([]);
});

test("a check that is held fails at its timeout, says by which rule, and its hold ends with it", async () => {
  await start("asked", "command: [/usr/bin/factor, 42], interval: 200ms, timeout: 1s, retries: 1");
  expect((await becomes("asked", "unhealthy")).detail).toBe(
    "killed after 1 s, held by rule exec/ask-factor all the time",
  );
  const holds = JSON.parse(await clawsec.must("holds", "--sandbox", "asked", "--all", "--json")).holds;
  expect(holds.map(({ outcome }: { outcome: string }) => outcome)).toContain("requester gone");
});

test("a check that hangs is killed at its timeout with what it started, and one in time is not", async () => {
  // It would go on when asked to end.
  const script = "trap '' TERM HUP; sleep 5432; true";
  const keys = "interval: 100ms, timeout: 1s, retries: 1";
  await start("hung", `command: [/usr/bin/sh, -c, "${script}"], ${keys}`);
  await until("the check runs", () => running("sleep", "5432") === 1);
  expect((await becomes("hung", "unhealthy")).detail).toBe("killed after 1 s");
  for (let seen = 0; seen < 20; seen++) {
    expect(running("sleep", "5432")).toBeLessThanOrEqual(1);
    await sleep(100);
  }
  expect((await health("hung"))?.failures).toBeGreaterThanOrEqual(2);
  await start("slow", "command: [/usr/bin/sleep, 0.3], interval: 100ms, timeout: 30s, retries: 1");
  await becomes("slow", "healthy");
});

test("a sandbox that ends while its check runs takes it along, and that is no failure", async () => {
  await start("brief", "command: [/usr/bin/sleep, 4321], interval: 100ms, timeout: 1h, retries: 1");
  await until("the check runs", () => running("/usr/bin/sleep", "4321") === 1);
  expect(JSON.parse(await clawsec.must("kill", "brief", "--json")).survivors).toBe(0);
  expect(running("/usr/bin/sleep", "4321")).toBe(0);
  expect(existsSync(join(fixture.runtime, "sandboxes", "brief"))).toBe(false);
  await sleep(500);
  expect(await changes("brief")).toEqual([]);
  expect(await health("brief")).toBe(undefined);
});

test("a supervisor that comes back goes on with the checks", async () => {
  await start("stays", "command: [/usr/bin/true], interval: 200ms");
  await becomes("stays", "healthy");
  process.kill(JSON.parse(await clawsec.must("status", "--json")).pid, "SIGKILL");
  await clawsec.lost();
  await clawsec.up();
  await becomes("stays", "healthy");
}, 120_000);
