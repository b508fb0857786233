// Real work in the sandbox, with and without the gate, pair by pair: a clone of a local repository, an installation of
// npm packages from a warm cache, a run of the TypeScript compiler.

import { execFile } from "node:child_process";
import { chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Baseline } from "./baseline.js";
import { pairs, type Setting } from "./measures.js";
import { type Figure, figure } from "./stats.js";

const run = promisify(execFile);

/** Uid and gid of the agent in test/bench/work.policy.yaml. */
const AGENT = 1000;
/** What the project of the npm figure depends on: a few of our own packages, with what they depend on. */
const PACKAGES = ["@grpc/grpc-js", "commander", "ink", "pino", "react", "ws", "yaml"];

/** A piece of work: a shell command in the sandbox, the same each time. */
export interface Work {
  readonly name: string;
  readonly command: string;
  /** How often it is measured: short pieces more often, since a tenth of a second is much of them. */
  readonly rounds: number;
}

/**
 * Lays out what the work needs in `folder`, which becomes the agent's home: a bare clone of `checkout`, a project with
 * a lock file, and npm's cache with all that it asks for.
 * @throws when git or npm fail; npm needs its registry for this step, and for no later one
 */
export async function layOutWork(checkout: string, folder: string): Promise<readonly Work[]> {
  const repository = join(folder, "repository.git");
  await run("git", ["clone", "--quiet", "--bare", "--no-hardlinks", checkout, repository]);
  const project = join(folder, "project");
  mkdirSync(project);
  const own = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  const dependencies = Object.fromEntries(PACKAGES.map((name) => [name, own.dependencies[name] ?? "*"]));
  writeFileSync(
    join(project, "package.json"),
    `${JSON.stringify({ name: "work", version: "1.0.0", private: true, dependencies }, null, 2)}\n`,
  );
  const quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
  await run("npm", ["install", ...quiet, "--cache", join(folder, "cache")], { cwd: project });
  // The cache goes by addresses: the sandbox must name the same registry, though it never reaches it.
  const { stdout: registry } = await run("npm", ["config", "get", "registry", "--loglevel=error"], {
    cwd: project,
  });
  const offline = ["--offline", "--no-update-notifier", "--cache /home/agent/cache"];
  const npm = ["npm ci", ...quiet, ...offline, `--registry '${registry.trim()}'`].join(" ");
  await run("npm", ["ci", ...quiet, "--cache", join(folder, "cache")], { cwd: project });
  giveAway(folder);
  return [
    {
      name: "git clone of a local repository",
      command: "rm -rf /home/agent/clone && git clone --quiet /home/agent/repository.git /home/agent/clone",
      rounds: 20,
    },
    { name: "npm ci from a warm cache", command: `cd /home/agent/project && ${npm}`, rounds: 8 },
    {
      name: "tsc",
      command: "cd /opt/checkout && node node_modules/typescript/bin/tsc -p tsconfig.json --noEmit",
      rounds: 40,
    },
  ];
}

function giveAway(path: string): void {
  chownSync(path, AGENT, AGENT);
  for (const entry of readdirSync(path, { recursive: true, withFileTypes: true }))
    if (!entry.isSymbolicLink()) chownSync(join(entry.parentPath, entry.name), AGENT, AGENT);
}

/** Wall time of one piece of work, with the gate and without it. */
export async function workFigure(setting: Setting, baseline: Baseline, work: Work): Promise<Figure> {
  const command = [setting.program, "spawn", "1", "/bin/sh", "-c", work.command];
  const { bare, ours } = await pairs(setting, baseline, command, work.rounds);
  const milliseconds = (values: readonly number[]) => values.map((value) => value / 1000);
  const without = "runc with the same bundle, no gate";
  return figure(work.name, "ms", without, milliseconds(bare), milliseconds(ours));
}
