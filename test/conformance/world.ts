// The files that the sandboxes of a run see: programs and scripts under several names, and victims of file actions.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { TestHosts } from "../support/hosts.js";

const USER = 1000;

/** A file that can be executed, by its one canonical path in the sandbox. */
export interface Program {
  readonly path: string;
  /** Interpreters, the next one first; the last is the image. Empty for an ELF file. */
  readonly interpreters: readonly string[];
  /** Symbolic links to it. */
  readonly links: readonly string[];
  /** A program that the dynamic loader is told to run: it comes as an argument. */
  readonly loads?: string;
}

const elf = (path: string, ...links: string[]): Program => ({ path, interpreters: [], links });

/** Programs of every sandbox. */
export const PROGRAMS: readonly Program[] = [
  elf("/opt/t/bin/alpha", "/opt/t/bin/to-alpha", "/opt/t/chain", "/work/to-alpha"),
  elf("/opt/t/bin/beta"),
  elf("/opt/t/lib/gamma", "/opt/t/bin/to-gamma"),
  elf("/work/bin/alpha"),
  elf("/work/bin/hard"),
  { path: "/opt/t/s/one.sh", interpreters: ["/opt/t/bin/alpha"], links: ["/work/to-script"] },
  { path: "/opt/t/s/linked.sh", interpreters: ["/opt/t/lib/gamma"], links: [] },
  { path: "/opt/t/s/nest.sh", interpreters: ["/opt/t/s/one.sh", "/opt/t/bin/alpha"], links: [] },
  { path: "/work/my.sh", interpreters: ["/opt/t/bin/beta"], links: [] },
  { path: "/work/nest.sh", interpreters: ["/work/my.sh", "/opt/t/bin/beta"], links: [] },
];

/** Ports of 127.0.0.1 on which the driver listens inside. */
export const LOOPBACK_PORTS = [7001, 7002, 7003] as const;

/** What all sandboxes of a run have in common. */
export interface World {
  /** Folder of the run on the host. */
  readonly folder: string;
  /** The dynamic loader's canonical path. */
  readonly dynamicLoader: string;
  readonly hosts: Pick<TestHosts, "range" | "addresses">;
}

/** Folders of one sandbox on the host. */
export interface Place {
  readonly work: string;
  readonly data: string;
  readonly readOnly: string;
}

const LOADERS = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/**
 * Compiles the driver and makes the tools' folder.
 * @param folder an empty folder of the run, not on a file system that is mounted noexec
 * @param sources folder of the C files
 */
export function makeWorld(folder: string, sources: string, hosts: World["hosts"]): World {
  const tools = join(folder, "t");
  for (const part of ["bin", "lib", "s"]) mkdirSync(join(tools, part), { recursive: true });
  const cc = (output: string, names: readonly string[], ...flags: string[]) => {
    const files = names.map((name) => join(sources, `${name}.c`));
    const warnings = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"];
    execFileSync("cc", [...warnings, "-O2", ...flags, "-o", join(tools, output), ...files]);
  };
  cc("driver", ["driver", "exec", "file", "network"], "-static", "-pthread");
  cc("token", ["token"], "-static");
  cc("dyn", ["token"]);
  copyFileSync(join(tools, "driver"), join(tools, "side"));
  for (const name of ["bin/alpha", "bin/beta", "lib/gamma"])
    copyFileSync(join(tools, "token"), join(tools, name));
  symlinkSync("alpha", join(tools, "bin/to-alpha"));
  symlinkSync("../lib/gamma", join(tools, "bin/to-gamma"));
  symlinkSync("/opt/t/bin/to-alpha", join(tools, "chain"));
  script(join(tools, "s/one.sh"), "#!/opt/t/bin/alpha -x");
  script(join(tools, "s/linked.sh"), "#! /opt/t/bin/to-gamma");
  script(join(tools, "s/nest.sh"), "#!/opt/t/s/one.sh two words");
  const found = LOADERS.find((path) => existsSync(path));
  if (found === undefined) throw new Error("The dynamic loader was found in none of its usual places.");
  return { folder, dynamicLoader: realpathSync(found), hosts };
}

function script(path: string, firstLine: string): void {
  writeFileSync(path, `${firstLine}\nnot read by the interpreter\n`);
  chmodSync(path, 0o755);
}

/** Where the folders of a sandbox are. */
export function placeOf(world: World, name: string): Place {
  const at = (part: string) => join(world.folder, name, part);
  return { work: at("work"), data: at("data"), readOnly: at("ro") };
}

/** Makes the folders of a sandbox, with these files in them (paths as the sandbox sees them). */
export function makePlace(world: World, place: Place, victims: readonly string[]): void {
  const token = join(world.folder, "t/token");
  for (const folder of ["bin", "sub"]) mkdirSync(join(place.work, folder), { recursive: true });
  copyFileSync(token, join(place.work, "bin/alpha"));
  linkSync(join(place.work, "bin/alpha"), join(place.work, "bin/hard"));
  symlinkSync("/opt/t/bin/alpha", join(place.work, "to-alpha"));
  symlinkSync("/opt/t/s/one.sh", join(place.work, "to-script"));
  script(join(place.work, "my.sh"), "#!/opt/t/bin/beta");
  script(join(place.work, "nest.sh"), "#!/work/my.sh -n");
  for (const folder of VICTIM_FOLDERS) mkdirSync(hostPath(place, folder), { recursive: true });
  for (const victim of victims) {
    const path = hostPath(place, victim);
    writeFileSync(path, contentOf(victim));
    chmodSync(path, 0o640);
  }
  for (const tree of [place.work, place.data, place.readOnly])
    execFileSync("chown", ["-R", `${USER}:${USER}`, tree]);
  for (const folder of [dirname(place.work)]) {
    chmodSync(folder, 0o755);
    chownSync(folder, 0, 0);
  }
}

export function removePlace(place: Place): void {
  rmSync(dirname(place.work), { recursive: true, force: true });
}

/** Folders that victims lie in. */
export const VICTIM_FOLDERS = ["/data", "/data/a", "/data/b", "/data/c/deep", "/ro", "/ro/x"] as const;

/** What is in a victim when the sandbox starts. */
export function contentOf(path: string): string {
  return `content of ${path}\n`;
}

/** Host path of a path below /data, /ro or /work. */
export function hostPath(place: Place, path: string): string {
  for (const [top, folder] of [
    ["/data", place.data],
    ["/ro", place.readOnly],
    ["/work", place.work],
  ] as const) {
    if (path === top || path.startsWith(`${top}/`)) return folder + path.slice(top.length);
  }
  throw new Error(`${path} is on no folder of this sandbox.`);
}
