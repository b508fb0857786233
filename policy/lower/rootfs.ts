// The root file system below the mounts: mount points, the files of /etc that clawsec writes, and the links that a
// merged /usr needs. Read-only, root's, and the same for the same policy.

import type { RootfsEntry } from "../../proto/gen/clawsec/v1/loader.js";
import { isWithin } from "../match/path.js";
import type { Policy } from "../model.js";
import type { View } from "./host.js";

/** Where the gate answers DNS inside the sandbox. */
const RESOLVER = "127.0.0.53";
/** Folders of / that are links into /usr on today's distributions. */
const MERGED = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

function file(path: string, content: string): RootfsEntry {
  return { path, kind: { $case: "file", value: Buffer.from(content) } };
}

function directory(path: string): RootfsEntry {
  return { path, kind: { $case: "directory", value: {} } };
}

export function lowerRootfs(policy: Policy, view: View, hostname: string): RootfsEntry[] {
  const entries = new Map<string, RootfsEntry>();
  const add = (entry: RootfsEntry) => {
    if (!entries.has(entry.path)) entries.set(entry.path, entry);
  };
  for (const entry of generated(policy, hostname)) add(entry);
  for (const path of ["/proc", "/dev", "/sys", "/etc"]) add(directory(path));
  for (const mount of view.mounts) {
    // Inside another mount the place is that mount's, not ours.
    if (view.mounts.some((outer) => outer.target !== mount.target && isWithin(mount.target, outer.target)))
      continue;
    // runc gives a tmpfs the mode of the folder it finds, and makes a missing one with the mode we ask for.
    if (mount.kind === "tmpfs") continue;
    const resolved = view.host.resolve(mount.source);
    const isFile = resolved !== undefined && view.host.kind(resolved) === "file";
    add(isFile ? file(mount.target, "") : directory(mount.target));
  }
  for (const path of MERGED) {
    if (view.mounts.some((mount) => isWithin(mount.target, path))) continue;
    const target = view.host.readlink(path);
    // Only a link into a mounted /usr is of use, and only that is copied from the host.
    if (target !== undefined && /^\/?usr\/[a-z0-9]+$/.test(target) && view.mountOf("/usr") !== undefined) {
      add({ path, kind: { $case: "symlink", value: target } });
    }
  }
  if (policy.secrets !== undefined) add(directory(policy.secrets.mount));
  return [...entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

function generated(policy: Policy, hostname: string): RootfsEntry[] {
  const { user, home } = policy.sandbox;
  const nobody = 65534;
  const passwd = [
    "root:x:0:0:root:/root:/usr/sbin/nologin",
    `${user.name}:x:${user.uid}:${user.gid}:${user.name}:${home}:/bin/sh`,
    `nobody:x:${nobody}:${nobody}:nobody:/nonexistent:/usr/sbin/nologin`,
  ];
  const group = ["root:x:0:", `${user.name}:x:${user.gid}:`, `nogroup:x:${nobody}:`];
  return [
    file("/etc/passwd", lines(passwd)),
    file("/etc/group", lines(group)),
    file("/etc/hostname", lines([hostname])),
    file(
      "/etc/hosts",
      lines(["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", `127.0.1.1 ${hostname}`]),
    ),
    // Programs that start "the user's shell" take only a listed one; so an entry that is $SHELL is not passed over.
    file("/etc/shells", lines(["/bin/sh", ...policy.subjects.flatMap(({ entry }) => entry?.path ?? [])])),
    // One server, asked once: the gate answers from its table at once, or says REFUSED.
    file("/etc/resolv.conf", lines([`nameserver ${RESOLVER}`, "options timeout:5 attempts:1"])),
    file(
      "/etc/nsswitch.conf",
      lines([
        "passwd: files",
        "group: files",
        "shadow: files",
        "hosts: files dns",
        "networks: files",
        "protocols: files",
        "services: files",
      ]),
    ),
  ];
}

function lines(text: readonly string[]): string {
  return `${text.join("\n")}\n`;
}
