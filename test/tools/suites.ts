import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./exec.ts";
import { countCargo, countVitest } from "./parse.ts";
import { failed, nothing, type Step } from "./steps.ts";

const minutes = 60_000;

/** `make build`. Counts only when it fails: the tests say whether what was built is good. */
export const buildStep: Step = {
  name: "build",
  async run() {
    const outcome = await run(["make", "build"], { live: true, timeoutMs: 40 * minutes });
    return outcome.code === 0 ? nothing : failed(outcome.ending);
  },
};

/** Unit tests of all crates: in the process, side by side. */
export const cargoUnit: Step = {
  name: "Rust unit tests",
  async run() {
    const command = ["cargo", "test", "--locked", "--workspace", "--no-fail-fast", "--lib", "--bins"];
    return countCargo(await run(command, { cwd: "bpf", live: true, timeoutMs: 40 * minutes }));
  },
};

interface Targets {
  packages: { targets: { kind: string[] }[] }[];
}

/**
 * Integration tests of all crates, against this host's kernel, one after the other: they count on being the
 * only ones that make cgroups, namespaces and BPF programs.
 */
export const cargoIntegration: Step = {
  name: "Rust integration tests (this kernel, as root)",
  async run() {
    // `--test '*'` is an error where there is no such target.
    const metadata = await run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], {
      cwd: "bpf",
    });
    if (metadata.code !== 0) return failed(metadata.stderr, metadata.ending);
    const { packages } = JSON.parse(metadata.stdout) as Targets;
    if (!packages.some(({ targets }) => targets.some(({ kind }) => kind.includes("test")))) return nothing;
    const command = [
      "cargo",
      "test",
      "--locked",
      "--workspace",
      "--no-fail-fast",
      "--test",
      "*",
      "--",
      "--test-threads=1",
    ];
    return countCargo(await run(command, { cwd: "bpf", live: true, timeoutMs: 40 * minutes }));
  },
};

/** The tests of one project of vitest.config.ts. */
export function vitest(name: string, project: string): Step {
  return {
    name,
    async run() {
      const work = join(root, "test/.work");
      mkdirSync(work, { recursive: true });
      const report = join(work, `vitest-${project}.json`);
      rmSync(report, { force: true });
      const command = [
        "vitest",
        "run",
        "--project",
        project,
        "--reporter=default",
        "--reporter=json",
        `--outputFile.json=${report}`,
      ];
      const outcome = await run(command, { live: true, timeoutMs: 40 * minutes });
      return countVitest(existsSync(report) ? readFileSync(report, "utf8") : undefined, outcome);
    },
  };
}
