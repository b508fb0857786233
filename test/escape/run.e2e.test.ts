// A short escape run, and proof that a way that works is found.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
    const ids = ["policy-user-zero", "guard-symlink", "survive-signals", "descriptor-left-open"];
    const said: string[] = [];
    const results = await runSolo(
      stage,
      SOLO.filter(({ id }) => ids.includes(id)),
      (text) => said.push(text),
    );
    expect(said).toEqual([]);
    expect(summary(results)).toBe("escape: 4 ways, 0 effects, 4 controls worked");
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
