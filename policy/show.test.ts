// What is shown is the policy: reading it again gives the same hash.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import { parsePolicy, type ReadBase } from "./schema.js";
import { renderPolicy } from "./show.js";
import { policyText } from "./testing/policy.js";

const read = (text: string, base?: ReadBase, variables: Record<string, string> = {}) => {
  const { policy, diagnostics } = parsePolicy(text, "test.yaml", { variables, ...(base && { base }) });
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  return policy;
};

const EVERYTHING = `mode: observe
waive: [{ name: file/one, reason: "it costs $5" }]
variables: { dir: "/srv/$$x", star: "a*b" }
sandbox:
  command: [/bin/sh, -c, "echo $$HOME", "", "- x", "true", "1"]
  user: { uid: 1001, gid: 1002, name: bot }
  environment: { A: "1", B: "x: y", C: "$\${x}" }
  mounts:
    - { source: /usr }
    - { source: "\${dir}", target: /home/agent, mode: rw, exec: false, optional: true }
    - { type: tmpfs, target: /scratch, size: 12345, exec: true }
  limits: { memory: 300Mi, cpus: 0.5 }
  publish: [{ host: "[::1]:8080", sandbox: 80 }]
  healthCheck: { command: [/bin/true, "$$x"], subject: tool, interval: 7s, retries: 5, startPeriod: 90s }
  supervisorGrace: 1500ms
subjects:
  - { name: main, loopback: { ports: [80, 81] } }
  - name: tool
    enters: [{ from: main, executable: /.clawsec/bash, argv: { prefix: [a] } }]
    entry: { path: /.clawsec/bash, exec: /usr/bin/bash }
    files: { read: [/usr, { path: /opt, optional: true }], write: [/tmp], exec: [/usr] }
    loopback: any
exec:
  - { id: floor, executable: /usr/bin/su, action: deny, locked: true, message: "no: never" }
  - id: all
    subject: [main, tool]
    executable: ["/usr/**", "/opt/{a,b}/\${star}"]
    script: /x/?
    cwd: /w/**
    environment: [LD_PRELOAD, "NODE_*"]
    parent: /usr/bin/make
    ancestor: [/usr/bin/make, "**/sh"]
    inWorkspace: false
    argv: { glob: ["*", "**"], exact: [a, "b c"], regex: ["^x$$"], flags: ["-r|-R|--recursive"], without: [-f], valued: ["-C|--directory"] }
    action: hold
    hold: { timeout: 90s, default: allow }
    when: [{ days: [mon-fri], from: "22:00", to: "06:00", timeZone: Europe/Berlin }, { days: sun }]
    rate: { max: 3, per: 1h }
    because: "because # of this"
    severity: high
    tags: [a, b]
    mode: observe
  - { id: none, kind: [anonymous], executable: "/memfd:*", argv: { exact: [] }, action: log }
file:
  - { id: one, path: [/data, "/data/*.txt"], operations: [open, delete], owner: [root, user, 7], optional: true, action: hold }
network:
  - { id: web, host: ["*.x.com", y.com], ports: [80, "8000-8080"], method: [GET], path: /v1/**, resolvesTo: 10.0.0.0/8, action: allow }
  - { id: net, cidr: 192.0.2.0/24, protocol: tls, action: deny }
secrets: { items: [{ name: k, file: /srv/k }] }
approvals: { timeout: 61s, default: allow }
resolver: { hosts: { m.test: 192.0.2.1 } }
`;

describe("reading what is shown gives the same hash", () => {
  test("for a policy that uses everything", () => {
    const policy = read(policyText(EVERYTHING));
    const shown = renderPolicy(policy);
    expect(read(shown).hash).toBe(policy.hash);
    expect(renderPolicy({ ...policy })).toBe(shown);
  });

  test.each(["default", "openclaw"])("for the pack %s", (name) => {
    const text = readFileSync(join(import.meta.dirname, "packs", `${name}.yaml`), "utf8");
    const all = { workspace: "/w", openclaw: "/o", home: "/h", gatewayToken: "/t", modelKey: "/k" };
    const given = Object.fromEntries(
      Object.entries(all).filter(([key]) => text.slice(0, text.indexOf("\nsandbox:")).includes(`  ${key}:`)),
    );
    const policy = read(text, undefined, given);
    expect(read(renderPolicy(policy)).hash).toBe(policy.hash);
  });
});

test("each rule says where it is written and that it is locked, also over several files", () => {
  const base: ReadBase = (reference) => ({
    file: "/team.yaml",
    text: `apiVersion: clawsec/v1
kind: Policy
metadata: { name: team }
exec:
  - { id: su, executable: /usr/bin/su, action: deny, locked: true }
  - { id: usr, executable: /usr/**, action: allow }
${reference === "./team.yaml" ? "" : "x: y"}
`,
  });
  const policy = read(
    policyText(
      "extends: ./team.yaml\nexec:\n  - { id: git, executable: /usr/bin/git, action: log, mode: observe }",
    ),
    base,
  );
  const shown = renderPolicy(policy);
  expect(shown).toContain("# It extends ./team.yaml.");
  expect(shown).toMatch(/# \/team\.yaml:5, locked.*\n\s+- ?(?:#.*\n\s+)?id: su\n/);
  expect(shown).toMatch(/# test\.yaml:12, observes only\n.*id: git/);
  expect(read(shown).hash).toBe(policy.hash);
});
