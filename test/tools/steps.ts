import { run } from "./exec.ts";

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

export interface StepResult {
  counts: Counts;
  /** What failed or was skipped, one sentence each. */
  notes: string[];
}

/** One stage of a run: something that is done, and counted. */
export interface Step {
  name: string;
  run(): Promise<StepResult>;
}

export const passed: StepResult = { counts: { passed: 1, failed: 0, skipped: 0 }, notes: [] };
export const nothing: StepResult = { counts: { passed: 0, failed: 0, skipped: 0 }, notes: [] };

export function failed(...notes: string[]): StepResult {
  return { counts: { passed: 0, failed: 1, skipped: 0 }, notes };
}

export function skipped(...notes: string[]): StepResult {
  return { counts: { passed: 0, failed: 0, skipped: 1 }, notes };
}

export function add(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/** What several parts of a step came to, together. */
export function sum(results: readonly StepResult[]): StepResult {
  return {
    counts: results.reduce((total, { counts }) => add(total, counts), nothing.counts),
    notes: results.flatMap(({ notes }) => notes),
  };
}

/** The line that ends a run: "3 passed, 0 failed, 1 skipped". */
export function line(counts: Counts): string {
  return `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}

/** So many lines of each note are said again at the end of a run. */
const MAX_LINES = 20;

/** A step that is one command: passed when it exits with 0; its output is shown when it does not. */
export function commandStep(name: string, command: readonly string[], cwd = ""): Step {
  return {
    name,
    async run() {
      const outcome = await run(command, { cwd });
      if (outcome.code === 0) return passed;
      return failed(`${outcome.stdout}${outcome.stderr}`.trimEnd(), outcome.ending);
    },
  };
}

/**
 * Runs the steps one after the other, those of an inner list side by side, and adds up what they count. A step that
 * throws counts as one failure under its name, and the next one still runs. What failed is said once more at the end,
 * where a log that is cut to its last lines still has it.
 */
export async function runSteps(
  steps: readonly (Step | readonly Step[])[],
  print: (text: string) => void = console.log,
): Promise<Counts> {
  let total: Counts = nothing.counts;
  const failures: string[] = [];
  for (const group of steps.map((step) => [step].flat())) {
    const results = await Promise.all(group.map((step) => runStep(step, print)));
    for (const [index, { counts, notes }] of results.entries()) {
      total = add(total, counts);
      if (counts.failed > 0) failures.push(`failed step: ${group[index]?.name ?? ""}`, ...notes.map(ending));
    }
  }
  for (const failure of failures) print(failure);
  return total;
}

/** The last lines of what a step said. */
function ending(note: string): string {
  const lines = note.split("\n");
  return lines.length <= MAX_LINES ? note : ["…", ...lines.slice(-MAX_LINES)].join("\n");
}

async function runStep(step: Step, print: (text: string) => void): Promise<StepResult> {
  print(`==> ${step.name}`);
  const started = performance.now();
  let result: StepResult;
  try {
    result = await step.run();
  } catch (error) {
    result = failed(`crashed: ${error instanceof Error ? error.message : String(error)}`);
  }
  for (const note of result.notes) print(note);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  print(`<== ${step.name}: ${line(result.counts)} in ${seconds} s`);
  return result;
}
