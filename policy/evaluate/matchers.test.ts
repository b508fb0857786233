// Each matcher of the language, with its near misses: what a rule restricts or permits, and what it does not know.

import { describe, expect, test } from "vitest";
import {
  CacheScope,
  ExecutableKind,
  FileOperation,
  NetworkProtocol,
  ObservedProtocol,
  type Process,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { type Action, evaluate, matchesRule } from "../evaluate.js";
import type { Policy } from "../model.js";
import { connect, exec, file, policy } from "../testing/policy.js";

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

describe("file operations and owners", () => {
  const p = policy(`file:
  - { id: new, path: /home/agent/fixed, operations: [create], action: deny }
  - { id: mode, path: /home/agent/mode, operations: [chmod], action: hold }
  - { id: still, path: /home/agent/still, operations: [write], action: deny }
  - { id: free, path: /home/agent/free, operations: [write], action: log }
  - { id: root, path: /home/agent/mixed, operations: [delete, rename, link], owner: root, action: deny }
  - { id: mine, path: /home/agent/mine, operations: [delete], owner: [user, 7], action: log }
`);
  const owned = (operation: FileOperation, path: string, ownerUid: number, target = ""): Action => {
    const asked = file(operation, path, target);
    if (asked.action?.$case !== "file") throw new Error("not a file");
    return { ...asked, action: { $case: "file", value: { ...asked.action.value, ownerUid } } };
  };
  test.each([
    ["DENY file/new", file(FileOperation.CREATE, "/home/agent/fixed/a")],
    ["ALLOW file/mounts", file(FileOperation.CREATE, "/home/agent/other")],
    // A rename or a link into it makes a name there; out of it, none.
    ["DENY file/new", file(FileOperation.RENAME, "/home/agent/a", "/home/agent/fixed/a")],
    ["DENY file/new", file(FileOperation.LINK, "/home/agent/a", "/home/agent/fixed/a")],
    ["ALLOW file/mounts", file(FileOperation.RENAME, "/home/agent/fixed/a", "/home/agent/a")],
    ["HOLD file/mode", file(FileOperation.CHMOD, "/home/agent/mode")],
    ["ALLOW file/mounts", file(FileOperation.CHMOD, "/home/agent/modes")],
    ["DENY file/still", file(FileOperation.CHMOD, "/home/agent/still")],
    ["DENY file/still", file(FileOperation.CREATE, "/home/agent/still/a")],
    ["LOG file/free", file(FileOperation.CREATE, "/home/agent/free/a")],
    ["ALLOW file/mounts", file(FileOperation.CHMOD, "/home/agent/free/a")],
    ["DENY file/root", owned(FileOperation.DELETE, "/home/agent/mixed/a", 0)],
    ["ALLOW file/mounts", owned(FileOperation.DELETE, "/home/agent/mixed/a", 1000)],
    ["DENY file/root", owned(FileOperation.RENAME, "/home/agent/mixed/a", 0, "/home/agent/b")],
    ["ALLOW file/mounts", owned(FileOperation.RENAME, "/home/agent/mixed/a", 1000, "/home/agent/b")],
    // Who owns what is replaced is not known.
    ["DENY file/root", owned(FileOperation.RENAME, "/home/agent/b", 1000, "/home/agent/mixed/a")],
    ["ALLOW file/mounts", owned(FileOperation.LINK, "/home/agent/b", 1000, "/home/agent/mixed/a")],
    ["LOG file/mine", owned(FileOperation.DELETE, "/home/agent/mine/a", 1000)],
    ["LOG file/mine", owned(FileOperation.DELETE, "/home/agent/mine/a", 7)],
    ["ALLOW file/mounts", owned(FileOperation.DELETE, "/home/agent/mine/a", 0)],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });
});

describe("protocols and requests", () => {
  const p = policy(`network:
  - { id: post, host: api.x.com, method: [post, PUT], action: deny }
  - { id: admin, host: api.x.com, path: /admin/**, action: hold }
  - { id: read, host: api.x.com, method: GET, path: ["/v1/**", /], action: allow }
  - { id: tls, host: s.x.com, protocol: tls, action: allow }
  - { id: plain, host: d.x.com, protocol: http, action: deny }
  - { id: any, host: d.x.com, action: allow }
  - { id: odd, host: o.x.com, protocol: other, action: log }
`);
  const request = (httpMethod: string, httpPath: string) =>
    connect("api.x.com", 80, "main", { observedProtocol: ObservedProtocol.HTTP, httpMethod, httpPath });
  const begins = (host: string, observedProtocol: ObservedProtocol) =>
    connect(host, 443, "main", { observedProtocol });
  test.each([
    ["ALLOW network/read", request("GET", "/v1/a")],
    ["ALLOW network/read", request("GET", "/")],
    ["DENY network/default", request("GET", "/v2/a")],
    ["DENY network/default", request("HEAD", "/v1/a")],
    ["DENY network/default", request("get", "/v1/a")],
    ["DENY network/post", request("POST", "/v1/a")],
    ["DENY network/post", request("put", "/v1/a")],
    ["HOLD network/admin", request("GET", "/admin/a")],
    ["HOLD network/admin", request("GET", "/%61dmin/a")],
    ["ALLOW network/read", request("GET", "/v1/%61dmin")],
    // Nobody knows what a server makes of these: restricted, not permitted.
    ["HOLD network/admin", request("GET", "/v1/../admin/a")],
    ["HOLD network/admin", request("GET", "/v1/%2e%2e/x")],
    ["HOLD network/admin", request("GET", "/v1//a")],
    ["HOLD network/admin", request("GET", "/v1\\a")],
    // The requests are not known yet.
    ["DENY network/post", request("", "")],
    ["DENY network/default", begins("api.x.com", ObservedProtocol.TLS)],
    ["ALLOW network/tls", begins("s.x.com", ObservedProtocol.TLS)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.HTTP)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.NONE)],
    ["DENY network/default", begins("s.x.com", ObservedProtocol.UNSPECIFIED)],
    ["DENY network/plain", begins("d.x.com", ObservedProtocol.HTTP)],
    ["DENY network/plain", begins("d.x.com", ObservedProtocol.UNSPECIFIED)],
    ["ALLOW network/any", begins("d.x.com", ObservedProtocol.TLS)],
    ["LOG network/odd", begins("o.x.com", ObservedProtocol.OTHER)],
    ["LOG network/odd", begins("o.x.com", ObservedProtocol.NONE)],
    ["DENY network/default", begins("o.x.com", ObservedProtocol.TLS)],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("a doubtful path permits nothing, where no rule restricts paths", () => {
    const reads = policy("network:\n  - { id: read, host: api.x.com, path: /**, action: allow }");
    expect(said(reads, request("GET", "/v1/a"))).toBe("ALLOW network/read");
    expect(said(reads, request("GET", "/v1/../a"))).toBe("DENY network/default");
    expect(said(reads, request("", ""))).toBe("DENY network/default");
  });

  test("a denial of some requests or protocols leaves the name to be looked up, a right to some asks for it", () => {
    const lookup = (host: string) => said(p, connect(host, 53, "main", { protocol: NetworkProtocol.DNS }));
    expect(lookup("api.x.com")).toBe("ALLOW network/admin");
    expect(lookup("d.x.com")).toBe("ALLOW network/any");
    expect(lookup("s.x.com")).toBe("ALLOW network/tls");
    expect(lookup("q.x.com")).toBe("DENY network/default");
    const closed = policy(
      "network:\n  - { id: no, host: d.x.com, action: deny }\n  - { id: all, host: '*', action: allow }",
    );
    const asked = connect("d.x.com", 53, "main", { protocol: NetworkProtocol.DNS });
    expect(said(closed, asked)).toBe("DENY network/no");
  });
});

describe("one rule against one action", () => {
  const p = policy(`exec:
  - { id: first, executable: /usr/bin/git, action: deny }
  - id: push
    executable: /usr/bin/git
    argv: { prefix: [push] }
    mode: observe
    when: { days: [mon], from: "09:00", to: "10:00" }
    rate: { max: 1, per: 1m }
    action: hold
file:
  - { id: key, path: /home/agent/key, operations: [open], action: hold }
network:
  - { id: api, host: api.x.com, port: 443, action: allow }
`);
  const [, push] = p.exec;
  const [key] = p.file;
  const [api] = p.network;
  if (push === undefined || key === undefined || api === undefined) throw new Error("no rules");
  const git = (...argv: string[]) => exec({ executable: "/usr/bin/git", argv });

  test("looks at its own matchers alone, and says the first fact that does not match", () => {
    expect(matchesRule(p, push, git("git", "push"))).toEqual({ matched: true, why: "" });
    expect(matchesRule(p, push, git("git", "pull"))).toEqual({ matched: false, why: "argv" });
    expect(matchesRule(p, push, exec({ executable: "/usr/bin/x" }))).toEqual({
      matched: false,
      why: "executable",
    });
    expect(matchesRule(p, key, file(FileOperation.OPEN, "/home/agent/key")).matched).toBe(true);
    expect(matchesRule(p, key, file(FileOperation.DELETE, "/home/agent/key")).why).toBe("operation");
    expect(matchesRule(p, api, connect("api.x.com", 443)).matched).toBe(true);
    expect(matchesRule(p, api, connect("api.x.com", 80)).why).toBe("port");
  });

  test("does not match an action of another section, or one that is not understood", () => {
    expect(matchesRule(p, push, connect("api.x.com", 443)).why).toBe("action");
    expect(matchesRule(p, push, { subject: "main", process: undefined, action: undefined }).why).toBe(
      "action",
    );
    expect(matchesRule(p, push, exec({ executable: "/usr/bin/git" }, "nobody")).why).toBe("subject");
    const nameless = exec({ executable: "/usr/bin/git", kind: ExecutableKind.UNSPECIFIED });
    expect(matchesRule(p, push, nameless).why).toBe("kind");
  });

  test("does not match by a fact that is not known, although evaluating it would deny", () => {
    const q = policy("exec:\n  - { id: a, executable: /usr/bin/x, parent: /usr/bin/sh, action: deny }");
    const [rule] = q.exec;
    if (rule === undefined) throw new Error("no rule");
    expect(matchesRule(q, rule, by(undefined))).toEqual({ matched: false, why: "parent" });
    expect(matchesRule(q, rule, by(process("/usr/bin/sh")))).toEqual({ matched: true, why: "" });
  });
});
