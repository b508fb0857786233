// Rounds, two at a time, until there are as many pairs as were asked for.

import type { Difference } from "./expected.js";
import { Random } from "./random.js";
import { makeRound, type Round, type RoundResult, runRound, type Tools } from "./round.js";

/** Attempts of one sandbox, and policies that it goes through. */
const ROUND_PAIRS = 160;
const ROUND_EPOCHS = 4;
const SIDE_BY_SIDE = 2;

export interface RunOptions {
  readonly pairs: number;
  readonly seed: number;
  readonly deadlineMs: number;
  readonly say: (text: string) => void;
}

export interface Found extends Difference {
  readonly round: Round;
}

export interface Outcome {
  readonly pairs: number;
  /** Policies that the compiler refused for this host. */
  readonly refused: number;
  /** What it said, each sentence once, with how often. */
  readonly refusals: ReadonlyMap<string, number>;
  /** How the pairs were, in words, with how often. */
  readonly kinds: ReadonlyMap<string, number>;
  readonly found: readonly Found[];
  readonly seconds: number;
}

function count(map: Map<string, number>, key: string): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

/** Runs until the pairs are there or the time is over; what a round is depends on the seed and its number only. */
export async function run(tools: Tools, { pairs, seed, deadlineMs, say }: RunOptions): Promise<Outcome> {
  const started = performance.now();
  const refusals = new Map<string, number>();
  const kinds = new Map<string, number>();
  const found: Found[] = [];
  let done = 0;
  let planned = 0;
  let refused = 0;
  let number = 0;
  let told = 0;

  const one = async () => {
    for (;;) {
      const left = pairs - planned;
      const isLate = performance.now() - started > deadlineMs;
      if (left <= 0 || isLate || found.length >= 20) return;
      const size = Math.min(ROUND_PAIRS, left);
      planned += size;
      number += 1;
      const random = new Random(seed * 65_537 + number);
      // The name is part of thread names, which end after 15 bytes.
      const round = makeRound(random, tools, `r${number.toString(36)}`, size, ROUND_EPOCHS);
      const result: RoundResult = await runRound(tools, round);
      if (result.refused !== undefined) {
        refused += 1;
        planned -= size;
        // Without the names, so that one reason is one line.
        for (const [, sentence = ""] of result.refused.matchAll(/ error: (.*)/g))
          count(refusals, sentence.replaceAll(/\S*[/0-9]\S*/g, "…"));
        continue;
      }
      done += result.pairs.length;
      for (const words of result.pairs) count(kinds, words);
      found.push(...result.differences.map((one) => ({ ...one, round })));
      if (Math.floor(done / 1000) > told) {
        told = Math.floor(done / 1000);
        const seconds = Math.round((performance.now() - started) / 1000);
        say(
          `conformance: ${done} pairs, ${found.length} differences, ${refused} policies refused, ${seconds} s`,
        );
      }
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, one));
  return { pairs: done, refused, refusals, kinds, found, seconds: (performance.now() - started) / 1000 };
}
