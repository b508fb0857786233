// Differences are found by what policies decide, and nothing is found where they decide alike.

import { describe, expect, test } from "vitest";
import type { Policy } from "../model.js";
import { parsePolicy } from "../schema.js";
import { policy, policyText } from "../testing/policy.js";
import { diffVerdicts } from "./diff.js";
import { makeProbes } from "./probes.js";

const diff = (before: Policy, after: Policy) =>
  diffVerdicts(before, after, makeProbes(before, after).probes).map(({ from, to, direction, changes }) => ({
    what: `${from} -> ${to}`,
    direction,
    count: changes.length,
    rules: [...new Set(changes.map((c) => `${c.before.rule} -> ${c.after.rule}`))],
  }));
const changed = (before: string, after: string) =>
  diff(policy(before), policy(after)).map(({ what }) => what);

const exec = (...rules: string[]) => `exec:\n${rules.map((rule) => `  - ${rule}`).join("\n")}\n`;
const USR = "{ id: usr, executable: /usr/**, action: allow }";

describe("a change of a rule is found", () => {
  test.each<[string, string, string, string]>([
    [
      "a denial that comes",
      exec(USR),
      exec("{ id: git, executable: /usr/bin/git, action: deny }", USR),
      "allow -> deny",
    ],
    [
      "another action",
      exec("{ id: a, executable: /usr/bin/x, action: hold }"),
      exec("{ id: a, executable: /usr/bin/x, action: deny }"),
      "hold -> deny",
    ],
    [
      "an order that matters",
      exec(USR, "{ id: x, executable: /usr/bin/x, action: deny }"),
      exec("{ id: x, executable: /usr/bin/x, action: deny }", USR),
      "allow -> deny",
    ],
    [
      "a flag",
      exec(USR),
      exec("{ id: rm, executable: /usr/bin/rm, argv: { flags: ['-r|-R|--recursive'] }, action: hold }", USR),
      "allow -> hold",
    ],
    [
      "arguments",
      exec("{ id: a, executable: /usr/bin/git, argv: ['*', push, '**'], action: allow }"),
      exec("{ id: a, executable: /usr/bin/git, argv: ['*', pull, '**'], action: allow }"),
      "allow -> deny",
    ],
    [
      "a working directory",
      exec("{ id: a, executable: /usr/bin/x, action: allow }"),
      exec("{ id: a, executable: /usr/bin/x, cwd: /w/**, action: allow }"),
      "allow -> deny",
    ],
    [
      "a parent",
      exec("{ id: a, executable: /usr/bin/x, action: allow }"),
      exec("{ id: a, executable: /usr/bin/x, parent: /usr/bin/make, action: allow }"),
      "allow -> deny",
    ],
    [
      "an environment",
      exec("{ id: a, executable: /usr/bin/x, action: allow }"),
      exec(
        "{ id: b, executable: /usr/bin/x, environment: 'LD_*', action: deny }",
        "{ id: a, executable: /usr/bin/x, action: allow }",
      ),
      "allow -> deny",
    ],
    [
      "a time",
      exec("{ id: a, executable: /usr/bin/x, action: allow, when: { days: [mon] } }"),
      exec("{ id: a, executable: /usr/bin/x, action: allow, when: { days: [tue] } }"),
      "allow -> deny",
    ],
    ["a default", "defaults: { exec: deny }", "defaults: { exec: log }", "deny -> log"],
    [
      "a host",
      "network:\n  - { id: a, host: x.com, action: allow }",
      "network:\n  - { id: a, host: y.com, action: allow }",
      "allow -> deny",
    ],
    [
      "a port",
      "network:\n  - { id: a, host: x.com, action: allow }",
      "network:\n  - { id: a, host: x.com, port: 443, action: allow }",
      "allow -> deny",
    ],
    [
      "a method",
      "network:\n  - { id: a, host: x.com, method: [GET, POST], action: allow }",
      "network:\n  - { id: a, host: x.com, method: GET, action: allow }",
      "allow -> deny",
    ],
    [
      "a range",
      "network:\n  - { id: a, cidr: 192.0.2.0/24, action: allow }",
      "network:\n  - { id: a, cidr: 192.0.2.0/25, action: allow }",
      "allow -> deny",
    ],
    [
      "an operation on files",
      "file:\n  - { id: a, path: /home/agent/x, operations: [delete], action: hold }",
      "file:\n  - { id: a, path: /home/agent/x, operations: [delete, rename], action: hold }",
      "allow -> hold",
    ],
    [
      "a mount",
      "",
      "sandbox:\n  mounts:\n    - { source: /usr }\n    - { source: /srv/home, target: /home/agent }\n    - { source: /srv/data, target: /data }",
      "allow -> deny",
    ],
  ])("%s", (_, before, after, what) => {
    expect(changed(before, after)).toContain(what);
    // The same pair the other way round, and each with itself.
    expect(changed(after, before)).toContain(what.split(" -> ").reverse().join(" -> "));
    expect(changed(before, before)).toEqual([]);
  });
});

describe("what decides alike is no change", () => {
  test.each([
    [
      "other names and texts",
      exec("{ id: a, executable: /usr/bin/x, action: deny }"),
      exec("{ id: b, executable: /usr/bin/x, action: deny, message: no }"),
    ],
    [
      "an order that does not matter",
      exec("{ id: a, executable: /usr/bin/x, action: deny }", "{ id: b, executable: /opt/x, action: allow }"),
      exec("{ id: b, executable: /opt/x, action: allow }", "{ id: a, executable: /usr/bin/x, action: deny }"),
    ],
    [
      "a pattern written out",
      exec("{ id: a, executable: '/usr/bin/{x,y}', action: allow }"),
      exec("{ id: a, executable: [/usr/bin/x, /usr/bin/y], action: allow }"),
    ],
  ])("%s", (_, before, after) => {
    expect(changed(before, after)).toEqual([]);
  });
});

test("looser changes come first, and each says which rules decided", () => {
  const before = policy(
    exec(
      "{ id: no-git, executable: /usr/bin/git, action: deny }",
      "{ id: x, executable: /usr/bin/x, action: allow }",
    ),
  );
  const after = policy(
    exec(
      "{ id: git, executable: /usr/bin/git, action: allow }",
      "{ id: no-x, executable: /usr/bin/x, action: deny }",
    ),
  );
  const groups = diff(before, after);
  expect(groups.map(({ what, direction }) => [what, direction])).toEqual([
    ["deny -> allow", "looser"],
    ["allow -> deny", "stricter"],
  ]);
  expect(groups[0]?.rules).toContain("exec/no-git -> exec/git");
});

test("another subject behind a way in is a change of its own", () => {
  const subjects = (name: string) =>
    policy(`subjects:
  - { name: main }
  - { name: one, enters: [{ from: main, executable: ${name === "one" ? "/usr/bin/t" : "/usr/bin/u"} }] }
  - { name: two, enters: [{ from: main, executable: ${name === "two" ? "/usr/bin/t" : "/usr/bin/v"} }] }
${exec(USR)}`);
  expect(diff(subjects("one"), subjects("two"))).toContainEqual(
    expect.objectContaining({ what: "allow into one -> allow into two", direction: "other" }),
  );
});

test("probes are the same each time, without doubles, and bounded whatever the policy's size", () => {
  const rules = Array.from(
    { length: 3000 },
    (_, i) => `{ id: r${i}, executable: "/usr/*/p${i}", action: allow }`,
  );
  const large = parsePolicy(policyText(exec(...rules)), "x").policy as Policy;
  const { probes, complete } = makeProbes(large, large, 5000);
  expect(probes).toHaveLength(5000);
  expect(complete).toBe(false);
  expect(makeProbes(large, large, 5000).probes).toEqual(probes);
  expect(new Set(probes.map((probe) => JSON.stringify(probe))).size).toBe(5000);
  // Every rule is asked about before any is asked about twice as often as the others.
  expect(probes.filter((probe) => JSON.stringify(probe).includes("/p2999")).length).toBeGreaterThan(0);
  const small = policy(exec(USR));
  expect(makeProbes(small, small).complete).toBe(true);
});
