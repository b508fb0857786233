/** The recipes are right, laid out as `policy fmt` does, decide what their tests say, and can be enforced. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { compile } from "../../policy/compile.js";
import { parsePolicy, parsePolicyTest, renderDiagnostics } from "../../policy/index.js";
import { lint } from "../../policy/lint/lint.js";
import { capabilities, SYSTEM, tableHost } from "../../policy/testing/host.js";
import { packageRoot } from "../common/paths.js";
import { fileBase } from "../common/sources.js";
import { PolicyFolder } from "../testing/policy-folder.js";

const folder = new PolicyFolder();
afterAll(folder.end);

const recipes = join(packageRoot(), "policy/recipes");
const files = readdirSync(recipes).sort();
const names = files.filter((name) => name.endsWith(".test.yaml")).map((name) => basename(name, ".test.yaml"));
const read = (file: string) => readFileSync(join(recipes, file), "utf8");

/** The policy with the values that its test file gives to its variables. */
function recipe(name: string) {
  const { test: cases } = parsePolicyTest(read(`${name}.test.yaml`), `${name}.test.yaml`);
  const variables = cases?.variables ?? {};
  const file = join(recipes, `${name}.yaml`);
  return {
    file,
    variables,
    cases,
    ...parsePolicy(read(`${name}.yaml`), file, { variables, base: fileBase }),
  };
}

/** What the recipes mount and name; "/" at the end is a folder. */
const FILES = [
  ...SYSTEM,
  ...["cat", "cmake", "crontab", "gcc", "kubectl", "make", "msmtp", "node", "npm", "ninja"].map(
    (n) => `/usr/bin/${n}`,
  ),
  ...["pip", "pip3", "python3.11", "rm", "ssh", "twine", "curl", "wget", "apt", "cargo"].map(
    (n) => `/usr/bin/${n}`,
  ),
  "/home/me/project/.git/commondir",
  "/home/me/project/.git/config",
  "/home/me/project/.git/hooks/",
  "/home/me/project/customers.csv",
  "/home/me/project/out/",
  "/srv/agent/agent.py",
  "/srv/data/",
  "/srv/home/.bash_profile",
  "/srv/home/.bashrc",
  "/srv/home/.profile",
  "/srv/home/.config/autostart/",
  "/srv/home/.config/systemd/",
  "/srv/home/.local/share/systemd/",
  "/srv/home/.mozilla/",
  "/srv/home/.openclaw/openclaw.json",
  "/srv/home/.openclaw/workspace/",
  "/srv/home/.ssh/",
  "/srv/keys/model",
  "/srv/keys/token",
  "/srv/openclaw/node_modules/node/bin/node",
  "/srv/openclaw/node_modules/openclaw/openclaw.mjs",
  "/srv/skills/weather/weather.py",
  "/srv/tools/deploy",
];

/** As in policy/golden.test.ts, without Debian 12: there no sandbox starts without a waiver. */
const HOSTS = [
  { host: "linux-6.18", found: { landlock: 7, without: ["file.names", "apparmor"] } },
  { host: "ubuntu-24.04", found: { landlock: 4, without: ["file.names"] } },
];

test("there are at least twenty, each with its test file and nothing else", () => {
  expect(names.length).toBeGreaterThanOrEqual(20);
  expect(files).toEqual(names.flatMap((name) => [`${name}.test.yaml`, `${name}.yaml`]).sort());
});

test("they are laid out as policy fmt does", async () => {
  const all = files.map((file) => join(recipes, file));
  expect(await folder.cli("fmt", "--check", ...all)).toMatchObject({ code: 0, out: "" });
});

test("policy test passes all cases, and each rule of a recipe decides one", async () => {
  const result = await folder.json("test", recipes);
  expect(result.cases.filter(({ passed }: { passed: boolean }) => !passed)).toEqual([]);
  expect(result).toMatchObject({ failed: 0, diagnostics: [] });
  const decided = new Set<string>(
    result.cases.map(
      ({ file, got }: { file: string; got: { rule: string } }) =>
        `${basename(file, ".test.yaml")} ${got.rule}`,
    ),
  );
  const rules = names.flatMap((name) => {
    const { file, policy } = recipe(name);
    const all = [...(policy?.exec ?? []), ...(policy?.file ?? []), ...(policy?.network ?? [])];
    const own = all.filter(({ origin, mode }) => origin.file === file && mode === "enforce");
    return own.map(({ id }) => `${name} ${id}`);
  });
  expect(rules.filter((rule) => !decided.has(rule))).toEqual([]);
});

describe.each(names)("the recipe %s", (name) => {
  test("has no finding by policy check but what this host does not have", async () => {
    const { file, variables } = recipe(name);
    const values = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
    const result = await folder.json("check", file, ...values);
    expect(result.errors).toBe(0);
    expect(
      result.diagnostics.filter(({ code }: { code: string }) => code !== "glob-matches-nothing"),
    ).toEqual([]);
  });

  test("refuses or asks for something, and permits something beside it", () => {
    const verdicts =
      recipe(name).cases?.cases.map(({ expect: { verdict, observed } }) => observed ?? verdict) ?? [];
    expect(verdicts.some((verdict) => verdict === "deny" || verdict === "hold")).toBe(true);
    expect(verdicts.some((verdict) => verdict === "allow" || verdict === "log")).toBe(true);
  });

  test.each(HOSTS)("can be enforced on $host, and its patterns match something there", ({ found }) => {
    const { policy, diagnostics } = recipe(name);
    if (policy === undefined) throw new Error(renderDiagnostics(diagnostics));
    const host = tableHost(FILES);
    // What is waived is what this host lacks: a waiver without need is a finding.
    const lacks = policy.waive.map((waiver) => waiver.name);
    const result = compile(policy, {
      host,
      capabilities: capabilities({ ...found, without: [...found.without, ...lacks] }),
      name,
      command: ["make"],
    });
    const said = [...diagnostics, ...result.diagnostics, ...lint(policy, { host })].filter(
      // What an older kernel says of every policy with an entry.
      ({ message }) => !message.startsWith("Landlock ABI 4 of this kernel does not keep"),
    );
    expect(renderDiagnostics(said.filter(({ message }) => !lacks.some((one) => message.includes(one))))).toBe(
      "",
    );
    expect(result.artefacts).toBeDefined();
  });
});
