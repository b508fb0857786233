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
}

/** Writes the policy of a box; nothing is started. */
export function makeBox(stage: Stage, folder: string, parts: Parts = {}): Box {
  boxes += 1;
  const work = join(folder, "work");
  mkdirSync(work, { recursive: true });
  chownSync(work, AGENT, AGENT);
  const policy = join(folder, "policy.yaml");
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
${parts.mount === undefined ? "" : `    - ${parts.mount}\n`}exec:
  - { id: denied, executable: "/opt/escape/denied/**", action: deny }
  - { id: rest, executable: ["/usr/**", "/opt/escape/bin/**"], action: allow }
${parts.file === undefined ? "" : `file:\n  - ${parts.file}\n`}`,
  );
  return { name: `box${boxes}`, policy, work };
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
