// The audit of a real sandbox: every program with its parents, facts and end, and the tree that is drawn of them.

import { chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Event } from "../../proto/gen/clawsec/v1/loader.js";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
const secret = join(fixture.folder, "secret");
beforeAll(async () => {
  writeFileSync(secret, "words of the secret", { mode: 0o600 });
  mkdirSync(join(fixture.workspace, "tool"));
  chownSync(join(fixture.workspace, "tool"), 1000, 1000);
  await fixture.start();
}, 120_000);
afterAll(() => fixture.stop(), 60_000);

interface Exec {
  readonly depth: number;
  readonly execId: string;
  readonly parent: string;
  readonly state: string;
  readonly pid: number;
  readonly subject: string;
  readonly verdict: string;
  readonly rule: string;
  readonly exit: { code: number; signal: number } | null;
  readonly startedUs: number;
  readonly endedUs: number;
  readonly record: { parents: string[]; facts: unknown };
}

/** Runs a script as the gateway of the policy with a tool entry. */
async function session(script: string): Promise<string> {
  const name = fixture.name();
  const policy = join(root, "test/e2e/subjects.policy.yaml");
  const variables = ["--var", `workspace=${fixture.workspace}`, "--var", `secret=${secret}`];
  const command = ["--", "/usr/bin/bash", "-c", script];
  const result = await fixture.clawsec.cli(
    "run",
    "--name",
    name,
    "--policy",
    policy,
    ...variables,
    ...command,
  );
  expect([result.code, result.stderr.includes("clawsec: the")], result.stderr).toEqual([0, false]);
  return name;
}

async function tree(...args: string[]): Promise<{ sandbox: string; execs: Exec[]; lost: number }> {
  return JSON.parse(await fixture.clawsec.must("audit", "tree", "--json", ...args));
}

const loaded = (exec: Exec | undefined) => {
  const kind = Event.fromJSON(exec?.record.facts).kind;
  return kind?.$case === "exec" ? kind.value : undefined;
};
const last = (exec: Exec) => loaded(exec)?.argv.at(-1);

test("each program of a session is in its tree once, with parents, facts, decision and end", async () => {
  const name = await session(
    [
      "/usr/bin/env -C /tmp sh -c 'exit 7'",
      "/usr/bin/sh -c 'kill -9 $$'",
      "/.clawsec/bash -c '/usr/bin/nproc; /usr/bin/true as-tool'",
      "setsid --fork /usr/bin/true as-daemon",
      "/usr/bin/sleep 0.2",
      "/usr/bin/printf '\\033[2J%s' as-hostile >/dev/null",
    ].join("\n"),
  );
  const { sandbox, execs, lost } = await tree(name);
  expect([sandbox, lost]).toEqual([name, 0]);
  expect(new Set(execs.map(({ execId }) => execId)).size).toBe(execs.length);
  const one = (mark: string) => {
    // Of programs that hand their arguments on, the last: it has the fewest.
    const all = execs.filter((exec) => last(exec) === mark);
    const fewest = Math.min(...all.map((exec) => loaded(exec)?.argc ?? 0));
    const found = all.filter((exec) => loaded(exec)?.argc === fewest);
    expect(found.map(last), mark).toEqual([mark]);
    return found[0] as Exec;
  };
  const above = (exec: Exec) => execs.find(({ execId }) => execId === exec.parent);

  // The init is the only one at the margin, and each chain of parents ends with it.
  const init = execs[0] as Exec;
  expect(execs.filter(({ depth }) => depth === 0)).toEqual([init]);
  for (const exec of execs.slice(1)) expect(exec.record.parents.at(-1)).toBe(init.execId);

  const seven = one("exit 7");
  expect(seven).toMatchObject({ state: "ended", verdict: "allow", rule: "exec/rest", subject: "gateway" });
  expect(seven.exit).toEqual({ code: 7, signal: 0 });
  expect(loaded(seven)).toMatchObject({ cwd: "/tmp", cwdPartial: false, argvTruncated: false, argc: 3 });
  expect(loaded(seven)?.executable).toMatch(/^\/usr\/bin\/(da|ba)?sh$/);
  expect(loaded(seven)?.environmentNames).toContain("PATH");
  expect(above(seven)).toMatchObject({ state: "replaced", pid: seven.pid });
  expect(seven.endedUs).toBeGreaterThanOrEqual(seven.startedUs);
  // "$$" was the shell's own: nothing stands between.
  expect(one("kill -9 $$").exit).toEqual({ code: 137, signal: 9 });

  const tool = one("as-tool");
  expect(tool).toMatchObject({ subject: "tool", exit: { code: 0, signal: 0 } });
  const refused = execs.filter(({ state }) => state === "refused");
  expect(refused.map(({ rule, subject, parent }) => [rule, subject, parent])).toEqual([
    ["exec/gateway-only", "tool", tool.parent],
  ]);
  // Its parent was gone, and it is known all the same.
  expect(loaded(above(one("as-daemon")))?.argv[0]).toBe("setsid");

  const text = await fixture.clawsec.must("audit", "tree", name);
  expect(text).not.toMatch(/[^\P{Cc}\n]/u);
  expect(text.trimEnd().split("\n")).toHaveLength(execs.length);
  expect(text).toContain("exec/gateway-only");
}, 60_000);

test("records are found by their exec and by an ancestor, and not by another", async () => {
  const name = await session("/usr/bin/sh -c '/usr/bin/true inner; true'; /usr/bin/true outer");
  const { execs } = await tree(name);
  const [init, inner, outer] = [
    execs[0],
    execs.find((e) => last(e) === "inner"),
    execs.find((e) => last(e) === "outer"),
  ];
  const shell = execs.find(({ execId }) => execId === inner?.parent);
  const search = async (...args: string[]) => {
    const text = await fixture.clawsec.must("audit", "search", "--json", "--kind", "exec", ...args);
    return (JSON.parse(text) as { records: { execId: string }[] }).records.map(({ execId }) => execId);
  };
  expect(await search("--ancestor", String(shell?.execId))).toEqual([inner?.execId]);
  expect(await search("--exec", String(outer?.execId))).toEqual([outer?.execId]);
  expect(await search("--ancestor", String(outer?.execId))).toEqual([]);
  expect(await search("--ancestor", String(init?.execId))).toHaveLength(execs.length - 1);
  const part = await tree("--exec", String(shell?.execId));
  expect(part.execs.map(({ execId }) => execId)).toEqual([shell?.execId, inner?.execId]);
}, 60_000);
