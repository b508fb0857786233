// A virtual machine whose kernel has AppArmor: Debian's user-mode-linux, which runs as a process of the host.

import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

/** Where install.sh puts the machine's parts. */
export const cache = join(process.env.CLAWSEC_CACHE ?? "/var/cache/clawsec", "vm");

/** Program and arguments; a program without a slash is searched in the usual folders. */
export interface MachineRun {
  readonly command: readonly string[];
  /** From the start of the boot; then the machine is killed. Default: 45 s. */
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
export function whyNoMachine(): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64")
    return `user-mode-linux exists for x86_64 Linux only, not for ${process.arch} ${process.platform}`;
  if (process.getuid?.() !== 0)
    return "the machine needs root, for a pid namespace and to read all of the host's files";
  if (!existsSync(join(cache, ".complete"))) return `${cache} is not there; run test/vm/install.sh`;
  return undefined;
}

/**
 * Boots the machine, runs a command in it as root, and powers it off. The host's files are there, read-only:
 * what the command writes stays in the machine's memory. There is no network but loopback, and no terminal.
 * The machine stays up until all that the command started has closed its output.
 *
 * @throws MachineError when the machine does not boot, ends early, or does not end in time.
 */
export async function inVirtualMachine(run: MachineRun): Promise<Ended> {
  const missing = whyNoMachine();
  const nothing = { stdout: "", stderr: "", console: "" };
  if (missing !== undefined)
    throw new MachineError("failed", `the virtual machine cannot run: ${missing}`, nothing);
  const control = mkdtempSync(join(tmpdir(), "clawsec-vm-"));
  try {
    return await boot(run, control);
  } finally {
    rmSync(control, { recursive: true, force: true });
  }
}

async function boot(run: MachineRun, control: string): Promise<Ended> {
  // They stand in the kernel's command line and in a mount option.
  for (const path of [cache, control])
    if (/[^\w./-]/.test(path))
      throw new Error(`the path ${path} has a character that a kernel argument cannot`);
  copyFileSync(fileURLToPath(new URL("init.sh", import.meta.url)), join(control, "init.sh"));
  writeFileSync(join(control, "command"), shellScript(run.command));

  const timeoutMs = run.timeoutMs ?? 45_000;
  const since = performance.now();
  const child = spawn("unshare", commandLine(run, control, timeoutMs), {
    cwd: "/",
    // Its memory is a file there: on a disk it would be written back all the time.
    env: { ...process.env, TMPDIR: "/dev/shm" },
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
  const [console = "", stdout = "", stderr = ""] = texts.map((text) => text());

  const file = join(control, "exit-code");
  const written = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (!timedOut && /^\d+\n$/.test(written))
    return { code: Number(written), stdout, stderr, wallMs: performance.now() - since };
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
function commandLine(run: MachineRun, control: string, timeoutMs: number): string[] {
  return [
    ...["--pid", "--fork", "--kill-child=SIGKILL"],
    ...["timeout", "--signal=KILL", String(Math.ceil(timeoutMs / 1000) + 5)],
    join(cache, "linux.uml"),
    ...[
      "mem=768M",
      "root=/dev/root",
      "rootfstype=hostfs",
      "ro",
      "quiet",
      "panic=-1",
      "lsm=landlock,yama,apparmor",
    ],
    // Kernel messages and the command's two outputs, each on a descriptor of its own.
    ...[
      "con=null",
      "con0=null,fd:2",
      "ssl=null",
      "ssl0=null,fd:3",
      "ssl1=null,fd:4",
      `uml_dir=${control}/uml`,
    ],
    `init=${join(cache, "busybox")}`,
    ...(run.kernelArguments ?? []),
    ...["--", "sh", join(control, "init.sh"), cache, control],
  ];
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
