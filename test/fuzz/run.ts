// Workers that read inputs, and a watch over them: what takes too long is a hang, what is thrown is a crash.

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Seeds } from "./seeds.js";
import { OPERATIONS, type Reached, THOROUGH } from "./target.js";
import { inputOf, type Job, type Message, STATE, STATE_BYTES } from "./worker.js";

/** Longest time that one operation on an input may take: a command of a person's, such as reading or laying out. */
export const HANG_MS = 1000;
/** A second try gets so many times as long by the wall clock, and is judged by the time that it had a processor. */
const BUSY = 5;
/** Memory of one worker: what is beyond ends it, and counts as a crash. */
const HEAP_MB = 512;
/** Findings after which a run ends: more of them say nothing new. */
const ENOUGH = 20;

export interface FuzzOptions {
  readonly seeds: Seeds;
  readonly seed: number;
  readonly inputs: number;
  readonly workers?: number;
  /** Texts to read instead of made ones. */
  readonly texts?: readonly string[];
  readonly say?: (text: string) => void;
  /** The code of a worker; another one for tests. */
  readonly script?: URL;
}

export interface Finding {
  readonly kind: "crash" | "hang";
  readonly number: number;
  readonly text: string;
  readonly why: string;
}

export interface FuzzOutcome {
  readonly inputs: number;
  readonly findings: readonly Finding[];
  readonly reached: Readonly<Record<Reached, number>>;
  readonly seconds: number;
  /** Largest resident size of the process, in MB. */
  readonly peakMb: number;
  /** Slowest single input, in milliseconds of a processor. */
  readonly slowestMs: number;
}

const SCRIPT = new URL("./worker.js", import.meta.url);

/** Reads `inputs` inputs. */
export async function fuzz(options: FuzzOptions): Promise<FuzzOutcome> {
  const { inputs, seeds, seed, texts, say = () => undefined } = options;
  const started = performance.now();
  const lanes = Math.min(options.workers ?? availableParallelism(), inputs);
  const findings: Finding[] = [];
  const reached: Record<Reached, number> = { refused: 0, policy: 0, test: 0 };
  const states: Float64Array[] = [];
  let peakMb = 0;
  let told = 0;
  let stopped = false;

  const hangsAlone = async (text: string): Promise<boolean> => {
    const state = new Float64Array(new SharedArrayBuffer(STATE_BYTES));
    const buffer = state.buffer as SharedArrayBuffer;
    // Twice, both times thoroughly, and the second counts: the first is for the compiler of the JavaScript engine.
    const texts = Array.from({ length: THOROUGH + 1 }, () => text);
    const job: Job = { seeds, seed, first: 0, step: THOROUGH, end: texts.length, texts, state: buffer };
    const nothing: Record<Reached, number> = { refused: 0, policy: 0, test: 0 };
    const end = await watch(job, state, options.script ?? SCRIPT, () => undefined, nothing, BUSY * HANG_MS);
    return end !== "done" || (state[STATE.slowestOfLast] ?? 0) > HANG_MS;
  };
  const lane = async (first: number): Promise<void> => {
    const state = new Float64Array(new SharedArrayBuffer(STATE_BYTES));
    states.push(state);
    let next = first;
    while (next < inputs && !stopped) {
      const job: Job = {
        seeds,
        seed,
        first: next,
        step: lanes,
        end: inputs,
        state: state.buffer as SharedArrayBuffer,
        ...(texts === undefined ? {} : { texts }),
      };
      const end = await watch(
        job,
        state,
        options.script ?? SCRIPT,
        (finding) => findings.push(finding),
        reached,
      );
      if (end === "done") return;
      // A machine that is busy keeps an input waiting, too: only one that hangs takes as long of a processor's time.
      if (end.kind === "crash" || (await hangsAlone(end.text))) findings.push(end);
      else state[STATE.done] = (state[STATE.done] ?? 0) + 1;
      next = end.number + lanes;
      if (findings.length >= ENOUGH) stopped = true;
    }
  };
  const timer = setInterval(() => {
    peakMb = Math.max(peakMb, process.memoryUsage.rss() / 2 ** 20);
    const done = states.reduce((sum, state) => sum + (state[STATE.done] ?? 0), 0);
    if (Math.floor(done / 100_000) === told) return;
    told = Math.floor(done / 100_000);
    const seconds = (performance.now() - started) / 1000;
    say(
      `fuzz: ${done} inputs, ${findings.length} findings, ${seconds.toFixed(0)} s, ${peakMb.toFixed(0)} MB`,
    );
  }, 100);
  await Promise.all(Array.from({ length: lanes }, (_, i) => lane(i)));
  clearInterval(timer);
  peakMb = Math.max(peakMb, process.memoryUsage.rss() / 2 ** 20);
  return {
    inputs: states.reduce((sum, state) => sum + (state[STATE.done] ?? 0), 0),
    findings,
    reached,
    seconds: (performance.now() - started) / 1000,
    peakMb,
    slowestMs: Math.max(...states.map((state) => state[STATE.slowest] ?? 0)),
  };
}

/** One worker, until it is done or one input ends it. */
function watch(
  job: Job,
  state: Float64Array,
  script: URL,
  found: (finding: Finding) => void,
  reached: Record<Reached, number>,
  limitMs = HANG_MS,
): Promise<"done" | Finding> {
  return new Promise((resolve) => {
    // What stands there is of the worker before, and its time is over.
    state[STATE.input] = 0;
    const worker = new Worker(script, {
      workerData: job,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB, maxYoungGenerationSizeMb: 64 },
    });
    let isOver = false;
    const finish = (end: "done" | Finding) => {
      if (isOver) return;
      isOver = true;
      clearInterval(timer);
      worker.terminate().then(() => resolve(end));
    };
    const present = (kind: Finding["kind"], why: string): Finding => {
      const number = (state[STATE.input] || job.first + 1) - 1;
      const text = job.texts?.[number] ?? inputOf(job.seeds, job.seed, number).text;
      return { kind, number, text, why };
    };
    const timer = setInterval(() => {
      const since = performance.timeOrigin + performance.now() - (state[STATE.since] ?? 0);
      if ((state[STATE.input] ?? 0) > 0 && since > limitMs)
        finish(
          present("hang", `to ${OPERATIONS[state[STATE.operation] ?? 0]} it took more than ${HANG_MS} ms`),
        );
    }, 50);
    worker.on("message", (message: Message) => {
      if (message.kind === "crash") {
        found({ kind: "crash", number: message.number, text: message.text, why: message.error });
        return;
      }
      for (const key of ["refused", "policy", "test"] as const) reached[key] += message.reached[key];
      finish("done");
    });
    worker.on("error", (error) => finish(present("crash", `it ended the worker: ${String(error)}`)));
    worker.on("exit", () => finish(present("crash", "it ended the worker")));
  });
}
