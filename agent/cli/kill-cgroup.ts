/**
 * Kill without supervisor and loader: SIGKILL to all processes of a sandbox's cgroups. cgroup.kill (cgroups(7),
 * Linux 5.14) reaches every descendant at once, also against a fork bomb.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KillReport } from "../../proto/gen/clawsec/v1/loader.js";
import { cgroup2Mount, type Paths } from "../common/paths.js";

/** How long to wait for the last process to be gone. */
const WAIT_MS = 5000;

/** Names of the sandboxes that have cgroups here. */
export function sandboxCgroups(paths: Paths, mount = cgroup2Mount()): Map<string, string> {
  const found = new Map<string, string>();
  if (mount === undefined) return found;
  const scope = join(mount, `clawsec-${paths.instance}`);
  if (!existsSync(scope)) return found;
  for (const entry of readdirSync(scope, { withFileTypes: true })) {
    if (entry.isDirectory()) found.set(entry.name, join(scope, entry.name));
  }
  return found;
}

/** Kills everything in one sandbox's cgroups and waits until nothing is left. */
export async function killCgroup(name: string, folder: string): Promise<KillReport["sandboxes"][number]> {
  const start = performance.now();
  const elapsedUs = () => Math.round((performance.now() - start) * 1000);
  const processes = pidsIn(folder).length;
  signal(folder);
  const signalledUs = elapsedUs();
  while (pidsIn(folder).length > 0 && performance.now() - start < WAIT_MS) {
    await new Promise((resolve) => setTimeout(resolve, 2));
    signal(folder);
  }
  const survivors = pidsIn(folder).length;
  return { name, processes, survivors, networkCutUs: 0, secretsEmptyUs: 0, signalledUs, goneUs: elapsedUs() };
}

function signal(folder: string): void {
  try {
    // Frozen first: signals go out one by one, and PID 1, whose end opens guarded files, must not run on without the rest.
    freeze(folder, "1");
    writeFileSync(join(folder, "cgroup.kill"), "1");
    freeze(folder, "0");
  } catch {
    // A kernel without cgroup.kill: one by one; the caller repeats until nobody is left.
    for (const pid of pidsIn(folder)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone already.
      }
    }
  }
}

/** cgroup.freeze (cgroups(7), Linux 5.2). A failure must not keep the kill from happening. */
function freeze(folder: string, state: "0" | "1"): void {
  try {
    writeFileSync(join(folder, "cgroup.freeze"), state);
  } catch {
    // Without it the kill is still complete, only not at one moment.
  }
}

/** Processes of a cgroup and of all below it. */
function pidsIn(folder: string): number[] {
  const pids: number[] = [];
  try {
    for (const line of readFileSync(join(folder, "cgroup.procs"), "utf8").split("\n")) {
      if (/^[1-9]\d*$/.test(line)) pids.push(Number(line));
    }
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) pids.push(...pidsIn(join(folder, entry.name)));
    }
  } catch {
    // The cgroup was removed meanwhile: nothing is in it.
  }
  return pids;
}
