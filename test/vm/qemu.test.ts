// The machines under QEMU: that a failure in one is seen, and that none of them stays.

import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { crashedInBoot, inVirtualMachine, MachineError, type MachineName, machines } from "./machine.ts";
import { describeInMachine } from "./suite.ts";

/** Processes of the host that are such machines. */
function running(): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      const [program] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      return program === `${machines["linux-6.1"].cache}/qemu`;
    } catch {
      return false; // Not a process, or it ended in the meantime.
    }
  });
}

const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith("clawsec-vm-"));

async function failure(run: Promise<unknown>): Promise<MachineError> {
  const error = await run.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof MachineError) return error;
  throw new Error(`expected a MachineError, got ${String(error)}`);
}

test.each([
  ["a crash before init", "RIP: 0010:text_poke_early\nKernel panic - not syncing: Fatal exception", true],
  [
    "a crash under the command",
    "init: the command begins\nKernel panic - not syncing: Fatal exception",
    false,
  ],
  ["an init that fails", "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200", false],
  ["no init", "Kernel panic - not syncing: VFS: Unable to mount root fs", false],
])("%s: is another boot tried", (_, console, again) => {
  const output = { console, stdout: "", stderr: "" };
  expect(crashedInBoot({ reason: "failed", output })).toBe(again);
  expect(crashedInBoot({ reason: "timed out", output })).toBe(false);
});

const shell = (script: string) => ["sh", "-c", script];
const minutes = 60_000;

for (const machine of ["linux-6.1", "linux-6.12"] as const satisfies MachineName[]) {
  describeInMachine(
    `the virtual machine ${machine}`,
    () => {
      test(
        "runs Debian's kernel with BPF-LSM, BTF and the host's files read-only; a failing command fails",
        async () => {
          const here = import.meta.filename;
          const words = ["two words", "it's", '"$HOME"', "", "-n", "new\nline", "é"];
          const ended = await inVirtualMachine({
            machine,
            command: [
              ...shell(`
                uname -r; cat /sys/kernel/security/lsm; echo; id -u
                test -r /sys/kernel/btf/vmlinux && echo BTF
                cmp ${here} ${here} && echo changed >${here} && cat ${here}
                seq 1 100000 | sha256sum; seq 1 100000
                printf "\\n<%s>" "$@"
                echo on stderr >&2
                kill -9 $$`),
              "sh",
              ...words,
            ],
          });
          expect(ended).toMatchObject({ code: 128 + 9, stderr: "on stderr\n" });
          const [release = "", lsm = "", uid, btf, changed] = ended.stdout.split("\n");
          expect(release.startsWith(machine.replace("linux-", ""))).toBe(true);
          expect(lsm.split(",")).toEqual(expect.arrayContaining(["apparmor", "bpf"]));
          expect([uid, btf, changed]).toEqual(["0", "BTF", "changed"]);
          expect(ended.stdout).toContain(Array.from({ length: 100_000 }, (_, i) => i + 1).join("\n"));
          expect(ended.stdout).toContain(words.map((word) => `\n<${word}>`).join(""));
          expect(readFileSync(here, "utf8")).not.toBe("changed\n");
        },
        2 * minutes,
      );
    },
    machine,
  );
}

describeInMachine(
  "a virtual machine under QEMU",
  () => {
    test("that does not end in time is killed, and leaves nothing behind", async () => {
      const before = { running: running(), leftovers: leftovers() };
      const run = inVirtualMachine({ machine: "linux-6.1", command: ["sleep", "1000"], timeoutMs: 4000 });
      await expect.poll(() => running().length, { timeout: 4000 }).toBeGreaterThan(before.running.length);
      expect((await failure(run)).reason).toBe("timed out");
      await expect.poll(running, { timeout: 5000 }).toEqual(before.running);
      expect(leftovers()).toEqual(before.leftovers);
    });

    test("that finds no init is an error, not a result", async () => {
      const run = inVirtualMachine({
        machine: "linux-6.1",
        command: ["true"],
        kernelArguments: ["rdinit=/nonexistent"],
      });
      const error = await failure(run);
      expect(error.reason).toBe("failed");
      expect(error.output.console).toMatch(/init/i);
    });
  },
  "linux-6.1",
);
