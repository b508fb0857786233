// A disk that is full: what cannot be recorded does not happen, what happened is kept, and it goes on when there is room.

import { execFileSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Fixture } from "./fixture.js";

const fixture = new Fixture();
beforeAll(async () => {
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=16m,mode=700", "clawsec-test", fixture.state]);
  await fixture.start();
}, 120_000);
afterAll(async () => {
  await fixture.clawsec.down();
  execFileSync("umount", ["--lazy", fixture.state]);
  await fixture.stop();
}, 60_000);

const status = async () => JSON.parse(await fixture.clawsec.must("status", "--json"));

async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  const end = performance.now() + 30_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`Not within 30 s: ${what}`);
    await sleep(50);
  }
}

/** Fills the disk of the state folder to its last byte; returns the file. */
function fill(): string {
  const path = join(fixture.state, "filler");
  const file = openSync(path, "w");
  for (let size = 1 << 20; size >= 1; ) {
    try {
      writeSync(file, Buffer.alloc(size));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
      size >>= 1;
    }
  }
  closeSync(file);
  return path;
}

test("a full disk stops what must be recorded, is named, and loses no event", async () => {
  const name = fixture.name();
  const script =
    "i=0; while ! [ -e stop ]; do /usr/bin/true counted || echo refused >> refused; i=$((i+1)); echo $i > count; done; : > over";
  const { clawsec } = fixture;
  await clawsec.must(...fixture.arguments(name, ["/usr/bin/sh", "-c", script], ["--detach"]));
  const ours = (await status()).pid;
  const exec = (mark: string) => clawsec.cli("exec", name, "--", "/usr/bin/sh", "-c", `: > ${mark}`);
  expect((await exec("before")).code).toBe(0);

  const filler = fill();
  await until("the reason is named", async () => {
    return /the audit could not be written: database or disk is full/.test((await status()).loader);
  });
  const refused = await exec("meanwhile");
  expect(refused.code).not.toBe(0);
  expect(existsSync(join(fixture.workspace, "meanwhile"))).toBe(false);
  // Programs that the loader's own table allows go on; their events wait.
  const before = Number(fixture.left("count"));
  await until("the sandbox goes on", () => Number(fixture.left("count")) > before);

  rmSync(filler);
  await until("a command is run again", async () => (await exec("after")).code === 0);
  writeFileSync(join(fixture.workspace, "stop"), "");
  await until("the sandbox has ended", () => existsSync(join(fixture.workspace, "over")));
  expect((await status()).pid).toBe(ours);
  const count = Number(readFileSync(join(fixture.workspace, "count"), "utf8"));
  const recorded = async () => {
    const found: string[] = [];
    for (let beforeId = 0; ; ) {
      const page = await clawsec.audit({
        sandbox: name,
        kinds: ["exec"],
        text: "true counted]",
        limit: 10_000,
        beforeId,
      });
      found.push(...page.map(({ execId }) => execId));
      if (page.length < 10_000) return found;
      beforeId = page[0]?.id ?? 0;
    }
  };
  await until("all events are there", async () => (await recorded()).length >= count);
  const execs = await recorded();
  expect([execs.length, new Set(execs).size]).toEqual([count, count]);
  expect(await clawsec.audit({ sandbox: "", kinds: ["lost"] })).toEqual([]);
  expect((await status()).lostEvents).toEqual({});
}, 120_000);
