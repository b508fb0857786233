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
import { INTERPRETERS, SCRIPTS, scriptText } from "./programs.js";

const USER = 1000;

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
  for (const part of ["bin", "lib", "s/pkg", "i", "y"]) mkdirSync(join(tools, part), { recursive: true });
  const cc = (output: string, names: readonly string[], ...flags: string[]) => {
    const files = names.map((name) => join(sources, `${name}.c`));
    const warnings = ["-std=gnu11", "-Wall", "-Wextra", "-Werror"];
    execFileSync("cc", [...warnings, "-O2", ...flags, "-o", join(tools, output), ...files]);
  };
  cc("driver", ["driver", "exec", "script", "file", "network"], "-static", "-pthread");
  cc("token", ["program", "token"], "-static");
  cc("dyn", ["program", "token"]);
  cc("interpreter", ["interpreter", "token"], "-static");
  cc("y/bash", ["interpreter", "token"]);
  const copy = (from: string, to: string) => copyFileSync(join(tools, from), join(tools, to));
  copy("driver", "side");
  for (const name of ["bin/alpha", "bin/beta", "lib/gamma"]) copy("token", name);
  for (const { path } of INTERPRETERS)
    if (path.startsWith("/opt/t/")) copy("interpreter", path.slice("/opt/t/".length));
  copy("y/bash", "y/perl");
  symlinkSync("alpha", join(tools, "bin/to-alpha"));
  symlinkSync("../lib/gamma", join(tools, "bin/to-gamma"));
  symlinkSync("/opt/t/bin/to-alpha", join(tools, "chain"));
  for (const [link, to] of INTERPRETER_LINKS) symlinkSync(to, join(tools, "i", link));
  symlinkSync("/work/b.sh", join(tools, "s/to-b"));
  writeScripts("/opt/t", tools);
  const found = LOADERS.find((path) => existsSync(path));
  if (found === undefined) throw new Error("The dynamic loader was found in none of its usual places.");
  return { folder, dynamicLoader: realpathSync(found), hosts };
}

const INTERPRETER_LINKS = [
  ["sh", "dash"],
  ["python3", "python3.11"],
  ["js", "node"],
  ["perl", "perl5.36.0"],
  ["ash", "busybox"],
] as const;

/** Those below a folder of the sandbox, which is this one here. */
function writeScripts(folder: string, here: string): void {
  for (const path of Object.keys(SCRIPTS)) {
    if (!isBelow(path, folder)) continue;
    const file = here + path.slice(folder.length);
    writeFileSync(file, scriptText(path));
    chmodSync(file, 0o755);
  }
}

function isBelow(path: string, folder: string): boolean {
  return path.startsWith(`${folder}/`);
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
  symlinkSync("/opt/t/s/run.sh", join(place.work, "to-run"));
  symlinkSync("/opt/t/i/dash", join(place.work, "to-dash"));
  symlinkSync("/opt/t/s/a.sh", join(place.work, "to-a"));
  for (const name of ["dash", "python3"])
    copyFileSync(join(world.folder, "t/interpreter"), join(place.work, "bin", name));
  writeScripts("/work", place.work);
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
