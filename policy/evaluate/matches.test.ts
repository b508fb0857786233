import { describe, expect, test } from "vitest";
import { ExecutableKind, FileOperation, type Process } from "../../proto/gen/clawsec/v1/loader.js";
import { type Action, matchesRule } from "../evaluate.js";
import { connect, exec, file, policy } from "../testing/policy.js";

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
