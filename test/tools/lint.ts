// `make lint`, and the lint steps of `make test`.

import { noYamlInLoader } from "./crates.ts";
import { run } from "./exec.ts";
import { commandStep, line, nothing, runSteps, type Step, skipped } from "./steps.ts";
import { isCSource, isShellScript, longFiles, sourceFiles } from "./tree.ts";

/** Past this many lines a file is usually two ideas. A hint, not an error. */
const longFile = 500;

/** A command over the files that `choose` picks; counts nothing where there is none. */
function overFiles(name: string, command: readonly string[], choose: (path: string) => boolean): Step {
  return {
    name,
    async run() {
      const files = sourceFiles().filter(choose);
      return files.length === 0 ? nothing : commandStep(name, [...command, ...files]).run();
    },
  };
}

/** A cargo subcommand that is a component of its own; skipped where the toolchain came without it. */
function component(name: string, command: readonly string[]): Step {
  return {
    name,
    async run() {
      const subcommand = command[1] ?? "";
      const found = await run(["cargo", subcommand, "--version"], { cwd: "bpf" });
      if (found.code !== 0)
        return skipped(
          `cargo ${subcommand} is not installed; remedy: rustup component add ${subcommand === "fmt" ? "rustfmt" : subcommand}`,
        );
      return commandStep(name, command, "bpf").run();
    },
  };
}

const sizes: Step = {
  name: "lint: file sizes (a hint)",
  async run() {
    const notes = longFiles(sourceFiles(), longFile).map(
      ({ path, lines }) => `warning: ${path} has ${lines} lines; is it two ideas?`,
    );
    return { ...nothing, notes };
  },
};

export const lintSteps: readonly Step[] = [
  commandStep("lint: biome (format, rules, borders of policy/ and tui/)", [
    "biome",
    "ci",
    "--colors=off",
    "--max-diagnostics=30",
    "--diagnostic-level=warn",
    "--error-on-warnings",
    ".",
  ]),
  commandStep("lint: types", [
    "tsc",
    "-p",
    "tsconfig.json",
    "--noEmit",
    "--incremental",
    "false",
    "--pretty",
    "false",
  ]),
  component("lint: cargo fmt", ["cargo", "fmt", "--all", "--check"]),
  component("lint: cargo clippy", [
    "cargo",
    "clippy",
    "--quiet",
    "--workspace",
    "--all-targets",
    "--locked",
    "--",
    "-D",
    "warnings",
  ]),
  overFiles("lint: clang-format", ["clang-format", "--dry-run", "-Werror"], isCSource),
  overFiles("lint: shellcheck", ["shellcheck"], isShellScript),
  { ...noYamlInLoader, name: `lint: ${noYamlInLoader.name}` },
  sizes,
];

if (import.meta.main) {
  const counts = await runSteps(lintSteps);
  console.log(line(counts));
  process.exitCode = counts.failed > 0 ? 1 : 0;
}
