// What a run has found, for people.

import { show } from "./document.js";
import type { Difference } from "./expected.js";
import type { Epoch, Tools } from "./round.js";
import type { Outcome } from "./run.js";
import { shrink } from "./shrink.js";

function shown(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, item) => {
      if (item?.type === "Buffer") return Buffer.from(item.data).toString("latin1");
      return item instanceof Uint8Array ? Buffer.from(item).toString("latin1") : item;
    },
    1,
  );
}

/** What was tried, in a few words. */
function command({ attempt: { call, meant } }: Difference): string {
  if (meant.kind !== "exec") return meant.kind;
  const words = (call.argv ?? []).map((word) => Buffer.from(word).toString("latin1"));
  return `exec of ${meant.facts.executable} (${words.join(" ").slice(0, 200)})`;
}

/** A difference with the policy that it is under. */
export function describe({ attempt, expected, observed, why }: Difference, { documents }: Epoch): string {
  const { answer, ...rest } = observed;
  const said = {
    status: answer.status,
    number: answer.number,
    out: answer.out.toString("latin1").slice(0, 300),
    err: answer.err,
  };
  return [
    `difference: ${why}`,
    `expected: ${expected.outcome}: ${expected.why}`,
    `action: ${shown({ subject: attempt.subject, answer: attempt.answer, call: attempt.call, meant: attempt.meant })}`,
    `seen: ${shown({ ...said, ...rest })}`,
    "policy:",
    show(documents),
  ].join("\n");
}

/** Prints the smallest case of the first difference, and the last line. */
export async function report(tools: Tools, outcome: Outcome, print: (text: string) => void): Promise<void> {
  const { pairs, refused, found, seconds, kinds, refusals } = outcome;
  for (const [kind, count] of [...kinds].sort()) print(`conformance: ${kind}: ${count}`);
  for (const [why, count] of [...refusals].sort()) print(`conformance: refused: ${why}: ${count}`);
  print(`conformance: ${refused} policies refused by the compiler, ${seconds.toFixed(0)} s`);
  for (const one of found.slice(0, 20))
    print(
      `conformance: ${one.round.name} ${one.attempt.id}: ${command(one)}: ${one.why}; ${one.expected.why}; it said: ${one.observed.answer.err.slice(0, 300).trim() || "nothing"}`,
    );
  const [first] = found;
  if (first !== undefined) {
    const smallest = await shrink(tools, first, print);
    print(describe(smallest.difference, smallest.epoch));
  }
  print(`conformance: ${pairs} pairs, ${found.length} differences`);
}
