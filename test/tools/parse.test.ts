import { expect, test } from "vitest";
import type { Outcome } from "./exec.ts";
import { countCargo, countVitest } from "./parse.ts";

function outcome(part: Partial<Outcome>): Outcome {
  return { code: 0, stdout: "", stderr: "", ending: "cargo ended with code 0", ...part };
}

const good =
  "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
const bad =
  "test a::b ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
const running = "     Running unittests src/lib.rs (target/debug/deps/x-0123)\n";

test("the results of all cargo test programs add up, ignored tests as skipped", () => {
  const result = countCargo(outcome({ stdout: good + good, stderr: running + running }));
  expect(result.counts).toEqual({ passed: 6, failed: 0, skipped: 2 });
});

test("a failed cargo test counts once and is named", () => {
  const result = countCargo(outcome({ code: 101, stdout: good + bad, stderr: running + running }));
  expect(result.counts).toEqual({ passed: 4, failed: 1, skipped: 1 });
  expect(result.notes).toEqual(["failed: a::b"]);
});

test("a failed cargo test is noted with what it wrote", () => {
  const text = `${bad}failures:\n\n---- a::b stdout ----\n\nthread 'a::b' panicked at src/lib.rs:3:5:\nno luck\n\n\nfailures:\n    a::b\n`;
  expect(countCargo(outcome({ code: 101, stdout: text, stderr: running })).notes).toEqual([
    "failed: a::b: thread 'a::b' panicked at src/lib.rs:3:5:\nno luck",
  ]);
});

test("a cargo test program that dies without a result counts as a failure", () => {
  const result = countCargo(outcome({ code: 101, stdout: good, stderr: running + running }));
  expect(result.counts).toEqual({ passed: 3, failed: 1, skipped: 1 });
});

test("a cargo run that does not compile counts as a failure although no test failed", () => {
  const result = countCargo(
    outcome({ code: 101, stderr: "error[E0425]", ending: "cargo ended with code 101" }),
  );
  expect(result.counts).toEqual({ passed: 0, failed: 1, skipped: 0 });
  expect(result.notes).toEqual(["no test failed, but cargo ended with code 101"]);
});

function report(part: object): string {
  return JSON.stringify({
    numPassedTests: 2,
    numFailedTests: 0,
    numPendingTests: 1,
    numTodoTests: 1,
    testResults: [],
    ...part,
  });
}

test("vitest's pending and todo tests count as skipped", () => {
  expect(countVitest(report({}), outcome({})).counts).toEqual({ passed: 2, failed: 0, skipped: 2 });
});

test("skipped tests are noted with the reason in their group's name, once for each", () => {
  const assertionResults = [
    { fullName: "the machine [skipped: it needs root] boots", status: "skipped" },
    { fullName: "the machine [skipped: it needs root] ends", status: "skipped" },
    { fullName: "later", status: "todo" },
    { fullName: "now", status: "passed" },
  ];
  const testResults = [{ name: "a.test.ts", status: "passed", assertionResults }];
  expect(countVitest(report({ testResults }), outcome({})).notes).toEqual([
    "skipped: 2 test(s) of a.test.ts: it needs root",
    "skipped: 1 test(s) of a.test.ts: no reason given",
  ]);
});

test("a test file that vitest cannot load counts as a failure", () => {
  const testResults = [
    { name: "a.test.ts", status: "failed", message: "no such module\nat x", assertionResults: [] },
  ];
  const result = countVitest(report({ testResults }), outcome({ code: 1 }));
  expect(result.counts.failed).toBe(1);
  expect(result.notes).toEqual(["failed: a.test.ts as a whole: no such module"]);
});

test("a failed vitest test counts once, not again for its file", () => {
  const assertionResults = [{ fullName: "says no", status: "failed" }];
  const testResults = [{ name: "a.test.ts", status: "failed", assertionResults }];
  const result = countVitest(report({ numFailedTests: 1, testResults }), outcome({ code: 1 }));
  expect(result.counts.failed).toBe(1);
  expect(result.notes).toEqual(["failed: says no (a.test.ts)"]);
});

test("a failed vitest test is noted with its message, cut when it is long", () => {
  const note = (message: string) => {
    const assertionResults = [{ fullName: "says no", status: "failed", failureMessages: [message] }];
    const testResults = [{ name: "a.test.ts", status: "failed", assertionResults }];
    return countVitest(report({ numFailedTests: 1, testResults }), outcome({ code: 1 })).notes;
  };
  expect(note("expected 1 to be 2")).toEqual(["failed: says no (a.test.ts): expected 1 to be 2"]);
  expect(note("x".repeat(5000))).toEqual([`failed: says no (a.test.ts): ${"x".repeat(1000)}…`]);
});

test("a vitest run without a report, or that ends badly with all tests passed, counts as a failure", () => {
  expect(countVitest(undefined, outcome({ code: null })).counts.failed).toBe(1);
  expect(countVitest(report({}), outcome({ code: 1 })).counts.failed).toBe(1);
});
