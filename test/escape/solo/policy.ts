// Policies that ask for a way out: what they ask for must not be there, whether the start is refused or goes on without it.

import { chownSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AGENT } from "../place.js";
import { inBox, makeBox, onHost, type Parts, textOf } from "./box.js";
import type { Solo } from "./way.js";

const LAYER = "policy compiler: refused";

interface Asked {
  readonly id: string;
  readonly tries: string;
  parts(stage: { runtime: string; folder: string; listener: string }): Parts;
  /** Prints EFFECT when what was asked for is there. */
  readonly script: string;
  /** The same without a sandbox, or in one whose policy may say so. */
  readonly control: { readonly parts: Parts; readonly script: string } | { readonly host: string };
}

const ASKED: readonly Asked[] = [
  {
    id: "user-zero",
    tries: "a sandbox whose user is root",
    parts: () => ({ user: "{ uid: 0, gid: 1000, name: root }" }),
    script: '[ "$(id -u)" = 0 ] && echo EFFECT',
    control: {
      parts: { user: "{ uid: 1234, gid: 1000, name: other }" },
      script: '[ "$(id -u)" = 1234 ] && echo EFFECT',
    },
  },
  {
    id: "group-zero",
    tries: "a sandbox whose group is root's",
    parts: () => ({ user: "{ uid: 1000, gid: 0, name: agent }" }),
    script: '[ "$(id -g)" = 0 ] && echo EFFECT',
    control: {
      parts: { user: "{ uid: 1000, gid: 1234, name: agent }" },
      script: '[ "$(id -g)" = 1234 ] && echo EFFECT',
    },
  },
  {
    id: "mount-socket",
    tries: "a unix socket of the host as a mount",
    parts: ({ listener }) => ({ mount: `{ source: ${listener}, target: /host.sock }` }),
    script: "[ -S /host.sock ] && echo EFFECT",
    control: { host: "[ -S $LISTENER ] && echo EFFECT" },
  },
  {
    id: "mount-device",
    tries: "a device of the host as a mount",
    parts: () => ({ mount: "{ source: /dev/null, target: /opt/node }" }),
    script: "[ -c /opt/node ] && echo EFFECT",
    control: { host: "[ -c /dev/null ] && echo EFFECT" },
  },
  {
    id: "mount-proc",
    tries: "the host's /proc as a mount",
    parts: () => ({ mount: "{ source: /proc, target: /opt/proc }" }),
    script: `grep -q ${process.pid} /opt/proc/${process.pid}/stat && echo EFFECT`,
    control: { host: `grep -q ${process.pid} /proc/${process.pid}/stat && echo EFFECT` },
  },
  {
    id: "mount-own",
    tries: "clawsec's own folder as a mount",
    parts: ({ runtime }) => ({ mount: `{ source: ${runtime}, target: /opt/own }` }),
    script: "[ -S /opt/own/control.sock ] && echo EFFECT",
    control: { host: "[ -S $RUNTIME/control.sock ] && echo EFFECT" },
  },
  {
    id: "loader-variable",
    tries: "LD_PRELOAD in the sandbox's environment",
    parts: () => ({ environment: "{ LD_PRELOAD: /opt/escape/bin/preload.so, MARK: /work/mark, TOKEN: x }" }),
    script: "/usr/bin/true; [ -e /work/mark ] && echo EFFECT",
    control: {
      host: "LD_PRELOAD=$PROGRAMS/bin/preload.so MARK=$PWD/mark TOKEN=x /usr/bin/true; [ -e mark ] && echo EFFECT",
    },
  },
];

const asked: readonly Solo[] = ASKED.map(({ id, tries, parts, script, control }) => ({
  id: `policy-${id}`,
  tries,
  layer: LAYER,
  who: "the policy",
  async control(stage, folder) {
    const box = makeBox(stage, folder, "parts" in control ? control.parts : {});
    if ("parts" in control) return (await inBox(stage, box, control.script)).stdout.includes("EFFECT");
    const { listeners, clawsec, programs } = stage;
    const environment = { LISTENER: listeners.path, RUNTIME: clawsec.runtime, PROGRAMS: programs };
    return (await onHost(control.host, box.work, environment)).includes("EFFECT");
  },
  async sandbox(stage, folder) {
    const { listeners, clawsec } = stage;
    const box = makeBox(stage, folder, parts({ runtime: clawsec.runtime, folder, listener: listeners.path }));
    return (await inBox(stage, box, script)).stdout.includes("EFFECT");
  },
}));

/** A file that the agent owns. */
function writeVictim(path: string): void {
  writeFileSync(path, "");
  chownSync(path, AGENT, AGENT);
}

/** An agent that was there before has put a link in the place of what is to be guarded. */
const link: Solo = {
  id: "guard-symlink",
  tries: "a symbolic link, made before the start, in the place of a folder that is to be read-only",
  layer: LAYER,
  who: "main",
  async control(stage, folder) {
    const box = makeBox(stage, folder);
    mkdirSync(join(box.work, "guard"));
    writeVictim(join(box.work, "guard/victim"));
    await inBox(stage, box, "echo EFFECT > guard/victim");
    return textOf(join(box.work, "guard/victim")).includes("EFFECT");
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder, {
      file: "{ id: guard, path: /work/guard, operations: [write], action: deny }",
    });
    mkdirSync(join(box.work, "elsewhere"));
    writeVictim(join(box.work, "elsewhere/victim"));
    symlinkSync("elsewhere", join(box.work, "guard"));
    await inBox(stage, box, "echo EFFECT > guard/victim");
    return textOf(join(box.work, "elsewhere/victim")).includes("EFFECT");
  },
};

export const policySolo: readonly Solo[] = [...asked, link];
