// One more command in a running sandbox, as a user asks for it: same rules, same limits, and an end with its caller.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { Fixture, root } from "./fixture.js";

const fixture = new Fixture();
const { clawsec } = fixture;
/** A sandbox of the verdicts policy that stays. */
const box = "box";

beforeAll(async () => {
  await fixture.start();
  await stay(box);
}, 120_000);
afterAll(() => fixture.stop(), 60_000);

async function stay(name: string): Promise<void> {
  await clawsec.must(...fixture.arguments(name, ["/usr/bin/sleep", "1000"], ["--detach"]));
}

/** `clawsec exec`, running. */
class Exec {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";

  constructor(...args: string[]) {
    this.child = spawn(join(root, "bin/clawsec"), ["exec", ...args], { env: clawsec.environment });
    this.child.stdout?.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
  }

  async says(text: string): Promise<void> {
    await until(`it says ${text}`, () => this.stdout.includes(text) || this.stderr.includes(text));
  }

  async end(): Promise<{ code: number | null; stdout: string; stderr: string }> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "close");
    return { code: this.child.exitCode, stdout: this.stdout, stderr: this.stderr };
  }
}

async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (await done()) return;
    await sleep(100);
  }
  throw new Error(`It did not happen: ${what}.`);
}

/** Whether a process of the host has just these arguments. */
function running(...argv: string[]): boolean {
  const wanted = argv.map((argument) => `${argument}\0`).join("");
  return readdirSync("/proc").some((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1") === wanted;
    } catch {
      // It ended meanwhile.
      return false;
    }
  });
}

test("an allowed command runs as the sandbox's user with the policy's environment, and its exit code is passed on", async () => {
  const result = await clawsec.cli("exec", box, "--", "sh", "-c", "id -u; pwd; echo $HOME; exit 7");
  expect(result).toMatchObject({ stdout: "1000\n/workspace\n/workspace\n", code: 7 });
  const missing = await clawsec.cli("exec", box, "--", "no-such-program");
  expect(missing.code).toBe(127);
  expect(missing.stderr).toContain('"no-such-program" was not started');
});

test("a denied command does not run, says by which rule, and who asked is in the audit", async () => {
  const result = await clawsec.cli("exec", box, "--", "/usr/bin/shred", "--version");
  expect(result).toMatchObject({ stdout: "", code: 126 });
  expect(result.stderr).toContain("exec/no-shred");
  expect(result.stderr).toContain("files are not shredded here");
  const [record] = await fixture.records(box, "exec/no-shred");
  expect(record?.verdict).toBe(Verdict.DENY);
  const asked = await clawsec.audit({ sandbox: box, kinds: ["sandbox"], text: "shred" });
  expect(asked.map(({ summary }) => summary)).toEqual([
    "command of uid 0 (root) asked for with clawsec exec [/usr/bin/shred --version]",
    "command of uid 0 (root) ended with code 126 [/usr/bin/shred --version]",
  ]);
});

test("a held command waits and says so, runs when it is approved, and never when it is denied", async () => {
  const next = clawsec.nextHold(box, 30_000);
  const approved = new Exec(box, "--", "/usr/bin/factor", "42");
  const hold = await next;
  await approved.says(`the command is held by rule exec/ask-factor (a held command for tests)`);
  expect(approved.stderr).toContain(`clawsec approve ${hold.id}`);
  expect(approved.stdout).toBe("");
  await fixture.approve(hold);
  expect(await approved.end()).toMatchObject({ code: 0, stdout: "42: 2 3 7\n" });

  const second = clawsec.nextHold(box, 30_000);
  const denied = new Exec(box, "--", "/usr/bin/factor", "43");
  await fixture.deny(await second);
  const result = await denied.end();
  expect(result).toMatchObject({ code: 137, stdout: "" });
  expect(result.stderr).toContain("denied by uid 0 (root)");
});

test("standard input is passed on with --interactive, megabytes of it, and is empty without", async () => {
  const megabytes = "0123456789abcde\n".repeat(300_000);
  const cat = new Exec("-i", box, "--", "cat");
  cat.child.stdin?.end(megabytes);
  const { code, stdout } = await cat.end();
  expect([code, stdout === megabytes]).toEqual([0, true]);
  const none = new Exec(box, "--", "wc", "-c");
  none.child.stdin?.write("x");
  expect(await none.end()).toMatchObject({ code: 0, stdout: "0\n" });
});

test("with --tty it has a terminal, and without none", async () => {
  const script = "test -t 0 && test -t 1 && echo terminal; stty size 2>/dev/null; tty; echo $TERM";
  const terminal = await clawsec.cli("exec", "--tty", box, "--", "sh", "-c", script);
  expect(terminal.stdout).toMatch(/^terminal\r\n24 80\r\n\/dev\/pts\/\d+\r\n\S+\r\n$/);
  const pipes = await clawsec.cli("exec", box, "--", "sh", "-c", script);
  expect(pipes.stdout).toBe("not a tty\n\n");
});

test("a signal goes to the command", async () => {
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const command = new Exec(box, "--", "sh", "-c", "echo ready; exec sleep 888");
    await command.says("ready");
    command.child.kill(signal);
    expect((await command.end()).code).toBe(code);
  }
});

test("a signal ends a command that does not read the input before it", async () => {
  const command = new Exec("-i", box, "--", "sh", "-c", "echo ready; sleep 6543");
  await command.says("ready");
  const { stdin } = command.child;
  stdin?.on("error", () => undefined);
  const chunk = Buffer.alloc(1 << 20);
  for (let sent = 0; sent < 16; sent++) stdin?.write(chunk);
  // Until our own pipe is full as well.
  let left = -1;
  await until("nobody reads any more", async () => {
    const before = left;
    left = stdin?.writableLength ?? 0;
    await sleep(500);
    return left > 0 && left === before;
  });
  command.child.kill("SIGINT");
  const result = await command.end();
  expect(result.code).toBe(130);
  expect(result.stderr).toContain("it did not read its input");
  await until("the command is gone", () => !running("sleep", "6543"));
});

test("a command ends with its caller, and twenty of them do not mix", async () => {
  const command = new Exec(box, "--", "sh", "-c", "echo ready; sleep 8765");
  await command.says("ready");
  expect(running("sleep", "8765")).toBe(true);
  command.child.kill("SIGKILL");
  await until("the command is gone", () => !running("sleep", "8765"));
  const numbers = Array.from({ length: 20 }, (_, number) => number);
  const results = await Promise.all(
    numbers.map((number) => clawsec.cli("exec", box, "--", "sh", "-c", `echo ${number}; exit ${number}`)),
  );
  expect(results.map(({ code, stdout }) => [code, stdout])).toEqual(
    numbers.map((number) => [number, `${number}\n`]),
  );
}, 120_000);

test("a sandbox that does not run is refused", async () => {
  const unknown = await clawsec.cli("exec", "nobody", "--", "id");
  expect(unknown).toMatchObject({ code: 1, stdout: "" });
  expect(unknown.stderr).toContain("There is no sandbox nobody");
  const { name } = await fixture.run("exit 0");
  const over = await clawsec.cli("exec", name, "--", "id");
  expect(over).toMatchObject({ code: 1, stdout: "" });
  expect(over.stderr).toContain(`the sandbox ${name} is not running`);
  const subject = await clawsec.cli("exec", "--subject", "tool", box, "--", "id");
  expect(subject).toMatchObject({ code: 1, stdout: "" });
  expect(subject.stderr).toContain('has no subject "tool"');
});

test("a kill while a command is held ends the command and its hold, and leaves nothing", async () => {
  const name = "doomed";
  await stay(name);
  const next = clawsec.nextHold(name, 30_000);
  const held = new Exec(name, "--", "/usr/bin/factor", "77");
  const hold = await next;
  expect(JSON.parse(await clawsec.must("kill", name, "--json")).survivors).toBe(0);
  const result = await held.end();
  expect(result).toMatchObject({ code: 137, stdout: "" });
  expect(result.stderr).toContain(`the sandbox ${name} was killed meanwhile: uid 0 (root)`);
  await until("no hold is open", async () => {
    return JSON.parse(await clawsec.must("holds", "--sandbox", name, "--json")).holds.length === 0;
  });
  const past = JSON.parse(await clawsec.must("holds", "--sandbox", name, "--all", "--json")).holds;
  expect(past).toEqual([expect.objectContaining({ id: hold.id, outcome: "requester gone" })]);
  const records = await clawsec.audit({ sandbox: name, kinds: ["hold"] });
  expect(records.at(-1)?.summary).toContain("requester gone");
  expect(records.some(({ facts }) => facts.includes(hold.id))).toBe(true);
  expect(running("/usr/bin/factor", "77")).toBe(false);
  expect(existsSync(join(fixture.runtime, "sandboxes", name))).toBe(false);
});

test("a command of a subject has that subject's rules and files, beside one of the main command's", async () => {
  const secret = join(fixture.folder, "secret");
  writeFileSync(secret, "words of the secret", { mode: 0o600 });
  mkdirSync(join(fixture.workspace, "tool"));
  const variables = ["--var", `workspace=${fixture.workspace}`, "--var", `secret=${secret}`];
  const policy = join(root, "test/e2e/subjects.policy.yaml");
  const arguments_ = ["run", "--detach", "--name", "two", "--policy", policy, ...variables];
  await clawsec.must(...arguments_, "--", "/usr/bin/sleep", "1000");
  const read = ["--", "cat", "/run/secrets/clawsec/key"];
  expect((await clawsec.cli("exec", "two", ...read)).stdout).toBe("words of the secret");
  expect(await clawsec.cli("exec", "--subject", "tool", "two", ...read)).toMatchObject({
    code: 1,
    stdout: "",
  });
  expect((await clawsec.cli("exec", "two", "--", "nproc")).code).toBe(0);
  const denied = await clawsec.cli("exec", "--subject", "tool", "two", "--", "nproc");
  expect(denied.code).toBe(126);
  expect(denied.stderr).toContain("exec/gateway-only");
});

test("a command ends with the supervisor, and the sandbox goes on", async () => {
  const command = new Exec(box, "--", "sh", "-c", "echo ready; sleep 7654");
  await command.says("ready");
  process.kill(JSON.parse(await clawsec.must("status", "--json")).pid, "SIGKILL");
  const result = await command.end();
  expect(result.code).toBe(137);
  expect(result.stderr).toContain("the supervisor is gone, and the command was ended");
  await until("the command is gone", () => !running("sleep", "7654"));
  await clawsec.lost();
  await clawsec.up();
  expect(await clawsec.cli("exec", box, "--", "echo", "again")).toMatchObject({ code: 0, stdout: "again\n" });
}, 120_000);
