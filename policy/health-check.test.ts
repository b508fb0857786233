// `sandbox.healthCheck`: what is said, what is left out, and what is wrong.

import { describe, expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import type { HealthCheck } from "./model.js";
import { parsePolicy } from "./schema.js";

const HEAD = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: t }
`;
const SUBJECTS = `subjects:
  - { name: gateway }
  - { name: tool, enters: [{ from: gateway, executable: /usr/bin/env }] }
`;

function parse(healthCheck: string, more = "", base?: string) {
  const key = healthCheck === "" ? "" : `  healthCheck: ${healthCheck}\n`;
  const text = `${HEAD}${more}sandbox:\n  mounts: [{ source: /usr }]\n${key}`;
  return parsePolicy(text, "p.yaml", {
    base: () => (base === undefined ? { error: "there is none" } : { file: "base.yaml", text: base }),
  });
}

function read(healthCheck: string, more = "", base?: string): HealthCheck | undefined {
  const { policy, diagnostics } = parse(healthCheck, more, base);
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  return policy.sandbox.healthCheck;
}

const said = (healthCheck: string, more = "") => renderDiagnostics(parse(healthCheck, more).diagnostics);

test("what is left out is as in Docker, and the subject is that of the main command", () => {
  expect(read("{ command: [/bin/true, 1] }", SUBJECTS)).toEqual({
    command: ["/bin/true", "1"],
    subject: "gateway",
    intervalMs: 30_000,
    timeoutMs: 30_000,
    retries: 3,
    startPeriodMs: 0,
  });
  expect(read("")).toBe(undefined);
});

test("each key says what it says", () => {
  const all =
    "{ command: [/bin/true], subject: tool, interval: 500ms, timeout: 2s, retries: 1, startPeriod: 1m }";
  expect(read(all, SUBJECTS)).toEqual({
    command: ["/bin/true"],
    subject: "tool",
    intervalMs: 500,
    timeoutMs: 2000,
    retries: 1,
    startPeriodMs: 60_000,
  });
});

test("a nearer file changes it key by key, and an empty command takes it away", () => {
  const base = `${HEAD}sandbox: { healthCheck: { command: [/bin/a, b], interval: 1s, retries: 7 } }\n`;
  const nearer = read("{ interval: 5s }", "extends: base\n", base);
  expect(nearer).toMatchObject({ command: ["/bin/a", "b"], intervalMs: 5000, retries: 7 });
  expect(read("{ command: [] }", "extends: base\n", base)).toBe(undefined);
  expect(read("", "extends: base\n", base)).toMatchObject({ intervalMs: 1000 });
});

test("a policy with another check has another hash, and one without has the hash that it always had", () => {
  const hash = (healthCheck: string) => parse(healthCheck).policy?.hash;
  expect(hash("{ command: [/bin/a] }")).not.toBe(hash("{ command: [/bin/b] }"));
  expect(hash("{ command: [] }")).toBe(hash(""));
});

describe("what is wrong is said", () => {
  test.each([
    ["{ interval: 5s }", 'the health check needs the key "command"'],
    ["{ command: /bin/true }", "the command of the health check must be a list, not text"],
    ['{ command: [""] }', "the program of the health check must not be empty"],
    ["{ command: [/bin/true], interval: 0s }", 'the interval of the health check "0s" is not a duration'],
    ["{ command: [/bin/true], timeout: soon }", 'the timeout of the health check "soon" is not a duration'],
    ["{ command: [/bin/true], retries: 0 }", "must be a whole number from 1 to 1000"],
    ["{ command: [/bin/true], subject: tool }", 'the subject of the health check cannot be "tool"'],
    ["{ command: [/bin/true], retry: 2 }", 'unknown key "retry" in the health check'],
    ["[/bin/true]", "the health check must be a mapping, not a list"],
  ])("%s", (healthCheck, message) => {
    expect(said(healthCheck)).toContain(message);
  });
});
