// What must hold for every policy and every action, tried on random ones.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type ExecAction,
  type FileAction,
  type NetworkAction,
  type NetworkRow,
  type NetworkTable,
  type Process,
  Verdict,
} from "../proto/gen/clawsec/v1/loader.js";
import { compile } from "./compile.js";
import { type Action, evaluate, type Moment } from "./evaluate.js";
import type { Policy, RuleAction } from "./model.js";
import { capabilities, SYSTEM, tableHost } from "./testing/host.js";
import { connect, exec, policy } from "./testing/policy.js";
import { why } from "./why.js";

const host = tableHost([...SYSTEM, "/srv/home/", "/srv/data/"]);
const actions = fc.constantFrom<RuleAction>("allow", "deny", "hold", "log");
const SUBJECTS = `subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /usr/bin/tool }]
`;
const subjectKey = fc.constantFrom("", "subject: main, ", "subject: tool, ", "subject: [main, tool], ");

const hosts = fc.constantFrom(
  "x.com",
  "a.x.com",
  "b.a.x.com",
  "evilx.com",
  "y.com",
  "a.y.com",
  "X.com.",
  "x.com.y.com",
);
const hostPatterns = fc.constantFrom(
  '"*"',
  '"*.x.com"',
  "x.com",
  "a.x.com",
  '"*.com"',
  "y.com",
  '[x.com, "*.y.com"]',
);
const addresses = fc.constantFrom("192.0.2.1", "192.0.2.130", "198.51.100.7", "10.1.2.3", "::ffff:192.0.2.1");
const cidrs = fc.constantFrom("192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "10.0.0.0/8", "198.51.100.7");
const portKeys = fc.constantFrom("", ", ports: 443", ', ports: [80, "8000-8100"]', ", ports: [443, 22]");
const ports = fc.constantFrom(22, 80, 443, 8000, 8100, 8101);

const networkRule = fc.record({ subjectKey, isName: fc.boolean(), hostPatterns, cidrs, portKeys, actions });
const networkText = (rules: readonly (typeof networkRule extends fc.Arbitrary<infer T> ? T : never)[]) =>
  rules
    .map(
      (r, i) =>
        `  - { id: r${i}, ${r.subjectKey}${r.isName ? `host: ${r.hostPatterns}` : `cidr: ${r.cidrs}`}${r.portKeys}, action: ${r.actions} }`,
    )
    .join("\n");

/** The gate's reading of a table, written from the comments of loader.proto alone. */
function gate(table: NetworkTable, action: Action): { verdict: Verdict; rule: string } {
  if (action.action?.$case !== "network") throw new Error("not a connection");
  const { host: written, address, port } = action.action.value;
  const name = written.toLowerCase().replace(/\.$/, "");
  const number = (text: string) =>
    text
      .replace("::ffff:", "")
      .split(".")
      .reduce((n, part) => n * 256 + Number(part), 0);
  const matches = (row: NetworkRow) => {
    if (row.subjects.length > 0 && !row.subjects.includes(action.subject)) return false;
    if (row.ports.length > 0 && !row.ports.some((p) => p.first <= port && port <= p.last)) return false;
    if (row.host !== "") {
      if (name === "") return false;
      if (row.host === "*" || row.host === name) return true;
      return row.host.startsWith("*.") && name.endsWith(row.host.slice(1)) && name.length >= row.host.length;
    }
    if (address === "") return false;
    const [network = "", bits = ""] = row.cidr.split("/");
    const size = 2 ** (32 - Number(bits));
    return Math.floor(number(network) / size) === Math.floor(number(address) / size);
  };
  const row = table.rows.find(matches);
  return row === undefined ? { verdict: table.defaultVerdict, rule: table.defaultRule } : row;
}

const networkPolicy = fc.record({ rules: fc.array(networkRule, { maxLength: 6 }), fallback: actions });
const peers = fc.oneof(hosts, addresses);
const who = fc.constantFrom("main", "tool");

describe("the gate's table and the evaluator", () => {
  test("say the same of every connection, and name the same rule", () => {
    fc.assert(
      fc.property(networkPolicy, peers, ports, who, ({ rules, fallback }, peer, port, subject) => {
        const p = policy(
          `${SUBJECTS}defaults: { network: ${fallback} }\nnetwork:\n${networkText(rules) || "  []"}`,
        );
        const table = compile(p, { host, capabilities: capabilities() }).artefacts?.tables?.network;
        if (table === undefined) throw new Error("no table");
        const action = connect(peer, port, subject);
        const asked = evaluate(p, action);
        const ruled = gate(table, action);
        expect(ruled.rule).toBe(asked.rule);
        expect(ruled.verdict).toBe(asked.verdict === Verdict.HOLD ? Verdict.ASK : asked.verdict);
      }),
      { numRuns: 250 },
    );
  });
});

/** More is permitted the higher it is. */
const PERMITS: Partial<Record<Verdict, number>> = {
  [Verdict.DENY]: 0,
  [Verdict.HOLD]: 1,
  [Verdict.LOG]: 2,
  [Verdict.ALLOW]: 2,
};
const permits = (p: Policy, action: Action) => PERMITS[evaluate(p, action).verdict] ?? Number.NaN;

const executables = fc.constantFrom(
  "/usr/bin/git",
  "/usr/bin/dash",
  "/usr/lib/x/y",
  "/srv/a.sh",
  "/tmp/b",
  "/opt/c",
);
const execPatterns = fc.constantFrom(
  "/usr/**",
  "/usr/bin/*",
  "/**",
  "/tmp/*",
  "/srv/a.sh",
  "/usr/bin/{git,dash}",
  "/opt/?",
);
const argvKeys = fc.constantFrom("", ', argv: ["*", push]', ', argv: ["*", "**", x, "**"]', ', argv: ["**"]');
const argvs = fc
  .array(fc.constantFrom("push", "x", "-v", ""), { maxLength: 4 })
  .map((rest) => ["prog", ...rest]);
const execRule = fc.record({ subjectKey, execPatterns, argvKeys, actions });
const execText = (
  rules: readonly { subjectKey: string; execPatterns: string; argvKeys: string; actions: string }[],
) =>
  rules
    .map(
      (r, i) =>
        `  - { id: r${i}, ${r.subjectKey}executable: "${r.execPatterns}"${r.argvKeys}, action: ${r.actions} }`,
    )
    .join("\n");
const execActions = fc
  .record({
    executable: executables,
    script: fc.oneof(fc.constant(""), executables),
    argv: argvs,
    subject: who,
  })
  .map(({ subject, ...facts }) => exec(facts, subject));

describe("a denial put first", () => {
  test("never permits an exec that was not permitted before, and denies what it names", () => {
    fc.assert(
      fc.property(
        fc.array(execRule, { maxLength: 5 }),
        execRule,
        execActions,
        actions,
        (rules, first, action, fallback) => {
          const head = `${SUBJECTS}defaults: { exec: ${fallback} }\nexec:\n`;
          const before = policy(head + (execText(rules) || "  []"));
          const denial = execText([{ ...first, actions: "deny" }]).replace("id: r0", "id: first");
          const after = policy(`${head + denial}\n${execText(rules)}`);
          expect(permits(after, action)).toBeLessThanOrEqual(permits(before, action));
          const verdict = evaluate(after, action);
          if (verdict.rule === "exec/first") expect(verdict.verdict).toBe(Verdict.DENY);
          else expect(verdict.verdict).toBe(evaluate(before, action).verdict);
        },
      ),
      { numRuns: 250 },
    );
  });

  test("never permits a connection that was not permitted before", () => {
    fc.assert(
      fc.property(
        networkPolicy,
        networkRule,
        peers,
        ports,
        who,
        ({ rules, fallback }, first, peer, port, subject) => {
          const head = `${SUBJECTS}defaults: { network: ${fallback} }\nnetwork:\n`;
          const before = policy(head + (networkText(rules) || "  []"));
          const denial = networkText([{ ...first, actions: "deny" }]).replace("id: r0", "id: first");
          const after = policy(`${head + denial}\n${networkText(rules)}`);
          const action = connect(peer, port, subject);
          expect(permits(after, action)).toBeLessThanOrEqual(permits(before, action));
        },
      ),
      { numRuns: 250 },
    );
  });
});

describe("the evaluator", () => {
  const p = policy(`${SUBJECTS}exec:
  - { id: a, executable: /usr/**, script: "/**", cwd: "/**", argv: ["*", "{a,b}*", "**"], action: hold }
  - { id: b, executable: /usr/**, environment: "*x*", parent: "/**", action: deny, locked: true }
  - { id: c, ancestor: /usr/**, inWorkspace: false, argv: { regex: "(a|b)+$", flags: "-a|--all", valued: -b }, action: hold }
  - { id: d, sha256: ${"a".repeat(64)}, argv: { exact: [], without: -c }, action: deny, mode: observe }
  - { id: e, executable: "/**", when: { to: "12:00", timeZone: Europe/Berlin }, rate: { max: 1, per: 1s }, action: log }
file:
  - { id: a, path: "/home/agent/**/x?", operations: [open, rename, create, chmod], action: log }
  - { id: b, path: "/", operations: [delete, link], owner: [root, user], action: hold, locked: true }
network:
  - { id: a, host: "*.com", action: allow }
  - { id: b, cidr: 0.0.0.0/0, method: GET, path: "/{a,b}/**", action: allow }
  - { id: c, host: "*", protocol: [tls, other], action: hold, rate: { max: 1, per: 1s } }
`);
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string().map((s) => `/${s}`),
    fc.constant("/usr/bin/x"),
  );
  const number = fc.oneof(fc.integer({ min: -1, max: 70000 }), fc.double());
  const anyExec: fc.Arbitrary<ExecAction> = fc.record({
    requestedPath: text,
    executable: text,
    script: text,
    argv: fc.array(text),
    argvTruncated: fc.boolean(),
    cwd: text,
    environmentNames: fc.array(text),
    fileId: text,
    scriptFileId: text,
    kind: number,
    execId: text,
    argvHash: text,
    contextHash: text,
    executableSha256: text,
    scriptSha256: text,
    nestedScripts: fc.array(text),
    nestedSha256: fc.array(text),
    loader: text,
    loaderSha256: text,
    code: fc.integer({ min: -1, max: 6 }),
    scriptUnknown: text,
    check: fc.boolean(),
  });
  const anyFile: fc.Arbitrary<FileAction> = fc.record({
    operation: number,
    path: text,
    targetPath: text,
    fileId: text,
    ownerUid: number,
  });
  const anyNetwork: fc.Arbitrary<NetworkAction> = fc.record({
    protocol: number,
    host: text,
    address: text,
    port: number,
    observedHost: text,
    observedProtocol: number,
    rule: text,
    httpMethod: text,
    httpPath: text,
  });
  const anyProcess: fc.Arbitrary<Process> = fc.record({
    pid: number,
    sandboxPid: number,
    uid: number,
    gid: number,
    execId: text,
    ancestors: fc.array(text),
    executable: text,
    comm: text,
    ancestorExecutables: fc.array(text),
    ancestorsTruncated: fc.boolean(),
  });
  const anyMoment: fc.Arbitrary<Moment | undefined> = fc.option(
    fc
      .record({ timeMs: fc.double(), used: fc.double() })
      .map(({ timeMs, used }) => ({ timeMs, used: () => used })),
    { nil: undefined },
  );
  const any: fc.Arbitrary<Action> = fc.record({
    subject: fc.oneof({ weight: 3, arbitrary: fc.constant("main") }, { weight: 1, arbitrary: text }),
    process: fc.option(anyProcess, { nil: undefined }),
    action: fc.oneof(
      anyExec.map((value) => ({ $case: "exec" as const, value })),
      anyFile.map((value) => ({ $case: "file" as const, value })),
      anyNetwork.map((value) => ({ $case: "network" as const, value })),
      fc.constant(undefined),
    ),
  });

  test("has a verdict, a rule and a bounded sentence for everything", () => {
    fc.assert(
      fc.property(any, anyMoment, fc.constantFrom("enforce", "observe"), (action, moment, mode) => {
        const { evaluation: e } = why({ ...p, mode }, action, moment);
        expect([Verdict.ALLOW, Verdict.DENY, Verdict.HOLD, Verdict.LOG]).toContain(e.verdict);
        expect(e.rule).not.toBe("");
        expect(e.message.length).toBeLessThan(1000);
        expect(e.hold !== undefined).toBe(e.verdict === Verdict.HOLD);
        if (e.verdict === Verdict.DENY) expect(e.message).not.toBe("");
        if (e.observed !== undefined) expect([Verdict.DENY, Verdict.HOLD]).toContain(e.observed.verdict);
      }),
      { numRuns: 1000 },
    );
  });

  test("denies everything by a subject that the policy does not have", () => {
    fc.assert(
      fc.property(any, (action) => {
        expect(evaluate(p, { ...action, subject: "nobody" }).verdict).toBe(Verdict.DENY);
      }),
    );
  });
});
