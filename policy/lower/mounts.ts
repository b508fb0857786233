// The mount view: which mounts of the policy exist, that none of them gives away the host, and that each has a
// place to be mounted on.

import { isWithin, parent } from "../match/path.js";
import type { Mount, Policy } from "../model.js";
import { SHIM_FOLDER } from "../read/subjects.js";
import { type HostView, View } from "./host.js";
import type { Report } from "./report.js";

/** Paths of the host that hold the keys to it. A mount may neither contain one nor lie in one. */
export const PROTECTED_PATHS: readonly string[] = [
  "/run/clawsec",
  "/var/lib/clawsec",
  "/run/docker.sock",
  "/var/run/docker.sock",
  "/run/containerd",
  "/run/dbus",
  "/run/systemd",
  "/var/lib/docker",
  "/proc",
  "/dev",
  "/boot",
  "/sys/fs/bpf",
  "/sys/kernel",
];

/** Folders of the system: root's programs, and what root's programs believe. Never writable. */
const SYSTEM = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/boot", "/sys"];
/** Folders that hold people's keys beside their work: never writable as a whole. */
const HOMES = ["/home", "/root"];

/** Targets that clawsec fills itself. */
const RESERVED = ["/", "/proc", "/dev", "/sys", "/etc", SHIM_FOLDER];
/** Of these also everything below. */
const RESERVED_TREES = ["/proc", "/dev", SHIM_FOLDER];

/** Files of /etc that clawsec writes. */
export const GENERATED_FILES = [
  "/etc/passwd",
  "/etc/group",
  "/etc/hosts",
  "/etc/hostname",
  "/etc/resolv.conf",
  "/etc/nsswitch.conf",
];

/** tmpfs mounts of every sandbox, unless the policy mounts something else there. */
const SCRATCH = ["/tmp", "/var/tmp", "/run"];

/** Checks the policy's mounts against the host, and adds the scratch folders. */
export function lowerMounts(
  policy: Policy,
  host: HostView,
  extraProtected: readonly string[],
  report: Report,
): View {
  const kept = new Map<string, Mount>();
  for (const mount of policy.sandbox.mounts) {
    const first = kept.get(mount.target);
    if (first !== undefined) {
      report.error(
        "duplicate-target",
        name(mount),
        "mounts",
        mount.origin,
        `${mount.target} is already mounted in line ${first.origin.line}`,
        "Keep one of the two.",
      );
    } else if (checkTarget(mount, report) && checkSource(mount, host, extraProtected, report)) {
      kept.set(mount.target, mount);
    }
  }
  for (const target of SCRATCH) {
    if (kept.has(target)) continue;
    const { tmpfsBytes } = policy.sandbox.limits;
    const { origin } = policy.sandbox;
    kept.set(target, {
      kind: "tmpfs",
      source: "",
      target,
      mode: "rw",
      exec: false,
      optional: false,
      sizeBytes: tmpfsBytes,
      origin,
    });
  }
  // A folder is mounted before what lies in it. The order among the others is that of the names: deterministic.
  const mounts = [...kept.values()].sort(
    (a, b) => depth(a.target) - depth(b.target) || (a.target < b.target ? -1 : 1),
  );
  const view = new View(host, mounts);
  for (const mount of mounts) checkPlace(mount, view, report);
  return view;
}

function depth(path: string): number {
  return path.split("/").length;
}

function name(mount: Mount): string {
  return `mount ${mount.target}`;
}

function checkTarget(mount: Mount, report: Report): boolean {
  const { target, origin } = mount;
  if (target === "/etc") {
    report.error(
      "reserved-target",
      name(mount),
      "mounts",
      origin,
      "/etc cannot be mounted as a whole: clawsec writes its resolv.conf, hosts, passwd and group",
      "Mount what is needed of it, e.g. /etc/ssl and /etc/ld.so.cache.",
    );
    return false;
  }
  if (
    RESERVED.includes(target) ||
    RESERVED_TREES.some((tree) => isWithin(target, tree)) ||
    GENERATED_FILES.includes(target)
  ) {
    report.error(
      "reserved-target",
      name(mount),
      "mounts",
      origin,
      `${target} is made by clawsec and cannot be a mount of the policy`,
      "Choose another target.",
    );
    return false;
  }
  return true;
}

function checkSource(
  mount: Mount,
  host: HostView,
  extraProtected: readonly string[],
  report: Report,
): boolean {
  if (mount.kind === "tmpfs") return true;
  const resolved = host.resolve(mount.source);
  const kind = resolved === undefined ? "missing" : host.kind(resolved);
  const fail = (code: string, message: string, remedy: string) => {
    report.error(code, name(mount), "mounts", mount.origin, message, remedy);
    return false;
  };
  if (resolved === undefined || kind === "missing") {
    if (mount.optional) {
      report.explain(
        name(mount),
        mount.mode,
        "none",
        `${mount.source} does not exist on this host; the mount is optional`,
        mount.origin,
      );
      return false;
    }
    return fail(
      "missing-source",
      `the mount source ${mount.source} does not exist`,
      'Create it, correct the path, or say "optional: true".',
    );
  }
  if (kind === "other")
    return fail(
      "source-kind",
      `the mount source ${mount.source} is neither a file nor a folder`,
      "Sockets, devices and pipes of the host stay outside.",
    );
  for (const path of [...PROTECTED_PATHS, ...extraProtected]) {
    const real = host.resolve(path) ?? path;
    if (
      isWithin(resolved, real) ||
      isWithin(real, resolved) ||
      isWithin(mount.source, path) ||
      isWithin(path, mount.source)
    ) {
      return fail(
        "protected-source",
        `the mount source ${mount.source} would bring ${path} into the sandbox`,
        "Mount something narrower.",
      );
    }
  }
  if (mount.mode === "rw" && (HOMES.includes(resolved) || SYSTEM.some((tree) => isWithin(resolved, tree)))) {
    return fail(
      "system-source",
      `the mount source ${mount.source} belongs to the system and cannot be writable`,
      'Say "mode: ro".',
    );
  }
  return true;
}

/** A mount inside another one needs its mount point there already: clawsec makes none in folders of the host. */
function checkPlace(mount: Mount, view: View, report: Report): void {
  const outer = view.mounts.findLast(
    (m) => m !== mount && m.target !== mount.target && isWithin(mount.target, m.target),
  );
  if (outer === undefined || outer.kind === "tmpfs") return;
  const place = new View(
    view.host,
    view.mounts.filter((m) => m.target !== mount.target),
  ).locate(mount.target);
  const wanted =
    mount.kind === "tmpfs" ? "directory" : view.host.kind(view.host.resolve(mount.source) ?? mount.source);
  if (place === undefined || (place.kind === wanted && !place.throughLink)) return;
  if (place.throughLink) {
    report.error(
      "mount-point",
      name(mount),
      "mounts",
      mount.origin,
      `the way to ${mount.target} goes through a symbolic link in ${outer.source}`,
      "Name the path that the link leads to.",
    );
    return;
  }
  const what = wanted === "directory" ? "folder" : "file";
  report.error(
    "mount-point",
    name(mount),
    "mounts",
    mount.origin,
    `${mount.target} lies in the mount ${outer.target}, where there is no ${what} to mount it on`,
    `Create ${place.hostPath} on the host (an empty ${what} will do).`,
  );
}

/** Folders above a path, outermost first, without "/". */
export function ancestors(path: string): string[] {
  const result: string[] = [];
  for (let p = parent(path); p !== "/"; p = parent(p)) result.unshift(p);
  return result;
}
