// What a test run must not leave behind: processes, cgroups, mounts, network namespaces, BPF pins, containers.
// `node test/tools/leaks.ts` prints what is there now.
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./exec.ts";
import { failed, passed, type Step } from "./steps.ts";

/** One thing of ours that outlives the process that made it, e.g. "cgroup /sys/fs/cgroup/clawsec-1a2b3c4d". */
export type Remains = ReadonlySet<string>;

/** Collects everything of clawsec's that exists on the host now. */
export async function snapshot(): Promise<Remains> {
  const mounts = readMounts();
  return new Set([
    ...processes(),
    ...mounts
      .filter(({ type }) => type === "cgroup" || type === "cgroup2")
      .flatMap(({ point }) => foldersNamed(point, /^clawsec-/, 3))
      .map((path) => `cgroup ${path}`),
    ...mounts.filter(isOurs).map(({ type, point }) => `mount ${type} ${point}`),
    ...mounts
      .filter(({ type }) => type === "bpf")
      .flatMap(({ point }) => foldersNamed(point, /^clawsec-/, 1))
      .map((path) => `BPF pins ${path}`),
    ...["/run", "/tmp", "/var/tmp"]
      .flatMap((folder) => foldersNamed(folder, /^clawsec-/, 1))
      .map((path) => `folder ${path}`),
    ...foldersNamed("/sys/class/net", /^cstest/, 1).map((path) => `network device ${path}`),
    ...(await containers()),
  ]);
}

/** What `after` has and `before` had not. */
export function left(before: Remains, after: Remains): string[] {
  return [...after].filter((thing) => !before.has(thing)).sort();
}

/**
 * The step that ends a run. What dies by itself gets `graceMs` to do so: the kernel takes a moment to reap
 * a cgroup or a namespace.
 */
export function leakStep(before: Remains, graceMs = 5000): Step {
  return {
    name: "nothing is left behind",
    async run() {
      const end = Date.now() + graceMs;
      for (;;) {
        const leaks = left(before, await snapshot());
        if (leaks.length === 0) return passed;
        if (Date.now() >= end) return failed(...leaks.map((leak) => `left behind: ${leak}`));
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    },
  };
}

interface Mount {
  point: string;
  type: string;
}

/** The mounts of this namespace; see proc_pid_mountinfo(5) for the fields. */
function readMounts(): Mount[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((text) => text !== "")
    .map((text) => {
      const [before = "", after = ""] = text.split(" - ");
      const point = before.split(" ")[4] ?? "";
      return { point: unescapeOctal(point), type: after.split(" ")[0] ?? "" };
    });
}

/** mountinfo writes space, tab, newline and backslash as \ooo. */
function unescapeOctal(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function isOurs({ type, point }: Mount): boolean {
  // The bpf file system is mounted once and stays.
  return (
    type === "nsfs" ||
    (type !== "bpf" && point.includes("clawsec")) ||
    point.startsWith(join(root, "test/.work"))
  );
}

/** Folders below `top` whose name matches, at most `depth` levels down. */
function foldersNamed(top: string, name: RegExp, depth: number): string[] {
  let entries: string[];
  try {
    entries = readdirSync(top, { withFileTypes: true }).flatMap((entry) =>
      // Network devices are links in /sys/class/net.
      entry.isDirectory() || entry.isSymbolicLink() ? [entry.name] : [],
    );
  } catch {
    return []; // Removed in the meantime.
  }
  return entries.flatMap((entry) => {
    const path = join(top, entry);
    if (name.test(entry)) return [path];
    return depth > 1 ? foldersNamed(path, name, depth - 1) : [];
  });
}

/**
 * Processes that run the loader or the shim. In a sandbox the shim has other names, so its file is compared
 * as well.
 */
function processes(): string[] {
  const ours = new Set(
    foldersNamed(join(root, "bpf/target"), /^release$/, 3)
      .flatMap((folder) => [join(folder, "clawsec-init"), join(folder, "clawsec-loader")])
      .filter(existsSync)
      .map(fileId),
  );
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const link = `/proc/${pid}/exe`;
        const target = readlinkSync(link).replace(/ \(deleted\)$/, "");
        const named = /\/clawsec-(?:loader|init)$|^\/\.clawsec\//.test(target);
        return named || ours.has(fileId(link)) ? [`process ${pid} ${target}`] : [];
      } catch {
        return []; // A kernel thread, or gone.
      }
    });
}

function fileId(path: string): string {
  const { dev, ino } = statSync(path);
  return `${dev}:${ino}`;
}

async function containers(): Promise<string[]> {
  const outcome = await run(["runc", "list", "--quiet"], { timeoutMs: 10_000 });
  // Without runc there are no containers.
  if (outcome.code !== 0) return [];
  return outcome.stdout
    .split("\n")
    .filter((name) => name !== "")
    .map((name) => `runc container ${name}`);
}

if (import.meta.main) {
  const found = [...(await snapshot())].sort();
  console.log(found.length === 0 ? "nothing of clawsec's is on this host" : found.join("\n"));
}
