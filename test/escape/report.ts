// What a run says.

import type { Result } from "./run.js";

export interface Counts {
  readonly ways: number;
  readonly effects: number;
  readonly controls: number;
  /** Every way was tried, none had its effect, and each control had it. */
  readonly isGood: boolean;
}

export function count(results: readonly Result[]): Counts {
  const effects = results.filter(({ sandbox }) => sandbox === "effect").length;
  const controls = results.filter(({ control }) => control === "effect").length;
  const isGood = results.every(({ control, sandbox }) => control === "effect" && sandbox === "none");
  return { ways: results.length, effects, controls, isGood: isGood && results.length > 0 };
}

function mark({ control, sandbox }: Result): string {
  if (sandbox === "effect") return "EFFECT";
  if (sandbox === "not tried") return "NOT TRIED";
  if (control !== "effect") return `CONTROL DID NOT WORK (${control})`;
  return "stopped";
}

/** One line. */
export function line(result: Result): string {
  const { id, tries, layer, subjects } = result.way;
  return `${mark(result)}: ${id} (${subjects.join(", ")}): ${tries}; ${layer}`;
}

export function summary(results: readonly Result[]): string {
  const { ways, effects, controls } = count(results);
  return `escape: ${ways} ways, ${effects} effects, ${controls} controls worked`;
}
