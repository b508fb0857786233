// The ways that Linux has to start a file, and copies of files.

import { basename, dirname, relative } from "node:path/posix";
import { type ExecAction, ExecutableKind } from "../../proto/gen/clawsec/v1/loader.js";
import type { DriverCall } from "./attempt.js";
import type { Program } from "./programs.js";
import type { Random } from "./random.js";

/** Working directories. */
export const FOLDERS = ["/work", "/work/sub", "/opt/t", "/opt/t/bin", "/"] as const;
export const VIAS = ["fork", "fork", "vfork", "spawn", "thread"] as const;

export interface Way {
  readonly call: Omit<DriverCall, "operation" | "argv">;
  readonly cwd: string;
}

function down(from: string, to: string): string {
  return relative(from, to) || ".";
}

/** A path, or a descriptor, that leads to the file. */
export function wayTo(random: Random, { path, links }: Pick<Program, "path" | "links">): Way {
  const names = [path, ...links];
  const cwd = random.pick(FOLDERS);
  const name = random.pick(names);
  const plain = (spelled: string, how = "path"): Way => ({ call: { how, path: spelled, cwd }, cwd });
  return random.weighted<Way>([
    [20, () => plain(name)],
    [12, () => plain(name === path ? path : name)],
    [14, () => plain(cwd === "/" ? path.slice(1) : down(cwd, name))],
    [6, () => plain(`/proc/self/root${name}`)],
    [6, () => plain(`/proc/self/cwd/${down(cwd, name)}`)],
    [4, () => plain(`/proc/thread-self/root${name}`)],
    [6, () => plain(`/${dirname(name)}/.//${basename(name)}`)],
    [4, () => plain(`${dirname(path)}/../${basename(dirname(path))}/${basename(path)}`)],
    [
      8,
      () => {
        const dir = random.pick(FOLDERS);
        return { call: { how: "dirfd", dir, path: down(dir, name), cwd }, cwd };
      },
    ],
    [6, () => plain(name, "fd")],
    [6, () => plain(name, "opath")],
    [4, () => plain(name, "devfd")],
    [4, () => plain(name, "procfd")],
  ]);
}

export interface Facts extends Pick<ExecAction, "executable" | "script" | "nestedScripts" | "kind"> {
  readonly opened: readonly string[];
  readonly image: string;
}

export function factsOf(
  path: string,
  interpreters: readonly string[],
  kind: ExecutableKind,
  image: string,
): Facts {
  const last = interpreters.at(-1);
  const named = kind === ExecutableKind.FILE || kind === ExecutableKind.DELETED ? [path] : [];
  return {
    executable: last ?? path,
    script: last === undefined ? "" : path,
    nestedScripts: interpreters.slice(0, -1),
    kind,
    opened: [...named, ...interpreters],
    image: last ?? image,
  };
}

/** Copies of a program: under another name, without a name, in memory, where nothing can be executed. */
export function copyOf(random: Random, program: Program, id: string): { call: Way["call"]; facts: Facts } {
  const { interpreters } = program;
  const source = program.path;
  const { FILE, DELETED, ANONYMOUS } = ExecutableKind;
  return random.weighted<{ call: Way["call"]; facts: Facts }>([
    [
      4,
      () => {
        const path = `${random.pick(["/work", "/work/bin"])}/c${id}`;
        return { call: { how: "copy", path, source }, facts: factsOf(path, interpreters, FILE, path) };
      },
    ],
    [
      3,
      () => {
        const path = `/work/d${id}`;
        return {
          call: { how: "deleted", path, source },
          facts: factsOf(path, interpreters, DELETED, `${path} (deleted)`),
        };
      },
    ],
    [
      4,
      () => {
        const path = `/memfd:m${id}`;
        return {
          call: { how: "memfd", target: `m${id}`, source },
          facts: factsOf(path, interpreters, ANONYMOUS, `${path} (deleted)`),
        };
      },
    ],
    [
      2,
      () => {
        const path = `/tmp/c${id}`;
        return { call: { how: "copy", path, source }, facts: factsOf(path, interpreters, FILE, path) };
      },
    ],
  ]);
}
