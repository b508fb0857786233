// Virtual machines for tests: kernels that have what the host's own may lack. user-mode-linux has AppArmor, Debian's
// stock kernels under QEMU have BPF-LSM, too.

import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { Monitor } from "./monitor.ts";
import { qemu } from "./qemu.ts";
import { userModeLinux } from "./uml.ts";

export { cache } from "./uml.ts";

/** The machines, by what their tests need. */
export const machines = {
  apparmor: userModeLinux,
  "linux-6.1": qemu("6.1"),
  "linux-6.12": qemu("6.12"),
} as const satisfies Record<string, Monitor>;

/** The name of a machine. */
export type MachineName = keyof typeof machines;

/** Program and arguments; a program without a slash is searched in the usual folders. */
export interface MachineRun {
  /** Default: apparmor. */
  readonly machine?: MachineName;
  readonly command: readonly string[];
  /** From the start of the boot; then the machine is killed. Default: the machine's own. */
  readonly timeoutMs?: number;
  /** Added to the kernel's command line; the last of two equal ones wins. */
  readonly kernelArguments?: readonly string[];
}

/** How the command ended. */
export interface Ended {
  /** Exit code as a shell gives it: 128 + N for a command that signal N ended, 127 for one not found. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Boot, command and shutdown together, in milliseconds. */
  readonly wallMs: number;
}

/** The machine ended without an exit code of the command. What came out of it until then is kept. */
export class MachineError extends Error {
  readonly reason: "timed out" | "failed";
  readonly output: { readonly stdout: string; readonly stderr: string; readonly console: string };

  constructor(reason: MachineError["reason"], message: string, output: MachineError["output"]) {
    super(message);
    this.name = "MachineError";
    this.reason = reason;
    this.output = output;
  }
}

/** Why the machine cannot run here, with the remedy; undefined when it can. */
export function whyNoMachine(name: MachineName = "apparmor"): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64")
    return `the virtual machines exist for x86_64 Linux only, not for ${process.arch} ${process.platform}`;
  if (process.getuid?.() !== 0)
    return "the machine needs root, for a pid namespace and to read all of the host's files";
  return machines[name].whyMissing();
}

/**
 * Boots the machine, runs a command in it as root, and powers it off. The host's files are there, read-only:
 * what the command writes stays in the machine's memory. There is no network but loopback, and no terminal.
 * The machine stays up until all that the command started has closed its output.
 *
 * @throws MachineError when the machine does not boot, ends early, or does not end in time.
 */
export async function inVirtualMachine(run: MachineRun): Promise<Ended> {
  const missing = whyNoMachine(run.machine);
  const nothing = { stdout: "", stderr: "", console: "" };
  if (missing !== undefined)
    throw new MachineError("failed", `the virtual machine cannot run: ${missing}`, nothing);
  const { bootAttempts } = machines[run.machine ?? "apparmor"];
  for (let attempt = 1; ; attempt++) {
    const control = mkdtempSync(join(tmpdir(), "clawsec-vm-"));
    try {
      return await boot(run, control);
    } catch (error) {
      if (attempt >= bootAttempts || !(error instanceof MachineError) || !crashedInBoot(error)) throw error;
      console.error(
        `vm: the kernel crashed before its init began, boot ${attempt} of ${bootAttempts}; again`,
      );
    } finally {
      rmSync(control, { recursive: true, force: true });
    }
  }
}

/** Whether the kernel crashed before it ran any program, so before it did anything that a test could be about. */
export function crashedInBoot({ reason, output }: Pick<MachineError, "reason" | "output">): boolean {
  // An init that fails ends with a panic of its own; the machine's says "init: " from its first steps on.
  return (
    reason === "failed" &&
    /Oops|kernel BUG|Fatal exception/.test(output.console) &&
    !/^init: |kill init/m.test(output.console)
  );
}

async function boot(run: MachineRun, control: string): Promise<Ended> {
  const monitor = machines[run.machine ?? "apparmor"];
  // They stand in the kernel's command line, in options and in a script.
  for (const path of [monitor.cache, control])
    if (/[^\w./-]/.test(path))
      throw new Error(`the path ${path} has a character that a kernel argument cannot`);
  for (const script of ["init.sh", "init-qemu.sh", "run.sh"])
    copyFileSync(fileURLToPath(new URL(script, import.meta.url)), join(control, script));
  writeFileSync(join(control, "command"), shellScript(run.command));

  const timeoutMs = run.timeoutMs ?? monitor.timeoutMs;
  const since = performance.now();
  const { command, environment } = monitor.start(control, run.kernelArguments ?? []);
  const child = spawn("unshare", bounded(command, timeoutMs), {
    cwd: "/",
    env: { ...process.env, ...environment },
    stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
  });
  const texts = [2, 3, 4].map((fd) => collect(child.stdio[fd] as Readable));
  let timedOut = false;
  let giveUp = () => {};
  let patience: NodeJS.Timeout | undefined;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
    patience = setTimeout(() => giveUp(), 10_000);
  }, timeoutMs);
  const ending = await new Promise<string>((resolve) => {
    // Nothing that the host does with what was killed may keep the caller waiting.
    giveUp = () => resolve("it did not end when it was killed");
    child.once("error", (error) => resolve(`unshare could not be started: ${error.message}`));
    child.once("close", (code, signal) =>
      resolve(signal ? `it was ended by ${signal}` : `it ended with ${code}`),
    );
  });
  clearTimeout(timer);
  clearTimeout(patience);
  const [console = "", stdout = "", stderr = ""] = texts.map(
    (text, index) => text() + written(join(control, outputs[index] ?? "")),
  );

  const code = written(join(control, "exit-code"));
  if (!timedOut && /^\d+\n$/.test(code))
    return { code: Number(code), stdout, stderr, wallMs: performance.now() - since };
  const what = timedOut
    ? `did not end within ${timeoutMs / 1000} s and was killed (${ending})`
    : `gave no exit code: ${ending}`;
  const said = console.trim() === "" ? "nothing" : `\n${console.trim().split("\n").slice(-12).join("\n")}`;
  throw new MachineError(
    timedOut ? "timed out" : "failed",
    `the virtual machine ${what}. Its console said: ${said}\nThe command's last words: ${stderr.trim().split("\n").slice(-4).join("\n")}`,
    { stdout, stderr, console },
  );
}

/**
 * The machine is many processes of the host. A pid namespace of their own ends them all with the first, and
 * that one ends with `unshare`: however this process dies, none of them stays. `timeout` bounds the machine
 * should nobody be left to kill it.
 */
function bounded(command: readonly string[], timeoutMs: number): string[] {
  return [
    ...["--pid", "--fork", "--kill-child=SIGKILL"],
    ...["timeout", "--signal=KILL", String(Math.ceil(timeoutMs / 1000) + 5)],
    ...command,
  ];
}

/** Where a monitor that cannot write to descriptors 2, 3 and 4 puts the same, in the control folder. */
const outputs = ["console", "stdout", "stderr"] as const;

function written(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

function shellScript(command: readonly string[]): string {
  const words = command.map((word) => {
    if (word.includes("\0")) throw new Error("a command's argument cannot hold a zero byte");
    return `'${word.replaceAll("'", "'\\''")}'`;
  });
  if (words.length === 0) throw new Error("the command is empty");
  return `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\nexec ${words.join(" ")}\n`;
}

/** Collects a stream as UTF-8; the function returns what came so far. */
function collect(stream: Readable): () => string {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString("utf8");
}
