// The OCI runtime configuration (specification 1.0.2), without what the loader sets: root.path, cgroupsPath, the
// network namespace's path and the arguments. No capabilities, no root, no device of the host, nothing shared.

import type { Mount, Policy } from "../model.js";
import type { LoweredFiles } from "./files.js";
import type { View } from "./host.js";

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface OciOptions {
  readonly hostname: string;
  readonly terminal: boolean;
  readonly term: string;
  /** limits.openFiles is cut to it. */
  readonly maxOpenFiles: number;
  /** Name of the AppArmor profile; "" for none. */
  readonly apparmorProfile: string;
  /** Whether this host can set the limit; one that it cannot is waived. */
  readonly limits: { readonly memory: boolean; readonly cpu: boolean; readonly pids: boolean };
}

const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/** Period of the cpu quota in microseconds: the kernel's default. */
const CPU_PERIOD = 100_000;

/** runc's defaults, and interrupts, whose counts tell about keys typed on the host. */
const MASKED_PROC = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/firmware",
];
const READONLY_PROC = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export function lowerOci(policy: Policy, view: View, files: LoweredFiles, options: OciOptions): object {
  const { sandbox } = policy;
  const { user, limits } = sandbox;
  const openFiles = Math.min(limits.openFiles, options.maxOpenFiles);
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: options.terminal,
      user: { uid: user.uid, gid: user.gid },
      args: ["/.clawsec/init"],
      env: environment(policy, options),
      cwd: sandbox.workspace,
      capabilities: { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] },
      rlimits: [
        { type: "RLIMIT_CORE", hard: 0, soft: 0 },
        { type: "RLIMIT_NOFILE", hard: openFiles, soft: openFiles },
      ],
      noNewPrivileges: true,
      ...(options.apparmorProfile === "" ? {} : { apparmorProfile: options.apparmorProfile }),
    },
    root: { path: "rootfs", readonly: true },
    hostname: options.hostname,
    mounts: mounts(policy, view, files),
    linux: {
      resources: {
        devices: [{ allow: false, access: "rwm" }],
        // Swap would let a sandbox have more memory than its limit says.
        ...(options.limits.memory && { memory: { limit: limits.memoryBytes, swap: limits.memoryBytes } }),
        ...(options.limits.cpu && {
          cpu: { quota: Math.round((limits.milliCpus * CPU_PERIOD) / 1000), period: CPU_PERIOD },
        }),
        ...(options.limits.pids && { pids: { limit: limits.pids } }),
      },
      namespaces: ["pid", "mount", "ipc", "uts", "cgroup", "network"].map((type) => ({ type })),
      maskedPaths: [...MASKED_PROC, ...files.masked],
      readonlyPaths: READONLY_PROC,
    },
  };
}

/** Only what the policy says, and what no program can do without. */
function environment(policy: Policy, options: OciOptions): string[] {
  const { sandbox } = policy;
  const variables: Record<string, string> = {
    PATH,
    HOME: sandbox.home,
    USER: sandbox.user.name,
    LOGNAME: sandbox.user.name,
    ...(options.terminal && options.term !== "" ? { TERM: options.term } : {}),
    ...sandbox.environment,
  };
  return Object.entries(variables)
    .map(([name, value]) => `${name}=${value}`)
    .sort();
}

function mounts(policy: Policy, view: View, files: LoweredFiles): OciMount[] {
  const { limits } = policy.sandbox;
  const system: OciMount[] = [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${limits.tmpfsBytes}`],
    },
  ];
  const binds = files.binds.map((b) => ({
    depth: b.target.split("/").length,
    mount: bind(b.hostPath, b.target, b.mode, b.exec),
  }));
  const own = view.mounts.map((m) => ({
    depth: m.target.split("/").length,
    mount: policyMount(m, view, policy),
  }));
  // Outer before inner. A bind over a mount's own target follows it: the sort is stable, and the mounts come first.
  const ordered = [...own, ...binds].sort((a, b) => a.depth - b.depth).map(({ mount }) => mount);
  const secrets: OciMount[] =
    policy.secrets === undefined
      ? []
      : // A place for the loader's own mount, also where the folder above is a tmpfs; empty and closed until then.
        [
          {
            destination: policy.secrets.mount,
            type: "tmpfs",
            source: "tmpfs",
            options: ["nosuid", "noexec", "nodev", "ro", "mode=755", "size=4096"],
          },
        ];
  return [...system, ...ordered, ...secrets];
}

function policyMount(mount: Mount, view: View, policy: Policy): OciMount {
  if (mount.kind === "bind") {
    return bind(view.source(mount), mount.target, mount.mode, mount.exec);
  }
  const isRun = mount.target === "/run";
  const { uid, gid } = policy.sandbox.user;
  // /tmp and /var/tmp are anybody's, as everywhere; /run is root's; another tmpfs is for the sandbox's user.
  const isTmp = mount.target === "/tmp" || mount.target === "/var/tmp";
  const owner = isTmp ? ["mode=1777"] : isRun ? ["mode=755"] : ["mode=700", `uid=${uid}`, `gid=${gid}`];
  const exec = mount.exec ? [] : ["noexec"];
  return {
    destination: mount.target,
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", ...exec, "nodev", ...owner, `size=${mount.sizeBytes}`],
  };
}

/**
 * `bind`, not `rbind`: what is mounted below a source on the host stays there. (With `rbind,ro` only the topmost
 * mount would become read-only.)
 */
function bind(source: string, destination: string, mode: "ro" | "rw", exec: boolean): OciMount {
  const options = ["bind", "private", mode, "nosuid", "nodev", ...(exec ? [] : ["noexec"])];
  return { destination, type: "bind", source, options };
}
