// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

import { describe, expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import { parsePolicy } from "./schema.js";
import { parsePolicyTest } from "./testfile.js";
import { policy, policyText } from "./testing/policy.js";

/** What a user reads about a policy text. */
function said(text: string, variables: Record<string, string> = {}): string {
  const result = parsePolicy(text, "p.yaml", { variables });
  expect(result.policy === undefined).toBe(result.diagnostics.some((d) => d.severity === "error"));
  return renderDiagnostics(result.diagnostics);
}

const HEAD = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: t }
sandbox: { mounts: [{ source: /usr }] }
`;

describe("what is wrong is said where it is wrong", () => {
  test("an unknown key, with the one that was meant", () => {
    expect(
      said(`${HEAD}exec:\n  - id: a\n    executable: /usr/**\n    action: allow\n    becuase: x\n`),
    ).toBe(
      `p.yaml:9:5: error: unknown key "becuase" in a rule of exec
 9 |     becuase: x
   |     ^^^^^^^
   = Did you mean "because"?`,
    );
  });

  test("a wrong type", () => {
    expect(said(`${HEAD}exec:\n  id: a\n`)).toBe(
      `p.yaml:6:3: error: exec must be a list, not a mapping
 6 |   id: a
   |   ^^^^^
   = Write [a, b], or each item in a line of its own after "- ".`,
    );
  });

  test("a rule id that is used twice", () => {
    expect(
      said(
        `${HEAD}exec:\n  - { id: a, executable: /a, action: allow }\n  - { id: a, executable: /b, action: deny }\n`,
      ),
    ).toBe(
      `p.yaml:7:11: error: the id "a" is already used in line 6
 7 |   - { id: a, executable: /b, action: deny }
   |           ^
   = Give each rule of a section its own id.`,
    );
  });

  test("a key that is there twice", () => {
    expect(said(`${HEAD}exec: []\nexec: []\n`)).toBe(
      `p.yaml:6:1: error: the key "exec" is already there in line 5
 6 | exec: []
   | ^^^^
   = Keep one of the two.`,
    );
  });

  test("tabs", () => {
    expect(said(`${HEAD}exec:\n\t- id: a\n`)).toBe(
      `p.yaml:6:1: error: tabs are not allowed as indentation
 6 |  - id: a
   | ^
   = Indent with spaces: YAML takes no tabs for it.`,
    );
  });

  test("all of it at once, in the order of the file", () => {
    const text = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: t }
sandbox:
  user: { uid: "1000", gid: 0 }
  limits: { memory: lots, pids: 1.5 }
  mounts:
    - { source: usr }
    - { source: /usr, mode: rx }
`;
    expect(said(text)).toBe(
      `p.yaml:5:16: error: the user's uid must be a number, not text
 5 |   user: { uid: "1000", gid: 0 }
   |                ^^^^^^
   = Write it without quotes.

p.yaml:5:29: error: the gid of a sandbox cannot be 0
 5 |   user: { uid: "1000", gid: 0 }
   |                             ^
   = Use an unprivileged user, e.g. 1000.

p.yaml:6:21: error: the memory limit "lots" is not a size of at least 16777216 bytes
 6 |   limits: { memory: lots, pids: 1.5 }
   |                     ^^^^
   = Write it like 512Mi or 2Gi.

p.yaml:6:33: error: the limit of processes must be a whole number from 2 to 4194304, not 1.5
 6 |   limits: { memory: lots, pids: 1.5 }
   |                                 ^^^
   = Round it.

p.yaml:8:17: error: the source of a mount "usr" is not an absolute path without ".", ".." and "//"
 8 |     - { source: usr }
   |                 ^^^
   = Write it whole, from "/" on.

p.yaml:9:29: error: the mode of a mount cannot be "rx"
 9 |     - { source: /usr, mode: rx }
   |                             ^^
   = Did you mean "ro"?`,
    );
  });

  test("a test of a policy, and only that", () => {
    const text = "apiVersion: clawsec/v1\nkind: PolicyTest\npolicy: ./p.yaml\ncases: []\n";
    expect(said(text)).toContain("this is a test of a policy, and not a policy");
    expect(said(text).match(/error:/g)).toHaveLength(1);
    const { diagnostics } = parsePolicyTest(HEAD, "p.test.yaml");
    expect(diagnostics.map(({ message }) => message)).toEqual(["this is a policy, and not a test of one"]);
  });

  test("a duration longer than a timer can wait", () => {
    const hold = (timeout: string) =>
      `${HEAD}exec:\n  - { id: a, executable: /a, action: hold, hold: { timeout: ${timeout} } }\n`;
    expect(said(hold("577h"))).toContain("the longest is 576h");
    expect(said(hold("576h"))).not.toContain("is not a duration");
  });

  test("another version of the language, and only that", () => {
    expect(said("apiVersion: clawsec/v9\nkind: Policy\nfrom-the-future: true\nexec: 1\n")).toContain(
      'error: apiVersion cannot be "clawsec/v9"',
    );
    expect(said("apiVersion: clawsec/v9\nkind: Policy\nexec: 1\n")).not.toContain("exec must be");
  });

  test("text from the file cannot draw on the reader's terminal", () => {
    const drawn = said(
      `${HEAD}exec:\n  - { id: a, executable: /a, action: deny, "\u202ebec\u200bause": x }\n`,
    );
    expect(drawn).not.toMatch(/[\u202e\u200b]/);
    expect(drawn).toContain("\u00b7bec\u00b7ause");
    expect(said(`${HEAD}x: "\\e[2J"\n`)).not.toContain("\u001b");
  });
});

test("YAML 1.2 may be asked for by its directive, and visible characters of any script are text", () => {
  for (const head of ["%YAML 1.2\n---\n", "# a\n%YAML 1.2 # b\r\n---\n", "\ufeff", "---\n"])
    expect(said(`${head}${HEAD}variables: { v: "\\u00e9\\u4e2d\\u05d0\\t\\n%YAML 1.1" }\n`)).toBe("");
  expect(said(`${HEAD}# \u202e in a comment\n`)).toBe("");
  const given = (value: string) => said(`${HEAD}variables: { v: }\n`, { v: value });
  expect(given("/a\u202e")).toContain('the value given for "v" has control characters');
  expect(given("/\u00e9")).toBe("");
});

describe("YAML that is more than a policy needs is refused", () => {
  test("anchors and aliases, so that nothing can expand (billion laughs)", () => {
    let bomb = "a0: &a0 [lol, lol]\n";
    // Expanded, 2^40 words: no test ends then.
    for (let i = 1; i < 40; i++) bomb += `a${i}: &a${i} [*a${i - 1}, *a${i - 1}]\n`;
    expect(said(bomb).split("\n\n")[0]).toBe(
      `p.yaml:1:9: error: anchors and aliases are not part of the policy language
 1 | a0: &a0 [lol, lol]
   |         ^^^^^^^^^^
   = Use "variables" for what repeats.`,
    );
  });

  test.each([
    ["merge keys", `${HEAD}defaults: { <<: { exec: allow } }\n`, 'unknown key "<<" in defaults'],
    ["a second document", `${HEAD}---\nb: 1\n`, "a policy file holds one document"],
    ["tags", `${HEAD}exec: !js/function []\n`, "unresolved tag: !js/function"],
    ["binary values", `${HEAD}exec: !!binary aGVsbG8=\n`, "tags are not part of the policy language"],
    ["tags of lists", `${HEAD}exec: !!seq []\n`, "5:13: error: tags are not part"],
    ["tags of mappings", `${HEAD}defaults: !!map { exec: allow }\n`, "5:17: error: tags are not part"],
    ["tags of text", `${HEAD}mode: !!str observe\n`, "5:13: error: tags are not part"],
    ["tags without a name", `${HEAD}mode: ! observe\n`, "tags are not part of the policy language"],
    ["tags in full", `${HEAD}mode: !<tag:yaml.org,2002:str> observe\n`, "tags are not part"],
    ["tags of nothing", `${HEAD}variables: { a: !!null }\n`, "tags are not part of the policy language"],
    ["tags of keys", `${HEAD}!!str mode: observe\n`, "tags are not part of the policy language"],
    ["anchors of keys", `${HEAD}&a mode: observe\n`, "anchors and aliases are not part"],
    ["tag directives", `# x\n%TAG !! tag:yaml.org,2002:\n---\n${HEAD}`, "p.yaml:2:1: error: directives are"],
    ["tag handles", `%TAG ! tag:yaml.org,2002:\n---\n${HEAD}mode: !str observe\n`, "p.yaml:1:1: error"],
    ["another version of YAML", `%YAML 1.1\n---\n${HEAD}`, "but for %YAML 1.2"],
    ["another version after the right one", `%YAML 1.2\n%YAML 1.1\n---\n${HEAD}`, "p.yaml:2:1: error"],
    ["directives that YAML does not know", `\ufeff\n%FOO bar\n---\n${HEAD}`, "p.yaml:2:1: error"],
    ["keys that are no text", `${HEAD}? [a]\n: b\n`, "a key must be plain text"],
    [
      "control characters",
      `${HEAD}exec:\n  - { id: a, executable: "/a\\u0007", action: deny }\n`,
      "control characters",
    ],
    ...[
      "\\u0000",
      "\\r",
      "\\u009b",
      "\\u0085",
      "\\u200b",
      "\\u200f",
      "\\u2028",
      "\\u202e",
      "\\u2066",
      "\\ufeff",
    ].flatMap((c): [string, string, string][] => [
      [
        `the character ${c} in a value`,
        `${HEAD}variables: { a: "a${c}" }\n`,
        "5:17: error: the text has control",
      ],
      [`the character ${c} in a key`, `${HEAD}"a${c}": 1\n`, "5:1: error: the key has control characters"],
    ]),
    ["a line break in a key", `${HEAD}"a\\nb": 1\n`, "the key has control characters"],
    ["bare characters that reorder", `${HEAD}mode: "x\u202ey"\n`, "5:7: error: the text has control"],
    ["nothing", "", "the policy is empty"],
    ["only text", "hello", "a policy must be a mapping, not text"],
    ["brackets that never close", `${HEAD}exec: ${"[".repeat(100_000)}`, "nested too deeply"],
    ["deep brackets", `${HEAD}exec: ${"[".repeat(60)}${"]".repeat(60)}`, "nested too deeply"],
    ["deep dashes", `${HEAD}exec: \n  ${"- ".repeat(50_000)}`, "nested too deeply"],
    [
      "deep indentation",
      Array.from({ length: 1200 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"),
      "nested too deeply",
    ],
    [
      "a file of megabytes",
      `${HEAD}# ${"x".repeat(4 * 1024 * 1024)}`,
      "the policy is larger than 4194304 characters",
    ],
    [
      "more keys than are read within a second",
      `${HEAD}${Array.from({ length: 66_000 }, (_, i) => `k${i}: 0`).join("\n")}`,
      "the policy has more than 130000 keys, values and lines",
    ],
  ])("%s", (_, text, message) => {
    expect(said(text)).toContain(message);
  });
});

describe("variables", () => {
  const text = policyText(
    'variables: { root: /srv, sub: "${root}/x", need: , id: 1234 }\nexec:\n  - { id: a, executable: "${need}/**", action: allow }\n',
  );

  test("are filled in, use those above them, and can be given from outside", () => {
    const result = parsePolicy(text, "p.yaml", { variables: { need: "/opt" } });
    expect(result.policy?.exec[0]?.executable).toEqual(["/opt/**"]);
    const other = parsePolicy(text.replace("${need}", "${sub}"), "p.yaml", {
      variables: { root: "/r", need: "/n" },
    });
    expect(other.policy?.exec[0]?.executable).toEqual(["/r/x/**"]);
  });

  test("without a value are an error that says how to give one", () => {
    expect(said(text)).toContain('the variable "need" has no value');
    expect(said(text)).toContain("--var need=VALUE");
  });

  test("that are not declared are errors, in the file and from outside", () => {
    expect(said(text.replace("${need}", "${sbu}"), { need: "/x" })).toContain('Did you mean "sub"?');
    expect(said(text, { need: "/x", ned: "/y" })).toContain('a value was given for "ned"');
  });

  test("never become patterns by what is in them", () => {
    const result = parsePolicy(text, "p.yaml", { variables: { need: "/a*b" } });
    expect(result.policy?.exec[0]?.executable).toEqual(["/a\\*b/**"]);
    expect(said(text, { need: "/a\nb" })).toContain("control characters");
  });

  test("can be numbers where a number is wanted", () => {
    const user = policyText(
      'variables: { id: 1234 }\nsandbox:\n  user: { uid: "${id}", gid: 5 }\n  mounts: [{ source: /usr }]\n',
    );
    expect(parsePolicy(user, "p.yaml").policy?.sandbox.user).toEqual({ uid: 1234, gid: 5, name: "agent" });
    expect(said(user, { id: "0" })).toContain("the uid of a sandbox cannot be 0");
    expect(said(user, { id: "12x" })).toContain("must be a number");
  });

  test("unquoted in brackets are a syntax error that says so", () => {
    expect(said(`${HEAD}exec: [{ id: a, executable: \${x}, action: deny }]`)).toContain(
      "Inside { } and [ ], quote a value that has ${...} in it.",
    );
  });
});

describe("subjects", () => {
  const two = (tool: string) => policyText(`subjects:\n  - name: gateway\n  - name: tool\n${tool}`);

  test("a process cannot come back into a subject it has left", () => {
    const text = policyText(`subjects:
  - name: main
  - name: a
    enters: [{ from: [main, b], executable: /a }]
  - name: b
    enters: [{ from: a, executable: /b }]
`);
    expect(said(text)).toContain('a process could leave the subject "a" and come back into it');
    expect(said(text.replace("[main, b]", "main"))).toBe("");
  });

  test.each([
    ["no way in", "", 'no process can come into the subject "tool"'],
    [
      "files without an entry",
      "    enters: [{ from: gateway, executable: /a }]\n    files: { read: [/usr] }\n",
      '"files" needs an "entry"',
    ],
    [
      "an entry elsewhere than in the shim's folder",
      "    enters: [{ from: gateway, executable: /a }]\n    entry: { path: /bin/x, exec: /bin/sh }\n",
      "the path of an entry must be a name of its own in /.clawsec",
    ],
    [
      "an entry in place of the shim itself",
      "    enters: [{ from: gateway, executable: /a }]\n    entry: { path: /.clawsec/init, exec: /bin/sh }\n",
      "the path of an entry must be a name of its own in /.clawsec",
    ],
    ["a way in from nobody", "    enters: [{ from: gatway, executable: /a }]\n", 'Did you mean "gateway"?'],
  ])("%s is an error", (_, tool, message) => {
    expect(said(two(tool))).toContain(message);
  });
});

describe("rules", () => {
  test.each([
    ["exec:\n  - { id: a, action: allow }", 'a rule of exec needs one of the keys "executable", "sha256"'],
    ["exec:\n  - { id: A, executable: /a, action: allow }", 'the id "A" is not one'],
    ["exec:\n  - { id: default, executable: /a, action: allow }", 'the id "default" is taken'],
    ["exec:\n  - { id: a, executable: a, action: allow }", "it must be absolute"],
    ["exec:\n  - { id: a, executable: [], action: allow }", "must not be an empty list"],
    ["exec:\n  - { id: a, executable: /a, argv: [], action: deny }", '"argv" must not be an empty list'],
    ["exec:\n  - { id: a, executable: /a, action: deny, hold: { timeout: 5m } }", '"hold" has no meaning'],
    ["exec:\n  - { id: a, executable: /a, action: hold, hold: { timeout: 5 } }", '"5" is not a duration'],
    ["exec:\n  - { id: a, executable: /a, action: allow, subject: tool }", 'the subject cannot be "tool"'],
    ["file:\n  - { id: a, path: /a, action: deny }", 'a rule of file needs the key "operations"'],
    ["file:\n  - { id: a, operations: read, action: deny }", 'a rule of file needs the key "path"'],
    ["network:\n  - { id: a, action: allow }", 'needs either "host" or "cidr"'],
    ["network:\n  - { id: a, host: x.com, cidr: 1.2.3.4, action: allow }", 'needs either "host" or "cidr"'],
    ["network:\n  - { id: a, host: 1.2.3.4, action: allow }", 'addresses go into "cidr"'],
    ["network:\n  - { id: a, host: x.com, ports: [70-60], action: allow }", "not a port or a range"],
    ["network:\n  - { id: a, cidr: 10.0.0.1/8, action: allow }", "the network is 10.0.0.0/8"],
    ["resolver: { hosts: { x.com: 300.1.1.1 } }", "is not an IPv4 or IPv6 address"],
    ["secrets: { items: [{ name: ../x, file: /x }] }", 'the name of a secret "../x" is not one'],
    ["defaults: { exec: yes }", 'the default of exec cannot be "yes"'],
    ["defaults: { file: allow }", 'the default of file cannot be "allow"'],
  ])("%s", (section, message) => {
    expect(said(policyText(section))).toContain(message);
  });

  test("a denial by argv[0] alone is warned about, since the caller chooses it", () => {
    const text = policyText(
      "exec:\n  - { id: a, executable: /usr/bin/git, argv: [git, push], action: deny }",
    );
    expect(said(text)).toContain("warning: the rule looks at argv[0], which the caller chooses freely");
    expect(said(text.replace("[git,", '["*",'))).toBe("");
  });

  test("names of JavaScript's own are names like others", () => {
    const checked = policy(
      "resolver: { hosts: { constructor: 192.0.2.1, __proto__: 192.0.2.2 } }\nexec:\n  - { id: constructor, executable: /a, action: deny }",
    );
    expect(Object.entries(checked.resolverHosts)).toEqual([
      ["constructor", "192.0.2.1"],
      ["__proto__", "192.0.2.2"],
    ]);
    expect(said(policyText("toString: 1"))).toContain('unknown key "toString"');
  });
});

describe("the hash of a policy", () => {
  const base = "exec:\n  - { id: a, executable: /a, action: allow }";
  const hash = (sections: string) => policy(sections).hash;

  test("does not depend on comments, layout, order of keys or variables", () => {
    expect(hash(`# why\nexec:\n  - action: allow\n    executable: /a\n    id: a`)).toBe(hash(base));
    expect(hash(`variables: { v: /a }\nexec:\n  - { id: a, executable: "\${v}", action: allow }`)).toBe(
      hash(base),
    );
    expect(hash(base)).toMatch(/^[0-9a-f]{64}$/);
  });

  test("depends on everything that a policy means", () => {
    const others = [
      base.replace("allow", "deny"),
      base.replace("/a", "/b"),
      `${base}\n  - { id: b, executable: /a, action: allow }`,
      `${base}\ndefaults: { exec: log }`,
      `${base}\napprovals: { timeout: 1m }`,
    ];
    expect(new Set([base, ...others].map(hash)).size).toBe(others.length + 1);
  });

  test("counts names that the policy chose, whatever they are called", () => {
    const sandbox = (name: string, value: string) =>
      hash(`sandbox: { environment: { ${name}: ${value} }, mounts: [{ source: /usr }] }`);
    const resolver = (name: string, address: string) => hash(`resolver: { hosts: { ${name}: ${address} } }`);
    for (const name of ["origin", "hash", "match", "notMatch", "layers", "sourceFile"]) {
      expect(sandbox(name, "a")).not.toBe(sandbox(name, "b"));
      expect(resolver(name, "192.0.2.1")).not.toBe(resolver(name, "192.0.2.2"));
    }
  });

  test("does not depend on where things are written, nor on examples", () => {
    expect(hash(`\n\n${base}`)).toBe(hash(base));
    const text = policyText(base);
    expect(parsePolicy(text, "a.yaml").policy?.hash).toBe(parsePolicy(text, "b.yaml").policy?.hash);
  });
});
