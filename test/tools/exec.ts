import { spawn } from "node:child_process";
import { resolve as resolvePath } from "node:path";
import { fileURLToPath } from "node:url";

/** Top of the repository. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

export interface Outcome {
  /** Exit code, or null when a signal ended it or it could not be started. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** One sentence on how it ended, for people. */
  ending: string;
}

export interface RunOptions {
  /** Absolute, or below the top of the repository; default: the top. */
  cwd?: string;
  env?: Record<string, string>;
  /** Print the output as it comes. Otherwise it is only collected. */
  live?: boolean;
  /** After this many milliseconds the command and all it started are killed. Default: 20 minutes. */
  timeoutMs?: number;
}

const running = new Set<number>();

/** Kills the process groups of all commands that still run. */
export function killRunning(): void {
  for (const pid of running) killGroup(pid);
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It ended in the meantime.
  }
}

/** Runs a command in its own process group and waits for it. Never throws: how it ended is in the outcome. */
export function run(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const timeoutMs = options.timeoutMs ?? 20 * 60_000;
  const [program = "", ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: resolvePath(root, options.cwd ?? "."),
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own, so that a command that hangs can be killed with all its children.
      detached: true,
    });
    const output = { stdout: "", stderr: "" };
    let timedOut = false;
    const { pid } = child;
    if (pid !== undefined) running.add(pid);
    const timer = setTimeout(() => {
      timedOut = true;
      if (pid !== undefined) killGroup(pid);
    }, timeoutMs);
    const finish = (code: number | null, ending: string) => {
      clearTimeout(timer);
      if (pid !== undefined) running.delete(pid);
      resolve({ code, ...output, ending });
    };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8");
      child[name].on("data", (text: string) => {
        output[name] += text;
        if (options.live) process[name].write(text);
      });
    }
    child.on("error", (error) => finish(null, `${program} could not be started: ${error.message}`));
    child.on("close", (code, signal) => {
      if (timedOut) finish(null, `${program} did not end within ${timeoutMs / 1000} s and was killed`);
      else finish(code, signal ? `${program} was ended by ${signal}` : `${program} ended with code ${code}`);
    });
  });
}
