// Formatting keeps what a file says and its comments, and formatting twice is formatting once.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatPolicy } from "./format.js";
import { CASE, HEALTH_CHECK, NETWORK_RULE, RULE, SANDBOX, TOP } from "./format-keys.js";
import { CASE as CASE_MAPPING, POLICY_TEST } from "./language/actions.js";
import { POLICY } from "./language/policy.js";
import { EXEC_RULE, FILE_RULE, NETWORK_RULE as NETWORK } from "./language/rules.js";
import { HEALTH_CHECK as HEALTH_CHECK_MAPPING, SANDBOX as SANDBOX_MAPPING } from "./language/sandbox.js";
import { keysOf, type Mapping } from "./language/shape.js";
import { parsePolicy } from "./schema.js";
import { policyText } from "./testing/policy.js";

const formatted = (text: string): string => {
  const { text: result, diagnostics } = formatPolicy(text, "test.yaml");
  if (result === undefined) throw new Error(JSON.stringify(diagnostics));
  return result;
};

describe("the layout", () => {
  test("keys come in the order in which a reader needs them, comments stay with what they are about", () => {
    const text = `kind: Policy
apiVersion: clawsec/v1
# who it is
metadata: {name: test}   # short
exec:
    # pushes are looked at
    - action: hold   # by a person
      executable: /usr/bin/git
      id: push
      because: >-
        it cannot
        be taken back
    - {action: allow, executable: /usr/**, id: usr}


sandbox:
    mounts:
    -   source: /usr
    command: [/bin/sh]
# the end
`;
    expect(formatted(text)).toBe(`apiVersion: clawsec/v1
kind: Policy
# who it is
metadata: { name: test } # short

sandbox:
  command: [/bin/sh]
  mounts:
    - source: /usr
exec:
  # pushes are looked at
  - id: push
    executable: /usr/bin/git
    action: hold # by a person
    because: >-
      it cannot be taken back
  - { id: usr, executable: /usr/**, action: allow }

# the end
`);
  });

  test("a comment above the first key of a section goes with that key", () => {
    const text = "sandbox:\n  # what exists\n  mounts: []\n  command: [a]\n";
    expect(formatted(text)).toBe("sandbox:\n  command: [a]\n  # what exists\n  mounts: []\n");
  });

  test("long texts stay on one line, long lists in brackets are broken", () => {
    const long = "a word ".repeat(40).trim();
    expect(formatted(`metadata:\n  description: ${long}\n`)).toBe(`metadata:\n  description: ${long}\n`);
    const list = `[${Array.from({ length: 30 }, (_, i) => `/usr/bin/tool${i}`).join(", ")}]`;
    expect(formatted(`exec:\n  - id: a\n    executable: ${list}\n`).split("\n").length).toBeGreaterThan(30);
  });

  test("text that looks like a list in brackets is left alone", () => {
    const text = 'exec:\n  - id: "[ a ]"\n    argv: ["[ x ]", "é ]"]\n    message: |\n      [ a, b ]\n';
    expect(formatted(text)).toBe(text);
  });

  test("the order of variables is kept, since a later one may use an earlier one", () => {
    const text = "variables:\n  z: 1\n  a: ${z}\n";
    expect(formatted(text)).toBe(text);
  });
});

describe("meaning", () => {
  const packs = join(import.meta.dirname, "packs");
  test.each(readdirSync(packs))("%s says the same, has all its comments, and is stable", (name) => {
    const text = readFileSync(join(packs, name), "utf8");
    const result = formatted(text);
    expect(formatted(result)).toBe(result);
    const lines = (t: string) =>
      t
        .match(/#.*/g)
        ?.map((c) => c.trim())
        .sort();
    expect(lines(result)).toEqual(lines(text));
    const variables = { workspace: "/w", openclaw: "/o", home: "/h", gatewayToken: "/t", modelKey: "/k" };
    const given = Object.fromEntries(
      Object.entries(variables).filter(([key]) =>
        text.slice(0, text.indexOf("\nsandbox:")).includes(`  ${key}:`),
      ),
    );
    const hash = (t: string) => parsePolicy(t, name, { variables: given }).policy?.hash;
    expect(hash(text) === undefined).toBe(name.endsWith(".test.yaml"));
    expect(hash(result)).toBe(hash(text));
  });

  test("rules in any order of keys, quoting and nesting keep their hash", () => {
    const value = fc.constantFrom(
      "/usr/bin/x",
      '"/usr/**"',
      "'/a b'",
      '"/x\\u00e9"',
      "[/a, '/b']",
      "\n        - /a\n        - /b",
    );
    const key = fc.constantFrom("executable", "script", "cwd");
    const entries = fc.dictionary(key, value, { minKeys: 1 });
    fc.assert(
      fc.property(entries, fc.boolean(), (fields, last) => {
        const parts = Object.entries({ executable: "/z", ...fields }).map(([k, v]) => `      ${k}: ${v}`);
        const fixed = ["      id: a", "      action: allow # why"];
        const rule = (last ? [...parts, ...fixed] : [...fixed, ...parts])
          .join("\n")
          .replace("      ", "    - ");
        const text = policyText(`exec:\n${rule}`);
        const result = formatted(text);
        const before = parsePolicy(text, "x").policy?.hash;
        expect(before).toBeDefined();
        expect(parsePolicy(result, "x").policy?.hash).toBe(before);
        expect(result).toContain("# why");
        expect(formatted(result)).toBe(result);
      }),
      { numRuns: 50 },
    );
  });

  test("a comment below a key without a value stays above the key that follows, or at the end", () => {
    const text = `variables:
  # the code
  code:
  # the data
  # of the agent
  data: # required

  # the key
  key:
  model: x
  last:
  # the end
`;
    expect(formatted(text.replace(": x", ":   x"))).toBe(text);
    for (const value of ["", " 1"]) {
      const below = `variables:\n  a:${value}\n  # about b\n  b: 1\n`;
      expect(formatted(below)).toBe(below);
    }
  });

  test("a file that is no YAML of this language is refused with its findings, and not formatted", () => {
    for (const text of ["a: &x 1\nb: *x\n", "a: [", "a: 1\na: 2\n", "---\na: 1\n---\nb: 1\n"]) {
      const result = formatPolicy(text, "bad.yaml");
      expect(result.text).toBeUndefined();
      expect(result.diagnostics.length).toBeGreaterThan(0);
    }
    expect(formatPolicy("a: 1\n", "good.yaml").text).toBe("a: 1\n");
  });
});

test("the order names every key of the language, so that none is forgotten", () => {
  const pairs: [readonly string[], Mapping][] = [
    [RULE, EXEC_RULE],
    [RULE, FILE_RULE],
    [NETWORK_RULE, NETWORK],
    [SANDBOX, SANDBOX_MAPPING],
    [HEALTH_CHECK, HEALTH_CHECK_MAPPING],
    [TOP, POLICY],
    [TOP, POLICY_TEST],
    [CASE, CASE_MAPPING],
  ];
  for (const [order, mapping] of pairs)
    expect(
      keysOf(mapping).filter((key) => !order.includes(key)),
      mapping.name,
    ).toEqual([]);
});
