// What is wrong is said, and nothing is started.

import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
beforeAll(() => fixture.start(), 120_000);
afterAll(() => fixture.stop(), 60_000);

const good = readFileSync(join(root, "test/e2e/verdicts.policy.yaml"), "utf8");

/** `clawsec run` with a policy text; the sandbox would leave a file if it ran. */
async function runWith(text: string) {
  const policy = join(fixture.folder, "candidate.yaml");
  writeFileSync(policy, text);
  const name = fixture.name();
  const named = {
    workspace: fixture.workspace,
    guarded: fixture.guarded,
    node: realpathSync(process.execPath),
  };
  const variables = Object.entries(named).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const command = ["/usr/bin/touch", `/workspace/ran-${name}`];
  const result = await fixture.clawsec.cli(
    "run",
    "--name",
    name,
    "--policy",
    policy,
    ...variables,
    "--",
    ...command,
  );
  return { ...result, policy, ran: fixture.left(`ran-${name}`) !== undefined };
}

describe("a policy", () => {
  test("that is right runs: the positive control of this file", async () => {
    expect(await runWith(good)).toMatchObject({ code: 0, ran: true });
  });

  test.each([
    ["an unknown key", good.replace("defaults:", "defalts:"), /defalts/],
    ["a wrong type", good.replace("uid: 1000", "uid: many"), /uid/],
    ["a duplicate id", good.replace("id: note-seq", "id: no-shred"), /no-shred/],
    [
      "a path that does not exist",
      good.replace("source: /usr,", "source: /usr-that-is-not,"),
      /usr-that-is-not/,
    ],
    ["an action that is none", good.replace("action: log", "action: lock"), /lock/],
  ])(
    "with %s is an error with line, column, caret and remedy, and nothing starts",
    async (_what, text, words) => {
      const result = await runWith(text);
      expect(result.code).toBe(3);
      expect(result.ran).toBe(false);
      expect(result.stderr).toMatch(words);
      expect(result.stderr).toMatch(/candidate\.yaml:\d+:\d+/);
      expect(result.stderr).toContain("^");
      expect(existsSync(join(fixture.runtime, "sandboxes", "verdicts"))).toBe(false);
    },
  );
});

test("a second sandbox of the same name is refused while the first lives, and runs after it", async () => {
  const sleeper = fixture.arguments("twin", ["/usr/bin/sleep", "60"], ["--detach"]);
  await fixture.clawsec.must(...sleeper);
  const second = await fixture.clawsec.cli(...fixture.arguments("twin", ["/usr/bin/true"]));
  expect(second.code).not.toBe(0);
  expect(second.stderr).toMatch(/twin/);
  await fixture.clawsec.must("kill", "twin");
  expect((await fixture.clawsec.cli(...fixture.arguments("twin", ["/usr/bin/true"]))).code).toBe(0);
});

test("a second supervisor is refused with a sentence", async () => {
  const result = await fixture.clawsec.cli("up");
  expect(result.code).not.toBe(0);
  expect(result.stderr).toMatch(/already|running/i);
});

test("a supervisor in the background that cannot start says why", async () => {
  const other = new Fixture();
  vi.stubEnv("CLAWSEC_LOADER", "/nonexistent/loader");
  try {
    const result = await other.clawsec.cli("up", "--detach");
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain(
      "was not found at /nonexistent/loader. Set CLAWSEC_LOADER to an executable file. Its log",
    );
  } finally {
    vi.unstubAllEnvs();
    await other.stop();
  }
});

test("stale sockets do not stop a start", async () => {
  const other = new Fixture();
  try {
    for (const name of ["control.sock", "loader.sock"]) {
      const path = join(other.runtime, name);
      const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
      await new Promise((resolve) => spawn(process.execPath, ["-e", script]).once("exit", resolve));
      expect(existsSync(path)).toBe(true);
    }
    await other.start();
    expect((await other.run("echo fine")).stdout).toBe("fine\n");
  } finally {
    await other.stop();
  }
}, 120_000);

test("without runc nothing starts, and the words are doctor's", async () => {
  const other = new Fixture();
  try {
    const path = process.env.PATH;
    process.env.PATH = pathWithout("runc", join(other.folder, "bin"));
    try {
      await other.start();
      const result = await other.run("touch /workspace/ran");
      expect(result.code).not.toBe(0);
      expect(result.stderr).toMatch(/runc/);
      expect(other.left("ran")).toBe(undefined);
      const doctor = await other.clawsec.cli("doctor", "--json");
      expect(doctor.code).not.toBe(0);
      expect(doctor.stdout).toMatch(/"runc"/);
    } finally {
      process.env.PATH = path;
    }
  } finally {
    await other.stop();
  }
}, 120_000);

test("a control socket that is no socket of ours is left alone", async () => {
  const other = new Fixture();
  const server = createServer().listen(join(other.runtime, "control.sock"));
  try {
    await expect(other.clawsec.up([], 5_000)).rejects.toThrow();
    expect(server.listening).toBe(true);
  } finally {
    server.close();
    await other.stop();
  }
}, 60_000);

/** A PATH of one folder with links to every program of PATH but one. */
function pathWithout(program: string, folder: string): string {
  mkdirSync(folder);
  for (const part of (process.env.PATH ?? "").split(":").reverse()) {
    if (!existsSync(part)) continue;
    for (const name of readdirSync(part)) {
      if (name === program || existsSync(join(folder, name))) continue;
      symlinkSync(join(part, name), join(folder, name));
    }
  }
  return folder;
}
