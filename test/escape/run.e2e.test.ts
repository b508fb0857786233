// A short escape run, and proof that a way that works is found.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { globSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../agent/common/paths.js";
import { leaksAfter, namesOf } from "./leaks.js";
import { count, line, summary } from "./report.js";
import { runSolo, runWays } from "./run.js";
import { type Stage, setUp } from "./setup.js";
import { SOLO } from "./solo.js";
import { ran, sh, shown, type Way } from "./way.js";
import { WAYS } from "./ways.js";

let stage: Stage;
beforeAll(async () => {
  stage = await setUp();
}, 120_000);
afterAll(() => stage.close(), 60_000);

/** Some of each family and layer. */
const SHORT: ReadonlySet<string> = new Set([
  "exec-symlink",
  "exec-self-root",
  "exec-copy-trusted",
  "exec-memfd",
  "exec-devfd",
  "race-path-thread",
  "race-argv-process",
  "pack-held",
  "pack-gateway-program",
  "push-argv0",
  "secret-open",
  "proc-root",
  "proc-mem-write",
  "vm-read",
  "signal-gateway",
  "loopback-mapped",
  "entry-ld-preload",
  "bpf-map",
  "keyring",
  "filter-call",
  "unshare-mount",
  "clone3-user",
  "take-mask",
  "by-handle",
  "set-user",
  "file-cut",
  "file-rename-folder",
  "file-ring-write",
  "masked-hard-link-read",
  "guarded-read-open",
  "outside-read",
  "policy-edit",
  "tcp",
  "tcp-mapped",
  "fast-open",
  "udp",
  "packet",
  "mptcp",
  "unix-abstract-host",
  "clawsec-control-sock",
  "host-header",
  "private-answer",
]);

describe("an escape run", () => {
  test("sees no way out, and each way work without clawsec", async () => {
    const ways = WAYS.filter(({ id }) => SHORT.has(id));
    expect(ways.map(({ id }) => id).sort()).toEqual([...SHORT].sort());
    const results = await runWays(stage, ways);
    const bad = results.filter(({ control, sandbox }) => control !== "effect" || sandbox !== "none");
    expect(bad.map(line)).toEqual([]);
    expect(summary(results)).toBe(`escape: ${SHORT.size} ways, 0 effects, ${SHORT.size} controls worked`);
  }, 240_000);

  test("sees none with a sandbox of its own either", async () => {
    const ids = [
      ...["policy-user-zero", "guard-symlink", "survive-signals", "descriptor-left-open"],
      ...["reload-empty", "start-again", "map-full"],
    ];
    const said: string[] = [];
    const results = await runSolo(
      stage,
      SOLO.filter(({ id }) => ids.includes(id)),
      (text) => said.push(text),
    );
    expect(said).toEqual([]);
    expect(summary(results)).toBe("escape: 7 ways, 0 effects, 7 controls worked");
  }, 120_000);

  test("finds a way that works, and one that cannot work anywhere", async () => {
    const ways: Way[] = [
      sh("open", "what the policy allows", "none", shown, 'echo "effect $TOKEN"'),
      sh("never", "nothing at all", "none", ran, ":"),
    ];
    const results = await runWays(stage, ways);
    expect(results.map(({ control, sandbox }) => ({ control, sandbox }))).toEqual([
      { control: "effect", sandbox: "effect" },
      { control: "none", sandbox: "none" },
    ]);
    expect(count(results)).toEqual({ ways: 2, effects: 1, controls: 1, isGood: false });
  }, 120_000);
});

describe("an escape run that is ended by a signal", () => {
  /** Ends a run of its own when `isTime` says so. Resolves with its exit code and what it left. */
  async function ended(only: string, isTime: (pid: number) => boolean, signal: NodeJS.Signals) {
    const main = join(packageRoot(), "dist/test/escape/main.js");
    const child = spawn(process.execPath, [main], {
      env: { ...process.env, CLAWSEC_ESCAPE_ONLY: only },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr.on("data", (bytes: Buffer) => {
      said += bytes.toString();
    });
    const exit = once(child, "close");
    const pid = child.pid ?? 0;
    await expect
      .poll(() => isTime(pid) || child.exitCode !== null, { timeout: 60_000, interval: 20 })
      .toBe(true);
    child.kill(signal);
    const [code] = await exit;
    return { code, said, left: await leaksAfter(pid) };
  }

  const isThere = (pattern: string) => globSync(pattern).length > 0;

  test("in the container without clawsec leaves nothing behind", async () => {
    const isTime = (pid: number) => isThere(`/run/runc/${namesOf(pid).container}plain/state.json`);
    const { code, said, left } = await ended("^race-path-thread$", isTime, "SIGTERM");
    expect({ code, left }, said).toEqual({ code: 1, left: [] });
    expect(said).toContain("ended by SIGTERM");
  }, 120_000);

  test("in the sandbox leaves nothing behind", async () => {
    const isTime = (pid: number) => isThere(`${namesOf(pid).runtime}/runc/escape/state.json`);
    const { code, said, left } = await ended("^race-path-thread$", isTime, "SIGINT");
    expect({ code, left }, said).toEqual({ code: 1, left: [] });
  }, 120_000);

  test("while processes want to live on leaves none of them", async () => {
    const isTime = (pid: number) => isThere(`/var/tmp/${namesOf(pid).folder}*/*-survive-many/work/beat`);
    const { code, said, left } = await ended("^survive-many$", isTime, "SIGTERM");
    expect({ code, left }, said).toEqual({ code: 1, left: [] });
  }, 120_000);
});
