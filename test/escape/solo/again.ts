// A sandbox that was killed, started again past clawsec from what there was of it, as a restart policy would.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { namesOf } from "../leaks.js";
import type { Stage } from "../setup.js";
import { inBox, makeBox, textOf, until } from "./box.js";
import type { Solo } from "./way.js";

interface Config {
  process: { args: string[] };
  root: { path: string };
  mounts: { destination: string; source?: string }[];
  linux: { namespaces: { type: string; path?: string }[]; cgroupsPath?: string };
}

const SCRIPT = "echo EFFECT > /work/ran; exec /usr/bin/sleep 20";

/**
 * Runs a box, keeps its bundle, kills it, and starts the bundle with runc. What clawsec had taken away at the kill
 * (network namespace, shim) is there again, so that it does not fail for want of those.
 * @param change what is different in the bundle
 */
async function again(stage: Stage, folder: string, change: (config: Config) => void): Promise<boolean> {
  const box = makeBox(stage, folder);
  const its = join(stage.clawsec.runtime, "sandboxes", box.name);
  const kept = join(folder, "kept");
  await inBox(stage, box, SCRIPT, ["--detach"]);
  const hasRun = () => textOf(join(box.work, "ran")).includes("EFFECT");
  if (!(await until(hasRun, 10_000))) throw new Error(`${box.name}: nothing ran.`);
  cpSync(its, kept, {
    recursive: true,
    verbatimSymlinks: true,
    filter: (path) => !path.endsWith(".sock"),
  });
  await stage.clawsec.must("kill", box.name);
  rmSync(join(box.work, "ran"));

  const bundle = join(kept, "bundle");
  const config = JSON.parse(
    readFileSync(join(bundle, "config.json"), "utf8").replaceAll(its, kept),
  ) as Config;
  for (const namespace of config.linux.namespaces) delete namespace.path;
  config.linux.cgroupsPath = `/${namesOf(process.pid).container}again`;
  change(config);
  // A mount of something that is gone would keep the container from starting at all.
  config.mounts = config.mounts.filter(({ source }) => !source?.startsWith("/") || existsSync(source));
  writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
  const state = join(folder, "runc");
  mkdirSync(state);
  const runc = spawn("runc", ["--root", state, "run", "--bundle", bundle, box.name], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  runc.stderr.on("data", (bytes: Buffer) => {
    said += bytes.toString();
  });
  const ended = once(runc, "close");
  const isBack = await until(() => hasRun() || runc.exitCode !== null, 6000).then(() => hasRun());
  const remove = spawn("runc", ["--root", state, "delete", "--force", box.name], { stdio: "ignore" });
  await once(remove, "close");
  runc.kill("SIGKILL");
  await ended;
  // What keeps it from starting must be the shim's word, and not that runc found something missing.
  if (!isBack && !said.includes("nothing was started")) throw new Error(`${box.name}: runc said: ${said}`);
  return isBack;
}

const bundle: Solo = {
  id: "start-again",
  tries: "a killed sandbox started again from its own bundle by runc, as a restart policy does",
  layer: "init shim: no start without the loader",
  who: "root, from outside",
  // The same container, with the program in the place of the shim.
  control: (stage, folder) =>
    again(stage, folder, (config) => {
      config.process.args = ["/usr/bin/bash", "-c", SCRIPT];
    }),
  sandbox: (stage, folder) => again(stage, folder, () => undefined),
};

export const againSolo: readonly Solo[] = [bundle];
