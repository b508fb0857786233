import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { leakStep, left, snapshot } from "./leaks.ts";

// Other things may come and go on the host while this runs, so each test looks only for its own.
const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "clawsec-leaks-"));
  undo.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("a process of the loader that is left is found, and gone when it has ended", async () => {
  const program = join(folder(), "clawsec-loader");
  copyFileSync("/bin/sleep", program);
  const before = await snapshot();
  const child = spawn(program, ["60"]);
  undo.push(() => child.kill("SIGKILL"));
  await once(child, "spawn");
  const name = `process ${child.pid} ${program}`;
  expect(left(before, await snapshot())).toContain(name);
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(left(before, await snapshot())).not.toContain(name);
});

test("a mount that is left is found, and gone when it is unmounted", async () => {
  const path = folder();
  const before = await snapshot();
  execFileSync("mount", ["-t", "tmpfs", "none", path]);
  undo.push(() => execFileSync("sh", ["-c", `umount ${path} 2>/dev/null || true`]));
  expect(left(before, await snapshot())).toContain(`mount tmpfs ${path}`);
  execFileSync("umount", [path]);
  expect(left(before, await snapshot())).not.toContain(`mount tmpfs ${path}`);
});

test("a cgroup that is left fails the step and is named", async () => {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const top = mounts.find((text) => text.includes(" - cgroup2 "))?.split(" ")[4] ?? "";
  expect(top).not.toBe("");
  const path = join(top, `clawsec-leaktest-${process.pid}`);
  const before = await snapshot();
  mkdirSync(path);
  undo.push(() => rmdirSync(path));
  const result = await leakStep(before, 0).run();
  expect(result.counts.failed).toBe(1);
  expect(result.notes).toContain(`left behind: cgroup ${path}`);
});

test("what was there before the run is not blamed on it", async () => {
  const path = folder();
  execFileSync("mount", ["-t", "tmpfs", "none", path]);
  undo.push(() => execFileSync("umount", [path]));
  const before = await snapshot();
  expect(before).toContain(`mount tmpfs ${path}`);
  expect(left(before, await snapshot())).not.toContain(`mount tmpfs ${path}`);
});
