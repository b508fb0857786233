// The exec gate's own tests on Debian's kernels, and that of the limits in cgroup v2, which the host may have in v1: with the verification alone, and with BPF-LSM in front of it, which the
// host's kernel may lack. One boot for each kernel, all of them side by side: each machine has one processor, which is
// mostly emulated. Each test of the gate is one here, too.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, expect, test } from "vitest";
import { type Ended, inVirtualMachine, type MachineName, type MachineRun, whyNoMachine } from "./machine.ts";
import { describeInMachine } from "./suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const minutes = 60_000;

/** Test targets, and how many tests each has at least: a name that vanishes is a failure. */
const targets = { probe: 1, lsm: 8, decide: 15, hold: 10, limits: 1 } as const;
/** The crates that have them. */
const crate = /\/(?:exec-gate|sandbox)\//;
/** It measures how long a parent waits, in milliseconds: an emulated processor has no say in that. */
const skipped = "a_held_exec_does_not_stall_the_parent_that_vforked";

let prepared: string | undefined;

/** The test binaries and the programs that they start, in a folder of the tree that the machine sees; made once. */
function prepare(): string {
  prepared ??= build();
  return prepared;
}

function build(): string {
  const folder = join(root, "test/.work/vm-exec-gate");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const tests = Object.keys(targets).flatMap((target) => ["--test", target]);
  // As `make test` builds them, so that nothing is compiled again.
  const built = execFileSync(
    "cargo",
    ["test", "--locked", "--workspace", "--no-run", "--message-format=json", "--quiet", ...tests],
    { cwd: join(root, "bpf"), encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "inherit"] },
  );
  for (const line of built.split("\n").filter((text) => text.startsWith("{"))) {
    const { executable, target, manifest_path: manifest } = JSON.parse(line);
    if (typeof executable === "string" && target.name in targets && crate.test(manifest))
      copyFileSync(executable, join(folder, target.name));
  }
  const sources = (names: string[]) => names.map((name) => join(root, "bpf/exec-gate/tests/programs", name));
  const compile = (name: string, from: string[], ...more: string[]) =>
    execFileSync(
      "clang",
      [
        ...["-static", "-O1", "-Wall", "-Werror", "-pthread"],
        ...more,
        ...sources(from),
        "-o",
        join(folder, name),
      ],
      { stdio: "inherit" },
    );
  compile("actor", ["actor.c", "children.c", "execs.c", "races.c", "reach.c"]);
  compile("effect", ["effect.c"]);
  compile("good", ["effect.c"], '-DFIXED="good"');
  compile("evil", ["effect.c"], '-DFIXED="evil"');
  return folder;
}

/** Results of Rust's test runner: name, and "ok" or what else it says. */
function results(text: string): Map<string, string> {
  const found = new Map<string, string>();
  let running = "";
  for (const line of text.split("\n")) {
    const begun = /^test (\w+) \.\.\. (.*)$/.exec(line);
    if (begun !== null) running = begun[1] ?? "";
    // What a test's programs print comes between its name and its result.
    const said = begun === null ? line : (begun[2] ?? "");
    const result = /\b(ok|FAILED|ignored)$/.exec(said);
    if (running !== "" && result !== null) {
      found.set(running, result[1] ?? "");
      running = "";
    }
  }
  return found;
}

/** What the machines run, by the name of the run. */
function plans(): Record<Run, MachineRun> {
  const folder = prepare();
  // On tmpfs: stat of an overlay has other numbers than the kernel's.
  const begin = `cp -r ${folder} /run/gate && cd /run/gate`;
  const runs = Object.keys(targets).map(
    (target) =>
      `echo "@@ ${target}"; ./${target} --test-threads=1 --skip ${skipped} 2>&1 && echo "@@ passed" || echo "@@ failed"`,
  );
  const all = `${begin}
    export CLAWSEC_TEST_LSM=1 CLAWSEC_TEST_PROGRAMS=/run/gate
    ${runs.join("\n")}`;
  const gate = (machine: MachineName): MachineRun => ({
    machine,
    command: ["sh", "-c", all],
    timeoutMs: 8 * minutes,
  });
  return {
    "linux-6.1": gate("linux-6.1"),
    "linux-6.12": gate("linux-6.12"),
    "without bpf": {
      machine: "linux-6.12",
      command: ["sh", "-c", `cat /sys/kernel/security/lsm; ${begin} && ./probe --nocapture 2>&1`],
      kernelArguments: ["lsm=landlock,yama,apparmor"],
    },
  };
}

type Run = "linux-6.1" | "linux-6.12" | "without bpf";
let started: Partial<Record<Run, Promise<Ended>>> | undefined;

/** How a run ended. The first who asks starts all of them. */
function ended(name: Run): Promise<Ended> {
  if (started === undefined) {
    started = {};
    for (const [run, plan] of Object.entries(plans()) as [Run, MachineRun][]) {
      if (whyNoMachine(plan.machine) !== undefined) continue;
      const running = inVirtualMachine(plan);
      // One that fails before somebody waits for it fails who does.
      running.catch(() => undefined);
      started[run] = running;
    }
  }
  return started[name] ?? Promise.reject(new Error(`the machine of "${name}" cannot run here`));
}

for (const machine of ["linux-6.1", "linux-6.12"] as const satisfies MachineName[]) {
  describeInMachine(
    `the exec gate in the virtual machine ${machine}`,
    () => {
      const said = new Map<string, string>();
      beforeAll(async () => {
        const { code, stdout, stderr } = await ended(machine);
        expect(code, stderr).toBe(0);
        for (const part of stdout.split("@@ ").slice(1)) {
          const name = part.split("\n", 1)[0] ?? "";
          if (name in targets) said.set(name, part);
          else said.set(`${[...said.keys()].at(-1)} ended`, name);
        }
      }, 15 * minutes);

      test.each(Object.entries(targets))("passes %s, with at least %i tests", (target, atLeast) => {
        const text = said.get(target) ?? "";
        const found = results(text);
        expect(
          [...found].filter(([, result]) => result !== "ok"),
          text,
        ).toEqual([]);
        expect(found.size, text).toBeGreaterThanOrEqual(atLeast);
        expect(said.get(`${target} ended`), text).toBe("passed");
      });
    },
    machine,
  );
}

describeInMachine(
  "a kernel whose list of security modules lacks bpf",
  () => {
    test(
      "is not taken for one that refuses",
      async () => {
        const { code, stdout } = await ended("without bpf");
        expect(stdout).toMatch(/^lockdown,|^capability,|^[a-z,]*landlock/);
        expect(stdout.split("\n")[0]).not.toContain("bpf");
        expect(stdout).toContain("bpf.exec_verify: An exec without approval was killed");
        expect(stdout).toContain(
          "bpf.lsm is missing: An exec that nobody approved was not refused: Signaled(",
        );
        expect(code).toBe(0);
      },
      15 * minutes,
    );
  },
  "linux-6.12",
);
