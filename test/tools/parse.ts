import type { Outcome } from "./exec.ts";
import { add, type Counts, type StepResult } from "./steps.ts";

/** Characters of a failed test's message that a note has at most. */
const MAX_MESSAGE = 1000;

/**
 * Counts the tests of a `cargo test --no-fail-fast` run.
 *
 * Each test program announces itself on stderr ("Running unittests src/lib.rs (...)") and ends with a
 * "test result:" line on stdout. A program without that line crashed: one failure, whatever it had counted.
 */
export function countCargo(outcome: Outcome): StepResult {
  let counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const notes: string[] = [];
  const results = outcome.stdout.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm);
  let finished = 0;
  for (const [, ok, bad, ignored] of results) {
    finished += 1;
    counts = add(counts, { passed: Number(ok), failed: Number(bad), skipped: Number(ignored) });
  }
  for (const [, name = ""] of outcome.stdout.matchAll(/^test (.+) \.\.\. FAILED$/gm))
    notes.push(`failed: ${name}${why(panics(outcome.stdout, name))}`);
  const started = [...outcome.stderr.matchAll(/^\s+(?:Running|Doc-tests) .*$/gm)].length;
  if (started > finished) {
    const crashed = started - finished;
    counts = add(counts, { passed: 0, failed: crashed, skipped: 0 });
    notes.push(`${crashed} test program(s) ended without a result: crashed or were killed`);
  }
  return withEnding({ counts, notes }, outcome);
}

/** What a test wrote before it failed: cargo shows it under the test's name, once all tests of a program ran. */
function panics(stdout: string, name: string): string[] {
  const [, after = ""] = stdout.split(`\n---- ${name} stdout ----\n`);
  return [after.split(/\n---- .* stdout ----\n|\nfailures:\n/, 1)[0]?.trim() ?? ""];
}

interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: {
    name: string;
    status: string;
    message?: string;
    assertionResults: { fullName: string; status: string; failureMessages?: string[] }[];
  }[];
}

/** Counts the tests of vitest's JSON report; `report` is undefined when vitest wrote none. */
export function countVitest(report: string | undefined, outcome: Outcome): StepResult {
  if (report === undefined)
    return withEnding({ counts: { passed: 0, failed: 0, skipped: 0 }, notes: [] }, outcome);
  const parsed = JSON.parse(report) as VitestReport;
  const notes: string[] = [];
  let counts: Counts = {
    passed: parsed.numPassedTests,
    failed: parsed.numFailedTests,
    skipped: parsed.numPendingTests + parsed.numTodoTests,
  };
  for (const file of parsed.testResults) {
    const bad = file.assertionResults.filter((test) => test.status === "failed");
    notes.push(...skips(file));
    for (const test of bad) notes.push(`failed: ${test.fullName} (${file.name})${why(test.failureMessages)}`);
    // A file that could not be loaded, or whose hooks failed, has no failed test of its own.
    if (file.status === "failed" && bad.length === 0) {
      counts = add(counts, { passed: 0, failed: 1, skipped: 0 });
      notes.push(`failed: ${file.name} as a whole: ${file.message?.split("\n", 1)[0] ?? "no message"}`);
    }
  }
  return withEnding({ counts, notes }, outcome);
}

/** What a test said when it failed, of a length that can be read. */
function why(messages: readonly string[] = []): string {
  const text = messages.join("\n");
  const cut = text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text;
  return cut === "" ? "" : `: ${cut}`;
}

/** Why tests of a file were skipped, once for each reason: a group's name can say so, "[skipped: REASON]". */
function skips({ name, assertionResults }: VitestReport["testResults"][number]): string[] {
  const counts = new Map<string, number>();
  for (const { status, fullName } of assertionResults) {
    if (status !== "skipped" && status !== "pending" && status !== "todo") continue;
    const why = /\[skipped: (.+?)\]/s.exec(fullName)?.[1] ?? "no reason given";
    counts.set(why, (counts.get(why) ?? 0) + 1);
  }
  return [...counts].map(([why, count]) => `skipped: ${count} test(s) of ${name}: ${why}`);
}

/** A run that ended badly is never counted as good, even when no single test failed. */
function withEnding(result: StepResult, outcome: Outcome): StepResult {
  if (outcome.code === 0 || result.counts.failed > 0) return result;
  return {
    counts: add(result.counts, { passed: 0, failed: 1, skipped: 0 }),
    notes: [...result.notes, `no test failed, but ${outcome.ending}`],
  };
}
