// The demo is a test too: the same program, unattended.

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { root } from "./fixture.js";

test("the demo's steps come out as they must, with the real OpenClaw", () => {
  const demo = spawnSync(process.execPath, [join(root, "dist/test/demo/main.js")], {
    env: { ...process.env, DEMO: "auto" },
    encoding: "utf8",
    timeout: 600_000,
  });
  const last = demo.stdout.trimEnd().split("\n").at(-1) ?? "";
  const counts = /^demo: (\d+) steps, (\d+) as expected$/.exec(last);
  expect(counts, `${demo.stdout.slice(-4000)}\n${demo.stderr.slice(-2000)}`).not.toBeNull();
  expect(Number(counts?.[1])).toBeGreaterThanOrEqual(10);
  expect(counts?.[2]).toBe(counts?.[1]);
  expect(demo.status).toBe(0);
}, 660_000);
