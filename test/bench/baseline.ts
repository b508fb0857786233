// The baseline: the same OCI bundle under plain runc, without init shim, filters and gates.

import { execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

interface OciConfig {
  process: { args: string[]; terminal?: boolean };
  root: { path: string };
  mounts: { destination: string; source?: string }[];
  linux: { cgroupsPath?: string; namespaces: { type: string; path?: string }[]; seccomp?: unknown };
}

/** A bundle like that of a clawsec sandbox that exists now, without what clawsec adds at run time. */
export class Baseline {
  readonly #folder = mkdtempSync(join(tmpdir(), "clawsec-bench-"));
  readonly #config: OciConfig;

  /** @param bundle folder of the sandbox's bundle in the runtime folder. */
  constructor(bundle: string) {
    const config = JSON.parse(readFileSync(join(bundle, "config.json"), "utf8")) as OciConfig;
    const rootfs = join(this.#folder, "rootfs");
    cpSync(config.root.path, rootfs, { recursive: true, verbatimSymlinks: true });
    config.root.path = rootfs;
    config.mounts = config.mounts.filter(({ destination }) => !destination.startsWith("/.clawsec"));
    config.linux.namespaces = config.linux.namespaces.map(({ type }) => ({ type }));
    delete config.linux.seccomp;
    this.#config = config;
  }

  /** Runs a command under runc; returns what it printed. */
  async run(args: readonly string[]): Promise<string> {
    const { name, folder } = this.#bundle(args);
    const { stdout } = await run("runc", ["run", "--bundle", folder, name], { maxBuffer: 64 << 20 });
    return stdout;
  }

  /** Starts a command under runc, waits for its first line, kills it with SIGKILL and returns the ms until all is gone. */
  async kill(args: readonly string[]): Promise<number> {
    const { name, folder } = this.#bundle(args);
    const child = spawn("runc", ["run", "--bundle", folder, name], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once("data", () => resolve());
      child.once("exit", (code) =>
        reject(new Error(`runc ended with ${code} before the command was ready.`)),
      );
    });
    const since = performance.now();
    await run("runc", ["kill", name, "KILL"]);
    await ended;
    return performance.now() - since;
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #bundle(args: readonly string[]): { name: string; folder: string } {
    const name = `clawsec-bench-${randomBytes(4).toString("hex")}`;
    const folder = join(this.#folder, name);
    mkdirSync(folder);
    const config = structuredClone(this.#config);
    config.process.args = [...args];
    config.process.terminal = false;
    config.linux.cgroupsPath = `/${name}`;
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    return { name, folder };
  }
}
