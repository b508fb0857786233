// What is mutated: the ready policies and their tests, the documentation's examples, policies of the tests.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface Seeds {
  /** Whole files. */
  readonly files: readonly string[];
  /** Sections of them, each as its own first line and its items. */
  readonly sections: readonly { readonly head: string; readonly items: readonly string[] }[];
  /** Single lines of all of them, each once: what is put into other files. */
  readonly lines: readonly string[];
  /** Keys of the language, as the files have them. */
  readonly keys: readonly string[];
}

/** What mutations begin with besides whole policies: small, so that there is time for many. */
const SMALL = [
  "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: small }\nsandbox: { command: [/x], mounts: [{ source: /usr }] }\n",
  `apiVersion: clawsec/v1
kind: Policy
metadata: { name: rules, description: some of each }
mode: enforce
variables: { top: /srv/x, more: "\${top}/y" }
sandbox:
  command: [/usr/bin/dash]
  mounts: [{ source: /usr }, { source: "\${top}", target: /home/agent, mode: rw }]
subjects: [{ name: main, loopback: any }, { name: tool, enters: [{ from: main, executable: /usr/bin/git }] }]
defaults: { exec: deny, network: deny, file: deny }
exec:
  - { id: a, executable: "/usr/**", argv: { flags: ["-r|--recursive"], without: [-f], regex: "^x+$" }, action: deny, locked: true, tags: [x], severity: high }
  - { id: b, executable: /usr/bin/{git,dash}, argv: ["*", "**", push], action: hold, hold: { timeout: 1m, default: deny }, match: "/usr/bin/git push" }
  - { id: c, script: "**/x.sh", executable: /usr/bin/dash, when: { days: mon-fri, from: "09:00", to: "18:00", timeZone: Europe/Berlin }, rate: { max: 3, per: 1m }, action: allow }
  - { id: d, kind: anonymous, environment: "LD_*", parent: /usr/**, ancestor: /usr/bin/git, mode: observe, action: deny }
file:
  - { id: a, path: /home/agent/x, operations: [read, open], owner: [root, 7], action: deny, optional: true }
  - { id: b, path: "/home/agent/*.env", operations: open, action: hold, subject: tool }
network:
  - { id: a, host: ["*.x.com", y.com], ports: [443, 8000-8100], protocol: [tls], action: allow, resolvesTo: 10.0.0.0/8 }
  - { id: b, host: z.com, method: [GET, HEAD], path: /v1/**, action: log, match: "GET http://z.com/v1/x" }
  - { id: c, cidr: 192.0.2.0/24, port: 80, action: deny, message: no }
secrets: { mount: /run/secrets/clawsec, items: [{ name: key, file: /srv/key }] }
approvals: { timeout: 5m, default: deny }
resolver: { hosts: { x.test: 192.0.2.1 } }
waive: [{ name: nftables, reason: a test }]
`,
  `apiVersion: clawsec/v1
kind: Policy
metadata: { name: near }
extends: [./base.yaml, builtin:default]
exec: [{ id: own, executable: /usr/bin/true, action: deny }]
`,
  `apiVersion: clawsec/v1
kind: PolicyTest
policy: ./policy.yaml
variables: { x: /srv }
cases:
  - { name: one, exec: "/usr/bin/git push origin", subject: main, expect: deny }
  - { name: two, file: "rename /a /b", at: "2026-11-22T10:00:00Z", expect: { verdict: hold, rule: file/x } }
  - { name: three, network: { host: x.com, port: 443, protocol: tls }, expect: { verdict: allow, layer: rule } }
`,
];

function examples(markdown: string): string[] {
  return [...markdown.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, text = ""]) => text);
}

/** Reads the seeds of the repository at `root`. */
export function readSeeds(root: string): Seeds {
  const read = (...parts: string[]) => readFileSync(join(root, ...parts), "utf8");
  const packs = readdirSync(join(root, "policy/packs")).filter((name) => name.endsWith(".yaml"));
  const files = [
    ...SMALL,
    ...SMALL,
    ...examples(read("docs/policy.md")),
    ...packs.map((name) => read("policy/packs", name)),
    read("test/e2e/verdicts.policy.yaml"),
    read("test/e2e/subjects.policy.yaml"),
  ];
  const lines = [...new Set(files.flatMap((file) => file.split("\n")))].filter((line) => line.trim() !== "");
  const keys = new Set(
    files.flatMap((file) => [...file.matchAll(/([A-Za-z]+):/g)].map(([, key = ""]) => key)),
  );
  return { files, sections: files.flatMap(sectionsOf), lines, keys: [...keys] };
}

/** Top-level keys with what is indented below them. */
function sectionsOf(file: string): Seeds["sections"][number][] {
  return file.split(/\n(?=[A-Za-z])/).flatMap((part) => {
    const [head = "", ...rest] = part.split("\n");
    if (!/^[a-z]+:/i.test(head) || /^(apiVersion|kind|metadata|sandbox):/.test(head)) return [];
    const items = rest.join("\n").split(/\n(?= {2}\S)/);
    return [{ head, items: items.filter((item) => item.trim() !== "") }];
  });
}
