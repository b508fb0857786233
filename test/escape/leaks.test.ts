import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { leaks, leaksAfter, namesOf } from "./leaks.js";

// A number that no process has.
const RUN = (1 << 23) + process.pid;
const names = namesOf(RUN);
const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
  expect(leaks(RUN)).toEqual([]);
});

function folder(path: string): string {
  mkdirSync(path, { recursive: true });
  undo.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("its folders are found, and those of another run are not", () => {
  folder(names.runtime);
  const its = folder(`/var/tmp/${names.folder}x`);
  folder(`/var/tmp/${namesOf(RUN + 1).folder}x`);
  expect(leaks(RUN)).toEqual([`path ${names.runtime}`, `folder ${its}`]);
});

test("a cgroup of the loader or of a container is found", () => {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const top = mounts.find((text) => text.includes(" - cgroup2 "))?.split(" ")[4] ?? "";
  const made = [names.loader, `${names.container}plain`].map((name) => join(top, name));
  for (const path of made) {
    mkdirSync(path);
    undo.push(() => rmdirSync(path));
  }
  expect(leaks(RUN).sort()).toEqual(made.map((path) => `cgroup ${path}`).sort());
});

test("a mount below its folders is found", () => {
  const its = folder(`/var/tmp/${names.folder}x/mount`);
  undo.push(() => rmSync(join(its, ".."), { recursive: true }));
  execFileSync("mount", ["-t", "tmpfs", "none", its]);
  undo.push(() => execFileSync("umount", [its]));
  expect(leaks(RUN)).toContain(`mount ${its}`);
});

test("BPF pins and a container's state are found", () => {
  const bpf = join(folder(`/var/tmp/${names.folder}bpf`));
  execFileSync("mount", ["-t", "bpf", "none", bpf]);
  undo.push(() => execFileSync("umount", [bpf]));
  const pins = folder(join(bpf, names.loader));
  const container = folder(`/run/runc/${names.container}root`);
  expect(leaks(RUN)).toEqual(expect.arrayContaining([`BPF pins ${pins}`, `container ${container}`]));
});

test("a network namespace is found", () => {
  execFileSync("ip", ["netns", "add", names.namespace]);
  undo.push(() => execFileSync("ip", ["netns", "delete", names.namespace]));
  expect(leaks(RUN)).toContain(`path /run/netns/${names.namespace}`);
});

test("a process is found, and forgiven when it ends within the grace", async () => {
  // Not by a shell, which is there twice for a moment when it starts another program.
  const child = spawn("/bin/sleep", ["1"], { argv0: `${names.beat}1`, stdio: "ignore" });
  const ended = once(child, "exit");
  expect(leaks(RUN)).toEqual([`process ${child.pid}`]);
  expect(await leaksAfter(RUN)).toEqual([]);
  await ended;
});
