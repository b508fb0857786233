import { expect, test, vi } from "vitest";
import { run } from "./exec.ts";
import { commandStep, failed, line, passed, runSteps, type Step, skipped, sum } from "./steps.ts";

const good: Step = { name: "good", run: async () => passed };
const crashing: Step = {
  name: "crashing",
  run: async () => {
    throw new Error("out of luck");
  },
};

test("a step that crashes counts as a failure under its name, and the next one still runs", async () => {
  const printed: string[] = [];
  const counts = await runSteps([crashing, good], (text) => printed.push(text));
  expect(line(counts)).toBe("1 passed, 1 failed, 0 skipped");
  expect(printed).toContain("crashed: out of luck");
  expect(printed.slice(-2)).toEqual(["failed step: crashing", "crashed: out of luck"]);
});

test("what failed is said again at the end, as far as it fits", async () => {
  const long = Array.from({ length: 30 }, (_, n) => `line ${n}`).join("\n");
  const bad: Step = { name: "bad", run: async () => failed(long, "failed: a test: why") };
  const printed: string[] = [];
  await runSteps([bad, good], (text) => printed.push(text));
  expect(printed).toContain(long);
  const [head, text = "", last] = printed.slice(-3);
  expect([head, last]).toEqual(["failed step: bad", "failed: a test: why"]);
  expect(text.split("\n")).toEqual(["…", ...long.split("\n").slice(10)]);
});

test("steps of an inner list run side by side, and each of them counts", async () => {
  let other: (() => void) | undefined;
  const met = new Promise<void>((resolve) => {
    other = resolve;
  });
  const waits: Step = { name: "waits", run: () => met.then(() => passed) };
  const comes: Step = {
    name: "comes",
    run: async () => {
      other?.();
      return skipped("why");
    },
  };
  const printed: string[] = [];
  const counts = await runSteps([[waits, comes, crashing], good], (text) => printed.push(text));
  expect(line(counts)).toBe("2 passed, 1 failed, 1 skipped");
  expect(printed.slice(-2)).toEqual(["failed step: crashing", "crashed: out of luck"]);
  expect(printed.at(-4)).toBe("==> good");
});

test("each step's duration is printed", async () => {
  const printed: string[] = [];
  await runSteps([good, { name: "left out", run: async () => skipped("why") }], (text) => printed.push(text));
  expect(printed[1]).toMatch(/^<== good: 1 passed, 0 failed, 0 skipped in \d+\.\d s$/);
  expect(printed).toContain("why");
});

test("the parts of a step are counted together, with what each said", () => {
  const one = { counts: { passed: 2, failed: 1, skipped: 0 }, notes: ["failed: one"] };
  expect(sum([one, passed, skipped("why")])).toEqual({
    counts: { passed: 3, failed: 1, skipped: 1 },
    notes: ["failed: one", "why"],
  });
});

test("a command that fails shows its output; one that succeeds does not", async () => {
  const bad = await commandStep("bad", ["sh", "-c", "echo out; echo err >&2; exit 3"]).run();
  expect(bad.counts.failed).toBe(1);
  expect(bad.notes).toEqual(["out\nerr", "sh ended with code 3"]);
  const fine = await commandStep("fine", ["sh", "-c", "echo out"]).run();
  expect(fine).toEqual(passed);
});

test("a command that cannot be started fails with a sentence", async () => {
  const outcome = await run(["/nonexistent/program"]);
  expect(outcome.code).toBeNull();
  expect(outcome.ending).toContain("could not be started");
});

test("a command that hangs is killed with the children it started", async () => {
  const outcome = await run(["sh", "-c", "sleep 300 & echo $!; wait"], { timeoutMs: 300 });
  expect(outcome.code).toBeNull();
  expect(outcome.ending).toContain("was killed");
  const child = Number(outcome.stdout);
  expect(child).toBeGreaterThan(0);
  // Whoever adopted it reaps it a moment later.
  await vi.waitFor(() => expect(() => process.kill(child, 0)).toThrow(), 5000);
});
