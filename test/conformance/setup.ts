// Everything that a run needs on this host, and its end.

import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";
import { Clawsec } from "../support/clawsec.js";
import { firstLine, makeTestHosts } from "../support/hosts.js";
import { usable } from "./features.js";
import { Rig } from "./rig.js";
import type { Tools } from "./round.js";
import { makeWorld } from "./world.js";

export interface Setup {
  readonly tools: Tools;
  close(): Promise<void>;
}

/** Starts clawsec and the test hosts. Needs root, and what `make build` builds. */
export async function setUp(): Promise<Setup> {
  const without = (process.env.CLAWSEC_CONFORMANCE_WITHOUT ?? "").split(",");
  if (process.getuid?.() !== 0)
    throw new Error("The conformance run makes sandboxes and must be run as root.");
  const root = packageRoot();
  const runtime = `/run/clawsec-conformance-${process.pid}`;
  const folder = mkdtempSync("/var/tmp/clawsec-conformance-");
  chmodSync(folder, 0o755);
  const state = join(folder, "state");
  const files = join(folder, "files");
  for (const made of [state, files, runtime]) mkdirSync(made, { recursive: true });
  const clawsec = new Clawsec(root, runtime, state);
  const undo: (() => Promise<void> | void)[] = [
    () => rmSync(folder, { recursive: true, force: true }),
    () => rmSync(runtime, { recursive: true, force: true }),
  ];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const hosts = await makeTestHosts((process.pid + 125) % 250);
    undo.push(() => hosts.close());
    const server = hosts.spawn(process.execPath, [
      join(root, "dist/test/conformance/host-server.js"),
      ...Object.values(hosts.addresses),
    ]);
    await firstLine(server, 20_000);
    const world = makeWorld(files, join(root, "test/conformance/driver"), hosts);
    undo.push(() => clawsec.down());
    await clawsec.up();
    const rig = new Rig(clawsec);
    undo.push(() => rig.close());
    return { tools: { world, rig, features: usable(without) }, close };
  } catch (error) {
    await close();
    throw error;
  }
}
