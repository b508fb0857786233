/** The policy commands as a user has them: real files, exit codes, what is printed, and the JSON. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Paths, pathsOf } from "../common/paths.js";
import { denied } from "../testing/questions.js";
import { capabilities } from "../testing/scripted-loader.js";
import { World } from "../testing/world.js";
import { capabilityJson } from "./format.js";
import type { Io } from "./io.js";
import { main } from "./program.js";

let folder: string;
let host: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-policy-"));
  host = join(folder, "host.json");
  writeFileSync(host, JSON.stringify({ ok: true, capabilities: capabilities().map(capabilityJson) }));
  for (const name of ["work", "tools", "home"]) mkdirSync(join(folder, name));
  writeFileSync(join(folder, "tools", "real"), "\x7fELF");
  symlinkSync("real", join(folder, "tools", "link"));
  writeFileSync(join(folder, "tools", "script"), "#!/tools/link -x\necho\n");
  writeFileSync(join(folder, "tools", "lost"), "#!/nowhere/interpreter\n");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const nowhere = () =>
  pathsOf({ CLAWSEC_RUNTIME_DIR: join(folder, "run"), CLAWSEC_STATE_DIR: join(folder, "state") });
const cli = (...args: string[]) => run(nowhere(), ...args);

async function run(paths: Paths, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const io: Io = {
    stdout: { write: (text) => (out += text), isTTY: false },
    stderr: { write: (text) => (err += text), isTTY: false },
    environment: {},
    paths,
    exit: 0,
  };
  return { code: await main(["policy", ...args], io), out, err };
}

const json = async (command: string, ...args: string[]) =>
  JSON.parse((await cli(command, "--json", ...args)).out);

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function policy(name: string, sections: string, head = ""): string {
  return file(
    `${name}.yaml`,
    `apiVersion: clawsec/v1
kind: Policy
metadata: { name: ${basename(name)} }
${head}sandbox:
  command: [/tools/real]
  home: /work
  environment: { PATH: "/none:/tools" }
  mounts:
    - { source: ${folder}/tools, target: /tools }
    - { source: ${folder}/work, target: /work, mode: rw }
${sections}
`,
  );
}

const GIT = `exec:
  - id: no-push
    executable: /tools/real
    argv: ["*", push, "**"]
    action: deny
    because: what is pushed cannot be taken back
  - { id: tools, executable: /tools/*, action: allow }
network:
  - { id: api, host: "*.example.com", port: 443, action: allow }
`;

describe("check", () => {
  test("without errors ends with 0 and says when the host is not known", async () => {
    const path = policy("good", GIT);
    expect(await cli("check", path)).toMatchObject({
      code: 0,
      out: expect.stringContaining("no errors (not compiled for this host"),
    });
    const known = await cli("check", path, "--capabilities", host);
    expect(known.out).not.toContain("not compiled");
    expect(known.code).toBe(0);
  });

  test("all errors come at once, with exit code 3", async () => {
    const path = policy("two-errors", "exec:\n  - { id: a, executable: relative, action: allways }\n");
    const result = await cli("check", path);
    expect(result.code).toBe(3);
    expect(result.out.match(/error:/g)).toHaveLength(2);
    expect(result.err).toContain("2 errors");
  });

  test("what is probably not meant is a warning, and fails with --strict only", async () => {
    const path = policy(
      "shadowed",
      "exec:\n  - { id: a, executable: /tools/**, action: allow }\n  - { id: b, executable: /tools/real, action: deny }\n",
    );
    const result = await cli("check", path);
    expect(result).toMatchObject({
      code: 0,
      out: expect.stringContaining("warning: exec/b (deny) decides for no"),
    });
    expect((await cli("check", path, "--strict")).code).toBe(3);
    expect((await cli("check", policy("clean", GIT), "--strict")).code).toBe(0);
    const document = await json("check", path);
    expect(document).toMatchObject({ valid: true, errors: 0, warnings: 1, compiledForHost: false });
    expect(document.diagnostics[0]).toMatchObject({ code: "shadowed", rule: "exec/b", severity: "warning" });
  });

  test("a rule about a link on this host is named with what the link leads to", async () => {
    const path = policy("link", "exec:\n  - { id: a, executable: /tools/link, action: allow }\n");
    expect((await cli("check", path)).out).toContain("leads through a link to /tools/real");
  });

  test("a policy that extends one is read whole, a missing base is an error, and builtin packs are there", async () => {
    policy("base", GIT);
    const path = file(
      "child.yaml",
      "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: child }\nextends: ./base.yaml\n",
    );
    expect((await cli("check", path)).code).toBe(0);
    const bad = file(
      "orphan.yaml",
      "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: x }\nextends: ./none.yaml\n",
    );
    expect(await cli("check", bad)).toMatchObject({ code: 3, out: expect.stringContaining("none.yaml") });
    expect((await cli("check", "builtin:default", "--var", `workspace=${folder}/work`)).code).toBe(0);
    expect(await cli("check", "builtin:nothing")).toMatchObject({
      code: 1,
      err: expect.stringContaining("no builtin"),
    });
  });

  test("capabilities that are none are refused with a sentence", async () => {
    const path = policy("good", GIT);
    expect(await cli("check", path, "--capabilities", "/nonexistent")).toMatchObject({ code: 1 });
    const wrong = file("wrong.json", "[]");
    expect(await cli("check", path, "--capabilities", wrong)).toMatchObject({
      code: 1,
      err: expect.stringContaining("clawsec doctor --json"),
    });
  });
});

describe("show", () => {
  test("prints one flat policy with origins, which reads back to the same hash", async () => {
    policy("floor", `${GIT}`.replace("action: deny", "action: deny\n    locked: true"));
    const path = file(
      "team.yaml",
      "apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: team }\nextends: [./floor.yaml]\nexec:\n  - { id: mine, executable: /work/x, action: log }\n",
    );
    const shown = await cli("show", path, "--effective");
    expect(shown.code).toBe(0);
    expect(shown.out).toMatch(/# .*floor\.yaml:\d+, locked[^\n]*\n\s*- id: no-push/);
    expect(shown.out).toMatch(/# .*team\.yaml:6\n\s*- id: mine/);
    const flat = file("flat.yaml", shown.out);
    const hash = (await json("show", path)).hash;
    expect((await json("check", flat)).hash).toBe(hash);
    expect(
      (await json("show", path)).sources.map(({ reference }: { reference: string }) => reference),
    ).toEqual(["./floor.yaml", path]);
  });

  test("a policy with errors ends with 3", async () => {
    expect((await cli("show", policy("broken", "exec: 1"))).code).toBe(3);
  });
});

describe("test", () => {
  const cases = (...lines: string[]) =>
    `apiVersion: clawsec/v1\nkind: PolicyTest\npolicy: ./tested.yaml\ncases:\n${lines.map((l) => `  - ${l}\n`).join("")}`;
  const PASSES = "{ name: pull, exec: /tools/real pull, expect: { verdict: allow, rule: exec/tools } }";
  const FAILS = "{ name: push, exec: /tools/real push, expect: { verdict: allow, rule: exec/tools } }";

  beforeEach(() => {
    policy("tested", GIT);
  });

  test("cases that hold end with 0, one that does not with 3, and it says expected, got and why", async () => {
    const good = file("good.test.yaml", cases(PASSES));
    expect(await cli("test", good)).toMatchObject({ code: 0, out: "1 passed, 0 failed\n" });
    const bad = file("bad.test.yaml", cases(PASSES, FAILS));
    const result = await cli("test", bad);
    expect(result.code).toBe(3);
    expect(result.out).toMatch(/^FAIL .*bad\.test\.yaml:6: push\n/);
    expect(result.out).toContain(
      "verdict: expected allow, got deny; rule: expected exec/tools, got exec/no-push",
    );
    expect(result.out).toContain("what is pushed cannot be taken back");
    expect(result.out).toMatch(/1 passed, 1 failed\n$/);
    expect(await json("test", bad)).toMatchObject({
      passed: 1,
      failed: 1,
      cases: [{ passed: true }, { passed: false, got: { verdict: "deny", rule: "exec/no-push" } }],
    });
  });

  test("an expected layer is compared with this host's, and fails where the host is not known", async () => {
    const layer = (name: string) =>
      cases(`{ name: a, exec: /tools/real push, expect: { verdict: deny, layer: ${name} } }`);
    const unknown = file("layer.test.yaml", layer("nothing"));
    const wrong = await json("test", unknown, "--capabilities", host);
    expect(wrong.failed).toBe(1);
    const real: string = wrong.cases[0].got.layer;
    expect(real).not.toBe("");
    const right = file("layer2.test.yaml", layer(`"${real}"`));
    expect((await cli("test", right, "--capabilities", host)).code).toBe(0);
    expect(await cli("test", right)).toMatchObject({
      code: 3,
      out: expect.stringContaining("the host is not known"),
    });
  });

  test("of a folder all *.test.yaml below it are run, and a folder without any is an error", async () => {
    const below = join(folder, "suite", "deep");
    mkdirSync(below, { recursive: true });
    policy("suite/tested", GIT);
    policy("suite/deep/tested", GIT);
    file("suite/one.test.yaml", cases(PASSES));
    file("suite/deep/two.test.yaml", cases(PASSES, FAILS));
    expect((await cli("test", join(folder, "suite"))).out).toMatch(/2 passed, 1 failed\n$/);
    expect((await cli("test", join(folder, "tools"))).code).toBe(1);
  });

  test("a test file with errors, or whose policy has some, ends with 3", async () => {
    expect((await cli("test", file("e1.test.yaml", "kind: Policy\n"))).code).toBe(3);
    const missing = cases(PASSES).replace("tested.yaml", "missing.yaml");
    expect(await cli("test", file("e2.test.yaml", missing))).toMatchObject({
      code: 3,
      out: expect.stringContaining("missing.yaml"),
    });
  });
});

describe("explain", () => {
  test("needs no supervisor, and says so when the host is not known", async () => {
    const path = policy("good", GIT);
    const result = await cli("explain", path, "--capabilities", host);
    expect(result).toMatchObject({ code: 0, out: expect.stringContaining("exec/no-push") });
    expect((await json("explain", path, "--capabilities", host)).rules[0]).toHaveProperty("notCheaper");
    expect(await cli("explain", path)).toMatchObject({
      code: 1,
      err: expect.stringContaining("--capabilities"),
    });
  });

  test("a host that cannot enforce it ends with 5", async () => {
    const poor = file(
      "poor.json",
      JSON.stringify({ capabilities: capabilities(["bpf.exec_verify"]).map(capabilityJson) }),
    );
    const path = policy("good", GIT);
    expect(await cli("explain", path, "--capabilities", poor)).toMatchObject({
      code: 5,
      err: expect.stringContaining("bpf.exec_verify"),
    });
  });
});

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

describe("diff", () => {
  const older = () => policy("before", GIT);
  const newer = () =>
    policy("after", GIT.replace("action: deny", "action: allow").replace("port: 443, ", ""));

  test("no change ends with 0, changes with 1, looser ones are marked and say their rules", async () => {
    const same = policy(
      "same",
      GIT.replace("no-push", "other-name").replace("because: what", "because: all"),
    );
    expect(await cli("diff", older(), same)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/generated actions: no verdict differs/),
    });
    const result = await cli("diff", older(), newer());
    expect(result.code).toBe(1);
    expect(result.out).toMatch(/deny -> allow: \d+ actions LOOSER\n {2}e\.g\. /);
    expect(result.out).toContain("exec/no-push -> exec/no-push");
    expect(result.out).toContain("What needs a new sandbox is not known");
    const document = await json("diff", older(), newer());
    expect(document).toMatchObject({ same: false, recorded: null, needsRestart: null });
    expect(document.generated.groups[0]).toMatchObject({ from: "deny", to: "allow", direction: "looser" });
  });

  test("recorded actions are asked again", async () => {
    const record = (argv: string[], executable = "/tools/real") => ({
      timeUs: 1_700_000_000_000_000,
      facts: {
        sandbox: "box",
        subject: "main",
        decision: {
          exec: { executable, argv, kind: "EXECUTABLE_KIND_FILE", cwd: "/work" },
          verdict: "VERDICT_DENY",
        },
      },
    });
    const records = [
      record(["real", "push", "x"]),
      record(["real", "push", "x"]),
      record(["real", "pull"]),
      { facts: {} },
    ];
    const whole = file("audit.json", JSON.stringify({ records, truncated: false }));
    const lines = file("audit.jsonl", records.map((r) => JSON.stringify(r)).join("\n"));
    for (const audit of [whole, lines]) {
      const document = await json("diff", older(), newer(), "--audit", audit);
      expect(document.recorded).toMatchObject({
        actions: 2,
        groups: [
          {
            from: "deny",
            to: "allow",
            count: 1,
            examples: [{ action: { exec: { argv: ["real", "push", "x"] } } }],
          },
        ],
      });
    }
    expect((await cli("diff", older(), newer(), "--audit", "/nonexistent")).code).toBe(1);
    expect((await cli("diff", older(), newer(), "--audit", file("bad.jsonl", "{"))).code).toBe(1);
    expect((await cli("diff", older(), newer(), "--audit", whole, "--recorded")).code).toBe(2);
    expect((await cli("diff", older(), newer(), "--recorded")).code).toBe(4);
  });

  test("recorded actions come from a running supervisor, too, and from one sandbox only when that is said", async () => {
    const world = new World();
    await world.start();
    try {
      await world.loader.emit(denied(701, { executable: "/tools/real", argv: ["real", "push"] }, "exec/x"));
      await world.loader.until(() => world.loader.acks.includes(701));
      const [first, second] = [older(), newer()];
      const recorded = async (...args: string[]) =>
        JSON.parse((await run(world.paths, "diff", first, second, "--json", ...args)).out).recorded;
      expect(await recorded("--recorded")).toMatchObject({
        actions: 1,
        groups: [{ from: "deny", to: "allow" }],
      });
      expect(await recorded("--name", "box")).toMatchObject({ actions: 1 });
      expect(await recorded("--name", "other")).toMatchObject({ actions: 0, groups: [] });
      // The loader says what the host can enforce.
      const { out } = await run(world.paths, "check", first);
      expect(out).not.toContain("not compiled");
    } finally {
      await world.end();
    }
  });

  test("where the host is known, it says what needs a new sandbox", async () => {
    const mounts = policy("mounts", GIT);
    writeFileSync(mounts, readFileSync(mounts, "utf8").replace("mode: rw", "mode: ro"));
    const changed = await json("diff", older(), mounts, "--capabilities", host);
    expect(changed.needsRestart.length).toBeGreaterThan(0);
    expect((await json("diff", older(), newer(), "--capabilities", host)).needsRestart).toEqual([]);
  });

  test("a variable is given to the policy that has it, and one that neither has is refused", async () => {
    const head = "variables: { port: 443 }\n";
    const own = policy("own-variable", GIT.replace("port: 443", 'port: "${port}"'), head);
    expect((await cli("diff", older(), own)).code).toBe(0);
    expect((await cli("diff", older(), own, "--var", "port=444")).code).toBe(1);
    expect((await cli("diff", older(), own, "--var", "other=1")).code).toBe(2);
  });
});

describe("compile", () => {
  test("writes one file a layer, the same each time, and nothing into a folder with files", async () => {
    const path = policy("good", GIT);
    const [one, two] = [join(folder, "out1"), join(folder, "out2")];
    expect((await cli("compile", path, "--out", one, "--capabilities", host)).code).toBe(0);
    expect((await cli("compile", path, "--out", two, "--capabilities", host)).code).toBe(0);
    const files = readdirSync(one);
    expect(files).toContain("manifest.json");
    for (const name of files) expect(readFileSync(join(one, name))).toEqual(readFileSync(join(two, name)));
    const again = await cli("compile", path, "--out", one, "--capabilities", host);
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining("is not empty") });
    expect((await cli("compile", path, "--out", one, "--capabilities", host, "--force")).code).toBe(0);
    expect((await cli("compile", path, "--out", two)).code).toBe(1);
    expect((await cli("compile", path)).code).toBe(2);
  });

  test("a host that cannot enforce it gets no files", async () => {
    const poor = file("poor.json", JSON.stringify({ capabilities: [] }));
    const out = join(folder, "out3");
    expect((await cli("compile", policy("good", GIT), "--out", out, "--capabilities", poor)).code).toBe(5);
    expect(existsSync(out)).toBe(false);
  });
});

describe("fmt", () => {
  const UGLY =
    "kind:   Policy # kind\napiVersion: clawsec/v1\nmetadata: {name: x}\nsandbox: {mounts: [{source: /usr}]}\n";

  test("writes the file in one layout, with its mode, and a second time changes nothing", async () => {
    const path = file("ugly.yaml", UGLY);
    chmodSync(path, 0o640);
    const hash = (await json("check", path)).hash;
    expect((await cli("fmt", path)).out).toContain("ugly.yaml: formatted");
    expect(readFileSync(path, "utf8")).toMatch(/^apiVersion: clawsec\/v1\nkind: Policy # kind\n/);
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect((await json("check", path)).hash).toBe(hash);
    expect(await cli("fmt", path)).toMatchObject({ code: 0, out: "" });
    expect(readdirSync(folder).filter((name) => name.startsWith(".ugly"))).toEqual([]);
  });

  test("--check ends with 1 and --stdout prints, and neither touches the file", async () => {
    const path = file("ugly2.yaml", UGLY);
    expect(await cli("fmt", "--check", path)).toMatchObject({
      code: 1,
      out: expect.stringContaining("not formatted"),
    });
    expect((await cli("fmt", "--stdout", path)).out).toMatch(/^apiVersion/);
    expect(readFileSync(path, "utf8")).toBe(UGLY);
    await cli("fmt", path);
    expect((await cli("fmt", "--check", path)).code).toBe(0);
  });

  test("through a link the file is written and the link stays", async () => {
    const path = file("ugly3.yaml", UGLY);
    const link = join(folder, "ugly-link.yaml");
    symlinkSync("ugly3.yaml", link);
    expect((await cli("fmt", link)).code).toBe(0);
    expect(readFileSync(path, "utf8")).not.toBe(UGLY);
    expect(
      readdirSync(folder, { withFileTypes: true })
        .find(({ name }) => name === "ugly-link.yaml")
        ?.isSymbolicLink(),
    ).toBe(true);
  });

  test("a file that is no policy's YAML is left alone, with exit code 3", async () => {
    const path = file("anchors.yaml", "a: &x 1\nb: *x\n");
    expect((await cli("fmt", path)).code).toBe(3);
    expect(readFileSync(path, "utf8")).toBe("a: &x 1\nb: *x\n");
    expect((await cli("fmt", "/nonexistent.yaml")).code).toBe(1);
  });
});

describe("schema", () => {
  test("prints the schema of policies, or of test files", async () => {
    for (const args of [[], ["--test"]]) {
      const { code, out } = await cli("schema", ...args);
      expect(code).toBe(0);
      expect(JSON.parse(out).$schema).toContain("json-schema.org");
    }
  });
});

test("each command says what it does, with an example", async () => {
  for (const name of ["check", "show", "test", "explain", "why", "diff", "compile", "fmt", "schema"]) {
    const { code, out } = await cli(name, "--help");
    expect(code).toBe(0);
    expect(out, name).toMatch(/Examples?:\n {2}clawsec policy/);
  }
});
