import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

test("a build knows the host's target also where rustup's folder is not in PATH", () => {
  const environment = { HOME: process.env.HOME, PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
  const text = execFileSync("make", ["-n", "build"], { cwd: root, env: environment, encoding: "utf8" });
  expect(text).toMatch(/--target [a-z0-9_]+-[a-z0-9-]+ /);
});

test("make alone lists the targets", () => {
  const text = execFileSync("make", ["-s"], { cwd: root, env: { PATH: "/usr/bin:/bin" }, encoding: "utf8" });
  for (const target of ["demo", "test", "deps", "escape"])
    expect(text).toMatch(new RegExp(`^  make ${target} +[A-Z]`, "m"));
});
