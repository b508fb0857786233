// `make escape`: tries every way out of a sandbox that is known here.
//
// CLAWSEC_ESCAPE_ONLY (a regular expression: only ways whose id matches), CLAWSEC_ESCAPE_KEEP (leave the files).

import { closeOnSignal } from "./end.js";
import { leaksAfter } from "./leaks.js";
import { isThere } from "./programs.js";
import { count, line, summary } from "./report.js";
import { runSolo, runWays } from "./run.js";
import { setUp } from "./setup.js";
import { SOLO } from "./solo.js";
import { WAYS } from "./ways.js";

async function main(): Promise<boolean> {
  const only = new RegExp(process.env.CLAWSEC_ESCAPE_ONLY ?? "");
  const ways = WAYS.filter(({ id }) => only.test(id));
  const solo = SOLO.filter(({ id }) => only.test(id));
  if (ways.length + solo.length === 0)
    throw new Error(`No way's id matches CLAWSEC_ESCAPE_ONLY ("${only.source}").`);
  const stage = await setUp(closeOnSignal);
  let isGood = false;
  let last = "";
  try {
    const here = ways.filter(({ needs }) => needs === undefined || isThere(stage.programs, needs));
    for (const way of ways.filter((one) => !here.includes(one)))
      console.log(`not here: ${way.id}: ${way.tries}: this kernel has nothing for it (${way.needs})`);
    const results = [
      ...(here.length > 0 ? await runWays(stage, here) : []),
      ...(await runSolo(stage, solo, console.log)),
    ];
    for (const result of results) console.log(line(result));
    last = summary(results);
    isGood = count(results).isGood;
  } finally {
    await stage.close();
  }
  const left = process.env.CLAWSEC_ESCAPE_KEEP === undefined ? await leaksAfter(process.pid) : [];
  for (const thing of left) console.error(`escape: left behind: ${thing}`);
  console.log(last);
  return isGood && left.length === 0;
}

process.exitCode = (await main().catch((error: unknown) => {
  console.error(`escape: it could not go on. ${error instanceof Error ? error.stack : String(error)}`);
  return false;
}))
  ? 0
  : 1;
