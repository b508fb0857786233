// What a path leads to inside the sandbox, as far as the host tells: through the policy's mounts, the links that
// clawsec copies, and the host's own symbolic links.

import type { HostView, PathKind, View } from "../lower/host.js";
import { lowerMounts } from "../lower/mounts.js";
import { Report } from "../lower/report.js";
import { lowerRootfs } from "../lower/rootfs.js";
import { below, isWithin, join, segments } from "../match/path.js";
import type { Mount, Policy } from "../model.js";

/** As many as the kernel follows (MAXSYMLINKS). */
const MAX_LINKS = 40;

/**
 * `found`: what the kernel would open, without links. `missing`: it is not there, and nothing inside can make it.
 * `unknown`: it lies where the sandbox can write, or where clawsec or the kernel makes the files.
 */
export type Reached =
  | {
      readonly state: "found";
      /** As the kernel names it inside the sandbox. */
      readonly path: string;
      readonly kind: "file" | "directory" | "other";
      /** Host file behind it; "" for what clawsec makes. */
      readonly hostPath: string;
      readonly mount: Mount | undefined;
    }
  | { readonly state: "missing" | "unknown"; readonly at: string };

type Step =
  | { readonly kind: "link"; readonly target: string }
  | { readonly kind: "file" | "directory" | "other"; readonly hostPath: string; readonly mount?: Mount }
  | { readonly kind: "missing" | "unknown" };

/** The sandbox's files as the policy and the host make them. What the mounts lack on this host is left out. */
export class Inside {
  readonly #view: View;
  readonly #made = new Map<string, "file" | "directory" | { readonly target: string }>();
  readonly #entries: ReadonlySet<string>;

  constructor(policy: Policy, host: HostView) {
    this.#view = lowerMounts(policy, host, [], new Report());
    for (const entry of lowerRootfs(policy, this.#view, "host")) {
      if (entry.kind?.$case === "symlink") this.#made.set(entry.path, { target: entry.kind.value });
      else if (entry.kind !== undefined)
        this.#made.set(entry.path, entry.kind.$case === "file" ? "file" : "directory");
    }
    this.#entries = new Set(
      policy.subjects.flatMap(({ entry }) => (entry === undefined ? [] : [entry.path])),
    );
  }

  /** Follows an absolute path, its last part too. */
  reach(path: string): Reached {
    let rest = segments(path);
    let here = "/";
    let links = 0;
    let last: Step = { kind: "directory", hostPath: "" };
    while (rest.length > 0) {
      const [part = "", ...after] = rest;
      if (part === "" || part === ".") {
        rest = after;
        continue;
      }
      if (part === "..") {
        here = here.slice(0, Math.max(1, here.lastIndexOf("/")));
        rest = after;
        continue;
      }
      const next = join(here, part);
      const step = this.#step(next);
      if (step.kind === "missing" || step.kind === "unknown") return { state: step.kind, at: next };
      if (step.kind === "link") {
        if (++links > MAX_LINKS) return { state: "missing", at: next };
        rest = [...step.target.split("/"), ...after];
        if (step.target.startsWith("/")) here = "/";
        continue;
      }
      if (after.length > 0 && step.kind !== "directory") return { state: "missing", at: next };
      last = step;
      here = next;
      rest = after;
    }
    if (here === "/") last = { kind: "directory", hostPath: "" };
    if (last.kind !== "file" && last.kind !== "directory" && last.kind !== "other")
      return { state: "missing", at: here };
    return { state: "found", path: here, kind: last.kind, hostPath: last.hostPath, mount: last.mount };
  }

  #step(path: string): Step {
    if (this.#entries.has(path)) return { kind: "file", hostPath: "" };
    const mount = this.#view.mountOf(path);
    if (mount === undefined) return this.#unmounted(path);
    const leadsTo = this.#view.mounts.some((m) => m.target !== path && isWithin(m.target, path));
    if (mount.kind === "tmpfs") {
      if (path === mount.target || leadsTo) return { kind: "directory", hostPath: "" };
      return { kind: "unknown" };
    }
    const source = this.#view.host.resolve(mount.source) ?? mount.source;
    const hostPath = join(source, below(path, mount.target));
    const kind: PathKind = this.#view.host.kind(hostPath);
    if (kind === "symlink") {
      const target = this.#view.host.readlink(hostPath);
      return target === undefined ? { kind: "missing" } : { kind: "link", target };
    }
    if (kind !== "missing") return { kind, hostPath, mount };
    if (leadsTo) return { kind: "directory", hostPath: "" };
    return { kind: mount.mode === "rw" ? "unknown" : "missing" };
  }

  #unmounted(path: string): Step {
    const made = this.#made.get(path);
    if (typeof made === "object") return { kind: "link", target: made.target };
    if (made !== undefined) return { kind: made, hostPath: "" };
    // The kernel's own, and the shim's folder.
    if (["/proc", "/dev", "/sys", "/.clawsec"].some((tree) => isWithin(path, tree)))
      return path.lastIndexOf("/") === 0 ? { kind: "directory", hostPath: "" } : { kind: "unknown" };
    const leadsTo =
      this.#view.mounts.some((m) => isWithin(m.target, path)) ||
      [...this.#made.keys(), ...this.#entries].some((made) => isWithin(made, path));
    return leadsTo ? { kind: "directory", hostPath: "" } : { kind: "missing" };
  }
}
