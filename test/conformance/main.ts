// `make conformance`: random policies and random actions, done in real sandboxes, against what the policy says.
//
// CLAWSEC_CONFORMANCE_PAIRS (10000), CLAWSEC_CONFORMANCE_SEED (1), CLAWSEC_CONFORMANCE_MINUTES (20, then it fails),
// CLAWSEC_CONFORMANCE_WITHOUT (features of features.ts to leave out, with commas).

import { FEATURES, notYet } from "./features.js";
import { report } from "./report.js";
import { run } from "./run.js";
import { setUp } from "./setup.js";

function number(name: string, fallback: number): number {
  const text = process.env[name] ?? "";
  const value = text === "" ? fallback : Number(text);
  if (!Number.isSafeInteger(value) || value < 0)
    throw new Error(`${name} must be a whole number, and is "${text}".`);
  return value;
}

async function main(): Promise<boolean> {
  const pairs = number("CLAWSEC_CONFORMANCE_PAIRS", 10_000);
  const seed = number("CLAWSEC_CONFORMANCE_SEED", 1);
  const deadlineMs = number("CLAWSEC_CONFORMANCE_MINUTES", 20) * 60_000;
  const setup = await setUp();
  try {
    const { features } = setup.tools;
    const missing = FEATURES.filter((feature) => !features.has(feature));
    const why = missing.map(
      (feature) => `${feature}${notYet[feature] === undefined ? "" : ` (${notYet[feature]})`}`,
    );
    console.log(`conformance: seed ${seed}, ${pairs} pairs; left out: ${why.join(", ") || "nothing"}`);
    const outcome = await run(setup.tools, { pairs, seed, deadlineMs, say: console.log });
    await report(setup.tools, outcome, console.log);
    return outcome.found.length === 0 && outcome.pairs === pairs;
  } finally {
    await setup.close();
  }
}

process.exitCode = (await main().catch((error: unknown) => {
  console.error(`conformance: it could not go on. ${error instanceof Error ? error.stack : String(error)}`);
  return false;
}))
  ? 0
  : 1;
