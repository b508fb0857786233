/** The policy commands that read, explain, write and lay out policies: exit codes, what is printed, and the JSON. */
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { GIT, PolicyFolder } from "../testing/policy-folder.js";

const { capabilities, cli, file, folder, host, json, policy, end } = new PolicyFolder();
afterAll(end);

describe("check", () => {
  test("without errors ends with 0 and says when the host is not known", async () => {
    const path = policy("good", GIT);
    expect(await cli("check", path)).toMatchObject({
      code: 0,
      out: expect.stringContaining("no errors (what this host lacks was not looked for"),
    });
    const known = await cli("check", path, "--capabilities", host);
    expect(known.out).not.toContain("looked for");
    expect(known.code).toBe(0);
  });

  test("what no host can enforce is an error without a loader, too; what is not there on this one is none", async () => {
    const mount = (line: string, rules = "") =>
      `apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: x }\nsandbox:\n  mounts: [${line}]\n${GIT}${rules}`;
    expect(await cli("check", file("proc.yaml", mount("{ source: /proc, target: /proc }")))).toMatchObject({
      code: 3,
      out: expect.stringContaining("/proc is made by clawsec"),
    });
    const hold = "file:\n  - { id: ask, path: /srv/nowhere/x, operations: [chmod], action: hold }\n";
    const held = await cli("check", file("chmod.yaml", mount("{ source: /srv/nowhere, mode: rw }", hold)));
    expect(held).toMatchObject({ code: 3, out: expect.stringContaining("cannot be asked about chmod") });
    expect(held.out.match(/error:/g)).toHaveLength(1);
    expect((await cli("check", file("away.yaml", mount("{ source: /srv/nowhere, mode: rw }")))).code).toBe(0);
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

  test("a command of its own that the policy denies, or a health check that it holds, is a warning", async () => {
    const own = (action: string, rest = "") =>
      `apiVersion: clawsec/v1\nkind: Policy\nmetadata: { name: own }\nsandbox:\n  command: [/tools/real, run]\n  healthCheck: { command: [/tools/real, ok] }\n  mounts:\n    - { source: ${folder}/tools, target: /tools, mode: ro }\n${rest}exec:\n  - { id: own, executable: /tools/real, action: ${action} }\n`;
    const codes = async (name: string, text: string) =>
      (await json("check", file(name, text))).diagnostics.map(({ code, rule }: Record<string, string>) => [
        code,
        rule,
      ]);
    expect(await codes("own-denied.yaml", own("deny"))).toEqual([
      ["command-denied", "exec/own"],
      ["command-denied", "exec/own"],
    ]);
    expect(await codes("own-held.yaml", own("hold"))).toEqual([["check-held", "exec/own"]]);
    expect(await codes("own-allowed.yaml", own("allow"))).toEqual([]);
    // Not on this host, as far as can be told.
    const away = own("deny")
      .replace("[/tools/real, run]", "[nowhere]")
      .replace("[/tools/real, ok]", "[nowhere]");
    expect(await codes("own-away.yaml", away)).toEqual([]);
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
    const poor = capabilities("poor.json", ["bpf.exec_verify"]);
    const path = policy("good", GIT);
    expect(await cli("explain", path, "--capabilities", poor)).toMatchObject({
      code: 5,
      err: expect.stringContaining("bpf.exec_verify"),
    });
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
