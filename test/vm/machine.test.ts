import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { cache, inVirtualMachine, MachineError } from "./machine.ts";
import { describeInMachine } from "./suite.ts";

/** Processes of the host that run the machine's kernel. */
function kernels(): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${cache}/linux.uml`);
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

const shell = (script: string) => ["sh", "-c", script];

describeInMachine("the virtual machine", () => {
  test("has AppArmor on, the command is root, and gets its arguments as they are", async () => {
    const words = ["two words", "it's", '"$HOME"', "", "-n", "new\nline", "é"];
    const script =
      'cat /sys/module/apparmor/parameters/enabled; id -u; cat /sys/kernel/security/lsm; printf "\\n<%s>" "$@"';
    const ended = await inVirtualMachine({ command: [...shell(script), "sh", ...words] });
    expect(ended).toMatchObject({ code: 0, stderr: "" });
    expect(ended.stdout).toContain(words.map((word) => `\n<${word}>`).join(""));
    const [enabled, uid, lsm] = ended.stdout.split("\n");
    expect([enabled, uid]).toEqual(["Y", "0"]);
    expect(lsm?.split(",")).toContain("apparmor");
  });

  test("would say so if AppArmor were off", async () => {
    const ended = await inVirtualMachine({
      command: ["cat", "/sys/module/apparmor/parameters/enabled"],
      kernelArguments: ["lsm=yama"],
    });
    expect(ended.stdout).toBe("N\n");
  });

  test("gives back exit code, stdout and stderr, whole and unchanged", async () => {
    const ended = await inVirtualMachine({
      command: shell("seq 1 200000; printf 'a\\tb\\r\\n\\0\\303\\251' >&2; kill -9 $$"),
    });
    expect(ended.code).toBe(128 + 9);
    expect(ended.stdout).toBe(`${Array.from({ length: 200_000 }, (_, i) => i + 1).join("\n")}\n`);
    expect(ended.stderr).toBe("a\tb\r\n\0é");
  });

  test("shows the host's files, and writes none of them", async () => {
    const here = import.meta.filename;
    const ended = await inVirtualMachine({
      command: shell(
        `cat ${here}; echo changed > ${here}; wc -c < ${here}; echo new > ${here}.new && ls ${here}.new`,
      ),
    });
    const text = readFileSync(here, "utf8");
    expect(ended).toMatchObject({ code: 0, stdout: `${text}8\n${here}.new\n`, stderr: "" });
    expect(readFileSync(here, "utf8")).toBe(text);
    expect(readdirSync(import.meta.dirname)).not.toContain("machine.test.ts.new");
  });

  test("that does not end in time is killed, keeps what was said, and leaves nothing behind", async () => {
    const before = { kernels: kernels(), leftovers: leftovers() };
    const run = inVirtualMachine({
      command: shell("echo started; sleep 1000 & sleep 1000"),
      // Longer than a start takes on a machine that is busy.
      timeoutMs: 15_000,
    });
    await expect.poll(() => kernels().length, { timeout: 5000 }).toBeGreaterThan(before.kernels.length);
    const error = await failure(run);
    expect(error.reason).toBe("timed out");
    expect(error.output.stdout).toBe("started\n");
    await expect.poll(kernels, { timeout: 5000 }).toEqual(before.kernels);
    expect(leftovers()).toEqual(before.leftovers);
  });

  test.each([
    ["has no root file system", ["rootfstype=ext4"], /unable to mount root/i],
    ["finds no init", ["init=/nonexistent"], /init/i],
  ])("that %s is an error, not a result", async (_, kernelArguments, said) => {
    const error = await failure(inVirtualMachine({ command: ["true"], kernelArguments }));
    expect(error.reason).toBe("failed");
    expect(error.message).toMatch(/gave no exit code/);
    expect(error.output.console).toMatch(said);
    expect(kernels()).toEqual([]);
  });

  test("whose command ends the machine itself is an error, not a result", async () => {
    const error = await failure(inVirtualMachine({ command: [`${cache}/busybox`, "poweroff", "-f"] }));
    expect(error.reason).toBe("failed");
  });

  test("says 127 for a command that is not there", async () => {
    expect((await inVirtualMachine({ command: ["no-such-command"] })).code).toBe(127);
  });
});
