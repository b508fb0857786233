// As on a kernel that lacks a mechanism: what is told to be left unused is left unused, is named, and the line holds.

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { Fixture, root } from "./fixture.js";

let fixture: Fixture;
afterEach(() => fixture.stop(), 60_000);

/** A supervisor and a loader that leave these unused. */
async function start(without: string): Promise<Fixture["clawsec"]> {
  fixture = new Fixture();
  await fixture.start({ up: ["--without", without] });
  return fixture.clawsec;
}

interface Found {
  name: string;
  state: string;
  level: string;
  detail: string;
}

/** What the doctor says of a mechanism, and what it names as unused. */
async function doctor(name: string): Promise<Found & { without: string[] }> {
  const { capabilities, without } = JSON.parse((await fixture.clawsec.cli("doctor", "--json")).stdout);
  return { ...capabilities.find((found: Found) => found.name === name), without };
}

/** A denied, an allowed and a held exec. */
async function holdsTheLine(): Promise<void> {
  const { clawsec } = fixture;
  const denied = await fixture.run("shred --version; echo $?");
  expect(denied.stdout).toBe("126\n");
  expect(denied.stderr).toContain("files are not shredded here");
  const allowed = await fixture.run("echo ran; exit 7");
  expect(allowed).toMatchObject({ code: 7, stdout: "ran\n" });
  const approved = await fixture.run("factor 42", fixture.approve);
  expect(approved).toMatchObject({ code: 0, stdout: "42: 2 3 7\n" });
  const refused = await fixture.run("factor 43; echo $?", fixture.deny);
  expect(refused.stdout).toBe("137\n");
  // One more command comes the same way.
  await clawsec.must(...fixture.arguments("more", ["/usr/bin/sleep", "1000"], ["--detach"]));
  expect(await clawsec.cli("exec", "more", "--", "echo", "also")).toMatchObject({
    stdout: "also\n",
    code: 0,
  });
  expect((await clawsec.cli("exec", "more", "--", "shred", "--version")).code).toBe(126);
}

test("without typed tracepoints a denied, an allowed and a held exec are what they are with them", async () => {
  await start("tp_btf");
  expect(await doctor("bpf.exec_verify")).toMatchObject({
    state: "present",
    level: "raw_tp",
    without: ["tp_btf"],
  });
  await holdsTheLine();
}, 120_000);

test("without waits that outlast signals a denied, an allowed and a held exec are what they are with them", async () => {
  await start("wait-killable");
  expect(await doctor("seccomp.notify")).toMatchObject({
    state: "present",
    level: "basic",
    without: ["wait-killable"],
  });
  await holdsTheLine();
}, 120_000);

test("a limit that cannot be set is a refusal, unless the policy waives it, and the others are kept", async () => {
  const clawsec = await start("cgroup.pids");
  const found = await doctor("cgroup.pids");
  expect(found).toMatchObject({ state: "missing", without: ["cgroup.pids"] });
  expect(await doctor("cgroup.memory")).toMatchObject({ state: "present" });
  const policy = (waive: string) => {
    const path = join(fixture.folder, "limits.yaml");
    const text = `apiVersion: clawsec/v1
kind: Policy
metadata: { name: limits }
${waive}
sandbox:
  home: /home/agent
  mounts: [{ source: /usr }, { type: tmpfs, target: /home/agent }]
  limits: { memory: 128Mi, pids: 20 }
defaults: { exec: allow, network: deny }
`;
    writeFileSync(path, text);
    return path;
  };
  const run = (waive: string, script: string) =>
    clawsec.cli("run", "--policy", policy(waive), "--", "/bin/sh", "-c", script);
  const many = "i=0; while [ $i -lt 40 ]; do sleep 60 & i=$((i+1)); done; echo $i";
  const refused = await run("", many);
  expect(refused).toMatchObject({ code: 3, stdout: "" });
  expect(refused.stderr).toContain("sandbox.limits cannot be enforced: this host has no cgroup.pids");
  expect(refused.stderr).toContain("--without cgroup.pids");
  const waive = "waive: [{ name: cgroup.pids, reason: a host without it }]";
  const waived = await run(waive, many);
  expect(waived).toMatchObject({ code: 0, stdout: "40\n" });
  expect(waived.stderr).toContain("It is waived: a host without it");
  // tail keeps all of it until the end.
  const keep = (size: string) => `head -c ${size} /dev/zero | tail -c ${size} | wc -c`;
  expect((await run(waive, keep("400M"))).stdout.trim()).toBe("0");
  expect((await run(waive, keep("20M"))).stdout.trim()).toBe(`${20 << 20}`);
}, 120_000);

test("a loader that runs already does not become another one: it is said, and it stays as it is", async () => {
  const clawsec = await start("tp_btf");
  process.kill(JSON.parse(await clawsec.must("status", "--json")).pid, "SIGKILL");
  await clawsec.lost();
  const other = await clawsec.cli("up", "--without", "wait-killable");
  expect(other.code).toBe(1);
  expect(other.stderr).toContain("leaves tp_btf unused, and not wait-killable");
  await clawsec.up(["--without", "tp_btf"]);
  expect((await doctor("bpf.exec_verify")).level).toBe("raw_tp");
}, 120_000);

test("in a PID namespace of its own the loader says that it cannot verify, and why, and nothing starts", async () => {
  fixture = new Fixture();
  const { runtime, state } = fixture;
  const inside = (script: string) => {
    const env = { ...process.env, CLAWSEC_RUNTIME_DIR: runtime, CLAWSEC_STATE_DIR: state };
    const clawsec = `"${process.execPath}" "${join(root, "dist/agent/cli/main.js")}"`;
    const command = ["/bin/sh", "-c", `clawsec() { ${clawsec} "$@"; }; ${script}`];
    // What is still there when the first process ends ends with its namespace.
    const options = { env, encoding: "utf8", timeout: 60_000 } as const;
    return spawnSync("unshare", ["--pid", "--fork", "--mount-proc", "--kill-child", ...command], options);
  };
  const { capabilities } = JSON.parse(inside("clawsec doctor --json").stdout);
  expect(capabilities.find(({ name }: Found) => name === "bpf.exec_verify")).toMatchObject({
    state: "missing",
    required: true,
    detail: expect.stringContaining("PID namespace of its own"),
    remedy: expect.stringContaining("--pid=host"),
  });
  const tried = inside(
    "clawsec up --detach; clawsec run -- /usr/bin/true; code=$?; clawsec down; exit $code",
  );
  expect(tried.stderr).toContain("PID namespace of its own");
  expect(tried.status).toBe(5);
}, 120_000);
