// The control: a plain runc container with the same files at the same paths, in the host's network, and without any layer of clawsec's.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { namesOf } from "./leaks.js";
import { AGENT, HOME, NODE, PACKAGE, type Place, SECRETS, STATE } from "./place.js";
import type { Control } from "./way.js";

const CAPABILITIES = 41;

interface Mount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

const bind = (source: string, destination: string, mode: "ro" | "rw"): Mount => ({
  destination,
  type: "bind",
  source,
  options: ["bind", "private", mode],
});
const tmpfs = (destination: string, ...options: string[]): Mount => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options,
});

/** Files of the host that the pack mounts where they exist. */
const ETC = ["/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"];

function mounts(place: Place, openclaw: string, control: Control, shared: readonly string[]): Mount[] {
  const isRoot = control === "root";
  return [
    { destination: "/proc", type: "proc", source: "proc", options: [] },
    tmpfs("/dev", "mode=755"),
    { destination: "/dev/pts", type: "devpts", source: "devpts", options: ["newinstance", "ptmxmode=0666"] },
    ...["/dev/shm", "/tmp", "/var/tmp", "/var/gateway-tmp"].map((path) => tmpfs(path, "mode=1777")),
    bind("/usr", "/usr", "ro"),
    ...ETC.filter((path) => existsSync(path)).map((path) => bind(path, path, "ro")),
    bind(openclaw, "/opt/openclaw", "ro"),
    bind(place.escape, "/opt/escape", isRoot ? "ro" : "rw"),
    bind(place.home, HOME, "rw"),
    bind(place.secrets, SECRETS, "ro"),
    // What a sandbox never sees.
    ...shared.map((path) => bind(path, path, "rw")),
    // For root, what the sandbox has of mounts is there: the ways are those that take it away.
    ...(isRoot
      ? [bind(join(place.home, ".openclaw/hooks"), `${STATE}/hooks`, "ro"), tmpfs(`${HOME}/.ssh`, "ro")]
      : []),
  ];
}

/**
 * Runs the stage's plan in a container.
 * @param shared the run's folder on the host, which the container sees as it is
 * @throws when it does not start; a stage that takes too long is ended, and its tries count as not made
 */
export async function runContained(
  place: Place,
  openclaw: string,
  control: Control,
  hosts: Readonly<Record<string, string>>,
  shared: string,
  environment: Readonly<Record<string, string>>,
  timeoutMs: number,
  runtime: string,
): Promise<void> {
  const bundle = join(place.folder, "bundle");
  const rootfs = join(bundle, "rootfs");
  const made = mounts(place, openclaw, control, [shared, runtime]);
  const files = new Set(ETC.filter((path) => path !== "/etc/alternatives"));
  for (const { destination } of made) {
    const path = join(rootfs, destination);
    if (!files.has(destination)) {
      mkdirSync(path, { recursive: true });
      // runc gives a tmpfs the mode of the folder below it.
      if (/^\/(tmp|var|dev\/shm)/.test(destination)) chmodSync(path, 0o1777);
    } else {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, "");
    }
  }
  for (const name of ["bin", "sbin", "lib", "lib64"])
    if (existsSync(`/${name}`)) symlinkSync(readlinkSync(`/${name}`), join(rootfs, name));
  mkdirSync(join(rootfs, ".clawsec"));
  symlinkSync("/usr/bin/bash", join(rootfs, ".clawsec/bash"));
  const names = Object.entries(hosts).map(([name, address]) => `${address} ${name}\n`);
  writeFileSync(join(rootfs, "etc/hosts"), `127.0.0.1 localhost\n${names.join("")}`);
  writeFileSync(join(rootfs, "etc/nsswitch.conf"), "hosts: files\npasswd: files\n");
  writeFileSync(
    join(rootfs, "etc/passwd"),
    `root:x:0:0::/:/bin/sh\nagent:x:${AGENT}:${AGENT}::${HOME}:/bin/sh\n`,
  );
  const uid = control === "root" ? 0 : AGENT;
  const all = rootCapabilities();
  // What a file's capability, or a set-user-ID program, could get.
  const capabilities = (set: string) => (control === "root" || set === "bounding" ? all : []);
  const config = {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid, gid: uid },
      args: [NODE, `${PACKAGE}/openclaw.mjs`, "gateway", "run", "--port", "18789"],
      env: Object.entries({ PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME, ...environment }).map(
        ([name, value]) => `${name}=${value}`,
      ),
      cwd: HOME,
      capabilities: Object.fromEntries(
        ["bounding", "effective", "permitted", "inheritable", "ambient"].map((set) => [
          set,
          capabilities(set),
        ]),
      ),
    },
    root: { path: "rootfs", readonly: false },
    hostname: "control",
    mounts: made,
    linux: {
      cgroupsPath: `/${namesOf(process.pid).container}${control}`,
      resources: { devices: [{ allow: true, access: "rwm" }] },
      namespaces: ["pid", "mount", "ipc", "uts"].map((type) => ({ type })),
    },
  };
  writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
  const name = `${namesOf(process.pid).container}${control}`;
  const child = spawn("runc", ["run", "--bundle", bundle, name], { stdio: ["ignore", "pipe", "pipe"] });
  await ended(child, timeoutMs, () => execFileSync("runc", ["delete", "--force", name]));
}

async function ended(child: ChildProcess, timeoutMs: number, end: () => void): Promise<void> {
  let errors = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (bytes: Buffer) => {
      errors = (errors + bytes.toString()).slice(-2000);
    });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    end();
  }, timeoutMs);
  await once(child, "exit");
  clearTimeout(timer);
  if (child.exitCode !== 0 && !isLate)
    throw new Error(`The container without clawsec ended with ${child.exitCode}: ${errors}`);
}

/** All that this process has: a container cannot be given more. */
function rootCapabilities(): string[] {
  const [, mask = "0"] =
    /CapBnd:\s*([0-9a-f]+)/.exec(execFileSync("cat", ["/proc/self/status"]).toString()) ?? [];
  const names =
    execFileSync("capsh", [`--decode=${mask}`])
      .toString()
      .split("=")[1] ?? "";
  return names
    .trim()
    .split(",")
    .slice(0, CAPABILITIES)
    .map((name) => name.toUpperCase());
}
