// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

import { describe, expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import { Context, list } from "./read/context.js";
import { parsePolicy } from "./schema.js";
import { policy, policyText } from "./testing/policy.js";
import { Variables } from "./variables.js";

const exec = (keys: string, variables = {}) =>
  policy(`exec:\n  - { id: a, action: allow, executable: /a, ${keys} }`, variables).exec[0];
const file = (keys: string) =>
  policy(`file:\n  - { id: a, action: deny, path: /a, operations: read, ${keys} }`).file[0];
const network = (keys: string) =>
  policy(`network:\n  - { id: a, action: allow, host: x.com, ${keys} }`).network[0];
/** What is said about one rule of exec (unless the text says otherwise). */
function said(keys: string, section = "exec", rule = "id: a, action: allow, executable: /a"): string {
  return renderDiagnostics(parsePolicy(policyText(`${section}:\n  - { ${rule}, ${keys} }`), "p").diagnostics);
}

describe("every rule", () => {
  test("has a mode, a severity and tags, and usual ones without them", () => {
    expect(exec("mode: observe, severity: high, tags: [b, a, b]")).toMatchObject({
      mode: "observe",
      severity: "high",
      tags: ["b", "a"],
    });
    expect(exec("cwd: /a")).toMatchObject({ mode: "enforce", locked: false, severity: "info", tags: [] });
    expect(said("severity: hihg")).toContain('Did you mean "high"?');
    expect(said("tags: [A b]")).toContain('the tag "A b" is not one');
  });

  test("can hold at some times only", () => {
    expect(
      exec('when: { days: mon-fri, from: "09:00", to: "18:00", timeZone: Europe/Berlin }')?.when,
    ).toEqual([{ days: [1, 2, 3, 4, 5], fromMinute: 540, toMinute: 1080, timeZone: "Europe/Berlin" }]);
    expect(exec('when: [{ days: [fri-mon, wed] }, { from: "22:00", to: "06:00" }]')?.when).toEqual([
      { days: [0, 1, 3, 5, 6], fromMinute: 0, toMinute: 1440, timeZone: "UTC" },
      { days: [0, 1, 2, 3, 4, 5, 6], fromMinute: 1320, toMinute: 360, timeZone: "UTC" },
    ]);
    expect(exec('when: { from: "18:00", to: "24:00" }')?.when[0]?.toMinute).toBe(1440);
    expect(exec('when: { from: "18:00", to: "00:00" }')?.when[0]?.toMinute).toBe(1440);
  });

  test.each([
    ["when: { days: mno }", 'Did you mean "mon"?'],
    ["when: { days: mon-fri-sun }", "is not a day of the week"],
    ["when: []", "must not be an empty list"],
    ['when: { from: "24:00" }', "is not a time of day"],
    ['when: { to: "24:01" }', "is not a time of day"],
    ["when: { from: 9 }", "a time of day must be text, not a number"],
    ["when: { timeZone: Europe/Berln }", '"Europe/Berln" is not a time zone'],
    ['when: { timeZone: "+01:00" }', "is not a time zone"],
    ["rate: { max: 3 }", 'rate needs the key "per"'],
    ["rate: { max: 0, per: 1m }", "whole number from 1"],
    ["rate: { max: 3, per: 1 }", '"1" is not a duration'],
  ])("with a wrong time or rate is an error: %s", (keys, message) => {
    expect(said(keys)).toContain(message);
  });

  test("can have a rate, unless it denies", () => {
    expect(exec("rate: { max: 30, per: 1m }")?.rate).toEqual({ max: 30, perMs: 60_000 });
    expect(said("rate: { max: 1, per: 1m }", "exec", "id: a, executable: /a, action: deny")).toContain(
      '"rate" has no meaning with the action "deny"',
    );
  });
});

describe("a rule of exec", () => {
  test("can speak of all that is known about a command", () => {
    const hash = "AB".repeat(32);
    expect(
      exec(
        `sha256: "${hash}", inWorkspace: false, environment: ["LD_*", GIT_DIR], parent: /usr/bin/make, ancestor: ["/usr/**", /opt/x]`,
      ),
    ).toMatchObject({
      sha256: [hash.toLowerCase()],
      inWorkspace: false,
      environment: ["LD_*", "GIT_DIR"],
      parent: ["/usr/bin/make"],
      ancestor: ["/usr/**", "/opt/x"],
      argv: undefined,
    });
  });

  test("can say much about arguments", () => {
    const keys =
      'argv: { glob: ["*", "**"], exact: [], prefix: [push], regex: ["^v[0-9]+$", x], flags: ["-r|-R|--recursive", --force], without: "-n", valued: ["-C|--git-dir", -c] }';
    expect(exec(keys)?.argv).toEqual({
      glob: ["*", "**"],
      exact: [],
      prefix: ["push"],
      regex: ["^v[0-9]+$", "x"],
      flags: [["-r", "-R", "--recursive"], ["--force"]],
      without: [["-n"]],
      valued: ["-C", "--git-dir", "-c"],
    });
    expect(exec("argv: { regex: push }")?.argv).toMatchObject({ glob: undefined, exact: undefined });
  });

  test("takes variables in expressions and arguments as they are written", () => {
    const rule = policy(
      'variables: { v: "a.b*" }\nexec:\n  - { id: a, action: deny, executable: /a, argv: { exact: ["${v}"], regex: "^${v}$", glob: ["${v}"] } }',
    ).exec[0];
    expect(rule?.argv).toMatchObject({ exact: ["a.b*"], regex: ["^a\\.b\\*$"], glob: ["a.b\\*"] });
  });

  test.each([
    ["argv: {}", "must not be an empty mapping"],
    ["argv: { prefix: [] }", "must not be an empty list"],
    ["argv: { valued: -C }", '"valued" alone says nothing'],
    ["argv: { flags: -rf }", '"-rf" is read as the flags -r -f'],
    ["argv: { flags: recursive }", '"recursive" is not a flag'],
    ['argv: { flags: ["-"] }', "is not a flag"],
    ["argv: { flags: [--] }", "is not a flag"],
    ['argv: { flags: "-r||-f" }', "is not a flag"],
    ['argv: { regex: "a(?=b)" }', "no look-around"],
    ['argv: { regex: "(" }', "missing closing )"],
    [`argv: { regex: "${"x".repeat(1001)}" }`, "longer than 1000 characters"],
    ['argv: { regex: "((a{1,100}){1,100})" }', "invalid repeat count"],
    ['argv: { regex: "(([a-f]x){10}){50}y{900}" }', "too large"],
    ["sha256: abc", '"abc" is not a SHA-256'],
    ["environment: A=b", "Only names are known, not values"],
    ["inWorkspace: perhaps", "must be true or false"],
    ["category: no-such-category", 'the category "no-such-category" is not in the catalogue'],
  ])("says what is wrong: %s", (keys, message) => {
    expect(said(keys)).toContain(message);
  });

  test.each([`sha256: ${"0".repeat(64)}`, "inWorkspace: true", "kind: anonymous", "script: /a"])(
    "needs no executable when it has %s",
    (key) => {
      expect(said(key, "exec", "id: a, action: deny")).toBe("");
    },
  );
});

describe("a rule of file", () => {
  test("can speak of every operation and of owners", () => {
    expect(file("owner: [root, user, 5]")).toMatchObject({ owner: [0, 1000, 5] });
    const all = "operations: [exec, chmod, create, read, write, open, delete, rename, link, truncate]";
    const rule = policy(`file:\n  - { id: a, action: deny, path: /a, ${all} }`).file[0];
    expect(rule?.operations).toHaveLength(10);
    expect(said("owner: nobody", "file", "id: a, action: deny, path: /a, operations: read")).toContain(
      'the owner cannot be "nobody"',
    );
  });

  test("takes the sandbox's own user for an owner", () => {
    const text =
      "sandbox: { user: { uid: 7 }, mounts: [{ source: /usr }] }\nfile: [{ id: a, action: deny, path: /a, operations: read, owner: user }]";
    expect(policy(text).file[0]?.owner).toEqual([7]);
  });
});

describe("a rule of network", () => {
  test("can speak of protocols and of requests", () => {
    expect(network("protocol: [other, tls]")?.protocols).toEqual(["tls", "other"]);
    expect(network('method: [get, POST], path: "/v1/**"')).toMatchObject({
      protocols: ["http"],
      methods: ["GET", "POST"],
      paths: ["/v1/**"],
    });
    expect(network("protocol: http, method: GET")?.protocols).toEqual(["http"]);
  });

  test.each([
    ["protocol: [tls, http], path: /x", '"path" has no meaning with the protocol "tls"'],
    ["protocol: tcp", 'the protocol cannot be "tcp"'],
    ['method: "GET /"', 'the method "GET /" is not one'],
    ["path: v1", "it must be absolute"],
    ["path: /v1/", 'Write "/v1/**" for what is below it.'],
  ])("says what is wrong: %s", (keys, message) => {
    expect(said(keys, "network", "id: a, action: allow, host: x.com")).toContain(message);
  });
});

test("a list may have 20,000 items, and not one more", () => {
  const origin = { file: "p", line: 1, column: 1, length: 1, sourceLine: "" };
  const item = { kind: "scalar", value: "x", text: "x", origin } as const;
  const read = (length: number) => {
    const context = new Context(new Variables());
    const items = list(context, { kind: "list", items: Array(length).fill(item), origin }, "exec", () => 1);
    return [items.length, context.diagnostics.map((d) => d.message)];
  };
  expect(read(20_000)).toEqual([20_000, []]);
  expect(read(20_001)).toEqual([0, ["exec has more than 20000 items"]]);
});
