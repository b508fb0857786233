// A held program, changed by another process while a person looks at it: what runs must be what was shown.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { inBox, makeBox, onHost, textOf, until } from "./box.js";
import type { Solo } from "./way.js";

const HELD: readonly (readonly [how: string, tries: string, layer: string])[] = [
  ["mem", "/proc/PID/mem", "Landlock: nothing below /proc is written"],
  ["vm", "process_vm_writev", "seccomp filter"],
  ["trace", "ptrace", "seccomp filter"],
];

export const heldSolo: readonly Solo[] = HELD.map(([how, tries, layer]) => ({
  id: `held-${how}`,
  tries: `the memory of a held program, changed by ${tries} of another process before a person says yes`,
  layer,
  who: "main",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    const script = `$POKE stopped mark & $POKE ${how} $!; kill -CONT $!; wait`;
    await onHost(script, work, { POKE: join(stage.programs, "bin/poke") });
    return textOf(join(work, "mark")).includes("EVIL");
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder, {
      exec: [
        '{ id: held, executable: /opt/escape/bin/poke, argv: ["*", target, "**"], action: hold }',
        '{ id: rest, executable: ["/usr/**", "/opt/escape/bin/**"], action: allow }',
      ],
    });
    const poke = "/opt/escape/bin/poke";
    const script = `${poke} target mark & ${poke} ${how} $! > said 2>&1; : > tried; wait; /usr/bin/sleep 2`;
    const held = stage.clawsec.nextHold(box.name, 15_000);
    await inBox(stage, box, script, ["--detach"]);
    const { id } = await held;
    try {
      if (!(await until(() => existsSync(join(box.work, "tried")), 10_000)))
        throw new Error(`held-${how}: nothing was tried.`);
      await stage.clawsec.must("approve", id);
      const mark = () => textOf(join(box.work, "mark"));
      if (!(await until(() => mark() !== "", 5000)))
        throw new Error(`held-${how}: the held program did not run.`);
      return mark().includes("EVIL");
    } finally {
      await stage.clawsec.cli("kill", box.name);
    }
  },
}));
