// One worker: makes inputs by their numbers and reads them, and says in shared memory where it is.

import { parentPort, workerData } from "node:worker_threads";
import "../../agent/common/plain-environment.js";
import { Random } from "../conformance/random.js";
import { makeInput } from "./mutate.js";
import type { Seeds } from "./seeds.js";
import { consume, know, type Reached } from "./target.js";

/** What a worker is started with. */
export interface Job {
  readonly seeds: Seeds;
  readonly seed: number;
  /** Numbers from `first`, each `step` apart, below `end`. */
  readonly first: number;
  readonly step: number;
  readonly end: number;
  /** Texts to read instead of those that the numbers make. */
  readonly texts?: readonly string[];
  /** [number of the input + 1, milliseconds of performance.timeOrigin + now at its beginning, inputs done, slowest in ms]. */
  readonly state: SharedArrayBuffer;
}

export type Message =
  | { readonly kind: "crash"; readonly number: number; readonly text: string; readonly error: string }
  | { readonly kind: "done"; readonly reached: Readonly<Record<Reached, number>>; readonly slowest: number };

/** The text of a number. */
export function inputOf(seeds: Seeds, seed: number, number: number): { text: string; base: string } {
  const random = new Random(Math.imul(seed, 0x2545f491) ^ number);
  return { text: makeInput(random, seeds), base: random.pick(seeds.files) };
}

/** What an input throws, with where. */
function again(text: string, base: string, number: number): string {
  Error.stackTraceLimit = 20;
  try {
    consume(text, base, number);
    return "it is not thrown again";
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    Error.stackTraceLimit = 0;
  }
}

function work(job: Job): void {
  // The YAML library makes an error for each finding, and their traces would take a tenth of the time.
  Error.stackTraceLimit = 0;
  const state = new Float64Array(job.state);
  const reached: Record<Reached, number> = { refused: 0, policy: 0, test: 0 };
  for (const file of job.seeds.files.slice(0, 2)) know(file);
  let slowest = 0;
  for (let number = job.first; number < job.end; number += job.step) {
    const given = job.texts?.[number];
    const { text, base } =
      given === undefined
        ? inputOf(job.seeds, job.seed, number)
        : { text: given, base: job.seeds.files[0] ?? "" };
    const before = process.threadCpuUsage();
    state[1] = performance.timeOrigin + performance.now();
    state[0] = number + 1;
    try {
      reached[consume(text, base, number)] += 1;
    } catch {
      parentPort?.postMessage({
        kind: "crash",
        number,
        text,
        error: again(text, base, number),
      } satisfies Message);
    }
    const { user, system } = process.threadCpuUsage(before);
    const took = (user + system) / 1000;
    slowest = Math.max(slowest, took);
    state[4] = took;
    state[2] = (state[2] ?? 0) + 1;
    state[3] = slowest;
  }
  state[0] = 0;
  parentPort?.postMessage({ kind: "done", reached, slowest } satisfies Message);
}

if (parentPort !== null) work(workerData as Job);
