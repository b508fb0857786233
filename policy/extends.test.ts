// biome-ignore-all lint/suspicious/noTemplateCurlyInString: ${name} is the policy language's own way to name a variable.

import { describe, expect, test } from "vitest";
import { renderDiagnostics } from "./diagnostics.js";
import type { Policy } from "./model.js";
import { type ParseResult, parsePolicy, type ReadBase } from "./schema.js";

const HEAD = "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: t }\n";
const SANDBOX = "sandbox: { mounts: [{ source: /usr }] }\n";

/** Files by name, as a policy sees them: references are their names. */
function files(texts: Readonly<Record<string, string>>): ReadBase {
  return (reference) => {
    const text = texts[reference];
    return text === undefined ? { error: "there is no such file" } : { file: reference, text: HEAD + text };
  };
}

function parse(
  main: string,
  bases: Record<string, string>,
  variables: Record<string, string> = {},
): ParseResult {
  return parsePolicy(HEAD + main, "main", { variables, base: files(bases) });
}

function said(main: string, bases: Record<string, string>, variables: Record<string, string> = {}): string {
  return renderDiagnostics(parse(main, bases, variables).diagnostics);
}

function merged(main: string, bases: Record<string, string>, variables: Record<string, string> = {}): Policy {
  const { policy, diagnostics } = parse(main, bases, variables);
  if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
  return policy;
}

const rule = (id: string, more = "executable: /x, action: allow") => `  - { id: ${id}, ${more} }\n`;
const FLOOR = "executable: /x, action: deny, locked: true";

describe("what a file extends", () => {
  test("is read depth first and kept, the file itself last", () => {
    const { policy, sources } = parse("extends: [a, b]\n", { a: "extends: a0\n", a0: SANDBOX, b: "" });
    expect(policy?.layers).toEqual(
      [
        ["a0", 0],
        ["a", 0],
        ["b", 2],
        ["main", 0],
      ].map(([name, first]) => ({ reference: name, file: name, first })),
    );
    expect(sources.map((s) => s.file)).toEqual(["a0", "a", "b", "main"]);
    // The stored texts alone make the same policy again.
    const stored = new Map(sources.map((s) => [s.reference, s]));
    const last = sources.at(-1);
    const again = parsePolicy(last?.text ?? "", "main", {
      base: (reference) => stored.get(reference) ?? { error: "not stored" },
    });
    expect(again.policy?.hash).toBe(policy?.hash);
  });

  test("stands once when two files extend it", () => {
    const bases = { a: "extends: c\n", b: "extends: c\n", c: `${SANDBOX}exec:\n${rule("x", FLOOR)}` };
    expect(merged("extends: [a, b]\n", bases).exec.map((r) => r.id)).toEqual(["exec/x"]);
  });

  test("that does not exist, or extends itself, is an error where it is named", () => {
    expect(said(`extends: [b]\n${SANDBOX}`, {})).toBe(
      `main:4:11: error: "b" cannot be extended: there is no such file
 4 | extends: [b]
   |           ^`,
    );
    const cycle = said("extends: a\n", { a: "extends: b\n", b: "extends: a\n" });
    expect(cycle).toContain("b:4:10: error: a policy cannot extend itself: a -> b -> a");
    expect(said("extends: main\n", { main: "" })).toContain("main -> main");
  });

  test("is at most 8 deep and 32 files", () => {
    const chain = (n: number) =>
      Object.fromEntries(
        Array.from({ length: n }, (_, i) => [`f${i}`, i + 1 < n ? `extends: f${i + 1}\n` : SANDBOX]),
      );
    expect(said("extends: f0\n", chain(8))).toBe("");
    expect(said("extends: f0\n", chain(9))).toContain("policies extend each other more than 8 deep");
    const many = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`f${i}`, ""]));
    const names = (n: number) => Object.keys(many).slice(0, n).join(", ");
    expect(said(`extends: [${names(31)}]\n${SANDBOX}`, many)).toBe("");
    expect(said(`extends: [${names(32)}]\n${SANDBOX}`, many)).toContain("at most 32 files");
  });

  test("needs someone who reads files, and plain names", () => {
    const alone = parsePolicy(`${HEAD}extends: a\n${SANDBOX}`, "main");
    expect(renderDiagnostics(alone.diagnostics)).toContain('"a" cannot be read from here');
    expect(said('extends: "${x}"\n', {})).toContain('variables are not filled in under "extends"');
  });

  test("can be wrong, and says so in its own file", () => {
    const text = said("extends: a\n", { a: `${SANDBOX}exec:\n${rule("x", "executable: x, action: allow")}` });
    expect(text).toContain("a:6:");
    expect(text).toContain("it must be absolute");
    expect(said("extends: a\n", { a: "exec: [\n" })).toContain("a:5:1");
  });

  test("need not have a sandbox, but something must", () => {
    expect(said("extends: a\n", { a: "" })).toContain('a policy needs the key "sandbox"');
    expect(said(`extends: a\n${SANDBOX}`, { a: "" })).toBe("");
  });
});

describe("what is nearer wins", () => {
  test("in the sandbox, key by key", () => {
    const base = `sandbox:
  command: [/bin/a]
  home: /home/a
  environment: { A: "1", B: "1" }
  limits: { pids: 64, memory: 1Gi }
  mounts: [{ source: /usr }, { source: /srv/a, target: /data }, { source: /opt }]
  publish: [{ host: "127.0.0.1:1", sandbox: 80 }]
`;
    const near = `extends: a
sandbox:
  command: [/bin/b]
  environment: { B: "2", C: "2" }
  limits: { memory: 4Gi }
  mounts: [{ source: /srv/b, target: /data }, { source: /var/lib/x }]
  publish: [{ host: "127.0.0.1:2", sandbox: 80 }, { host: "127.0.0.1:3", sandbox: 81 }]
`;
    const { sandbox } = merged(near, { a: base });
    expect(sandbox.command).toEqual(["/bin/b"]);
    expect(sandbox.home).toBe("/home/a");
    expect(sandbox.environment).toEqual({ A: "1", B: "2", C: "2" });
    expect([sandbox.limits.pids, sandbox.limits.memoryBytes]).toEqual([64, 4 * 2 ** 30]);
    expect(sandbox.mounts.map((m) => m.source)).toEqual(["/usr", "/srv/b", "/opt", "/var/lib/x"]);
    expect(sandbox.publish.map((p) => p.hostPort)).toEqual([2, 3]);
    expect(sandbox.mounts.map((m) => m.origin.file)).toEqual(["a", "main", "a", "main"]);
  });

  test("in subjects, secrets, defaults, approvals and resolver", () => {
    const base = `${SANDBOX}subjects:
  - { name: one, loopback: any }
  - { name: two, enters: [{ from: one, executable: /a }] }
defaults: { exec: log, network: hold }
secrets: { mount: /run/s, items: [{ name: k, file: /a }, { name: l, file: /l }] }
approvals: { timeout: 1m, default: allow }
resolver: { hosts: { a.test: 192.0.2.1, b.test: 192.0.2.1 } }
`;
    const near = `extends: a
subjects:
  - { name: two, enters: [{ from: one, executable: /b }] }
  - { name: three, enters: [{ from: two, executable: /c }] }
defaults: { network: deny }
secrets: { items: [{ name: k, file: /b }] }
approvals: { default: deny }
resolver: { hosts: { b.test: 192.0.2.2 } }
`;
    const policy = merged(near, { a: base });
    expect(policy.subjects.map((s) => s.name)).toEqual(["one", "two", "three"]);
    expect(policy.subjects[1]?.enters[0]?.executable).toEqual(["/b"]);
    expect(policy.defaults).toEqual({ exec: "log", network: "deny", file: "deny" });
    expect(policy.secrets?.mount).toBe("/run/s");
    expect(policy.secrets?.items.map((i) => i.file)).toEqual(["/b", "/l"]);
    expect(policy.approvals).toEqual({ timeoutMs: 60_000, onTimeout: "deny" });
    expect(policy.resolverHosts).toEqual({ "a.test": "192.0.2.1", "b.test": "192.0.2.2" });
  });

  test("in name, description and mode, which are the file's own", () => {
    const head = HEAD.replace("name: t", "name: other, description: of the base");
    const { policy } = parsePolicy(`${HEAD}extends: a\n`, "main", {
      base: () => ({ file: "a", text: `${head}${SANDBOX}mode: observe\n` }),
    });
    expect([policy?.name, policy?.description, policy?.mode]).toEqual(["t", "", "enforce"]);
    expect(merged("extends: a\nmode: observe\n", { a: SANDBOX }).mode).toBe("observe");
    expect(said("extends: a\n", { a: `${SANDBOX}mode: watch\n` })).toContain('the mode cannot be "watch"');
  });

  test("in variables, which the extending files see, and a given value wins over all", () => {
    const base = `${SANDBOX}variables: { root: /srv, sub: "\${root}/x" }\nexec:\n${rule("base", 'executable: "${sub}", action: allow')}`;
    const near = `extends: a\nexec:\n${rule("near", 'executable: "${sub}/y", action: allow')}`;
    const executables = (main: string, given = {}) =>
      merged(main, { a: base }, given).exec.map((r) => r.executable[0]);
    expect(executables(near)).toEqual(["/srv/x/y", "/srv/x"]);
    expect(executables(`${near}variables: { root: /r }\n`)).toEqual(["/r/x/y", "/r/x"]);
    expect(executables(`${near}variables: { me: /m, root: "\${me}/r" }\n`)).toEqual(["/m/r/x/y", "/m/r/x"]);
    expect(executables(`${near}variables: { root: /r }\n`, { root: "/given" })).toEqual([
      "/given/x/y",
      "/given/x",
    ]);
    expect(said(`${near}variables: { root: "\${sub}" }\n`, { a: base })).toContain(
      'is made from "root", which is made from it',
    );
  });
});

describe("rules of several files", () => {
  const bases = {
    far: `${SANDBOX}exec:\n${rule("far")}${rule("far-floor", FLOOR)}`,
    a: `extends: far\nexec:\n${rule("a")}${rule("a-floor", FLOOR)}`,
    b: `exec:\n${rule("b")}`,
  };

  test("come floors first, furthest first, then the file's own, then the others, nearest first", () => {
    const policy = merged(`extends: [a, b]\nexec:\n${rule("own")}${rule("own-floor", FLOOR)}`, bases);
    expect(policy.exec.map((r) => r.id.slice(5))).toEqual([
      "far-floor",
      "a-floor",
      "own-floor",
      "own",
      "b",
      "a",
      "far",
    ]);
  });

  test("with an id that is there already replace that rule, and stand with their own", () => {
    const policy = merged(
      `extends: [a, b]\nexec:\n${rule("new")}${rule("far", "executable: /y, action: deny")}`,
      bases,
    );
    expect(policy.exec.map((r) => r.id.slice(5))).toEqual(["far-floor", "a-floor", "new", "far", "b", "a"]);
    expect(policy.exec.find((r) => r.id === "exec/far")?.origin.file).toBe("main");
  });
});

describe("a floor", () => {
  const base = (more = "") => ({ a: `${SANDBOX}${more}exec:\n${rule("x", FLOOR)}` });

  test("cannot be replaced, and a rule beside it can say anything", () => {
    expect(said(`extends: a\nexec:\n${rule("x")}`, base())).toBe(
      `main:6:11: error: the rule exec/x is locked by a:6 and cannot be replaced
 6 |   - { id: x, executable: /x, action: allow }
   |           ^
   = Give this rule another id; it can be stricter, and the locked one still holds.`,
    );
    expect(said(`extends: a\nexec:\n${rule("y")}`, base())).toBe("");
  });

  test("cannot be replaced by a sister file either", () => {
    expect(said("extends: [a, b]\n", { ...base(), b: `exec:\n${rule("x")}` })).toContain("is locked by a:6");
  });

  test("cannot be waived by another file, and can where it stands", () => {
    const waive = "waive: [{ name: exec/x, reason: r }]\n";
    expect(said(`extends: a\n${waive}`, base())).toContain("exec/x is locked by a:6 and cannot be waived");
    expect(said("extends: a\n", base(waive))).toBe("");
    const open = { a: `${SANDBOX}exec:\n${rule("x", "executable: /x, action: deny")}` };
    expect(merged(`extends: a\n${waive}`, open).waive.map((w) => w.name)).toEqual(["exec/x"]);
  });

  test("cannot observe, nor permit", () => {
    const own = (more: string) =>
      said(`${SANDBOX}exec:\n${rule("x", `executable: /x, locked: true, ${more}`)}`, {});
    expect(own("action: deny, mode: observe")).toContain("a locked rule cannot only observe");
    expect(own("action: allow")).toContain('a rule with the action "allow" cannot be locked');
    expect(own("action: log")).toContain('a rule with the action "log" cannot be locked');
    expect(own("action: hold")).toBe("");
    const observing = merged("extends: a\nmode: observe\n", base());
    expect([observing.mode, observing.exec[0]?.mode, observing.exec[0]?.locked]).toEqual([
      "observe",
      "enforce",
      true,
    ]);
  });

  test("keeps its hold's terms when a nearer file changes the approvals", () => {
    const hold = (locked: string) => ({
      a: `${SANDBOX}approvals: { timeout: 1m }\nexec:\n${rule("x", `executable: /x, action: hold${locked}`)}`,
    });
    const near = "extends: a\napprovals: { timeout: 5s, default: allow }\n";
    expect(merged(near, hold(", locked: true")).exec[0]?.hold).toEqual({
      timeoutMs: 60_000,
      onTimeout: "deny",
    });
    expect(merged(near, hold("")).exec[0]?.hold).toEqual({ timeoutMs: 5000, onTimeout: "allow" });
  });

  test("cannot be moved by its variables, unless its own file leaves them open", () => {
    const with_ = (variables: string) => ({
      a: `${SANDBOX}variables: { ${variables} }\nexec:\n${rule("x", 'executable: "${sub}/**", action: deny, locked: true')}`,
    });
    const near = "extends: a\nvariables: { root: /nowhere }\n";
    expect(said(near, with_('root: /srv, sub: "${root}/x"'))).toContain(
      'the rule exec/x is locked, and main gives another value to its variable "root"',
    );
    expect(merged(near, with_('root: , sub: "${root}/x"')).exec[0]?.executable).toEqual(["/nowhere/x/**"]);
    expect(said("extends: a\n", with_('root: /srv, sub: "${root}/x"'), { root: "/given" })).toBe("");
    expect(said("extends: a\nvariables: { other: 1 }\n", with_('root: /srv, sub: "${root}/x"'))).toBe("");
  });

  test("for one subject keeps others from changing the subjects", () => {
    const subjects = "subjects: [{ name: one }, { name: two, enters: [{ from: one, executable: /a }] }]\n";
    const near = "extends: a\nsubjects: [{ name: three, enters: [{ from: two, executable: /b }] }]\n";
    const floor = (more: string) => ({ a: `${SANDBOX}${subjects}exec:\n${rule("x", FLOOR + more)}` });
    expect(said(near, floor(", subject: two"))).toContain("so the subjects cannot be changed here");
    expect(said(near, floor(""))).toBe("");
  });
});

describe("waivers", () => {
  test("of a base hold for its rules, and not for one that replaces them", () => {
    const bases = {
      a: `${SANDBOX}waive: [{ name: exec/x, reason: r }, { name: nftables, reason: r }]\nexec:\n${rule("x")}`,
    };
    const waived = (main: string) => merged(main, bases).waive.map((w) => w.name);
    expect(waived("extends: a\n")).toEqual(["exec/x", "nftables"]);
    expect(waived(`extends: a\nexec:\n${rule("x")}`)).toEqual(["nftables"]);
  });

  test("name a rule that is there, or a mechanism, once, with a reason", () => {
    const own = (waive: string) => said(`${SANDBOX}waive: [${waive}]\n`, {});
    expect(own("{ name: nftables, reason: r }")).toBe("");
    expect(own("{ name: file/x, reason: r }")).toContain('there is no rule "file/x" to waive');
    expect(own("{ name: nftables }")).toContain('needs the key "reason"');
    expect(own("{ name: a, reason: r }, { name: a, reason: s }")).toContain('"a" is waived twice');
  });
});
