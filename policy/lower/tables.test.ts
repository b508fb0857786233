// The gates' tables against the evaluator: a table may ask, and what it decides by itself the evaluator decides the
// same way, at whatever moment. Both readers of tables here are written from the comments of loader.proto alone.

import fc from "fast-check";
import { RE2JS } from "re2js";
import { describe, expect, test } from "vitest";
import {
  type ExecRow,
  type ExecTable,
  type NetworkAction,
  type NetworkRow,
  type NetworkTable,
  ObservedProtocol,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { compile } from "../compile.js";
import { evaluate, type Moment } from "../evaluate.js";
import type { Policy } from "../model.js";
import { capabilities, SYSTEM, tableHost } from "../testing/host.js";
import { connect, exec, policy } from "../testing/policy.js";

const host = tableHost([...SYSTEM, "/srv/home/", "/srv/data/"]);

function tables(p: Policy): { exec: ExecTable; network: NetworkTable } {
  const { artefacts, diagnostics } = compile(p, { host, capabilities: capabilities() });
  // Some policies are refused (addresses that are open only at times): there is no table to compare.
  fc.pre(diagnostics.every((d) => d.severity === "warning" || d.code !== "cannot-enforce"));
  const made = artefacts?.tables;
  if (made?.exec === undefined || made.network === undefined) throw new Error("no tables");
  return { exec: made.exec, network: made.network };
}

const matchers = new Map<string, RE2JS>();
function whole(expression: string, text: string): boolean {
  const compiled = matchers.get(expression) ?? RE2JS.compile(expression);
  matchers.set(expression, compiled);
  return compiled.matcher(text).matches();
}

function isFor({ subjects }: { subjects: string[] }, subject: string): boolean {
  return subjects.length === 0 || subjects.includes(subject);
}

/** The exec gate: the first row that matches. */
function execGate(
  table: ExecTable,
  subject: string,
  executable: string,
  environment: readonly string[] = [],
): ExecRow | undefined {
  return table.rows.find(
    (row) =>
      isFor(row, subject) &&
      (row.executable === "" || whole(row.executable, executable)) &&
      (row.environment === "" || environment.some((name) => whole(row.environment, name))),
  );
}

const SUBJECTS = `subjects:
  - name: main
  - name: tool
    enters:
      - { from: main, executable: "/usr/bin/{tool,dash}" }
  - name: other
    enters:
      - { from: [main, tool], executable: /opt/c, argv: ["*", x, "**"] }
`;
const actions = fc.constantFrom("allow", "deny", "hold", "log");
const subjectKey = fc.constantFrom("", "subject: main, ", "subject: tool, ", "subject: [main, tool], ");
/** Keys that any rule may have. `locked` and `rate` each go with two actions only. */
const moreKeys = fc.constantFrom(
  "",
  "",
  "",
  "",
  "locked: true, ",
  "locked: true, ",
  "mode: observe, ",
  "mode: observe, ",
  'when: { from: "09:00", to: "18:00" }, ',
  "rate: { max: 2, per: 1m }, ",
  'mode: observe, when: { from: "09:00", to: "18:00" }, ',
  "message: so it is, ",
  "because: it is so, ",
);

interface RuleParts {
  readonly subjectKey: string;
  readonly moreKeys: string;
  readonly matcher: string;
  readonly action: string;
}

function ruleList(rules: readonly RuleParts[]): string {
  const fits = ({ moreKeys: keys, action }: RuleParts) =>
    !(keys.includes("locked") && (action === "allow" || action === "log")) &&
    !(keys.includes("rate") && action === "deny");
  const lines = rules
    .filter(fits)
    .map((r, i) => `  - { id: r${i}, ${r.subjectKey}${r.moreKeys}${r.matcher}, action: ${r.action} }`);
  return lines.length === 0 ? "  []" : lines.join("\n");
}

const moment: fc.Arbitrary<Moment | undefined> = fc.oneof(
  fc.constant(undefined),
  fc
    .record({ hour: fc.integer({ min: 0, max: 23 }), used: fc.integer({ min: 0, max: 3 }) })
    .map(({ hour, used }) => ({ timeMs: Date.UTC(2026, 0, 5, hour), used: () => used })),
);
const mode = fc.constantFrom("enforce", "enforce", "enforce", "observe");
const who = fc.constantFrom("main", "tool");

describe("the exec gate's table", () => {
  const paths = [
    "/usr/bin/git",
    "/usr/bin/dash",
    "/usr/bin/tool",
    "/usr/lib/x/y",
    "/srv/a.sh",
    "/tmp/b",
    "/opt/c",
    "/",
  ];
  const executable = fc.constantFrom(...paths, "/home/agent/run", "usr/bin/git", "/usr/../bin/git");
  const matcher = fc
    .tuple(
      fc.constantFrom(
        'executable: "/usr/**"',
        'executable: "/usr/bin/*"',
        'executable: "/**"',
        'executable: ["/tmp/*", "/opt/?"]',
        'executable: "/usr/bin/{git,dash}"',
        'executable: "**/y"',
        "executable: /srv/a.sh",
        'script: "/srv/**"',
        "inWorkspace: true",
        "inWorkspace: false",
        "kind: [file]",
        "kind: [anonymous, deleted]",
        `sha256: ${"a".repeat(64)}, executable: "/usr/**"`,
      ),
      fc.constantFrom(
        "",
        "",
        "",
        ', argv: ["*", push]',
        ", argv: { without: ['-f'] }",
        ", cwd: /srv",
        ', environment: "LD_*"',
        ", parent: /usr/bin/dash",
        ", ancestor: /usr/bin/dash",
      ),
    )
    .map((keys) => keys.join(""));
  const rule = fc.record({ subjectKey, moreKeys, matcher, action: actions });
  const asked = fc.record({
    executable,
    argv: fc.array(fc.constantFrom("push", "x", "-f", ""), { maxLength: 3 }).map((rest) => ["p", ...rest]),
    cwd: fc.constantFrom("/srv", "/home/agent"),
    environmentNames: fc.constantFrom<string[]>([], ["LD_PRELOAD"]),
    executableSha256: fc.constantFrom("", "a".repeat(64), "b".repeat(64)),
  });
  const caller = fc.constantFrom(undefined, "/usr/bin/dash", "/usr/bin/git");
  let decided = 0;
  let questions = 0;

  test("asks, or says what the evaluator says, by the same rule and with the same sentence", {
    timeout: 60_000,
  }, () => {
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 6 }),
        actions,
        mode,
        fc.array(fc.tuple(asked, who, caller, moment), { minLength: 6, maxLength: 6 }),
        (rules, fallback, policyMode, questionsAsked) => {
          const p = policy(
            `mode: ${policyMode}\n${SUBJECTS}defaults: { exec: ${fallback} }\nexec:\n${ruleList(rules)}`,
          );
          const table = tables(p).exec;
          for (const [facts, subject, parent, at] of questionsAsked) {
            const row = execGate(table, subject, facts.executable, facts.environmentNames);
            if (row === undefined || row.verdict === Verdict.ASK) {
              questions++;
              continue;
            }
            decided++;
            const action = {
              ...exec(facts, subject),
              process:
                parent === undefined
                  ? undefined
                  : {
                      pid: 1,
                      sandboxPid: 1,
                      uid: 1,
                      gid: 1,
                      execId: "",
                      ancestors: [],
                      executable: parent,
                      comm: "",
                      ancestorExecutables: [],
                      ancestorsTruncated: false,
                    },
            };
            const said = evaluate(p, action, at);
            // What has no canonical path is denied whatever the rules say: by another name, and no less.
            if (said.rule === "exec/unknown-file") expect(row.verdict).toBe(Verdict.DENY);
            else expect([row.verdict, row.rule]).toEqual([said.verdict, said.rule]);
            if (row.verdict === Verdict.DENY && said.rule === row.rule)
              expect(row.message).toBe(said.message);
            expect(said.enterSubject).toBe("");
            expect(said.observed).toBeUndefined();
            expect(said.counted).toEqual([]);
          }
        },
      ),
      { numRuns: 300 },
    );
    // Neither half may be empty: a table that always asks would pass.
    expect(decided).toBeGreaterThan(questions / 20);
    expect(questions).toBeGreaterThan(decided / 20);
  });

  test("decides by itself whatever the path alone decides", () => {
    const p = policy(`defaults: { exec: log }
exec:
  - { id: no, executable: "/usr/bin/{su,sudo}", action: deny, because: one user }
  - { id: push, executable: /usr/bin/git, argv: ["*", push], action: hold }
  - { id: yes, executable: "/usr/**", action: allow }`);
    const say = (path: string) => {
      const row = execGate(tables(p).exec, "main", path);
      return `${Verdict[row?.verdict ?? Verdict.ASK]} ${row?.rule ?? ""} ${row?.message ?? ""}`.trim();
    };
    expect(say("/usr/bin/su")).toBe("DENY exec/no one user");
    expect(say("/usr/bin/git")).toBe("ASK exec/push");
    expect(say("/usr/bin/make")).toBe("ALLOW exec/yes");
    expect(say("/opt/x")).toBe("LOG exec/default");
    // No row that permits holds for a path that is none.
    expect(say("/usr/../opt/x")).toBe("ASK");
    expect(execGate(tables(p).exec, "stranger", "/usr/bin/make")).toBeUndefined();
  });

  test("has whoever enters a subject asked about first, and floors before what they are under", () => {
    const p = policy(`${SUBJECTS}exec:
  - { id: floor, executable: /opt/c, action: hold, locked: true }
  - { id: never, executable: /opt/d, action: deny, locked: true }
  - { id: all, executable: "/**", action: allow }`);
    expect(tables(p).exec.rows.map((row) => `${Verdict[row.verdict]} ${row.rule}`)).toEqual([
      "ASK subject tool",
      "ASK subject other",
      "DENY exec/never",
      "ASK exec/floor",
      "ALLOW exec/all",
      "DENY exec/default",
    ]);
  });
});

/** The egress gate: the first row that decides, and the first observing one before it. */
function networkGate(table: NetworkTable, subject: string, action: NetworkAction) {
  const { host: written, address, port, observedProtocol, httpMethod, httpPath } = action;
  const name = written.toLowerCase().replace(/\.$/, "");
  const number = (text: string) =>
    text
      .replace("::ffff:", "")
      .split(".")
      .reduce((n, part) => n * 256 + Number(part), 0);
  const peer = (row: NetworkRow) => {
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
  const matches = (row: NetworkRow) =>
    isFor(row, subject) &&
    peer(row) &&
    (row.ports.length === 0 || row.ports.some((p) => p.first <= port && port <= p.last)) &&
    (row.protocols.length === 0 || row.protocols.includes(observedProtocol)) &&
    ((row.httpMethods.length === 0 && row.httpPath === "") || observedProtocol === ObservedProtocol.HTTP) &&
    (row.httpMethods.length === 0 || row.httpMethods.includes(httpMethod)) &&
    (row.httpPath === "" || whole(row.httpPath, httpPath));
  const found = table.rows.filter(matches);
  const row = found.find((r) => !r.observe);
  const before = found.slice(0, row === undefined ? undefined : found.indexOf(row)).find((r) => r.observe);
  return {
    verdict: row?.verdict ?? table.defaultVerdict,
    rule: row?.rule ?? table.defaultRule,
    observed: before === undefined ? undefined : { verdict: before.verdict, rule: before.rule },
  };
}

describe("the egress gate's table", () => {
  const matcher = fc
    .tuple(
      fc.constantFrom(
        'host: "*"',
        'host: "*.x.com"',
        "host: x.com",
        'host: [y.com, "*.com"]',
        "cidr: 192.0.2.0/24",
        "cidr: [0.0.0.0/0, 10.0.0.0/8]",
        "cidr: 192.0.2.128/25",
      ),
      fc.constantFrom("", "", ", ports: 443", ', ports: [80, "8000-8100"]'),
      fc.constantFrom(
        "",
        "",
        "",
        ", protocol: tls",
        ", protocol: [http, other]",
        ", protocol: other",
        ", method: [get, HEAD]",
        ', path: ["/v1/**", "/a?{b,c}"]',
        ", method: POST, path: /",
      ),
    )
    .map((keys) => keys.join(""));
  const rule = fc.record({ subjectKey, moreKeys, matcher, action: actions });
  const peer = fc.constantFrom(
    "x.com",
    "a.x.com",
    "evilx.com",
    "y.com.",
    "A.Y.com",
    "192.0.2.1",
    "192.0.2.130",
    "10.1.2.3",
    "::ffff:192.0.2.1",
  );
  const port = fc.constantFrom(22, 80, 443, 8000, 8101);
  const first = fc.oneof(
    fc
      .constantFrom(ObservedProtocol.NONE, ObservedProtocol.TLS, ObservedProtocol.OTHER)
      .map((observedProtocol) => ({ observedProtocol })),
    fc.record({
      observedProtocol: fc.constant(ObservedProtocol.HTTP),
      httpMethod: fc.constantFrom("GET", "HEAD", "POST", "X"),
      httpPath: fc.constantFrom("/", "/v1", "/v1/", "/v1/a/b", "/aab", "/a.c", "/aabc"),
    }),
  );
  let decided = 0;
  let questions = 0;

  test("asks, or says what the evaluator says, by the same rule, and observes the same", {
    timeout: 60_000,
  }, () => {
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 6 }),
        actions,
        mode,
        fc.array(fc.tuple(peer, port, who, first, moment), { minLength: 6, maxLength: 6 }),
        (rules, fallback, policyMode, connections) => {
          const p = policy(
            `mode: ${policyMode}\n${SUBJECTS}defaults: { network: ${fallback} }\nnetwork:\n${ruleList(rules)}`,
          );
          const table = tables(p).network;
          for (const [to, at, subject, seen, when] of connections) {
            const action = connect(to, at, subject, seen);
            if (action.action?.$case !== "network") throw new Error("unreachable: not a connection");
            const ruled = networkGate(table, subject, action.action.value);
            if (ruled.verdict === Verdict.ASK) {
              questions++;
              continue;
            }
            decided++;
            const { verdict, rule: by, observed } = evaluate(p, action, when);
            expect(ruled).toEqual({ verdict, rule: by, observed });
          }
        },
      ),
      { numRuns: 300 },
    );
    expect(decided).toBeGreaterThan(questions / 20);
    expect(questions).toBeGreaterThan(decided / 20);
  });

  test("has floors first, observing rows in their place, and no row for what observes a permission", () => {
    const rows = (more = "") =>
      tables(
        policy(`${more}network:
  - { id: never, host: a.com, action: deny, locked: true }
  - { id: ask, host: b.com, action: hold, locked: true }
  - { id: seen, host: c.com, action: hold, mode: observe }
  - { id: nothing, host: c.com, action: log, mode: observe }
  - { id: day, host: d.com, action: allow, when: { days: mon-fri } }
  - { id: reads, host: e.com, method: GET, path: "/v1/*", action: allow }`),
      ).network;
    const short = ({ rows: all, defaultVerdict }: NetworkTable) => [
      ...all.map((r) => `${r.observe ? "observe " : ""}${Verdict[r.verdict]} ${r.rule}`),
      Verdict[defaultVerdict],
    ];
    expect(short(rows())).toEqual([
      "DENY network/never",
      "ASK network/ask",
      "observe HOLD network/seen",
      "ASK network/day",
      "ALLOW network/reads",
      "DENY",
    ]);
    expect(rows().rows.at(-1)).toMatchObject({
      protocols: [ObservedProtocol.HTTP],
      httpMethods: ["GET"],
      httpPath: "^(?:/v1/[^/]*)$",
    });
    expect(short(rows("mode: observe\n"))).toEqual([
      "DENY network/never",
      "ASK network/ask",
      "ASK network/day",
      "ASK network/reads",
      "ASK",
    ]);
  });
});
