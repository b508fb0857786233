import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { root, run } from "./exec.ts";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-borders-"));
  const config = readFileSync(join(root, "biome.json"), "utf8");
  writeFileSync(join(folder, "biome.json"), config.replace(/.*"\$schema".*\n/, ""));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Lints a file with this one import under the repository's configuration; the message, or "" when it may. */
async function verdict(path: string, module: string): Promise<string> {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `import { thing } from "${module}";\n\nexport const copy = thing;\n`);
  const biome = join(root, "node_modules/.bin/biome");
  const command = [biome, "lint", "--colors=off", "--only=style/noRestrictedImports", file];
  const outcome = await run(command, { cwd: folder });
  const output = outcome.stdout + outcome.stderr;
  expect(output).toContain("Checked 1 file");
  if (outcome.code === 0) return "";
  return /(policy\/ is pure[^\n]*|tui\/ talks to[^\n]*)/.exec(output)?.[1] ?? output;
}

test.each([
  ["policy/eval/match.ts", "../../agent/audit/store.js"],
  ["policy/eval/match.ts", "../../tui/main.js"],
  ["policy/language.ts", "../agent/main.js"],
  ["policy/eval/match.ts", "node:fs"],
  ["policy/eval/match.ts", "node:fs/promises"],
  ["policy/eval/match.ts", "node:child_process"],
  ["policy/eval/match.ts", "node:net"],
  ["policy/eval/match.ts", "better-sqlite3"],
])("%s may not import %s", async (path, module) => {
  expect(await verdict(path, module)).toMatch(/^policy\/ is pure/);
});

test.each([
  ["policy/eval/match.ts", "../language.js"],
  ["policy/eval/match.ts", "node:crypto"],
  ["policy/eval/match.ts", "yaml"],
  // Tests read policy files and golden files.
  ["policy/eval/match.test.ts", "node:fs"],
])("%s may import %s", async (path, module) => {
  expect(await verdict(path, module)).toBe("");
});

test.each([
  ["tui/store.ts", "../agent/approvals/store.js"],
  ["tui/components/holds.tsx", "../../policy/eval/match.js"],
  ["tui/store.ts", "node:fs"],
  ["tui/store.ts", "node:child_process"],
  ["tui/store.ts", "better-sqlite3"],
])("%s may not import %s", async (path, module) => {
  expect(await verdict(path, module)).toMatch(/^tui\/ talks to the Control API only/);
});

test.each([
  ["tui/client.ts", "../proto/gen/clawsec/v1/control.js"],
  ["tui/components/holds.tsx", "ink"],
  ["tui/components/holds.tsx", "../escape.js"],
  ["agent/cli/tui.ts", "../../tui/main.js"],
  ["agent/supervisor.ts", "../policy/eval/match.js"],
])("%s may import %s", async (path, module) => {
  expect(await verdict(path, module)).toBe("");
});
