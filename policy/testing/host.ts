// A host of data, for tests: the compiler asks, a table answers.

import { type Capability, CapabilityState } from "../../proto/gen/clawsec/v1/loader.js";
import type { HostView, PathKind } from "../lower/host.js";
import { everyCapability } from "../lower/report.js";

/** "/" at the end: a folder; "-> target": a symbolic link; else a file. Folders above are there too. */
export function tableHost(entries: readonly string[]): HostView {
  const kinds = new Map<string, PathKind>([["/", "directory"]]);
  const links = new Map<string, string>();
  for (const entry of entries) {
    const [written = "", target] = entry.split(" -> ");
    const path = written.length > 1 && written.endsWith("/") ? written.slice(0, -1) : written;
    if (target !== undefined) links.set(path, target);
    const kind: PathKind = target !== undefined ? "symlink" : written.endsWith("/") ? "directory" : "file";
    for (let p = path; p !== "" && p !== "/"; p = p.slice(0, p.lastIndexOf("/"))) {
      if (!kinds.has(p)) kinds.set(p, p === path ? kind : "directory");
    }
    kinds.set(path, kind);
  }
  const resolve = (path: string, left = 40): string | undefined => {
    if (left === 0) return undefined;
    let here = "";
    const parts = path.split("/").filter((part) => part !== "");
    for (const [i, part] of parts.entries()) {
      here = `${here}/${part}`;
      const target = links.get(here);
      if (target !== undefined) {
        const base = target.startsWith("/") ? target : `${here.slice(0, here.lastIndexOf("/"))}/${target}`;
        return resolve([base, ...parts.slice(i + 1)].join("/"), left - 1);
      }
      if (!kinds.has(here)) return undefined;
    }
    return here === "" ? "/" : here;
  };
  return {
    kind: (path) => {
      const above = path === "/" ? "/" : resolve(path.slice(0, path.lastIndexOf("/")) || "/");
      if (above === undefined) return "missing";
      const name = path.slice(path.lastIndexOf("/"));
      return kinds.get(path === "/" ? "/" : above === "/" ? name : above + name) ?? "missing";
    },
    readlink: (path) => links.get(path),
    resolve: (path) => resolve(path),
  };
}

/** A merged-/usr distribution with nothing private on it. */
export const SYSTEM: readonly string[] = [
  "/usr/bin/bash",
  "/usr/bin/dash",
  "/usr/bin/git",
  "/usr/lib/",
  "/usr/lib64/",
  "/usr/sbin/",
  "/bin -> usr/bin",
  "/lib -> usr/lib",
  "/lib64 -> usr/lib64",
  "/sbin -> usr/sbin",
  "/etc/alternatives/",
  "/etc/ssl/certs/",
  "/etc/ld.so.cache",
  "/etc/localtime -> /usr/share/zoneinfo/Etc/UTC",
  "/usr/share/zoneinfo/Etc/UTC",
  "/etc/profile",
  "/sys/devices/system/cpu/",
  "/run/clawsec/",
  "/var/lib/clawsec/",
];

/** All mechanisms but those named, with the given Landlock ABI (the newest when not given). */
export function capabilities(options: { without?: readonly string[]; landlock?: number } = {}): Capability[] {
  return everyCapability().map((one) => {
    const level =
      one.name === "landlock" && options.landlock !== undefined ? String(options.landlock) : one.level;
    if (!options.without?.includes(one.name)) return { ...one, level };
    return {
      ...one,
      state: CapabilityState.MISSING,
      detail: "it was tried and did not work",
      remedy: `Install ${one.name}.`,
      level,
    };
  });
}
