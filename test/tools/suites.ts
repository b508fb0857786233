import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "./exec.ts";
import { countCargo, countVitest } from "./parse.ts";
import { failed, nothing, type Step, sum } from "./steps.ts";

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
  run: async () => countCargo(await cargoTest(["--lib", "--bins"])),
};

interface Targets {
  packages: { name: string; targets: { kind: string[]; name: string }[] }[];
}

/** The crate whose tests take longer than those of all others: it has one of the two processors. */
const LONGEST = "clawsec-exec-gate";
/** Its tests that run with the others', so that both lanes take about as long. */
const MOVED: readonly string[] = ["race_reach", "race_script"];

/**
 * Integration tests of all crates, against this host's kernel: most of the exec gate's beside all others. What
 * each makes (cgroups, namespaces, BPF programs) has names with its process's number. In a lane they run one after the
 * other, so that what a test waits for is not waited for by a dozen others at once.
 */
export const cargoIntegration: Step = {
  name: "Rust integration tests (this kernel, as root)",
  async run() {
    const metadata = await run(["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"], {
      cwd: "bpf",
    });
    if (metadata.code !== 0) return failed(metadata.stderr, metadata.ending);
    const both = lanes(JSON.parse(metadata.stdout) as Targets, LONGEST, MOVED);
    // Compiled once, for both: cargo runs tests without its lock, but compiles with it.
    const names = both.flat();
    if (names.length === 0) return nothing;
    const built = await cargoTest([...names.flatMap((name) => ["--test", name]), "--no-run"]);
    if (built.code !== 0) return failed(built.ending);
    const outcomes = await Promise.all(
      both
        .filter((lane) => lane.length > 0)
        .map((lane) => cargoTest([...lane.flatMap((name) => ["--test", name]), "--", "--test-threads=1"])),
    );
    return sum(outcomes.map(countCargo));
  },
};

/**
 * The names of all integration tests: those of one crate but the moved ones, and all others. A name that both have is
 * the others', where cargo runs it for all crates that have it.
 */
export function lanes({ packages }: Targets, crate: string, moved: readonly string[]): [string[], string[]] {
  const all = packages.flatMap(({ name: owner, targets }) =>
    targets.filter(({ kind }) => kind.includes("test")).map(({ name }) => ({ owner, name })),
  );
  const second = new Set(
    all.filter(({ owner, name }) => owner !== crate || moved.includes(name)).map(({ name }) => name),
  );
  return [all.map(({ name }) => name).filter((name) => !second.has(name)), [...second]];
}

// `--workspace` in each of them: with a choice of crates their features differ, and all would be compiled again.
function cargoTest(options: readonly string[]) {
  const command = ["cargo", "test", "--locked", "--workspace", "--no-fail-fast", ...options];
  return run(command, { cwd: "bpf", live: true, timeoutMs: 40 * minutes });
}

/** The tests of one project of vitest.config.ts. */
export function vitest(name: string, project: string, options: readonly string[] = []): Step {
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
        ...options,
      ];
      const outcome = await run(command, { live: true, timeoutMs: 40 * minutes });
      return countVitest(existsSync(report) ? readFileSync(report, "utf8") : undefined, outcome);
    },
  };
}
