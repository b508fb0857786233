/** The ready policies are right, laid out as `policy fmt` does, and decide what their tests say. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { packageRoot } from "../common/paths.js";
import { PolicyFolder } from "../testing/policy-folder.js";

const folder = new PolicyFolder();
afterAll(folder.end);

const packs = join(packageRoot(), "policy/packs");
const pack = (name: string) => join(packs, `${name}.yaml`);

test("their test files pass, all of them", async () => {
  const { code, out } = await folder.cli("test", packs);
  expect(out).toMatch(/^\d\d passed, 0 failed$/m);
  expect(code).toBe(0);
});

test("they are laid out as policy fmt does", async () => {
  expect(await folder.cli("fmt", "--check", pack("default"), pack("openclaw"))).toMatchObject({ code: 0 });
});

test("they have no errors, and the default policy not even a warning", async () => {
  const plain = await folder.cli("check", pack("default"), "--strict", "--var", `workspace=${folder.folder}`);
  expect(plain).toMatchObject({ code: 0 });
  const values = ["openclaw", "home", "gatewayToken", "modelKey"].flatMap((name) => ["--var", `${name}=/x`]);
  expect(await folder.cli("check", pack("openclaw"), ...values)).toMatchObject({ code: 0 });
});

test("the policy of the README has no warning, and decides what it says", async () => {
  const readme = readFileSync(join(packageRoot(), "README.md"), "utf8");
  const file = join(folder.folder, "readme.yaml");
  writeFileSync(file, /^```yaml\n(.*?)^```$/ms.exec(readme)?.[1] ?? "");
  const values = ["--var", `workspace=${folder.folder}`];
  expect(await folder.cli("check", file, "--strict", ...values)).toMatchObject({ code: 0 });
  for (const [command, verdict] of [
    ["shred x", "deny by exec/no-shred"],
    ["git push", "hold by exec/git-push"],
    ["git -C . push origin main", "hold by exec/git-push"],
    ["git status", "allow by exec/programs"],
  ] as const) {
    const { out } = await folder.cli("why", file, ...values, "exec", "--", ...command.split(" "));
    expect(out, command).toContain(verdict);
  }
});
