// A short conformance run, and proof that one can fail.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { evaluate } from "../../policy/index.js";
import { ExecFact, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { rulePlaces } from "./document.js";
import type { Judge } from "./expect.js";
import { report } from "./report.js";
import { run } from "./run.js";
import { type Setup, setUp } from "./setup.js";
import { shrink } from "./shrink.js";

let setup: Setup;
beforeAll(async () => {
  setup = await setUp();
}, 120_000);
afterAll(() => setup.close(), 60_000);

const options = { deadlineMs: 240_000, say: () => undefined };

describe("a conformance run", () => {
  test("finds no difference between what layers do and what the policy says", async () => {
    const outcome = await run(setup.tools, { ...options, pairs: 320, seed: 20 });
    const said: string[] = [];
    await report(setup.tools, outcome, (text) => said.push(text));
    expect(said.join("\n")).toContain("conformance: 320 pairs, 0 differences");
    expect(said.at(-1)).toBe("conformance: 320 pairs, 0 differences");
  }, 300_000);

  test("finds an evaluator that permits what is denied, and shrinks it to the rule that denies", async () => {
    const wrong: Judge = (policy, action) => {
      const right = evaluate(policy, action);
      const isExec = action.action?.$case === "exec";
      // Defaults and what is refused before any rule stand nowhere in the policy.
      if (!isExec || right.verdict !== Verdict.DENY || right.origin === undefined) return right;
      return { ...right, verdict: Verdict.ALLOW };
    };
    const tools = { ...setup.tools, judge: wrong };
    const { found } = await run(tools, { ...options, pairs: 480, seed: 21 });
    const [first] = found;
    if (first === undefined) throw new Error("A wrong evaluator was not found.");
    expect(first.why).toMatch(/must happen and did not/);
    const { difference, epoch } = await shrink(tools, first, () => undefined);
    expect(epoch.attempts.map(({ id }) => id)).toEqual([difference.attempt.id]);
    const places = rulePlaces(epoch.documents);
    expect(places).toHaveLength(1);
    expect(places[0]?.section).toBe("exec");
  }, 300_000);

  test("finds an evaluator that does not say that it has looked at the script", async () => {
    const wrong: Judge = (policy, action) => {
      const right = evaluate(policy, action);
      // Of several scripts the exec would be refused instead.
      if (action.action?.$case !== "exec" || action.action.value.nestedScripts.length > 0) return right;
      return { ...right, dependsOn: right.dependsOn.filter((fact) => fact !== ExecFact.SCRIPT) };
    };
    const { found } = await run({ ...setup.tools, judge: wrong }, { ...options, pairs: 480, seed: 23 });
    // The image reads the script as it was decided about, although it has put something else in its place.
    expect(found.map(({ why }) => why).join("\n")).toMatch(/must read \["swapped/);
  }, 300_000);

  test("finds an evaluator that denies what is permitted", async () => {
    const wrong: Judge = (policy, action) => {
      const right = evaluate(policy, action);
      const isOne = action.action?.$case === "network" && right.verdict === Verdict.ALLOW;
      return isOne ? { ...right, verdict: Verdict.DENY } : right;
    };
    const { found } = await run({ ...setup.tools, judge: wrong }, { ...options, pairs: 480, seed: 22 });
    expect(found.map(({ why }) => why).join("\n")).toMatch(/must not happen and did/);
  }, 300_000);
});
