// Processes that want to live on: after `clawsec kill`, and after the main command has ended.

import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { namesOf } from "../leaks.js";
import type { Stage } from "../setup.js";
import { asAgent, inBox, makeBox, textOf, until } from "./box.js";
import type { Solo } from "./way.js";

/** Writes a line to ./beat ten times a second, for at most 30 s; its argument is the word by which it is found. */
const BEAT = "i=0; while [ $i -lt 300 ]; do echo x >> beat; /usr/bin/sleep 0.1; i=$((i+1)); done\n";

let words = 0;

/** `B` is the command that beats. */
const KILLED: readonly (readonly [id: string, tries: string, start: string])[] = [
  ["session", "a session of its own", "setsid B &"],
  ["orphan", "an orphan of an orphan", "(setsid bash -c '(B &) &' &)"],
  ["signals", "signals that are ignored", "trap '' TERM INT HUP QUIT; setsid B &"],
  [
    "many",
    "twenty at once",
    "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do setsid B & done",
  ],
];

const script = (start: string, its: string, rest: string) =>
  `${start.replace("B", `bash beat.sh ${its}`)}\n${rest}`;

async function beats(file: string): Promise<boolean> {
  const before = textOf(file).length;
  await sleep(700);
  return textOf(file).length > before;
}

/** Pids of the processes of this host with the word in their arguments. */
function found(word: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return pid !== process.pid && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(word);
      } catch {
        return false;
      }
    });
}

/** On the host: the main process is killed, and what it started lives. */
async function lives(text: string, work: string, word: string): Promise<boolean> {
  const child = asAgent(text, work);
  const ended = once(child, "exit");
  await until(() => textOf(join(work, "beat")) !== "", 5000);
  child.kill("SIGKILL");
  await ended;
  const isAlive = (await beats(join(work, "beat"))) && found(word).length > 0;
  for (let round = 0; round < 20 && found(word).length > 0; round++) {
    for (const pid of found(word)) tryKill(pid);
    await sleep(20);
  }
  return isAlive;
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

const word = () => {
  words += 1;
  return `${namesOf(process.pid).beat}${words}`;
};

const survivors: readonly Solo[] = KILLED.map(([id, tries, start]) => ({
  id: `survive-${id}`,
  tries: `living on after clawsec kill: ${tries}`,
  layer: "kill: cgroups and the pid namespace",
  who: "main",
  async control(stage: Stage, folder: string) {
    const its = word();
    const { work } = makeBox(stage, folder);
    writeFileSync(join(work, "beat.sh"), BEAT);
    return lives(script(start, its, "sleep 20"), work, its);
  },
  async sandbox(stage: Stage, folder: string) {
    const its = word();
    const box = makeBox(stage, folder);
    writeFileSync(join(box.work, "beat.sh"), BEAT);
    await inBox(stage, box, script(start, its, "sleep 20"), ["--detach"]);
    if (!(await until(() => textOf(join(box.work, "beat")) !== "", 10_000)))
      throw new Error(`survive-${id}: nothing ran in the sandbox.`);
    await stage.clawsec.cli("kill", box.name);
    return (await beats(join(box.work, "beat"))) || found(its).length > 0;
  },
}));

const afterEnd: Solo = {
  id: "survive-main",
  tries: "living on after the main command has ended",
  layer: "kill: cgroups and the pid namespace",
  who: "main",
  async control(stage, folder) {
    const its = word();
    const { work } = makeBox(stage, folder);
    writeFileSync(join(work, "beat.sh"), BEAT);
    return lives(script("setsid B &", its, "sleep 1"), work, its);
  },
  async sandbox(stage, folder) {
    const its = word();
    const box = makeBox(stage, folder);
    writeFileSync(join(box.work, "beat.sh"), BEAT);
    await inBox(stage, box, script("setsid B &", its, "sleep 1"));
    if (textOf(join(box.work, "beat")) === "") throw new Error("survive-main: nothing ran in the sandbox.");
    return (await beats(join(box.work, "beat"))) || found(its).length > 0;
  },
};

export const surviveSolo: readonly Solo[] = [...survivors, afterEnd];
