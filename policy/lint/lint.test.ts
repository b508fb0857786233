// Lint says what is certain, and is quiet about what only looks like it.

import { describe, expect, test } from "vitest";
import { parsePolicy } from "../schema.js";
import { SYSTEM, tableHost } from "../testing/host.js";
import { policy, policyText } from "../testing/policy.js";
import { type LintInputs, lint } from "./lint.js";

const said = (sections: string, inputs: LintInputs = {}) =>
  lint(policy(sections), inputs).map(({ code, rule }) => `${code} ${rule}`.trim());

const exec = (...rules: string[]) => `exec:\n${rules.map((rule) => `  - ${rule}`).join("\n")}`;
const network = (...rules: string[]) => `network:\n${rules.map((rule) => `  - ${rule}`).join("\n")}`;

describe("rules that never decide", () => {
  test.each<[string, string[], string]>([
    [
      "a denial after a wider permission",
      [
        "{ id: a, executable: /usr/**, action: allow }",
        "{ id: b, executable: /usr/bin/git, script: /x, action: deny }",
      ],
      "shadowed exec/b",
    ],
    [
      "a denial of programs after a wider permission",
      ["{ id: a, executable: /usr/**, action: allow }", "{ id: b, executable: /usr/bin/git, action: deny }"],
      "shadowed exec/b",
    ],
    [
      "the same matchers with another action",
      [
        "{ id: a, executable: /usr/bin/git, kind: file, action: hold }",
        "{ id: b, executable: /usr/bin/git, kind: file, action: deny }",
      ],
      "contradictory exec/b",
    ],
    [
      "the same action again",
      [
        "{ id: a, executable: /usr/**, action: allow }",
        "{ id: b, executable: /usr/bin/*, argv: ['*', x], action: allow }",
      ],
      "redundant exec/b",
    ],
    [
      "a permission with a wider one right after it",
      ["{ id: a, executable: /usr/bin/*, action: allow }", "{ id: b, executable: /usr/**, action: allow }"],
      "redundant exec/a",
    ],
    [
      "arguments that an earlier rule has all of",
      [
        "{ id: a, executable: /usr/bin/git, argv: ['*', '**', push, '**'], action: hold }",
        "{ id: b, executable: /usr/bin/git, argv: ['*', push, origin], action: hold }",
      ],
      "redundant exec/b",
    ],
  ])("%s", (_, rules, code) => {
    expect(said(exec(...rules))).toEqual([code]);
  });

  test.each<[string, string[]]>([
    [
      "a denial before the permission",
      ["{ id: a, executable: /usr/bin/git, action: deny }", "{ id: b, executable: /usr/**, action: allow }"],
    ],
    [
      "another subject's rule is not in this subject's way",
      [
        "{ id: a, executable: /usr/bin/x, cwd: /a, action: allow }",
        "{ id: b, executable: /usr/bin/x, action: deny }",
      ],
    ],
    [
      "a permission at some times",
      [
        "{ id: a, executable: /usr/**, action: allow, when: { days: [mon] } }",
        "{ id: b, executable: /usr/bin/x, action: deny }",
      ],
    ],
    [
      "a permission a few times",
      [
        "{ id: a, executable: /usr/**, action: allow, rate: { max: 1, per: 1m } }",
        "{ id: b, executable: /usr/bin/x, action: deny }",
      ],
    ],
    [
      "a rule that only observes",
      [
        "{ id: a, executable: /usr/**, action: deny, mode: observe }",
        "{ id: b, executable: /usr/bin/x, action: allow }",
      ],
    ],
    [
      "a narrower rule",
      [
        "{ id: a, executable: /usr/bin/g*, action: allow }",
        "{ id: b, executable: /usr/bin/*, action: deny }",
      ],
    ],
    [
      "a needless rule that says why it is there",
      [
        "{ id: a, executable: /usr/bin/*, action: allow, because: tools }",
        "{ id: b, executable: /usr/**, action: allow }",
      ],
    ],
    [
      "a permission that an exception stands between",
      [
        "{ id: a, executable: /usr/bin/*, action: allow }",
        "{ id: b, executable: /usr/bin/git, script: /x, action: hold, kind: anonymous }",
        "{ id: c, executable: /usr/**, action: allow }",
      ],
    ],
  ])("%s is not one", (_, rules) => {
    expect(said(exec(...rules))).toEqual([]);
  });

  test("a locked hold does not shadow what the other rules say, a locked denial does", () => {
    const rest = "{ id: b, executable: /usr/bin/x, script: /x, action: allow }";
    expect(said(exec("{ id: a, executable: /usr/**, action: hold, locked: true }", rest))).toEqual([]);
    expect(said(exec("{ id: a, executable: /usr/**, action: deny, locked: true }", rest))).toEqual([
      "shadowed exec/b",
    ]);
  });

  test("of hosts and ports, and a denial of some ports leaves the lookup to the rules after it", () => {
    expect(
      said(
        network(
          "{ id: a, host: '*.x.com', action: allow }",
          "{ id: b, host: a.x.com, port: 22, action: deny }",
        ),
      ),
    ).toEqual(["shadowed network/b"]);
    expect(
      said(
        network(
          "{ id: a, host: '*.x.com', port: 443, action: deny }",
          "{ id: b, host: a.x.com, port: 443, action: allow }",
        ),
      ),
    ).toEqual([]);
    expect(
      said(
        network(
          "{ id: a, host: a.x.com, port: 443, action: deny }",
          "{ id: b, host: a.x.com, action: allow }",
        ),
      ),
    ).toEqual([]);
    expect(
      said(
        network("{ id: a, cidr: 192.0.2.0/24, action: deny }", "{ id: b, cidr: 192.0.2.7, action: allow }"),
      ),
    ).toEqual(["shadowed network/b"]);
    expect(
      said(network("{ id: a, cidr: 192.0.2.0/24, action: deny }", "{ id: b, host: x.com, action: allow }")),
    ).toEqual([]);
  });

  test("of files: a masked tree is shadowed from then on, an exception before it is not", () => {
    const rules = (first: string, second: string) => said(`file:\n  - ${first}\n  - ${second}`);
    const tree = "{ id: tree, path: /data, operations: [open, read], action: deny }";
    const part = "{ id: part, path: /data/x, operations: [open], action: hold }";
    expect(rules(tree, part)).toEqual(["shadowed file/part"]);
    expect(rules(part, tree)).toEqual([]);
  });

  test("it says which rule stands in the way, and where", () => {
    const text = exec(
      "{ id: a, executable: /usr/**, action: allow }",
      "{ id: b, executable: /usr/bin/git, action: deny }",
    );
    const [finding] = lint(policy(text));
    expect(finding).toMatchObject({
      severity: "warning",
      message: expect.stringMatching(
        /exec\/b \(deny\) decides for no program that has a name: exec\/a in line \d+ \(allow\)/,
      ),
      remedy: expect.stringContaining("Put it before exec/a"),
      origin: { line: expect.any(Number) },
    });
  });
});

test("a rule of another file is named with its file, and nobody is told to put a rule before a locked one", () => {
  const base = () => ({
    file: "/team.yaml",
    text: `apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: team }\n${exec("{ id: floor, executable: /usr/**, action: deny, locked: true }")}`,
  });
  const text = policyText(
    `extends: ./team.yaml\n${exec("{ id: mine, executable: /usr/bin/x, action: allow }")}`,
  );
  const parsed = parsePolicy(text, "mine.yaml", { base }).policy;
  expect(parsed && lint(parsed)).toMatchObject([
    {
      code: "shadowed",
      message: expect.stringContaining("exec/floor (/team.yaml:5)"),
      remedy: expect.stringContaining("is locked"),
    },
  ]);
});

describe("subjects", () => {
  test("whose way in no rule permits are named, those whose way some rule may permit are not", () => {
    const subjects = (...rules: string[]) =>
      said(`subjects:
  - { name: main }
  - { name: tool, enters: [{ from: main, executable: /usr/bin/t }] }
${exec(...rules)}
`);
    const other = "{ id: other, executable: /usr/bin/x, action: allow }";
    expect(subjects(other)).toEqual(["unreachable"]);
    expect(subjects(other, "{ id: way, executable: /usr/bin/t, action: allow }")).toEqual([]);
    expect(subjects(other, "{ id: way, executable: /usr/bin/t, action: hold }")).toEqual([]);
    expect(subjects(other, "{ id: way, executable: /usr/*/t, argv: ['*', x], action: log }")).toEqual([]);
    expect(subjects("{ id: way, subject: tool, executable: /usr/bin/t, action: allow }")).toEqual([
      "unreachable",
    ]);
    expect(
      subjects(
        "{ id: no, subject: main, executable: /usr/bin/t*, action: deny }",
        "{ id: way, executable: /usr/bin/t, action: allow }",
      ),
    ).toEqual(["unreachable"]);
  });
});

describe("permissions that are too wide", () => {
  test.each<[string, string[]]>([
    [exec("{ id: a, executable: /**, action: allow }"), ["over-wide-allow exec/a"]],
    [exec("{ id: a, executable: '**/*', action: log }"), ["over-wide-allow exec/a"]],
    [exec("{ id: a, executable: /usr/**, action: allow }"), []],
    [exec("{ id: a, executable: /**, argv: ['*', x], action: allow }"), []],
    [exec("{ id: a, executable: /**, action: deny }"), []],
    [network("{ id: a, host: '*', action: allow }"), ["over-wide-allow network/a"]],
    [network("{ id: a, host: '*', port: 443, action: allow }"), []],
    [network("{ id: a, host: '*', action: hold }"), []],
    [network("{ id: a, cidr: 0.0.0.0/0, action: allow }"), ["over-wide-allow network/a"]],
    [network("{ id: a, cidr: 10.0.0.0/8, action: allow }"), []],
    ["file:\n  - { id: a, path: /, operations: [delete], action: allow }", ["over-wide-allow file/a"]],
    ["file:\n  - { id: a, path: /data, operations: [delete], action: allow }", []],
  ])("%s", (sections, codes) => {
    expect(said(sections)).toEqual(codes);
  });
});

describe("paths that the sandbox does not have", () => {
  const host = tableHost([
    ...SYSTEM,
    "/usr/bin/python3 -> python3.13",
    "/usr/bin/python3.13",
    "/srv/home/",
    "/srv/data/x",
  ]);
  const of = (executable: string) =>
    lint(policy(exec(`{ id: a, executable: ${executable}, action: allow }`)), { host }).map(
      ({ message }) => message,
    );

  test.each([
    "/usr/bin/git",
    "/usr/bin/*",
    "'/usr/bin/{git,nothing}'",
    "/home/agent/made-later",
    "/tmp/x",
    "/proc/self/exe",
  ])("%s is there, or may be", (executable) => {
    expect(of(executable)).toEqual([]);
  });

  test.each<[string, RegExp]>([
    ["/usr/bin/nothing", /the sandbox has no \/usr\/bin\/nothing/],
    ["/opt/tools/*", /the sandbox has no \/opt/],
    ["/data/nothing/**", /the sandbox has no \/data\/nothing/],
    ["/usr/bin/python3", /leads through a link to \/usr\/bin\/python3\.13/],
    ["/bin/git", /\/bin\/git leads through a link to \/usr\/bin\/git/],
    ["/bin/*", /\/bin leads through a link to \/usr\/bin/],
  ])("%s is not", (executable, words) => {
    expect(of(executable)).toEqual([expect.stringMatching(words)]);
  });
});

describe("ten thousand rules", () => {
  const rules = (line: (i: number) => string) =>
    policyText(exec(...Array.from({ length: 10_000 }, (_, i) => line(i))));
  const linted = (text: string) => {
    const { policy: parsed } = parsePolicy(text, "large.yaml");
    if (parsed === undefined) throw new Error("the policy does not parse");
    const found = lint(parsed);
    return { codes: new Set(found.map(({ code }) => code)), found };
  };

  test("of plain paths are all compared, and the one that is shadowed is found", () => {
    const { found } = linted(
      rules((i) =>
        i === 9_999
          ? "{ id: last, executable: /usr/lib/tool/p17, script: /x, action: deny }"
          : `{ id: r${i}, executable: /usr/lib/tool/p${i}, action: ${i % 2 ? "allow" : "hold"} }`,
      ),
    );
    expect(found.map(({ code, rule }) => `${code} ${rule}`)).toEqual(["shadowed exec/last"]);
  }, 60_000);

  test("of patterns with the same beginning are not all compared, and that is said", () => {
    const { codes } = linted(
      rules((i) => `{ id: r${i}, executable: "/usr/bin/*p${i}", action: ${i % 2 ? "allow" : "deny"} }`),
    );
    expect(codes).toContain("lint-bounded");
  }, 60_000);
});
