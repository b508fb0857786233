// The matchers of exec rules, with their near misses: what a rule restricts or permits, and what it does not know.

import { describe, expect, test } from "vitest";
import { CacheScope, ExecFact, type Process, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { type Action, evaluate } from "../evaluate.js";
import type { Policy } from "../model.js";
import { exec, policy } from "../testing/policy.js";

const said = (p: Policy, action: Action) => {
  const { verdict, rule } = evaluate(p, action);
  return `${Verdict[verdict]} ${rule}`;
};
const scope = (p: Policy, action: Action) => CacheScope[evaluate(p, action).cacheScope];
const process = (
  executable: string,
  ancestorExecutables: string[] = [],
  ancestorsTruncated = false,
): Process => ({
  pid: 0,
  sandboxPid: 0,
  uid: 1000,
  gid: 1000,
  execId: "",
  ancestors: [],
  executable,
  comm: "",
  ancestorExecutables,
  ancestorsTruncated,
});
const by = (caller: Process | undefined, executable = "/usr/bin/x"): Action => ({
  ...exec({ executable }),
  process: caller,
});

describe("sha256", () => {
  const A = "a".repeat(64);
  const B = "b".repeat(64);
  const restricting = policy(`defaults: { exec: allow }\nexec:\n  - { id: bad, sha256: ${A}, action: deny }`);
  const permitting = policy(
    `exec:\n  - { id: good, executable: /usr/bin/dash, sha256: ["${A}"], action: allow }\n  - { id: any, executable: /usr/bin/x, action: allow }`,
  );
  const image = (executableSha256: string, script = "", scriptSha256 = "") =>
    exec({ executable: "/usr/bin/dash", executableSha256, script, scriptSha256 });

  test.each([
    ["DENY exec/bad", image(A)],
    ["DENY exec/bad", image(B, "/srv/x", A)],
    ["ALLOW exec/default", image(B)],
    ["ALLOW exec/default", image(B, "/srv/x", B)],
    // Not known: a restriction is not dodged.
    ["DENY exec/bad", image("")],
    ["DENY exec/bad", image(B, "/srv/x", "")],
  ])("of a rule that restricts: %s: %j", (expected, action) => {
    expect(said(restricting, action)).toBe(expected);
  });

  test("that nobody took is said", () => {
    expect(evaluate(restricting, image("")).message).toBe("the hash of the file is not known");
    expect(evaluate(restricting, image(A)).message).toBe("the policy does not allow it");
  });

  test.each([
    ["ALLOW exec/good", image(A)],
    ["ALLOW exec/good", image(B, "/srv/x", A)],
    ["DENY exec/default", image(B)],
    ["DENY exec/default", image("")],
    ["DENY exec/default", image(B, "/srv/x", "")],
  ])("of a rule that permits: %s: %j", (expected, action) => {
    expect(said(permitting, action)).toBe(expected);
  });

  test("of a script alone permits nothing, since it would permit any interpreter", () => {
    const p = policy(`exec:\n  - { id: good, executable: /usr/bin/dash, sha256: ${A}, action: allow }`);
    const [rule] = p.exec;
    if (rule === undefined) throw new Error("no rule");
    const nameless = { ...p, exec: [{ ...rule, executable: [] }] };
    expect(said(nameless, image(A))).toBe("ALLOW exec/good");
    expect(said(nameless, image(B, "/srv/x", A))).toBe("DENY exec/default");
  });

  test("is known by the file, unless a script could have it", () => {
    expect(scope(permitting, image(A))).toBe("FILE");
    expect(scope(restricting, image(B))).toBe("FILE_ARGV");
    expect(scope(restricting, image(""))).toBe("NONE");
  });
});

describe("inWorkspace", () => {
  const rule = (value: boolean, action: string, more = "") =>
    policy(
      `defaults: { exec: ${action === "deny" ? "allow" : "deny"} }\nexec:\n  - { id: here, inWorkspace: ${value}, ${more}action: ${action} }`,
    );
  const inside = "/home/agent/a";
  const outside = "/usr/bin/a";
  test.each([
    ["DENY", true, "deny", "", inside, ""],
    ["DENY", true, "deny", "", outside, inside],
    ["ALLOW", true, "deny", "", outside, ""],
    ["ALLOW", true, "deny", "", outside, outside],
    ["ALLOW", true, "deny", "", "/home/agents/a", ""],
    ["DENY", false, "deny", "", outside, ""],
    // A "#!" line in the workspace does not open what lies outside.
    ["DENY", false, "deny", "", outside, inside],
    ["ALLOW", false, "deny", "", inside, ""],
    ["ALLOW", true, "allow", "", inside, ""],
    ["DENY", true, "allow", "", outside, ""],
    ["DENY", true, "allow", "", outside, inside],
    ["ALLOW", true, "allow", "executable: /usr/bin/a, ", outside, inside],
    ["DENY", true, "allow", "executable: /usr/bin/a, ", outside, outside],
    ["ALLOW", false, "allow", "", outside, ""],
    ["ALLOW", false, "allow", "", outside, outside],
    ["DENY", false, "allow", "", outside, inside],
    ["DENY", false, "allow", "", inside, ""],
  ])("%s: inWorkspace: %s, %s, %s %s %s", (expected, value, action, more, executable, script) => {
    const { verdict } = evaluate(rule(value, action, more), exec({ executable, script }));
    expect(Verdict[verdict]).toBe(expected);
  });
});

describe("environment", () => {
  const p = policy(`defaults: { exec: allow }
exec:
  - { id: preload, executable: "/**", environment: ["LD_*", GIT_SSH_COMMAND], action: deny }`);
  test.each([
    ["DENY exec/preload", ["HOME", "LD_PRELOAD"]],
    ["DENY exec/preload", ["GIT_SSH_COMMAND"]],
    ["ALLOW exec/default", ["GIT_SSH", "OLD_X", "ld_preload"]],
    ["ALLOW exec/default", []],
  ])("%s: %j", (expected, environmentNames) => {
    const action = exec({ executable: "/usr/bin/x", environmentNames });
    expect(said(p, action)).toBe(expected);
    expect(scope(p, action)).toBe("NONE");
  });
});

describe("parent and ancestor", () => {
  const p = policy(`defaults: { exec: allow }
exec:
  - { id: shells, executable: /usr/bin/x, parent: /usr/bin/sh, action: hold }
  - { id: web, executable: /usr/bin/y, ancestor: "/opt/web/**", action: deny }
  - { id: tools, executable: /opt/z, ancestor: /usr/bin/sh, action: log }
  - { id: others, executable: /opt/z, action: deny }
`);
  const many = (...images: string[]) => process("/usr/bin/a", images, true);
  test.each([
    ["HOLD exec/shells", by(process("/usr/bin/sh"))],
    ["ALLOW exec/default", by(process("/usr/bin/bash", ["/usr/bin/sh"]))],
    ["DENY exec/shells", by(undefined)],
    ["DENY exec/shells", by(process(""))],
    ["DENY exec/shells", by(process("memfd"))],
    ["DENY exec/web", by(process("/opt/web/a"), "/usr/bin/y")],
    ["DENY exec/web", by(process("/usr/bin/sh", ["/usr/bin/a", "/opt/web/a"]), "/usr/bin/y")],
    ["ALLOW exec/default", by(process("/usr/bin/sh", ["/opt/webs/a"]), "/usr/bin/y")],
    ["ALLOW exec/default", by(process("/usr/bin/sh"), "/usr/bin/y")],
    ["DENY exec/web", by(undefined, "/usr/bin/y")],
    ["DENY exec/web", by(process("", ["/usr/bin/sh"]), "/usr/bin/y")],
    ["DENY exec/web", by(many("/usr/bin/sh"), "/usr/bin/y")],
    ["LOG exec/tools", by(process("/usr/bin/a", ["/usr/bin/sh"]), "/opt/z")],
    ["LOG exec/tools", by(many("/usr/bin/sh"), "/opt/z")],
    // What is not known permits nothing; the rules after it go on.
    ["DENY exec/others", by(many("/usr/bin/b"), "/opt/z")],
    ["DENY exec/others", by(undefined, "/opt/z")],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("that are not known are said, and the rules about others are not concerned", () => {
    expect(evaluate(p, by(undefined)).message).toBe("the program that calls is not known");
    expect(evaluate(p, by(undefined, "/usr/bin/y")).message).toBe(
      "the programs that led to it are not known",
    );
    expect(evaluate(p, by(many(), "/usr/bin/y")).message).toBe("more programs led to it than can be checked");
    expect(said(p, by(undefined, "/usr/bin/free"))).toBe("ALLOW exec/default");
  });

  test("make answers that hold once", () => {
    expect(scope(p, by(process("/usr/bin/bash")))).toBe("NONE");
    expect(scope(p, by(undefined, "/usr/bin/free"))).toBe("FILE_ARGV");
  });
});

test("a script that interprets another counts as one: a restriction by any of them, a permission by all", () => {
  const nested = (nestedScripts: string[]) =>
    exec({ executable: "/usr/bin/dash", script: "/srv/outer", nestedScripts });
  const by = (rule: string) =>
    policy(`defaults: { exec: allow }\nexec:\n  - { id: r, ${rule}, action: deny }`);
  for (const rule of ["script: /srv/mid", "executable: /srv/mid", "executable: /srv/mid, kind: file"]) {
    expect(evaluate(by(rule), nested(["/srv/mid"])).verdict).toBe(Verdict.DENY);
    expect(evaluate(by(rule), nested(["/srv/other"])).verdict).toBe(Verdict.ALLOW);
  }
  const permit = policy("exec:\n  - { id: r, script: /srv/*, executable: /usr/bin/dash, action: allow }");
  expect(evaluate(permit, nested(["/srv/mid"])).verdict).toBe(Verdict.ALLOW);
  expect(evaluate(permit, nested(["/tmp/mid"])).verdict).toBe(Verdict.DENY);
  // A rule by hash asks for that of each.
  const hash = by(`sha256: "${"a".repeat(64)}"`);
  const other = "b".repeat(64);
  const asked = (nestedScripts: string[], nestedSha256: string[]) =>
    exec({
      executable: "/usr/bin/dash",
      script: "/srv/outer",
      executableSha256: other,
      scriptSha256: other,
      nestedScripts,
      nestedSha256,
    });
  expect(evaluate(hash, asked([], [])).verdict).toBe(Verdict.ALLOW);
  expect(evaluate(hash, asked(["/srv/mid"], [other])).verdict).toBe(Verdict.ALLOW);
  expect(evaluate(hash, asked(["/srv/mid"], ["a".repeat(64)])).verdict).toBe(Verdict.DENY);
  expect(evaluate(hash, asked(["/srv/mid"], [])).verdict).toBe(Verdict.DENY);
});

describe("what an answer goes by", () => {
  const by = (p: Policy, action: Action) => evaluate(p, action).dependsOn.map((fact) => ExecFact[fact]);
  const rules = policy(`
exec:
  - { id: other, executable: /usr/bin/y, environment: LD_*, action: deny }
  - { id: arguments, executable: /**, argv: ["*", push], environment: LD_*, action: deny }
  - { id: folder, executable: /usr/bin/x, cwd: /srv/**, action: deny }
  - { id: scripts, script: /opt/**, executable: /usr/bin/dash, action: allow }
  - { id: early, executable: /usr/bin/x, action: allow }
  - { id: held, executable: /usr/bin/z, action: hold }
  - { id: late, executable: /**, environment: A, sha256: ${"a".repeat(64)}, action: deny }
`);
  const at = (executable: string, argv = ["x"], script = "") =>
    exec({ executable, argv, cwd: "/tmp", script });

  test("is each fact that a rule looked at, up to the one that decided", () => {
    // Of the rule "arguments" the environment is looked at only when the arguments fit; those are bound anyway.
    expect(by(rules, at("/usr/bin/x"))).toEqual(["CWD"]);
    expect(by(rules, at("/usr/bin/x", ["x", "push"]))).toEqual(["CWD", "ENVIRONMENT"]);
    expect(by(rules, at("/usr/bin/y"))).toEqual(["ENVIRONMENT"]);
    expect(by(rules, at("/usr/bin/dash", ["x"], "/opt/a"))).toEqual(["SCRIPT"]);
    // The hash is compared first, and a restriction that does not know it denies when the environment fits.
    expect(by(rules, at("/usr/bin/w"))).toEqual(["ENVIRONMENT"]);
    expect(by(rules, at("/usr/bin/w", ["x"], "/tmp/a"))).toEqual(["ENVIRONMENT", "SCRIPT"]);
  });

  test("is also the script when a rule that names scripts was passed by, and not when none was", () => {
    const named = policy(
      "exec:\n  - { id: bad, script: /srv/**, action: deny }\n  - { id: any, executable: /usr/bin/**, action: allow }",
    );
    expect(by(named, at("/usr/bin/dash", ["x"], "/tmp/a"))).toEqual(["SCRIPT"]);
    expect(by(named, at("/usr/bin/dash"))).toEqual([]);
    const programs = policy(
      "exec:\n  - { id: bad, executable: /usr/bin/su, action: deny }\n  - { id: any, executable: /usr/bin/**, action: allow }",
    );
    expect(by(programs, at("/usr/bin/dash", ["x"], "/tmp/a"))).toEqual([]);
  });

  test("is all that a person sees when it is held", () => {
    expect(by(rules, at("/usr/bin/z"))).toEqual(["CWD", "ENVIRONMENT"]);
    expect(by(rules, at("/usr/bin/z", ["x"], "/tmp/a"))).toEqual(["CWD", "ENVIRONMENT", "SCRIPT"]);
  });
});
