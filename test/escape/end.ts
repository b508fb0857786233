// The end of a run that somebody ended: SIGINT, SIGTERM or SIGHUP. What was made goes, whatever was under way.

import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { leaksAfter, namesOf, processes } from "./leaks.js";

/** The longest that the end may take. */
const END_MS = 40_000;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * From now on such a signal closes the run and ends this process with 1.
 * @param close ends what was made until then, at most once
 */
export function closeOnSignal(close: () => Promise<void>): void {
  let isEnding = false;
  for (const signal of SIGNALS)
    process.on(signal, () => {
      if (isEnding) return;
      isEnding = true;
      console.error(`escape: ended by ${signal}; nothing is counted.`);
      void end(close).finally(() => process.exit(1));
    });
}

async function end(close: () => Promise<void>): Promise<void> {
  const late = sleep(END_MS).then(() => console.error(`escape: the end took longer than ${END_MS} ms.`));
  const closed = close().catch((error: unknown) => console.error(`escape: ${String(error)}`));
  await Promise.race([closed, late]);
  for (const thing of await leaksAfter(process.pid)) console.error(`escape: left behind: ${thing}`);
}

/** Removes the containers without clawsec, and kills the processes that a way has left. */
export function endRest(): void {
  const { container } = namesOf(process.pid);
  for (const name of containers(container)) {
    try {
      execFileSync("runc", ["delete", "--force", name], { stdio: "ignore" });
    } catch {
      // It has ended by itself, and is gone.
    }
  }
  for (const pid of processes(process.pid)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }
}

function containers(begin: string): string[] {
  try {
    return readdirSync("/run/runc").filter((name) => name.startsWith(begin));
  } catch {
    return [];
  }
}
