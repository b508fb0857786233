// What gateway and broker have in common: one try after the other, each with its time.

import { writeFileSync } from "node:fs";

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Does one try. Whatever goes wrong in it is part of its output, and the next one has its turn. */
export async function perform(plan, attempt, run) {
  writeFileSync(plan.current, attempt.environment.TOKEN);
  if (attempt.kind === "js") writeFileSync(attempt.output, `trying ${attempt.environment.TOKEN}\n`);
  const late = sleep(attempt.timeoutMs + 1000);
  try {
    await Promise.race([run(attempt), late]);
  } catch (error) {
    writeFileSync(attempt.output, `${error}\n`, { flag: "a" });
  }
  writeFileSync(`${attempt.output}.done`, "");
}
