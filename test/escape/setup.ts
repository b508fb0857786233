// Everything that a run needs on this host, and its end.

import {
  chmodSync,
  copyFileSync,
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";
import { Clawsec } from "../support/clawsec.js";
import { makeTestHosts, type TestHosts } from "../support/hosts.js";
import { endRest } from "./end.js";
import { namesOf } from "./leaks.js";
import { type Listeners, listen } from "./listeners.js";
import { compile } from "./programs.js";

export interface Stage {
  readonly root: string;
  readonly folder: string;
  readonly programs: string;
  /** SHA-256 of denied/by-hash. */
  readonly hash: string;
  /** In the place of OpenClaw's installation. */
  readonly openclaw: string;
  readonly clawsec: Clawsec;
  readonly hosts: TestHosts;
  readonly listeners: Listeners;
  /** In the environment of whoever starts the sandboxes. */
  readonly hostWords: string;
  close(): Promise<void>;
}

/**
 * Starts clawsec, the test hosts and the listeners. Needs root, a C compiler, and what `make build` builds.
 * @param closable is given what ends it, as soon as there is something to end
 */
export async function setUp(
  closable: (close: () => Promise<void>) => void = () => undefined,
): Promise<Stage> {
  if (process.getuid?.() !== 0) throw new Error("The escape run makes sandboxes and must be run as root.");
  const root = packageRoot();
  const { runtime, slot, folder: begin } = namesOf(process.pid);
  const folder = mkdtempSync(`/var/tmp/${begin}`);
  chmodSync(folder, 0o755);
  const state = join(folder, "state");
  const programs = join(folder, "programs");
  for (const made of [state, programs, runtime]) mkdirSync(made, { recursive: true });
  const hostWords = `host-${process.pid}-${Date.now().toString(36)}`;
  process.env.CLAWSEC_ESCAPE_WORDS = hostWords;
  const clawsec = new Clawsec(root, runtime, state);
  const undo: (() => Promise<void> | void)[] = [
    () => {
      if (process.env.CLAWSEC_ESCAPE_KEEP === undefined) rmSync(folder, { recursive: true, force: true });
      else console.error(`Left for you to look at: ${folder}`);
    },
    () => rmSync(runtime, { recursive: true, force: true }),
    // Before the folders: they are used by what is left.
    endRest,
  ];
  const close = async () => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  closable(close);
  try {
    const hash = compile(join(root, "test/escape/programs"), programs);
    linkNode(join(programs, "bin/node"));
    const openclaw = makeOpenClaw(join(folder, "openclaw"), join(root, "test/escape/agent"));
    const hosts = await makeTestHosts(slot);
    undo.push(() => hosts.close());
    const listeners = await listen(hosts, slot, root, join(programs, "bin/capture"), folder);
    undo.push(() => listeners.close());
    undo.push(() => clawsec.down());
    await clawsec.up();
    return { root, folder, programs, hash, openclaw, clawsec, hosts, listeners, hostWords, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function linkNode(to: string): void {
  try {
    linkSync(process.execPath, to);
  } catch {
    copyFileSync(process.execPath, to);
  }
  chmodSync(to, 0o755);
}

/** A folder that looks to the pack as OpenClaw's: Node and the gateway's program where they belong. */
function makeOpenClaw(folder: string, agent: string): string {
  const modules = join(folder, "node_modules");
  const node = join(modules, "node/bin/node");
  const broker = join(modules, "openclaw/dist/process/spawn-broker");
  for (const made of [join(node, ".."), broker]) mkdirSync(made, { recursive: true });
  linkNode(node);
  writeFileSync(join(modules, "openclaw/package.json"), '{ "name": "openclaw", "type": "module" }\n');
  for (const name of ["openclaw.mjs", "tries.mjs"])
    cpSync(join(agent, name), join(modules, "openclaw", name));
  cpSync(join(agent, "worker.js"), join(broker, "worker.js"));
  return folder;
}
