import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

test("a build knows the host's target also where rustup's folder is not in PATH", () => {
  const environment = { HOME: process.env.HOME, PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
  const text = execFileSync("make", ["-n", "build"], { cwd: root, env: environment, encoding: "utf8" });
  expect(text).toMatch(/--target [a-z0-9_]+-[a-z0-9-]+ /);
});
