// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

import { describe, expect, test } from "vitest";
import { FileOperation, ObservedProtocol } from "../proto/gen/clawsec/v1/loader.js";
import { compile } from "./compile.js";
import { renderDiagnostics } from "./diagnostics.js";
import { evaluate } from "./evaluate.js";
import { actionOf, parsePolicy, parsePolicyTest } from "./index.js";
import { actionDefaults } from "./read/action.js";
import { capabilities, SYSTEM, tableHost } from "./testing/host.js";
import { policy, policyText } from "./testing/policy.js";

const said = (sections: string) => renderDiagnostics(parsePolicy(policyText(sections), "p").diagnostics);
/** What is said about one example of a rule of exec. */
const saidOf = (example: string, key = "match") =>
  said(
    `exec:\n  - id: push\n    executable: /usr/bin/git\n    argv: ["*", push, "**"]\n    action: deny\n    ${key}: [${example}]`,
  );

describe("an example of a rule", () => {
  test("that holds is no finding", () => {
    expect(saidOf('"/usr/bin/git push origin main"')).toBe("");
    expect(saidOf('{ executable: /usr/bin/git, argv: "git push" }, { exec: "/usr/bin/git push" }')).toBe("");
    expect(saidOf('"/usr/bin/git pull", "/usr/bin/gitk push"', "notMatch")).toBe("");
  });

  test("that does not is an error that names the fact", () => {
    const text = saidOf('"/usr/bin/git pull"');
    expect(text).toContain("15:13: error: the rule exec/push does not match its example");
    expect(text).toContain('example "/usr/bin/git pull": argv differs');
    expect(saidOf('"/usr/bin/gitk push"')).toContain("executable differs");
    expect(saidOf('"/usr/bin/git push"', "notMatch")).toContain('matches "/usr/bin/git push", which it says');
  });

  test("is tried against its rule alone, whatever others say and whatever the time", () => {
    expect(
      said(`exec:
  - { id: none, executable: "/**", action: deny }
  - { id: a, executable: /a, action: allow, match: /a, when: { days: mon }, rate: { max: 1, per: 1s } }
  - { id: b, executable: /a, action: deny, mode: observe, match: /a, notMatch: /b }`),
    ).toBe("");
  });

  test("belongs to the rule's first subject, or to the one it names", () => {
    const rules = (example: string) => `subjects:
  - { name: one }
  - { name: two, enters: [{ from: one, executable: /x }] }
exec:
  - { id: a, executable: /a, action: deny, subject: two, match: ${example} }`;
    expect(said(rules("/a"))).toBe("");
    expect(said(rules("{ executable: /a, subject: one }"))).toContain("subject differs");
    expect(said(rules("{ executable: /a, subject: tow }"))).toContain('Did you mean "two"?');
  });

  test("can be a file operation or a connection", () => {
    const file = (example: string) =>
      said(
        `file:\n  - { id: a, path: "/srv/**/x", operations: [delete, rename], action: hold, match: [${example}] }`,
      );
    expect(file('delete /srv/a/x, "rename /srv/a/x /tmp/y", { operation: delete, path: /srv/x }')).toBe("");
    expect(file("delete /srv/a/y")).toContain("path differs");
    expect(file("rename /srv/a/x")).toContain('"rename" has two paths');
    expect(file("delete /srv/a/x /srv/b")).toContain('"delete" has one path');
    expect(file("write /srv/a/x")).toContain('the operation cannot be "write"');
    const network = (example: string, more = "") =>
      said(`network:\n  - { id: a, host: "*.x.com", port: 443, action: allow, match: [${example}]${more} }`);
    expect(network('"a.x.com:443", { host: b.a.x.com, port: 443, protocol: tls }')).toBe("");
    expect(network("x.com:443")).toContain("host differs");
    expect(network("a.x.com:80")).toContain("port differs");
    expect(network('"192.0.2.1:443"')).toContain("differs");
    expect(network("a.x.com")).toContain('"a.x.com" is not a connection');
    expect(
      said(
        'network:\n  - { id: a, host: x.com, method: GET, path: "/v1/**", action: allow, match: "GET http://x.com/v1/y?q", notMatch: "GET http://x.com/v2" }',
      ),
    ).toBe("");
  });
});

describe("a command line", () => {
  test.each([
    ["/a $HOME", 'shell expansion ("$HOME")'],
    ["/a 'x' > b", 'shell operator (">")'],
    ["/a; b", 'shell operator (";")'],
    ["/a *.txt", 'shell pattern ("*.txt")'],
    ["/a {x,y}", 'shell pattern ("{")'],
    ["/a ~", 'shell expansion ("~")'],
    ["/a `b`", "shell expansion"],
    ["/a $(b)", "shell expansion"],
    ["/a $'b'", "shell expansion"],
    ["/a # b", 'a comment ("#")'],
    ["/a 'b", "a ' without its end"],
    ["git push", "is not an absolute path"],
    ["", "is not an absolute path"],
  ])("is words and nothing that a shell would do: %s", (command, message) => {
    expect(saidOf(JSON.stringify(command))).toContain(message);
  });

  test("keeps quoted characters, and takes each variable as a part of its word", () => {
    const { exec } = policy(
      `variables: { w: "a b*" }\nexec:\n  - { id: a, executable: /a, action: allow, match: "/a '$x' \\"b  c\\" d\\\\ e '*' \${w}/x '$\${w}' $$" }`,
    );
    const action = exec[0]?.match[0]?.action.action;
    expect(action?.$case === "exec" && action.value.argv).toEqual([
      "/a",
      "$x",
      "b  c",
      "d e",
      "*",
      "a b*/x",
      "${w}",
      "$",
    ]);
  });
});

const HEAD = "apiVersion: clawsec/v1\nkind: PolicyTest\npolicy: ./p.yaml\n";
const testSaid = (text: string) => renderDiagnostics(parsePolicyTest(text, "p.test.yaml").diagnostics);

describe("a test file", () => {
  test("has cases, whose actions take from the policy what they do not say", () => {
    const { test: read, diagnostics } = parsePolicyTest(
      `${HEAD}variables: { w: /work }
cases:
  - { name: a, exec: "/usr/bin/git push", at: "2026-11-22T10:00:00Z", expect: deny }
  - name: b
    exec: { executable: "\${w}/x", parent: /p, ancestors: [/q], environment: [B, A], sha256: ${"a".repeat(64)}, kind: anonymous, cwd: /c }
    expect: { verdict: allow, rule: exec/x, layer: supervisor, subject: tool, observed: deny }
  - { name: c, file: chmod /x, subject: tool, expect: hold }
  - { name: d, network: { address: "2001:db8::1", port: 443, protocol: other }, expect: { rule: network/default } }
`,
      "p.test.yaml",
    );
    expect(renderDiagnostics(diagnostics)).toBe("");
    expect(read?.policy.reference).toBe("./p.yaml");
    expect(read?.cases.map((c) => c.expect)).toEqual([
      { verdict: "deny" },
      { verdict: "allow", rule: "exec/x", layer: "supervisor", subject: "tool", observed: "deny" },
      { verdict: "hold" },
      { rule: "network/default" },
    ]);
    expect(read?.cases[0]?.timeMs).toBe(Date.UTC(2026, 10, 22, 10));
    const asked = policy(
      "subjects: [{ name: main }, { name: tool, enters: [{ from: main, executable: /x }] }]",
    );
    const [a, b, c, d] = (read?.cases ?? []).map((one) => {
      const result = actionOf(one, asked);
      if ("error" in result) throw new Error(result.error.message);
      return result.action;
    });
    expect(a).toMatchObject({ subject: "main", process: undefined });
    expect(a?.action?.value).toMatchObject({ cwd: "/home/agent", argv: ["/usr/bin/git", "push"] });
    expect(b?.process).toMatchObject({ executable: "/p", ancestorExecutables: ["/q"] });
    expect(b?.action?.value).toMatchObject({
      executable: "/work/x",
      argv: ["/work/x"],
      environmentNames: ["A", "B"],
      executableSha256: "a".repeat(64),
      cwd: "/c",
    });
    expect(c).toMatchObject({
      subject: "tool",
      action: { value: { operation: FileOperation.CHMOD, ownerUid: 1000 } },
    });
    expect(d?.action?.value).toMatchObject({
      host: "",
      address: "2001:db8::1",
      observedProtocol: ObservedProtocol.OTHER,
    });
    const elsewhere = read?.cases[2] && actionOf(read.cases[2], policy(""));
    expect(elsewhere && "error" in elsewhere && elsewhere.error.message).toBe(
      'the policy has no subject "tool"',
    );
  });

  test("asks with the variables that are always set, unless the action says which are", () => {
    const asked = policy(
      `sandbox: { environment: { MY_TOKEN: a }, mounts: [{ source: /usr }] }
exec:
  - { id: home, executable: /x, environment: HOME, action: deny, match: [/x], notMatch: [{ executable: /x, environment: [A] }] }
  - { id: mine, executable: /y, environment: "MY_*", action: deny, match: /y, notMatch: [{ executable: /y, environment: PATH }] }
  - { id: preload, executable: /x, environment: [LD_PRELOAD], action: deny, notMatch: [/x] }
  - { id: rest, executable: "/**", action: allow }
`,
    );
    const { test: read } = parsePolicyTest(
      `${HEAD}cases:
  - { name: a, exec: /x, expect: deny }
  - { name: b, exec: { executable: /x, environment: [A] }, expect: allow }
  - { name: c, exec: /y, expect: deny }
  - { name: d, exec: { executable: /x, environment: [LD_PRELOAD] }, expect: deny }
`,
      "p.test.yaml",
    );
    const rules = (read?.cases ?? []).map((one) => {
      const result = actionOf(one, asked);
      if ("error" in result) throw new Error(result.error.message);
      return evaluate(asked, result.action).rule;
    });
    expect(rules).toEqual(["exec/home", "exec/rest", "exec/mine", "exec/preload"]);
  });

  test("takes for always set what a sandbox is started with", () => {
    const asked = policy(
      "sandbox: { environment: { B: x, A: y }, mounts: [{ source: /usr }, { source: /srv/home, target: /home/agent }] }",
    );
    const { artefacts } = compile(asked, {
      host: tableHost([...SYSTEM, "/srv/home/"]),
      capabilities: capabilities(),
      command: ["/usr/bin/dash"],
    });
    const { process } = JSON.parse(artefacts?.ociConfig.toString() ?? "{}");
    const names = process.env.map((one: string) => one.split("=")[0]);
    expect(names.sort()).toEqual([...actionDefaults(asked).environment].sort());
  });

  test("says all that is wrong with it at once", () => {
    const text = testSaid(`${HEAD}casse: 1
cases:
  - { name: a, exec: git, file: delete /x, expect: deny }
  - { name: b, exec: /a, at: yesterday, expect: dney }
  - { name: b, exec: /a, expect: {} }
  - { exec: { executable: /a, subject: x }, subject: y, expect: allow }
`);
    for (const message of [
      'unknown key "casse"',
      'a case has one of the keys "exec", "file" and "network"',
      '"yesterday" is not a time',
      'the verdict cannot be "dney"',
      "expect must not be an empty mapping",
      'a case needs the key "name"',
      "both say the subject",
    ])
      expect(text).toContain(message);
    expect(testSaid("kind: PolicyTest\n")).toContain('needs the key "apiVersion"');
    expect(testSaid("[")).toContain("p.test.yaml:1");
  });
});
