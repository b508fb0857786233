import { describe, expect, test } from "vitest";
import {
  CacheScope,
  ExecutableKind,
  FileOperation,
  NetworkProtocol,
  Verdict,
} from "../proto/gen/clawsec/v1/loader.js";
import { type Action, evaluate, evaluatePlainly } from "./evaluate.js";
import type { Policy } from "./model.js";
import { connect, exec, file, policy } from "./testing/policy.js";

const said = (p: Policy, action: Action) => {
  const { verdict, rule } = evaluate(p, action);
  return `${Verdict[verdict]} ${rule}`;
};

describe("exec", () => {
  const p = policy(`exec:
  - { id: push, executable: /usr/bin/git, argv: ["*", "**", push, "**"], action: hold, because: it cannot be taken back }
  - { id: tmp, executable: /tmp/**, action: deny, message: nothing runs from /tmp }
  - { id: deploy, script: /srv/deploy.sh, executable: /usr/bin/dash, action: log }
  - { id: here, executable: /usr/bin/make, cwd: /home/agent/project/**, action: allow }
  - { id: usr, executable: /usr/bin/*, action: allow }
  - { id: memory, kind: anonymous, executable: /memfd:*, action: hold }
`);
  const git = (...argv: string[]) => exec({ executable: "/usr/bin/git", argv });

  test.each([
    ["HOLD exec/push", git("git", "push")],
    ["HOLD exec/push", git("git", "-C", "x", "push", "origin")],
    ["HOLD exec/push", git("not-git", "push")],
    ["ALLOW exec/usr", git("git", "pull")],
    ["ALLOW exec/usr", git()],
    ["DENY exec/tmp", exec({ executable: "/tmp/a" })],
    ["DENY exec/tmp", exec({ executable: "/usr/bin/dash", script: "/tmp/x.sh" })],
    ["LOG exec/deploy", exec({ executable: "/usr/bin/dash", script: "/srv/deploy.sh" })],
    ["ALLOW exec/usr", exec({ executable: "/usr/bin/dash", script: "/srv/other.sh" })],
    ["ALLOW exec/here", exec({ executable: "/usr/bin/make", cwd: "/home/agent/project/x" })],
    ["ALLOW exec/usr", exec({ executable: "/usr/bin/make", cwd: "/home/agent" })],
    ["DENY exec/default", exec({ executable: "/usr/bin/a/b" })],
    ["DENY exec/default", exec({ executable: "/opt/x" })],
    // The right by a script's name would be a right to any interpreter that it names.
    ["DENY exec/default", exec({ executable: "/opt/evil", script: "/usr/bin/npm" })],
    ["HOLD exec/memory", exec({ executable: "/memfd:x", kind: ExecutableKind.ANONYMOUS })],
    ["DENY exec/default", exec({ executable: "/usr/bin/git", kind: ExecutableKind.DELETED })],
    ["DENY exec/tmp", exec({ executable: "/tmp/a", kind: ExecutableKind.DELETED })],
    ["DENY exec/unknown-file", exec({ executable: "/usr/bin/git", kind: ExecutableKind.UNSPECIFIED })],
    ["DENY exec/unknown-file", exec({ executable: "" })],
    ["DENY exec/unknown-file", exec({ executable: "/usr/bin/dash", script: "x.sh" })],
    ["DENY exec/unknown-file", exec({ executable: "/usr/bin/../bin/git" })],
    ["DENY exec/argv-too-long", exec({ executable: "/usr/bin/git", argvTruncated: true })],
    ["DENY exec/unknown-subject", exec({ executable: "/usr/bin/git" }, "nobody")],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("an answer may be used again only as far as the facts it looked at", () => {
    const scope = (action: Action) => CacheScope[evaluate(p, action).cacheScope];
    const plain = policy("exec:\n  - { id: usr, executable: /usr/bin/*, action: allow }");
    expect(CacheScope[evaluate(plain, git("git", "x")).cacheScope]).toBe("FILE");
    // exec/push looked at git's arguments, so that "pull" says nothing about "push".
    expect(scope(git("git", "pull"))).toBe("FILE_ARGV");
    // exec/tmp looked whether a script lies in /tmp.
    expect(scope(exec({ executable: "/usr/bin/dash" }))).toBe("FILE_ARGV");
    expect(scope(git("git", "push"))).toBe("NONE");
    expect(scope(exec({ executable: "/memfd:x", kind: ExecutableKind.ANONYMOUS }))).toBe("NONE");
    const denied = policy("exec:\n  - { id: no, executable: /opt/*, action: deny }");
    expect(CacheScope[evaluate(denied, exec({ executable: "/opt/x" })).cacheScope]).toBe("FILE");
  });

  test("a hold says how long, what then, and why", () => {
    const held = evaluate(p, git("git", "push"));
    expect(held.hold).toEqual({ timeoutMs: 300_000, onTimeout: "deny" });
    expect(held.because).toBe("it cannot be taken back");
    expect(held.message).toBe(
      "exec of /usr/bin/git waits for an answer (rule exec/push): it cannot be taken back",
    );
    expect(held.origin?.line).toBeGreaterThan(1);
    const own = policy(
      "approvals: { timeout: 1m }\nexec:\n  - { id: a, executable: /a, action: hold, hold: { timeout: 2s } }\n  - { id: b, executable: /b, action: hold }",
    );
    expect(evaluate(own, exec({ executable: "/a" })).hold?.timeoutMs).toBe(2000);
    expect(evaluate(own, exec({ executable: "/b" })).hold?.timeoutMs).toBe(60_000);
  });

  test("a denial names its rule, or says what the rule says", () => {
    expect(evaluate(p, exec({ executable: "/tmp/a" })).message).toBe("nothing runs from /tmp");
    const unknown = evaluate(p, exec({ executable: "/opt/x" }));
    expect(unknown).toMatchObject({ rule: "exec/default", message: "no rule allows it" });
  });

  test("the trace says why each rule that could match did not decide, the plain one why any did not", () => {
    expect(evaluate(p, git("git", "pull")).trace).toEqual([
      { rule: "exec/push", matched: false, why: "argv" },
      { rule: "exec/usr", matched: true, why: "" },
    ]);
    expect(evaluatePlainly(p, git("git", "pull")).trace).toEqual([
      { rule: "exec/push", matched: false, why: "argv" },
      { rule: "exec/tmp", matched: false, why: "executable" },
      { rule: "exec/deploy", matched: false, why: "executable" },
      { rule: "exec/here", matched: false, why: "executable" },
      { rule: "exec/usr", matched: true, why: "" },
    ]);
  });

  test("the default permits files only, never what has no name", () => {
    const open = policy("defaults: { exec: allow }");
    expect(said(open, exec({ executable: "/x" }))).toBe("ALLOW exec/default");
    expect(said(open, exec({ executable: "/x", kind: ExecutableKind.ANONYMOUS }))).toBe("DENY exec/default");
  });
});

describe("subjects", () => {
  const p = policy(`subjects:
  - name: gateway
  - name: broker
    enters: [{ from: gateway, executable: /opt/node, argv: ["*", "**", /app/worker.js, "**"] }]
  - name: tool
    entry: { path: /.clawsec/bash, exec: /usr/bin/bash }
    enters: [{ from: [gateway, broker], executable: /.clawsec/bash }]
exec:
  - { id: entry, subject: [gateway, broker], executable: /.clawsec/bash, action: allow }
  - { id: broker, subject: broker, executable: /**, action: deny }
  - { id: node, subject: gateway, executable: /opt/node, action: allow }
  - { id: tool, subject: tool, executable: /usr/**, action: log }
`);
  const enters = (action: Action) => {
    const { verdict, enterSubject } = evaluate(p, action);
    return `${Verdict[verdict]} ${enterSubject}`;
  };

  test.each([
    [
      "ALLOW broker",
      exec({ executable: "/opt/node", argv: ["node", "--flag", "/app/worker.js"] }, "gateway"),
    ],
    ["ALLOW ", exec({ executable: "/opt/node", argv: ["node", "/app/other.js"] }, "gateway")],
    ["ALLOW tool", exec({ executable: "/.clawsec/bash" }, "gateway")],
    ["ALLOW tool", exec({ executable: "/.clawsec/bash" }, "broker")],
    ["DENY ", exec({ executable: "/usr/bin/bash" }, "broker")],
    ["DENY ", exec({ executable: "/opt/node", argv: ["node", "/app/worker.js"] }, "broker")],
    ["LOG ", exec({ executable: "/usr/bin/bash" }, "tool")],
    ["DENY ", exec({ executable: "/.clawsec/bash" }, "tool")],
  ])("%s: %j", (expected, action) => {
    expect(enters(action)).toBe(expected);
  });

  test("a way in that looks at arguments keeps the answer from serving others", () => {
    const scope = (...argv: string[]) =>
      CacheScope[evaluate(p, exec({ executable: "/opt/node", argv }, "gateway")).cacheScope];
    expect(scope("node", "/app/other.js")).toBe("FILE_ARGV");
  });
});

describe("file", () => {
  const p = policy(`file:
  - { id: key, path: /home/agent/key, operations: [open], action: hold }
  - { id: notes, path: /home/agent/notes, operations: [delete, rename], action: hold }
  - { id: git, path: /home/agent/ws/**/.git/**, operations: [delete], action: deny }
  - { id: out, path: /home/agent/out, operations: [rename], action: allow }
  - { id: config, path: /home/agent/config, operations: [write], action: deny }
`);
  test.each([
    ["HOLD file/key", file(FileOperation.OPEN, "/home/agent/key")],
    ["HOLD file/key", file(FileOperation.OPEN, "/home/agent/key/below")],
    ["ALLOW file/mounts", file(FileOperation.OPEN, "/home/agent/keys")],
    ["HOLD file/notes", file(FileOperation.DELETE, "/home/agent/notes/a")],
    ["HOLD file/notes", file(FileOperation.RENAME, "/home/agent/notes/a", "/home/agent/b")],
    ["HOLD file/notes", file(FileOperation.RENAME, "/home/agent/b", "/home/agent/notes/a")],
    ["ALLOW file/mounts", file(FileOperation.TRUNCATE, "/home/agent/notes/a")],
    ["DENY file/git", file(FileOperation.DELETE, "/home/agent/ws/a/.git/config")],
    ["ALLOW file/mounts", file(FileOperation.DELETE, "/home/agent/ws/a/.gitignore")],
    // Both names must be free to permit, one of them is enough to restrict.
    ["ALLOW file/out", file(FileOperation.RENAME, "/home/agent/out/a", "/home/agent/out/b")],
    ["DENY file/config", file(FileOperation.RENAME, "/home/agent/out/a", "/home/agent/config")],
    // A rule speaks of the operations that it lists: no layer asks about a link for the sake of one about opens.
    ["ALLOW file/mounts", file(FileOperation.LINK, "/home/agent/key", "/home/agent/free")],
    ["DENY file/default", file(FileOperation.DELETE, "/data/x")],
    ["ALLOW file/mounts", file(FileOperation.OPEN, "/data/x")],
    ["DENY file/default", file(FileOperation.RENAME, "/home/agent/x", "/data/x")],
    ["DENY file/default", file(FileOperation.OPEN, "/nowhere")],
    ["DENY file/unknown", file(FileOperation.OPEN, "relative")],
    ["DENY file/unknown", file(FileOperation.UNSPECIFIED, "/home/agent/x")],
    ["DENY file/unknown", file(FileOperation.RENAME, "/home/agent/x")],
    ["DENY file/unknown", file(FileOperation.OPEN, "/home/agent/x", "", "nobody")],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("answers by pattern are not kept, since names change", () => {
    const scope = (q: Policy) =>
      CacheScope[evaluate(q, file(FileOperation.OPEN, "/home/agent/a")).cacheScope];
    expect(scope(p)).toBe("FILE");
    expect(
      scope(policy("file:\n  - { id: env, path: /home/agent/**/.env, operations: open, action: deny }")),
    ).toBe("NONE");
  });
});

describe("network", () => {
  const p = policy(`subjects:
  - name: main
  - name: tool
    enters: [{ from: main, executable: /t }]
network:
  - { id: metadata, cidr: 169.254.0.0/16, action: deny, message: no metadata }
  - { id: evil, host: evil.x.com, action: deny }
  - { id: mail, host: "*.x.com", ports: [25], action: deny }
  - { id: x, host: ["*.x.com", y.com], ports: [443, "8000-8080"], action: allow }
  - { id: net, cidr: 192.0.2.0/24, port: 80, action: log }
  - { id: main, subject: main, host: "*", action: hold }
`);
  test.each([
    ["DENY network/metadata", connect("169.254.169.254", 80)],
    ["DENY network/metadata", connect("::ffff:169.254.169.254", 80)],
    ["DENY network/evil", connect("evil.x.com", 443)],
    ["ALLOW network/x", connect("a.x.com", 443)],
    ["ALLOW network/x", connect("A.X.com.", 8001)],
    ["HOLD network/main", connect("x.com", 443)],
    ["HOLD network/main", connect("evilx.com", 443)],
    ["ALLOW network/x", connect("y.com", 443)],
    ["HOLD network/main", connect("a.y.com", 443)],
    ["HOLD network/main", connect("a.x.com", 22)],
    ["DENY network/mail", connect("a.x.com", 25)],
    ["DENY network/default", connect("a.x.com", 22, "tool")],
    ["ALLOW network/x", connect("a.x.com", 443, "tool")],
    ["LOG network/net", connect("192.0.2.9", 80)],
    ["DENY network/default", connect("192.0.2.9", 81)],
    // "*" is about names: a literal address has none.
    ["DENY network/default", connect("198.51.100.1", 443)],
    ["DENY network/default", connect("2001:db8::1", 443)],
    ["DENY network/observed-host", connect("a.x.com", 443, "main", { observedHost: "evil.x.com" })],
    ["ALLOW network/x", connect("a.x.com", 443, "main", { observedHost: "A.x.com" })],
    ["DENY network/protocol", connect("a.x.com", 443, "main", { protocol: NetworkProtocol.UDP })],
    ["DENY network/unknown-peer", connect("a.x.com", 0)],
    ["DENY network/unknown-peer", connect("a b", 443)],
    ["DENY network/unknown-peer", connect("", 443)],
    ["DENY network/unknown-subject", connect("a.x.com", 443, "nobody")],
  ])("%s: %j", (expected, action) => {
    expect(said(p, action)).toBe(expected);
  });

  test("a name is looked up only when some connection to it could happen", () => {
    const lookup = (host: string, subject: string) =>
      said(p, connect(host, 53, subject, { protocol: NetworkProtocol.DNS }));
    expect(lookup("a.x.com", "tool")).toBe("ALLOW network/x");
    expect(lookup("evil.x.com", "tool")).toBe("DENY network/evil");
    expect(lookup("other.com", "tool")).toBe("DENY network/default");
    expect(lookup("other.com", "main")).toBe("ALLOW network/main");
  });
});

test("an action without facts is denied", () => {
  expect(
    said(policy("defaults: { exec: allow, network: allow }"), {
      subject: "main",
      process: undefined,
      action: undefined,
    }),
  ).toBe("DENY default");
});
