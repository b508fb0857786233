import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { root } from "./exec.ts";

// What is built, installed or generated is nobody's source.
const ignored = new Set([".git", "node_modules", "dist", "target", "proto/gen", "test/.work", "golden"]);

/** All source files, as paths below the top of the repository. Needs no git: a release has none. */
export function sourceFiles(folder = ""): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (ignored.has(entry.name) || ignored.has(path)) return [];
    if (entry.isDirectory()) return sourceFiles(path);
    return entry.isFile() ? [path] : [];
  });
}

/** True for programs whose first line names a POSIX shell or bash, and for all *.sh. */
export function isShellScript(path: string): boolean {
  if (path.endsWith(".sh")) return true;
  if (/\.\w+$/.test(path) || (statSync(join(root, path)).mode & 0o111) === 0) return false;
  return /^#!\s*\S*\b(?:env\s+)?(?:ba|da)?sh\b/.test(readFileSync(join(root, path), "utf8"));
}

/** BPF and other C sources that people wrote; vmlinux.h is generated from the kernel's types. */
export function isCSource(path: string): boolean {
  return path.startsWith("bpf/") && /\.[ch]$/.test(path) && !/(^|\/)vmlinux[^/]*\.h$/.test(path);
}

/** Files of code longer than `limit` lines, longest first. */
export function longFiles(paths: readonly string[], limit: number): { path: string; lines: number }[] {
  return paths
    .filter((path) => /\.(?:tsx?|rs|c|h|sh|py)$/.test(path) && !/vmlinux[^/]*\.h$/.test(path))
    .map((path) => ({ path, lines: readFileSync(join(root, path), "utf8").split("\n").length - 1 }))
    .filter(({ lines }) => lines > limit)
    .sort((a, b) => b.lines - a.lines);
}
