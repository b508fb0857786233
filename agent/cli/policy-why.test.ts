/** policy why: which program is meant, what is said, and what cannot be asked. */
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { GIT, PolicyFolder } from "../testing/policy-folder.js";

const { cli, host, json, policy, end } = new PolicyFolder();
afterAll(end);

describe("why", () => {
  let path: string;
  beforeEach(() => {
    path = policy("asked", GIT);
  });

  test("a program is found as in the sandbox: PATH, links, and the interpreter of a script", async () => {
    expect(await json("why", path, "exec", "--", "link", "x")).toMatchObject({
      verdict: "allow",
      rule: "exec/tools",
      action: { exec: { executable: "/tools/real", argv: ["link", "x"] } },
    });
    expect(await json("why", path, "exec", "--", "script")).toMatchObject({
      action: { exec: { executable: "/tools/real", script: "/tools/script" } },
    });
    expect(await json("why", path, "exec", "--", "/tools/link")).toMatchObject({
      action: { exec: { executable: "/tools/real" } },
    });
  });

  test.each([
    [["exec", "--", "nothing"], 1, "Give the absolute path"],
    [["exec", "--", "./x"], 1, "relative path"],
    [["exec", "--", "lost"], 1, "/nowhere/interpreter"],
    [["exec", "--", "/tools"], 1, "is no file"],
    [["fly", "away"], 2, 'Write "exec -- PROGRAM'],
    [["open", "relative"], 2, "absolute path"],
    [["connect", "nonsense"], 2, "connection"],
    [["lookup", "a b"], 2, "Write"],
    [["--subject", "nobody", "open", "/x"], 2, "no subject"],
    [["--cwd", "/x", "open", "/x"], 2, "Only an exec"],
  ])("%j ends with %d and a sentence", async (words, code, sentence) => {
    expect(await cli("why", path, ...words)).toMatchObject({ code, err: expect.stringContaining(sentence) });
  });

  test("what an interpreter runs is not guessed: each answer that differs is said, and --code gives one", async () => {
    const other = policy(
      "code",
      `exec:
  - { id: inline, executable: /tools/real, code: inline, action: deny }
  - { id: tools, executable: /tools/*, action: allow }
`,
    );
    const asked = ["exec", "--", "real", "-c", "x"];
    const { out } = await cli("why", other, ...asked);
    expect(out).toContain("allow by exec/tools");
    expect(out).toContain("if its arguments make it run inline code (--code inline): deny by exec/inline");
    expect(await json("why", other, ...asked)).toMatchObject({
      rule: "exec/tools",
      byCode: { inline: { verdict: "deny", rule: "exec/inline" } },
    });
    for (const [code, rule] of [
      ["inline", "exec/inline"],
      ["file", "exec/tools"],
    ] as const)
      expect(await json("why", other, "--code", code, ...asked)).toMatchObject({ rule, byCode: {} });
    // Where no rule looks at it there is nothing to say.
    expect(await json("why", path, "exec", "--", "link", "x")).toMatchObject({ byCode: {} });
    expect(await cli("why", other, "--code", "open", ...asked)).toMatchObject({ code: 2 });
    expect(await cli("why", other, "--code", "inline", "open", "/x")).toMatchObject({ code: 2 });
  });

  test("first bytes are not guessed: each answer that differs is said, and --protocol gives one", async () => {
    const tls = policy(
      "tls",
      "network:\n  - { id: api, host: api.test, port: 443, protocol: tls, action: allow }\n",
    );
    const asked = ["connect", "api.test:443"];
    const { out } = await cli("why", tls, ...asked);
    expect(out).toContain("if its first bytes are TLS for that host (--protocol tls): allow by network/api");
    expect((await json("why", tls, ...asked)).byProtocol).toMatchObject({
      tls: { verdict: "allow", rule: "network/api" },
    });
    for (const [protocol, verdict] of [
      ["tls", "allow"],
      ["http", "deny"],
      ["other", "deny"],
    ] as const)
      expect(await json("why", tls, "--protocol", protocol, ...asked)).toMatchObject({
        verdict,
        byProtocol: {},
      });
    expect(await json("why", tls, "connect", "other.test:443")).toMatchObject({ byProtocol: {} });
    expect(await cli("why", tls, "--protocol", "tls", "open", "/x")).toMatchObject({ code: 2 });
    expect(await cli("why", tls, "--protocol", "quic", ...asked)).toMatchObject({ code: 2 });
  });

  test.each(["open", "create", "delete", "truncate", "chmod", "rename", "link"])(
    "%s is said in the word that it was asked by",
    async (word) => {
      const paths = ["rename", "link"].includes(word) ? ["/x", "/y"] : ["/x"];
      const { out } = await cli("why", path, word, ...paths);
      expect(out.split("\n")[0]).toBe(`main: ${[word, paths.join(" -> ")].join(" ")}`);
    },
  );

  test("the variables that are always set are set, besides those that are named", async () => {
    const other = policy(
      "variables",
      `exec:
  - { id: home, executable: /tools/real, argv: [real], environment: [HOME], action: deny }
  - { id: preload, executable: /tools/script, environment: [LD_PRELOAD], action: deny }
  - { id: tools, executable: /tools/*, action: allow }
`,
    );
    const decides = async (...words: string[]) =>
      ((await json("why", other, ...words)) as { rule: string }).rule;
    expect(await decides("exec", "--", "real")).toBe("exec/home");
    expect(await decides("--env", "A", "exec", "--", "real")).toBe("exec/home");
    expect(await decides("exec", "--", "/tools/script")).toBe("exec/tools");
    expect(await decides("--env", "LD_PRELOAD", "exec", "--", "/tools/script")).toBe("exec/preload");
  });

  test("it says the rule, where and why it is there, and what would change the verdict", async () => {
    const { code, out } = await cli(
      "why",
      path,
      "--capabilities",
      host,
      "exec",
      "--",
      "real",
      "push",
      "origin",
    );
    expect(code).toBe(0);
    expect(out).toMatch(
      /^main: \/tools\/real \[real push origin\]\ndeny by exec\/no-push \(.*asked\.yaml:\d+\)\n/,
    );
    expect(out).toContain("because: what is pushed cannot be taken back");
    expect(out).toContain("without exec/no-push: allow by exec/tools");
    expect(out).toMatch(/layer: \S/);
    const pull = await cli("why", path, "exec", "--", "real", "pull");
    expect(pull.out).toContain("allow by exec/tools");
    expect(pull.out).toContain("exec/no-push nearly matches: argv is");
    expect(pull.out).toContain("layer: not known");
  });

  test("a path that is not on this host is taken as it is written, and that is said", async () => {
    const { out } = await cli("why", path, "exec", "--", "/opt/x");
    expect(out).toContain("note: /opt/x is not in the sandbox on this host; taken as it is written");
    expect(out).toContain("deny by exec/default");
  });

  test("files, connections, lookups and requests are asked about, too", async () => {
    expect(await json("why", path, "open", "/work/x")).toMatchObject({
      verdict: "allow",
      rule: "file/mounts",
    });
    expect(await json("why", path, "delete", "/tools/real")).toMatchObject({ verdict: "deny" });
    expect(await json("why", path, "rename", "/work/a", "/work/b")).toMatchObject({ verdict: "allow" });
    expect(await json("why", path, "connect", "api.example.com:443")).toMatchObject({ verdict: "allow" });
    expect(await json("why", path, "connect", "api.example.com:80")).toMatchObject({ verdict: "deny" });
    expect(await json("why", path, "lookup", "api.example.com")).toMatchObject({ verdict: "allow" });
    expect(await json("why", path, "lookup", "example.com")).toMatchObject({ verdict: "deny" });
    expect(await json("why", path, "http", "GET", "http://api.example.com:443/v1")).toMatchObject({
      verdict: "allow",
    });
  });

  test("facts that are given count: subject, folder, parent, ancestors, environment, script, time", async () => {
    const facts = policy(
      "facts",
      `exec:
  - { id: cwd, executable: /tools/real, cwd: /work/a, action: deny }
  - { id: parent, executable: /tools/real, parent: /tools/make, action: deny }
  - { id: ancestor, executable: /tools/real, ancestor: /tools/root, action: deny }
  - { id: env, executable: /tools/real, environment: "NODE_*", action: deny }
  - { id: script, executable: /tools/real, script: /work/s, action: deny }
  - { id: sunday, executable: /tools/real, when: { days: sun }, action: deny }
  - { id: all, executable: /tools/real, action: allow }
`,
    );
    const rule = async (...args: string[]) =>
      (
        await json(
          "why",
          facts,
          "--at",
          "2026-11-23T10:00:00Z",
          "--parent",
          "/p",
          ...args,
          "exec",
          "--",
          "real",
        )
      ).rule;
    const plain = ["--ancestor", "/q"];
    expect(await rule(...plain)).toBe("exec/all");
    expect(await rule(...plain, "--cwd", "/work/a")).toBe("exec/cwd");
    expect(await rule(...plain, "--parent", "/tools/make")).toBe("exec/parent");
    expect(await rule("--ancestor", "/tools/root")).toBe("exec/ancestor");
    expect(await rule(...plain, "--env", "NODE_OPTIONS")).toBe("exec/env");
    expect(await rule(...plain, "--script", "/work/s")).toBe("exec/script");
    expect(await rule(...plain, "--at", "2026-11-22T10:00:00Z")).toBe("exec/sunday");
  });

  test("words that could act on a terminal are escaped", async () => {
    const { out } = await cli("why", path, "exec", "--", "real", "\u001b[2J\u202eevil");
    expect(out).not.toMatch(/[\u001b\u202e]/);
    expect(out).toContain("\\x1b[2J");
  });
});
