// One worker: makes inputs by their numbers and reads them, and says in shared memory where it is.

import { parentPort, workerData } from "node:worker_threads";
import "../../agent/common/plain-environment.js";
import { Random } from "../conformance/random.js";
import { makeInput } from "./mutate.js";
import type { Seeds } from "./seeds.js";
import { consume, know, OPERATIONS, type Operation, type Reached } from "./target.js";

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
  /** Numbers as STATE names them. */
  readonly state: SharedArrayBuffer;
}

/** Places in the state. Times are in milliseconds. */
export const STATE = {
  /** Number of the input + 1; 0 between inputs. */
  input: 0,
  /** performance.timeOrigin + now at the beginning of the operation. */
  since: 1,
  done: 2,
  /** Processor time of the slowest operation so far, and of the slowest one of the last input. */
  slowest: 3,
  slowestOfLast: 4,
  /** Which of OPERATIONS it is in, and which was the slowest of the last input. */
  operation: 5,
  slowestOperation: 6,
} as const;
export const STATE_BYTES = Object.keys(STATE).length * Float64Array.BYTES_PER_ELEMENT;

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
    let operation: Operation | undefined;
    let before = process.threadCpuUsage();
    state[STATE.slowestOfLast] = 0;
    const end = () => {
      const { user, system } = process.threadCpuUsage(before);
      const took = (user + system) / 1000;
      slowest = Math.max(slowest, took);
      if (operation === undefined || took <= (state[STATE.slowestOfLast] ?? 0)) return;
      state[STATE.slowestOfLast] = took;
      state[STATE.slowestOperation] = OPERATIONS.indexOf(operation);
    };
    const begin = (next: Operation) => {
      end();
      operation = next;
      before = process.threadCpuUsage();
      state[STATE.operation] = OPERATIONS.indexOf(next);
      state[STATE.since] = performance.timeOrigin + performance.now();
    };
    state[STATE.since] = performance.timeOrigin + performance.now();
    state[STATE.input] = number + 1;
    try {
      reached[consume(text, base, number, begin)] += 1;
    } catch {
      parentPort?.postMessage({
        kind: "crash",
        number,
        text,
        error: again(text, base, number),
      } satisfies Message);
    }
    end();
    state[STATE.done] = (state[STATE.done] ?? 0) + 1;
    state[STATE.slowest] = slowest;
  }
  state[STATE.input] = 0;
  parentPort?.postMessage({ kind: "done", reached, slowest } satisfies Message);
}

if (parentPort !== null) work(workerData as Job);
