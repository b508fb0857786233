// From a difference to a small case of it, by running smaller rounds in new sandboxes.

import type { Attempt } from "./attempt.js";
import { type Documents, rulePlaces, withoutRule } from "./document.js";
import { withoutVariable } from "./environment.js";
import type { Difference } from "./expected.js";
import { type Epoch, type Round, renamed, runRound, type Tools } from "./round.js";
import type { Found } from "./run.js";

/** Sandboxes that shrinking may take. */
const MOST_RUNS = 80;

export interface Smallest {
  readonly difference: Difference;
  readonly epoch: Epoch;
  readonly runs: number;
}

let shrunk = 0;

/** Looks for a smaller round with a difference in the same attempt. */
export async function shrink(tools: Tools, found: Found, say: (text: string) => void): Promise<Smallest> {
  const { id } = found.attempt;
  const at = found.round.epochs.findIndex(({ attempts }) => attempts.some((attempt) => attempt.id === id));
  let runs = 0;
  shrunk += 1;
  const prefix = `s${shrunk.toString(36)}`;
  let best: { round: Round; difference: Difference } = { round: found.round, difference: found };

  const attempt = async (epochs: readonly Epoch[]): Promise<boolean> => {
    if (runs >= MOST_RUNS) return false;
    runs += 1;
    const name = `${prefix}${runs.toString(36)}`;
    const round = renamed({ ...best.round, epochs }, name, tools);
    try {
      const { differences } = await runRound(tools, round);
      const same = differences.find((one) => one.attempt.id === id);
      if (same === undefined) return false;
      best = { round, difference: same };
      return true;
    } catch {
      // A policy that means nothing, e.g. an example that went with its rule.
      return false;
    }
  };
  const own = (epoch: Epoch): Attempt[] => epoch.attempts.filter((one) => one.id === id);
  const [epoch] = found.round.epochs.slice(at, at + 1);
  if (epoch === undefined) throw new Error(`${id} is in no epoch of its round.`);

  // Alone; else with what came before it, less and less of that.
  const alone = await attempt([{ ...epoch, attempts: own(epoch) }]);
  if (!alone) {
    const before = epoch.attempts.slice(0, epoch.attempts.findIndex((one) => one.id === id) + 1);
    const together = await attempt([{ ...epoch, attempts: before }]);
    if (!together) {
      say(
        "conformance: it does not happen again with its policy alone; shown is the whole policy it was under",
      );
      return { difference: found, epoch: { ...epoch, attempts: own(epoch) }, runs };
    }
    for (let size = Math.floor(before.length / 2); size >= 1; size = Math.floor(size / 2)) {
      const [now] = best.round.epochs;
      if (now === undefined) break;
      for (let from = 0; from < now.attempts.length - 1; from += size) {
        const [current] = best.round.epochs;
        const kept =
          current?.attempts.filter((one, i) => one.id === id || i < from || i >= from + size) ?? [];
        if (current !== undefined && kept.length < current.attempts.length)
          await attempt([{ ...current, attempts: kept }]);
      }
    }
  }
  await fewerRules(() => best.round.epochs[0], attempt);
  await fewerVariables(() => best.round.epochs[0], id, attempt);
  const [last] = best.round.epochs;
  return { difference: best.difference, epoch: last ?? epoch, runs };
}

async function fewerRules(
  current: () => Epoch | undefined,
  attempt: (epochs: readonly Epoch[]) => Promise<boolean>,
): Promise<void> {
  for (let index = 0; ; ) {
    const epoch = current();
    const place = epoch && rulePlaces(epoch.documents)[index];
    if (epoch === undefined || place === undefined) return;
    const documents: Documents = withoutRule(epoch.documents, place);
    // What went makes room for the next one at the same index.
    if (!(await attempt([{ ...epoch, documents }]))) index += 1;
  }
}

async function fewerVariables(
  current: () => Epoch | undefined,
  id: string,
  attempt: (epochs: readonly Epoch[]) => Promise<boolean>,
): Promise<void> {
  for (let index = 0; ; ) {
    const epoch = current();
    const one = epoch?.attempts.find((candidate) => candidate.id === id);
    if (epoch === undefined || one === undefined || index >= (one.call.env?.length ?? 0)) return;
    const less = withoutVariable(one, index);
    const attempts = epoch.attempts.map((other) => (other === one && less !== undefined ? less : other));
    if (less === undefined || !(await attempt([{ ...epoch, attempts }]))) index += 1;
  }
}
