/** Starting and ending the loader's process. Its pid and start time are in a file, so that a later run can end it. */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { initBinary, loaderBinary, type Paths } from "../../common/paths.js";

/** A process, told from a later one with the same pid by its start time. */
export interface LoaderProcess {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat (proc(5)): clock ticks from boot to the start. */
  readonly startTime: string;
}

/** What somebody who is not root is told before anything is made; undefined for root. */
export function notRoot(uid = process.getuid?.()): string | undefined {
  if (uid === 0) return undefined;
  return (
    "Only root can start the loader: it makes namespaces, cgroups and BPF programs. " +
    "Run this with sudo, or have root run clawsec up and join the group clawsec."
  );
}

/**
 * Starts the loader detached, with its output in <state>/loader.log. It serves its socket some time later.
 * `ended` is told the exit code (null for a signal) should it end while we live. `without`: mechanisms that it leaves
 * unused; undefined: those of the environment.
 */
export function spawnLoader(
  paths: Paths,
  ended: (code: number | null) => void,
  without: readonly string[] | undefined = undefined,
  environment: NodeJS.ProcessEnv = process.env,
): LoaderProcess {
  const binary = loaderBinary(environment);
  const init = initBinary(environment);
  mkdirSync(paths.runtime, { recursive: true, mode: 0o755 });
  mkdirSync(paths.state, { recursive: true, mode: 0o700 });
  const log = openSync(paths.loaderLog, "a", 0o600);
  // What is said here is all of it, whatever the environment says.
  const { CLAWSEC_WITHOUT: inherited, ...plain } = environment;
  const unused = without?.join() ?? inherited ?? "";
  try {
    const child = spawn(binary, [], {
      detached: true,
      cwd: "/",
      stdio: ["ignore", log, log],
      env: {
        ...plain,
        ...(unused === "" ? {} : { CLAWSEC_WITHOUT: unused }),
        CLAWSEC_RUNTIME_DIR: paths.runtime,
        CLAWSEC_STATE_DIR: paths.state,
        CLAWSEC_SHIM: init,
      },
    });
    // An error after a good start has nobody to tell; the failed Hello says it.
    child.on("error", () => undefined);
    child.on("exit", ended);
    child.unref();
    if (child.pid === undefined) throw new Error(`The loader ${binary} could not be started.`);
    // One that has ended already has no start time; `ended` is told how.
    const startTime = startTimeOf(child.pid) ?? "";
    const started = { pid: child.pid, startTime };
    writeFileSync(paths.loaderStart, `${startTime}\n`, { mode: 0o644 });
    writeFileSync(paths.loaderPid, `${child.pid}\n`, { mode: 0o644 });
    return started;
  } finally {
    closeSync(log);
  }
}

/** The loader that clawsec started here, if it lives. */
export function runningLoader(paths: Paths): LoaderProcess | undefined {
  try {
    const pid = Number(readFileSync(paths.loaderPid, "utf8"));
    const startTime = readFileSync(paths.loaderStart, "utf8").trim();
    return pid > 1 && startTime !== "" && startTimeOf(pid) === startTime ? { pid, startTime } : undefined;
  } catch {
    return undefined;
  }
}

/** Ends the loader that clawsec started here with SIGTERM and waits. False when it did not end in time. */
export async function endLoader(paths: Paths, timeoutMs = 5000): Promise<boolean> {
  const loader = runningLoader(paths);
  if (loader === undefined) {
    forget(paths);
    return true;
  }
  process.kill(loader.pid, "SIGTERM");
  const until = performance.now() + timeoutMs;
  while (startTimeOf(loader.pid) === loader.startTime) {
    if (performance.now() > until) return false;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  forget(paths);
  return true;
}

function forget(paths: Paths): void {
  for (const file of [paths.loaderPid, paths.loaderStart]) rmSync(file, { force: true });
}

/** Length of the loader's log in bytes: what comes after it belongs to the next start. */
export function loaderLogEnd(paths: Paths): number {
  return statSync(paths.loaderLog, { throwIfNoEntry: false })?.size ?? 0;
}

/** The end of the loader's log, for an error: at most 2000 characters of what was written after `from`. */
export function loaderLogTail(paths: Paths, from: number): string {
  try {
    return readFileSync(paths.loaderLog).subarray(from).toString("utf8").slice(-2000).trim();
  } catch {
    return "";
  }
}

/** Start time of a process; undefined when it is gone or a zombie. */
export function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The command in parentheses may hold spaces and parentheses: fields count from the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
