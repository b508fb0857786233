/** Facts about this host that the policy compiler asks for. */
import { lstatSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import type { HostView } from "../../policy/index.js";

/** The host's files as they are now. */
export function hostView(): HostView {
  return {
    kind(path) {
      try {
        const stat = lstatSync(path);
        if (stat.isFile()) return "file";
        if (stat.isDirectory()) return "directory";
        return stat.isSymbolicLink() ? "symlink" : "other";
      } catch {
        return "missing";
      }
    },
    readlink: (path) => attempt(() => readlinkSync(path)),
    resolve: (path) => attempt(() => realpathSync(path)),
  };
}

/** The hard limit of open files of this process, which a sandbox's cannot exceed. */
export function maxOpenFiles(limits = readFileSync("/proc/self/limits", "utf8")): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1];
  const value = Number(hard);
  return Number.isSafeInteger(value) && value > 0 ? value : 2 ** 31 - 1;
}

/** Names of users and groups, from files of the form of passwd(5) and group(5). */
export function nameOfUid(uid: number, passwd = read("/etc/passwd")): string | undefined {
  return passwd
    .split("\n")
    .map((line) => line.split(":"))
    .find((fields) => fields[2] === String(uid))?.[0];
}

/** Number of a group; undefined when there is none of that name. */
export function gidOfGroup(name: string, group = read("/etc/group")): number | undefined {
  const fields = group
    .split("\n")
    .map((line) => line.split(":"))
    .find((entry) => entry[0] === name);
  const gid = Number(fields?.[2]);
  return fields !== undefined && Number.isSafeInteger(gid) ? gid : undefined;
}

function read(path: string): string {
  return attempt(() => readFileSync(path, "utf8")) ?? "";
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
