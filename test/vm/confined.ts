// A probe that runs under a profile in the virtual machine.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { getSystemErrorName } from "node:util";
import type { Step, Through, Verdict } from "./operations.ts";
import type { View } from "./view.ts";

/** One running probe, as uid 1000 under no_new_privs, with no capabilities. */
export class ConfinedProbe {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #answers: AsyncIterator<string>;
  #stderr = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#ended = once(child, "close");
    if (child.stdout === null) throw new Error("the probe has no output");
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    // A probe that has ended breaks its input; its output then says so, too, and with the reason.
    child.stdin?.on("error", () => undefined);
    this.#answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /**
   * Starts a probe and makes sure that it is confined as asked; `profile` "" means not at all.
   *
   * @throws Error when it does not start, or the kernel says that it runs under anything else.
   */
  static async start(
    through: Through,
    profile: string,
    view: View,
    folder: string,
    mounts: readonly string[] = [],
  ): Promise<ConfinedProbe> {
    // Descriptor 3 of the probe: a folder that no name in its view leads to.
    const outside = openSync(view.outside, "r");
    const pidFile = `${folder}/pid`;
    const command =
      through === "runc"
        ? [
            "runc",
            "run",
            "--preserve-fds=1",
            `--pid-file=${pidFile}`,
            "--bundle",
            bundle(view, profile, folder, mounts),
            "probe",
          ]
        : [`${view.root}/probe`, "enter", view.root, profile, ...mounts];
    const [program = "", ...args] = command;
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe", outside] });
    closeSync(outside);
    const probe = new ConfinedProbe(child);
    try {
      await probe.#check(profile, () =>
        through === "runc" ? written(pidFile) : Promise.resolve(String(child.pid)),
      );
    } catch (error) {
      child.kill("SIGKILL");
      if (through === "runc") spawnSync("runc", ["delete", "--force", "probe"], { timeout: 10_000 });
      throw error;
    }
    return probe;
  }

  async #check(profile: string, readPid: () => Promise<string>): Promise<void> {
    // The first answer says that the exec took place.
    const first = await this.perform({ op: "chdir", path: "/" });
    if (first !== "allowed") throw new Error(`the probe cannot enter /: ${first}`);
    const pid = await readPid();
    const label = readFileSync(`/proc/${pid}/attr/apparmor/current`, "utf8").trim();
    const expected = profile === "" ? "unconfined" : `${profile} (enforce)`;
    if (label !== expected) throw new Error(`the probe runs under "${label}", not under "${expected}"`);
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    for (const line of [/^NoNewPrivs:\s+1$/m, /^Uid:\s+1000\s+1000\s+1000\s/m, /^CapEff:\s+0+$/m])
      if (!line.test(status)) throw new Error(`the probe's status is not as asked: ${line.source}`);
  }

  /** Performs one step. */
  async perform({ op, path, to = "" }: Step): Promise<Verdict> {
    this.#child.stdin?.write(`${op}\0${path}\0${to}\0`);
    const slow = new AbortController();
    const answer = await Promise.race([
      this.#answers.next(),
      sleep(20_000, undefined, { signal: slow.signal }).then(() => {
        throw new Error(`the probe did not answer ${op} ${path} within 20 s: ${this.#stderr.trim()}`);
      }),
    ]).finally(() => slow.abort());
    if (answer.done === true) {
      await this.#end();
      throw new Error(`the probe ended at ${op} ${path}: ${this.#stderr.trim() || this.#child.exitCode}`);
    }
    const errno = Number(answer.value);
    if (errno === 0) return "allowed";
    const name = getSystemErrorName(-errno);
    return name === "EACCES" ? "denied" : name;
  }

  /** Waits until it has ended, or for 5 s: what it started could keep its output open. */
  async #end(): Promise<void> {
    const patience = new AbortController();
    await Promise.race([this.#ended, sleep(5000, undefined, { signal: patience.signal })]).finally(() =>
      patience.abort(),
    );
  }

  async stop(): Promise<void> {
    this.#child.stdin?.end();
    await this.#end();
    if (this.#child.exitCode !== 0) throw new Error(`the probe did not end well: ${this.#stderr.trim()}`);
  }
}

/** An OCI bundle like a sandbox's: no capabilities, no_new_privs, namespaces of its own, mounts made by runc. */
function bundle(view: View, profile: string, folder: string, mounts: readonly string[]): string {
  const path = `${folder}/bundle`;
  mkdirSync(path);
  const configuration = {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 1000, gid: 1000 },
      args: ["/probe", "serve"],
      cwd: "/",
      capabilities: {},
      noNewPrivileges: true,
      apparmorProfile: profile,
    },
    root: { path: view.root },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/bound", type: "bind", source: view.bound, options: ["rbind", "rw"] },
      { destination: "/tmpfs", type: "bind", source: view.tmpfs, options: ["rbind", "rw"] },
      ...mounts.map((path) => ({
        destination: path,
        type: "bind",
        source: `${view.root}${path}`,
        options: ["rbind", "rw"],
      })),
    ],
    linux: { namespaces: ["pid", "mount", "ipc", "uts", "cgroup", "network"].map((type) => ({ type })) },
  };
  writeFileSync(`${path}/config.json`, JSON.stringify(configuration));
  return path;
}

/** What a file says once it is there: runc writes its pid file when the program may have answered already. */
async function written(path: string): Promise<string> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (existsSync(path)) {
      const text = readFileSync(path, "utf8");
      if (text !== "") return text;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${path} was not written within 10 s`);
}
