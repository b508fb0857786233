// What a run must not leave behind: it looks for its own things only, since others may run at the same time.

import { existsSync, readdirSync, readFileSync } from "node:fs";

/** Folders, network devices and processes of this run that are still there; `paths` are its folders. */
export function leaks(paths: readonly string[], link: string): string[] {
  const folders = [...paths, `/sys/class/net/${link}`].filter((path) => existsSync(path));
  const processes = readdirSync("/proc").filter((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return false;
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, "latin1");
      return paths.some((path) => words.includes(path));
    } catch {
      return false; // It has ended.
    }
  });
  return [...folders, ...processes.map((pid) => `process ${pid}`)];
}
