/** docs/cli.md names every command with every option. */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { pathsOf } from "../common/paths.js";
import { buildProgram } from "./program.js";

/** Said once for all commands: --json, and --var and --capabilities of the policy commands. */
const COMMON = ["--help", "--json", "--capabilities"];

const rows = readFileSync(new URL("../../docs/cli.md", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| `"));

function leaves(command: Command, names: readonly string[]): { name: string; options: string[] }[] {
  const options = command.options
    .map(({ short, long }) => ({ short, long: long ?? "" }))
    .filter(({ long }) => !COMMON.includes(long) && !(names[0] === "policy" && long === "--var"))
    .map(({ short, long }) => (short === undefined ? long : `${short}|${long}`));
  return command.commands.length === 0
    ? [{ name: names.join(" "), options }]
    : command.commands.flatMap((one) => leaves(one, [...names, one.name()]));
}

const io = {
  stdout: { write: () => undefined, isTTY: false },
  stderr: { write: () => undefined, isTTY: false },
  environment: {},
  paths: pathsOf({}),
  exit: 0,
};

test.each(leaves(await buildProgram(io), []))(
  "docs/cli.md has $name with all its options",
  ({ name, options }) => {
    const row = rows.find((line) => new RegExp(`^\\| \`${name}[ \`]`).test(line)) ?? "";
    expect(row).not.toBe("");
    expect(options.filter((option) => !option.split("|").some((form) => row.includes(form)))).toEqual([]);
  },
);

test("each command is there when it is called, also without the others", async () => {
  const names = (await buildProgram(io)).commands.map((command) => command.name());
  expect(names).toContain("kill");
  for (const name of names) {
    const alone = (await buildProgram(io, name)).commands.map((command) => command.name());
    expect(alone).toContain(name);
    expect(alone.length).toBeLessThan(names.length);
  }
  expect((await buildProgram(io, "kil")).commands).toHaveLength(names.length);
});
