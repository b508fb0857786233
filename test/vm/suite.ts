// Tests that need the virtual machine: where it cannot run they are skipped, and say so.

import { describe } from "vitest";
import { type MachineName, whyNoMachine } from "./machine.ts";

/**
 * A group of tests that need the virtual machine. Where it cannot run, they count as skipped; the reason is printed,
 * and is part of their names, so that the run's last lines have it, too.
 */
export function describeInMachine(title: string, body: () => void, machine: MachineName = "apparmor"): void {
  const reason = whyNoMachine(machine);
  if (reason === undefined) {
    describe(title, body);
    return;
  }
  console.error(`SKIPPED: ${title}: ${reason}`);
  describe.skip(`${title} [skipped: ${reason}]`, body);
}
