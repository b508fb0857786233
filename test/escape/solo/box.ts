// A small sandbox for one way, and the same program on the host without it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { CliResult } from "../../support/clawsec.js";
import { AGENT } from "../place.js";
import type { Stage } from "../setup.js";

let boxes = 0;

export interface Box {
  readonly name: string;
  readonly policy: string;
  /** /work in the sandbox. */
  readonly work: string;
}

/** Parts of a policy that differ from way to way: text of YAML, indented as it stands in the policy. */
export interface Parts {
  readonly user?: string;
  readonly environment?: string;
  readonly mount?: string;
  readonly file?: string;
  /** All exec rules, in the place of the usual ones. */
  readonly exec?: readonly string[];
  /** Network rules; the names of the test hosts are known then. */
  readonly network?: readonly string[];
}

/** Writes the policy of a box; nothing is started. */
export function makeBox(stage: Stage, folder: string, parts: Parts = {}): Box {
  boxes += 1;
  const work = join(folder, "work");
  mkdirSync(work, { recursive: true });
  chownSync(work, AGENT, AGENT);
  const policy = join(folder, "policy.yaml");
  const box = { name: `box${boxes}`, policy, work };
  writePolicy(stage, box, parts);
  return box;
}

const USUAL: readonly string[] = [
  '{ id: denied, executable: "/opt/escape/denied/**", action: deny }',
  '{ id: rest, executable: ["/usr/**", "/opt/escape/bin/**"], action: allow }',
];

/** Writes the policy of a box anew; it counts from the next start, or reload. */
export function writePolicy(stage: Stage, { policy, work }: Box, parts: Parts): void {
  const list = (name: string, rules: readonly string[]) =>
    rules.length === 0 ? `${name}: []\n` : `${name}:\n${rules.map((rule) => `  - ${rule}\n`).join("")}`;
  const { addresses } = stage.hosts;
  writeFileSync(
    policy,
    `apiVersion: clawsec/v1
kind: Policy
metadata: { name: escape-box }
sandbox:
  user: ${parts.user ?? "{ uid: 1000, gid: 1000, name: agent }"}
  home: /work
  environment: ${parts.environment ?? "{}"}
  mounts:
    - { source: /usr }
    - { source: ${JSON.stringify(stage.programs)}, target: /opt/escape }
    - { source: ${JSON.stringify(work)}, target: /work, mode: rw }
${parts.mount === undefined ? "" : `    - ${parts.mount}\n`}${list("exec", parts.exec ?? USUAL)}${
  parts.file === undefined ? "" : list("file", [parts.file])
}${
  parts.network === undefined
    ? ""
    : `${list("network", parts.network)}resolver:\n  hosts: ${JSON.stringify(addresses)}\n`
}`,
  );
}

/** The pid of a running box's first process, on the host. @throws when it does not run */
export async function pidOf(stage: Stage, box: Box): Promise<number> {
  const status = JSON.parse(await stage.clawsec.must("ps", "--json")) as {
    sandboxes: { name: string; initPid: number }[];
  };
  const pid = status.sandboxes.find(({ name }) => name === box.name)?.initPid ?? 0;
  if (!(pid > 0)) throw new Error(`${box.name} has no pid in ${JSON.stringify(status)}`);
  return pid;
}

/** Runs a program in the mount and pid namespaces of a process, as root of the host. */
export async function joinNamespaces(pid: number, program: string, mark: string): Promise<void> {
  const child = spawn("nsenter", ["-t", String(pid), "-m", "-p", "--", program], {
    env: { MARK: mark, TOKEN: "EFFECT" },
    stdio: "ignore",
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
  await once(child, "close");
  clearTimeout(timer);
}

/** On the host: a process in mount and pid namespaces of its own, for whoever joins. */
export async function joinedOnHost(program: string, mark: string): Promise<void> {
  const host = spawn("unshare", ["-m", "-p", "-f", "--kill-child", "sleep", "20"], { stdio: "ignore" });
  await sleep(300);
  const pid = Number(textOf(`/proc/${host.pid}/task/${host.pid}/children`).trim());
  if (pid > 0) await joinNamespaces(pid, program, mark);
  const ended = once(host, "close");
  host.kill("SIGKILL");
  await ended;
}

/** Runs a script in a box to its end. */
export function inBox(
  stage: Stage,
  box: Box,
  script: string,
  extra: readonly string[] = [],
): Promise<CliResult> {
  return stage.clawsec.cli(
    "run",
    "--name",
    box.name,
    "--policy",
    box.policy,
    ...extra,
    "--",
    "/usr/bin/bash",
    "-c",
    script,
  );
}

/** Runs a script on the host as the sandbox's user, for at most 10 s. Resolves with what it printed. */
export async function onHost(
  script: string,
  cwd: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<string> {
  const child = asAgent(script, cwd, environment);
  let text = "";
  child.stdout?.on("data", (bytes: Buffer) => {
    text += bytes.toString("latin1");
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  await once(child, "close");
  clearTimeout(timer);
  return text;
}

/** Starts a script on the host as the sandbox's user. */
export function asAgent(script: string, cwd: string, environment: Readonly<Record<string, string>> = {}) {
  const user = ["--reuid", String(AGENT), "--regid", String(AGENT), "--clear-groups"];
  return spawn("setpriv", [...user, "/usr/bin/bash", "-c", script], {
    cwd,
    env: { PATH: "/usr/bin:/bin", ...environment },
    stdio: ["ignore", "pipe", "ignore"],
  });
}

/** Waits until it is so. Resolves with false after `timeoutMs`. */
export async function until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  for (const end = performance.now() + timeoutMs; performance.now() < end; await sleep(20))
    if (condition()) return true;
  return condition();
}

export const textOf = (path: string): string => (existsSync(path) ? readFileSync(path, "latin1") : "");
