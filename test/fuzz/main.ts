// `make fuzz`: a million bad policies, of which none may crash a reader or keep it.
//
// CLAWSEC_FUZZ_INPUTS (1000000), CLAWSEC_FUZZ_SEED (1).

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../agent/common/paths.js";
import { fuzz } from "./run.js";
import { readSeeds } from "./seeds.js";
import { shrink } from "./shrink.js";

function number(name: string, fallback: number): number {
  const text = process.env[name] ?? "";
  const value = text === "" ? fallback : Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new Error(`${name} must be a whole number, and is "${text}".`);
  return value;
}

async function main(): Promise<boolean> {
  const root = packageRoot();
  const inputs = number("CLAWSEC_FUZZ_INPUTS", 1_000_000);
  const seed = number("CLAWSEC_FUZZ_SEED", 1);
  const seeds = readSeeds(root);
  console.log(`fuzz: seed ${seed}, ${inputs} inputs`);
  const outcome = await fuzz({ seeds, seed, inputs, say: console.log });
  const folder = join(root, "test/.work");
  mkdirSync(folder, { recursive: true });
  const shown = new Set<string>();
  for (const finding of outcome.findings) {
    const head = finding.why.split("\n").slice(0, 4).join("\n");
    if (shown.has(head) || shown.size >= 5) continue;
    shown.add(head);
    const file = join(folder, `fuzz-${finding.kind}-${seed}-${finding.number}.yaml`);
    // First as it is: whoever has seen enough need not wait.
    writeFileSync(file, finding.text);
    console.log(`fuzz: ${finding.kind} at input ${finding.number}, in ${file}: ${head}`);
    writeFileSync(file, await shrink({ seeds, seed }, finding));
  }
  const count = (kind: string) => outcome.findings.filter((finding) => finding.kind === kind).length;
  const { reached, seconds, peakMb, slowestMs } = outcome;
  console.log(
    `fuzz: ${outcome.inputs} inputs, ${count("crash")} crashes, ${count("hang")} hangs, ${reached.policy} policies, ` +
      `${reached.test} tests, ${reached.refused} refused, slowest ${slowestMs.toFixed(0)} ms, ${seconds.toFixed(0)} s, peak ${peakMb.toFixed(0)} MB`,
  );
  return outcome.findings.length === 0 && outcome.inputs === inputs;
}

process.exitCode = (await main().catch((error: unknown) => {
  console.error(`fuzz: it could not go on. ${error instanceof Error ? error.stack : String(error)}`);
  return false;
}))
  ? 0
  : 1;
