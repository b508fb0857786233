// A held exec must not make its parent deaf: Node's spawn() waits for execve, so holding that would freeze a gateway.

import { realpathSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Fixture } from "./fixture.js";

const fixture = new Fixture();
beforeAll(() => fixture.start(), 120_000);
afterAll(() => fixture.stop(), 60_000);

/** Ticks every 5 ms; prints the longest gap between ticks while a program is started and runs, and its output. */
const program = (command: string) => `
  import("node:child_process").then(({ spawn }) => {
    let last = performance.now(), gap = 0, out = "";
    const timer = setInterval(() => { const now = performance.now(); gap = Math.max(gap, now - last); last = now; }, 5);
    setTimeout(() => {
      gap = 0; last = performance.now();
      const since = performance.now();
      const child = spawn(${JSON.stringify(command)}, ["42"]);
      const spawned = performance.now() - since;
      child.stdout.on("data", (chunk) => { out += chunk; });
      child.on("exit", (code) => {
        clearInterval(timer);
        console.log(JSON.stringify({ gap, spawned, out, code, took: performance.now() - since }));
      });
    }, 300);
  });`;

interface Seen {
  gap: number;
  spawned: number;
  out: string;
  took: number;
}

const HELD_MS = 2000;

test("held exec does not stall the parent's event loop", async () => {
  const node = (command: string) => `${realpathSync(process.execPath)} -e '${program(command)}'`;
  const free = JSON.parse((await fixture.run(node("/usr/bin/seq"))).stdout) as Seen;
  const result = await fixture.run(node("/usr/bin/factor"), async (hold) => {
    await new Promise((resolve) => setTimeout(resolve, HELD_MS));
    await fixture.approve(hold);
  });
  const held = JSON.parse(result.stdout) as Seen;
  console.log(
    `held ${HELD_MS} ms: longest gap of the event loop ${held.gap.toFixed(1)} ms, spawn() ${held.spawned.toFixed(1)} ms; ` +
      `without a hold: ${free.gap.toFixed(1)} ms and ${free.spawned.toFixed(1)} ms`,
  );
  expect(held.out).toBe("42: 2 3 7\n");
  expect(held.took).toBeGreaterThanOrEqual(HELD_MS);
  // Not a time limit but a ratio to the hold: a parent that waits for it has a gap as long as the hold itself.
  expect(held.gap).toBeLessThan(held.took / 2);
  expect(held.spawned).toBeLessThan(held.took / 2);
});
