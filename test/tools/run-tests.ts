// `make test` after its dependencies are there (see test.sh): every step, counted.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { killRunning, root } from "./exec.ts";
import { leakStep, snapshot } from "./leaks.ts";
import { lintSteps } from "./lint.ts";
import { line, runSteps } from "./steps.ts";
import { buildStep, cargoIntegration, cargoUnit, vitest } from "./suites.ts";

function end(summary: string, code: number): never {
  const work = join(root, "test/.work");
  mkdirSync(work, { recursive: true });
  // For callers whose output has more lines after this one, such as make's own on a failure.
  writeFileSync(join(work, "summary"), `${summary}\n`);
  process.stdout.write(`${summary}\n`);
  process.exit(code);
}

// Whatever goes wrong in here: the last line is the count, and it is not a good one.
process.on("uncaughtException", (error) => {
  killRunning();
  console.error(error);
  end("0 passed, 1 failed, 0 skipped", 1);
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    killRunning();
    console.error(`ended by ${signal}`);
    end("0 passed, 1 failed, 0 skipped", 1);
  });

const before = await snapshot();
const counts = await runSteps([
  buildStep,
  ...lintSteps,
  cargoUnit,
  cargoIntegration,
  // A machine that is emulated has one processor, and so do the tests beside it.
  [vitest("TypeScript unit tests", "unit", ["--maxWorkers=1"]), vitest("tests in virtual machines", "vm")],
  vitest("end-to-end tests", "e2e"),
  leakStep(before),
]);
end(line(counts), counts.failed > 0 ? 1 : 0);
