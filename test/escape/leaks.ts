// What a run must not leave behind. It looks for its own things only, which have its process's number in their names, since
// others may run at the same time.

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Names of what the run with this process's number makes. */
export function namesOf(pid: number) {
  const runtime = `/run/clawsec-escape-${pid}`;
  // Two runs at once have other numbers, unless 250 processes began in between.
  const slot = (pid + 60) % 250;
  const instance = createHash("sha256").update(runtime).digest("hex").slice(0, 8);
  return {
    runtime,
    slot,
    /** Begin of the name of its folder in /var/tmp. */
    folder: `clawsec-escape-${pid}-`,
    /** Begin of the names of the containers without clawsec, and of their cgroups. */
    container: `clawsec-escape-${pid}-`,
    /** The loader's folder in each cgroup hierarchy, and among the BPF pins. */
    loader: `clawsec-${instance}`,
    link: `cstest${slot}`,
    namespace: `clawsec-test-${slot}`,
    /** Begin of a word in the command lines of processes that are to live on. */
    beat: `beat-${pid}-`,
  } as const;
}

type Names = ReturnType<typeof namesOf>;

/** What is there of the run: one line each. Folders, cgroups, mounts, BPF pins, containers, the network, processes. */
export function leaks(pid: number): string[] {
  const names = namesOf(pid);
  const mounts = readMounts();
  const points = (isIt: (type: string) => boolean) =>
    mounts.filter(({ type }) => isIt(type)).map(({ point }) => point);
  const isOwn = (name: string) => name === names.loader || name.startsWith(names.container);
  return [
    ...[names.runtime, `/sys/class/net/${names.link}`, `/run/netns/${names.namespace}`]
      .filter((path) => existsSync(path))
      .map((path) => `path ${path}`),
    ...named("/var/tmp", (name) => name.startsWith(names.folder)).map((path) => `folder ${path}`),
    ...points((type) => type === "cgroup" || type === "cgroup2")
      .flatMap((top) => named(top, isOwn))
      .map((path) => `cgroup ${path}`),
    ...points((type) => type === "bpf")
      .flatMap((top) => named(top, isOwn))
      .map((path) => `BPF pins ${path}`),
    ...named("/run/runc", isOwn).map((path) => `container ${path}`),
    ...points(() => true)
      .filter((point) => isBelow(point, names))
      .map((point) => `mount ${point}`),
    ...processes(pid).map((process) => `process ${process}`),
  ];
}

/** As `leaks`, after what dies by itself had the time to: the kernel takes a moment for a cgroup. */
export async function leaksAfter(pid: number, graceMs = 5000): Promise<string[]> {
  for (const end = performance.now() + graceMs; ; await sleep(200)) {
    const found = leaks(pid);
    if (found.length === 0 || performance.now() > end) return found;
  }
}

/** Processes that belong to the run: they name its folders, or are to live on. The run's own process is none of them. */
export function processes(pid: number): number[] {
  const names = namesOf(pid);
  const words = [`${names.runtime}/`, `/var/tmp/${names.folder}`, names.beat, names.container];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid && Number(name) !== pid)
    .map(Number)
    .filter((one) => {
      try {
        const text = readFileSync(`/proc/${one}/cmdline`, "latin1");
        return words.some((word) => text.includes(word));
      } catch {
        return false; // It has ended.
      }
    });
}

function isBelow(point: string, names: Names): boolean {
  return [`${names.runtime}/`, `/var/tmp/${names.folder}`].some((top) => point.startsWith(top));
}

function named(top: string, isIt: (name: string) => boolean): string[] {
  try {
    return readdirSync(top)
      .filter(isIt)
      .map((name) => join(top, name));
  } catch {
    return []; // There is no such folder.
  }
}

/** The mounts of this namespace; see proc_pid_mountinfo(5) for the fields. */
function readMounts(): { type: string; point: string }[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((text) => text !== "")
    .map((text) => {
      const [before = "", after = ""] = text.split(" - ");
      return { point: before.split(" ")[4] ?? "", type: after.split(" ")[0] ?? "" };
    });
}
