// Changes of the policy while a sandbox runs: at no moment is there less of it than one of the two says.

import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Stage } from "../setup.js";
import { type Box, inBox, makeBox, type Parts, textOf, until, writePolicy } from "./box.js";
import type { Solo } from "./way.js";

const LAYER = "reload: a sandbox changes in one step";
const PROGRAM = "/opt/escape/denied/by-path";
/** A reload, compiled by a process of its own, takes a good part of a second. */
const RELOAD_MS = 6000;

/** Tries the program again and again, for as long as the box lives. */
const AGAIN = `while [ -e go ]; do echo x >> beat; MARK=$PWD/mark TOKEN=EFFECT ${PROGRAM} 2>/dev/null; done`;

const USR = '{ id: usr, executable: "/usr/**", action: allow }';
/** Denied since nothing permits it. */
const BEFORE: Parts = { exec: [USR] };
/** Denied by a rule, before one that permits all of its folder. */
const AFTER: Parts = {
  exec: [
    `{ id: other, executable: ${PROGRAM}, action: deny }`,
    '{ id: escape, executable: "/opt/escape/**", action: allow }',
    USR,
  ],
};
const PERMITTED: Parts = { exec: ['{ id: escape, executable: "/opt/escape/**", action: allow }', USR] };
const EMPTY: Parts = { exec: [] };

const mark = ({ work }: Box) => join(work, "mark");

async function start(stage: Stage, box: Box, script: string): Promise<void> {
  writeFileSync(join(box.work, "go"), "");
  const result = await inBox(stage, box, script, ["--detach"]);
  if (!(await until(() => textOf(join(box.work, "beat")).length > 3, 10_000)))
    throw new Error(`${box.name}: nothing ran. ${result.stderr}`);
}

async function reload(stage: Stage, box: Box, parts: Parts): Promise<void> {
  writePolicy(stage, box, parts);
  await stage.clawsec.must("reload", box.name);
}

/** @throws when what tries has ended, so that nothing was tried */
async function beats({ work, name }: Box): Promise<void> {
  const before = textOf(join(work, "beat")).length;
  if (!(await until(() => textOf(join(work, "beat")).length > before + 3, 5000)))
    throw new Error(`${name}: what was to try has ended.`);
}

/** Reloads between two policies that both deny it. `between`, if there is one, comes after each of them. */
async function reloads(stage: Stage, folder: string, between?: Parts): Promise<boolean> {
  const box = makeBox(stage, folder, BEFORE);
  try {
    await start(stage, box, AGAIN);
    for (const end = performance.now() + RELOAD_MS; performance.now() < end; ) {
      for (const parts of [AFTER, between, BEFORE, between])
        if (parts !== undefined) await reload(stage, box, parts);
    }
    await beats(box);
    return textOf(mark(box)).includes("EFFECT");
  } finally {
    await stage.clawsec.cli("kill", box.name);
  }
}

const atomic: Solo = {
  id: "reload-between",
  tries: "a program that both policies deny, all the time while one takes the other's place",
  layer: LAYER,
  who: "main",
  control: (stage, folder) => reloads(stage, folder, PERMITTED),
  sandbox: (stage, folder) => reloads(stage, folder),
};

/** Whether the program still runs after the reload, or without one. */
async function stale(stage: Stage, folder: string, empty: Parts | undefined): Promise<boolean> {
  const box = makeBox(stage, folder, PERMITTED);
  try {
    await start(stage, box, AGAIN);
    if (!(await until(() => textOf(mark(box)).includes("EFFECT"), 5000)))
      throw new Error(`${box.name}: it did not run while it was permitted.`);
    if (empty !== undefined) await reload(stage, box, empty);
    // One that was let go before may still have to write.
    await sleep(300);
    rmSync(mark(box), { force: true });
    await beats(box);
    return textOf(mark(box)).includes("EFFECT");
  } finally {
    await stage.clawsec.cli("kill", box.name);
  }
}

const emptied: Solo = {
  id: "reload-empty",
  tries: "a program whose rule is gone, with all others, after a reload",
  layer: LAYER,
  who: "main",
  control: (stage, folder) => stale(stage, folder, undefined),
  sandbox: (stage, folder) => stale(stage, folder, EMPTY),
};

/** Says the word in the file "word" to a host, again and again. */
const TELL = String.raw`while [ -e go ]; do
  echo x >> beat
  (exec 3<>/dev/tcp/allowed.test/80 &&
    printf 'GET /%s HTTP/1.1\r\nHost: allowed.test\r\n\r\n' "$(<word)" >&3 && read -t 1 <&3) 2>> errors
  /usr/bin/sleep 0.05
done`;

async function connects(stage: Stage, folder: string, isEmptied: boolean): Promise<boolean> {
  const resolvesTo = JSON.stringify([stage.hosts.range]);
  const rule = `{ id: host, host: allowed.test, port: 80, action: allow, resolvesTo: ${resolvesTo} }`;
  const box = makeBox(stage, folder, { network: [rule] });
  const word = (which: string) => {
    const text = `reload-${box.name}-${which}`;
    writeFileSync(join(box.work, "word"), text);
    return text;
  };
  try {
    const first = word("before");
    await start(stage, box, TELL);
    if (!(await until(() => stage.listeners.sent(first), 8000)))
      throw new Error(`${box.name}: nothing was sent while it was permitted.`);
    if (isEmptied) await reload(stage, box, { network: [] });
    await sleep(300);
    const second = word("after");
    await beats(box);
    await sleep(1000);
    return stage.listeners.sent(second);
  } finally {
    await stage.clawsec.cli("kill", box.name);
  }
}

const disconnected: Solo = {
  id: "reload-empty-network",
  tries: "a host whose rule is gone, with all others, after a reload",
  layer: LAYER,
  who: "main",
  control: (stage, folder) => connects(stage, folder, false),
  sandbox: (stage, folder) => connects(stage, folder, true),
};

export const reloadSolo: readonly Solo[] = [atomic, emptied, disconnected];
