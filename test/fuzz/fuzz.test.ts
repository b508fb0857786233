// A short run in this process, and proof that crashes, hangs and floods are found.

import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Random } from "../conformance/random.js";
import { makeInput } from "./mutate.js";
import { fuzz, HANG_MS } from "./run.js";
import { readSeeds } from "./seeds.js";
import { shrink } from "./shrink.js";
import { consume, know, type Reached } from "./target.js";

const seeds = readSeeds(fileURLToPath(new URL("../..", import.meta.url)));
const INPUTS = 20_000;

test("20,000 bad policies crash no reader and keep none", () => {
  for (const file of seeds.files.slice(0, 2)) know(file);
  const reached: Record<Reached, number> = { refused: 0, policy: 0, test: 0 };
  for (let number = 0; number < INPUTS; number++) {
    const random = new Random(number + 77_000_000);
    const text = makeInput(random, seeds);
    let before = process.threadCpuUsage();
    const end = () => {
      const { user, system } = process.threadCpuUsage(before);
      if ((user + system) / 1000 > HANG_MS) throw new Error(`input ${number} took ${user + system} us`);
      before = process.threadCpuUsage();
    };
    try {
      reached[consume(text, random.pick(seeds.files), number, end)] += 1;
    } catch (error) {
      throw new Error(`input ${number}: ${JSON.stringify(text.slice(0, 2000))}`, { cause: error });
    }
    end();
  }
  // What only refuses everything would find nothing behind the first check.
  expect(reached.policy).toBeGreaterThan(INPUTS / 10);
  expect(reached.test).toBeGreaterThan(0);
  expect(reached.refused).toBeGreaterThan(INPUTS / 10);
}, 240_000);

test("an input is the same for the same number, and another for another", () => {
  const made = (seed: number) => makeInput(new Random(seed), seeds);
  expect(made(5)).toBe(made(5));
  expect(new Set(Array.from({ length: 100 }, (_, i) => made(i))).size).toBeGreaterThan(90);
});

/** A worker that does this with each text. */
function worker(body: string): URL {
  const code = `
    import { parentPort, workerData } from "node:worker_threads";
    const { texts, state: memory, first, step, end } = workerData;
    const state = new Float64Array(memory);
    const consume = (text) => { ${body} };
    for (let number = first; number < end; number += step) {
      const text = texts[number];
      state[1] = performance.timeOrigin + performance.now();
      state[0] = number + 1;
      try { consume(text); }
      catch (error) { parentPort.postMessage({ kind: "crash", number, text, error: error.stack }); }
      state[2] += 1;
    }
    state[0] = 0;
    parentPort.postMessage({ kind: "done", reached: { refused: 0, policy: 0, test: 0 }, slowest: 0 });`;
  return new URL(`data:text/javascript,${encodeURIComponent(code)}`);
}

describe("a run with a bad reader", () => {
  const good = "metadata: { name: x }";
  const bad = "a: 1\nb: 2\nmetadata: { name: boom, more: y }\nc: 3";
  const options = { seeds, seed: 1, workers: 2 };
  const run = (script: URL, texts: readonly string[]) =>
    fuzz({ ...options, script, texts, inputs: texts.length });

  test("finds what it throws, and shrinks the text to what matters", async () => {
    const script = worker(`if (text.includes("boom")) throw new Error("it broke");`);
    const { findings, inputs } = await run(script, [good, good, bad, good]);
    expect(inputs).toBe(4);
    expect(findings).toMatchObject([{ kind: "crash", number: 2, text: bad }]);
    const [finding] = findings;
    if (finding === undefined) throw new Error("It was not found.");
    expect(await shrink({ ...options, script }, finding)).toBe("boom");
  }, 60_000);

  test("finds what never ends, and goes on with the others", async () => {
    const script = worker(`if (text.includes("boom")) for (;;);`);
    const { findings } = await run(script, [good, bad, good, good, good, bad]);
    expect(findings.map(({ kind, number }) => [kind, number])).toEqual([
      ["hang", 1],
      ["hang", 5],
    ]);
  }, 60_000);

  test("finds what takes all memory", async () => {
    const script = worker(
      `if (text.includes("boom")) { const all = []; for (;;) all.push(new Array(1e5).fill(text)); }`,
    );
    const { findings } = await run(script, [bad, good]);
    expect(findings).toHaveLength(1);
    expect(findings[0]?.number).toBe(0);
  }, 60_000);

  test("finds nothing in a good one", async () => {
    const { findings, inputs } = await run(worker(""), [good, bad, good]);
    expect({ findings, inputs }).toEqual({ findings: [], inputs: 3 });
  });
});
