// The file tree that confined programs see in the virtual machine: a tmpfs with two more mounts in it.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { dirname, join } from "node:path";
import type { Given } from "./operations.ts";

const UID = 1000;

/**
 * `/probe` is the program, `/bound` a bind mount of a folder that lies elsewhere, `/tmpfs` a tmpfs of its own.
 * `outside` is a folder that the view does not hold.
 */
export class View {
  readonly root: string;
  readonly bound: string;
  readonly tmpfs: string;
  readonly outside: string;
  readonly #probe: string;
  readonly #servers: Server[] = [];
  readonly #kept = new Set<string>();

  constructor(root: string, probe: string) {
    this.root = root;
    this.#probe = probe;
    mount("-t", "tmpfs", "-o", "mode=755", "view", root);
    this.bound = `${root}-bound`;
    this.tmpfs = `${root}-tmpfs`;
    this.outside = `${root}-outside`;
    mkdirSync(this.bound);
    mount("-t", "tmpfs", "-o", "mode=777", "view", this.tmpfs);
    mkdirSync(this.outside);
    writeFileSync(join(this.outside, "file"), "outside\n");
    chmodSync(join(this.outside, "file"), 0o777);
    copyFileSync(probe, join(root, "probe"));
    chmodSync(join(root, "probe"), 0o755);
    for (const folder of ["proc", "bound", "tmpfs"]) mkdirSync(join(root, folder));
    mount("-t", "proc", "proc", join(root, "proc"));
    mount("--bind", this.bound, join(root, "bound"));
    mount("--bind", this.tmpfs, join(root, "tmpfs"));
    for (const folder of [root, this.bound, this.tmpfs, this.outside]) chmodSync(folder, 0o777);
  }

  /** Makes folders that stay there, empty, at each reset: places for the mounts of the programs. */
  keep(folders: readonly string[]): void {
    for (const folder of folders) {
      const path = join(this.root, folder);
      if (this.#kept.has(path)) continue;
      this.#folder(path);
      this.#kept.add(path);
    }
  }

  /** Removes all but the probe and the mounts themselves. */
  reset(): void {
    for (const server of this.#servers.splice(0)) server.close();
    for (const folder of [this.root, this.bound, this.tmpfs])
      for (const name of readdirSync(folder))
        if (folder !== this.root || !["probe", "proc", "bound", "tmpfs"].includes(name))
          this.#remove(join(folder, name));
  }

  #remove(path: string): void {
    if (![...this.#kept].some((kept) => `${kept}/`.startsWith(`${path}/`))) {
      rmSync(path, { recursive: true, force: true });
      return;
    }
    own(path);
    for (const name of readdirSync(path)) this.#remove(join(path, name));
  }

  /** Makes one thing and the folders above it. */
  make(given: Given): void {
    const path = join(this.root, given.path);
    this.#folder(given.kind === "folder" ? path : dirname(path));
    switch (given.kind) {
      case "folder":
        return;
      case "file":
        writeFileSync(path, "content\n");
        break;
      case "program":
        this.#program(path);
        return;
      case "link":
        linkSync(join(this.root, given.to), path);
        return;
      case "symlink":
        symlinkSync(given.to, path);
        return;
      case "socket":
        this.#servers.push(createServer().listen(path));
        break;
    }
    own(path);
  }

  /** Another name of the program, which is quick; a copy on the other mounts. */
  #program(path: string): void {
    try {
      linkSync(join(this.root, "probe"), path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
      copyFileSync(this.#probe, path);
      own(path);
    }
  }

  #folder(path: string): void {
    if (path === this.root || lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
    this.#folder(dirname(path));
    mkdirSync(path);
    own(path);
  }
}

function own(path: string): void {
  chownSync(path, UID, UID);
  chmodSync(path, 0o777);
}

function mount(...args: string[]): void {
  mkdirSync(args.at(-1) ?? "", { recursive: true });
  const done = spawnSync("mount", args, { encoding: "utf8", timeout: 10_000 });
  if (done.status !== 0)
    throw new Error(`mount ${args.join(" ")}: ${done.stderr || (done.error?.message ?? "")}`);
}
