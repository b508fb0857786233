// Asks a real kernel what an AppArmor profile allows.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cache, inVirtualMachine } from "./machine.ts";
import type { Finding, Job, Report } from "./operations.ts";

/**
 * Does the jobs, each alone, in few boots of the virtual machine: in two at the same time when there is more than one job,
 * since a machine has one processor.
 *
 * @param timeoutMs For each boot with its jobs.
 * @returns One report for each job, in their order.
 * @throws Error when the machine or the harness fails, for whatever reason: that is no verdict.
 */
export async function apparmorReports(jobs: readonly Job[], timeoutMs = 90_000): Promise<Report[]> {
  const folder = mkdtempSync(join(tmpdir(), "clawsec-vm-jobs-"));
  try {
    const probe = join(folder, "probe");
    const source = fileURLToPath(new URL("probe.c", import.meta.url));
    execFileSync("gcc", ["-static", "-s", "-O1", "-Wall", "-Wextra", "-Werror", "-o", probe, source], {
      stdio: "inherit",
      timeout: 60_000,
    });
    const boots = jobs.length > 1 && availableParallelism() > 1 ? 2 : 1;
    const parts = await Promise.allSettled(
      Array.from({ length: boots }, (_, boot) => {
        const file = join(folder, `jobs-${boot}.json`);
        writeFileSync(file, JSON.stringify(jobs.filter((_, index) => index % boots === boot)));
        return oneBoot(file, probe, timeoutMs);
      }),
    );
    return jobs.map((_, index) => {
      const part = parts[index % boots];
      if (part?.status !== "fulfilled") throw part?.reason;
      const report = part.value[Math.floor(index / boots)];
      if (report === undefined) throw new Error(`the harness gave no report of job ${index}`);
      return report;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function oneBoot(file: string, probe: string, timeoutMs: number): Promise<Report[]> {
  const guest = fileURLToPath(new URL("guest.ts", import.meta.url));
  // There is one processor: V8's helper threads only cost switches between them, which are slow there.
  const command = [process.execPath, "--single-threaded", guest, file, probe, join(cache, "apparmor_parser")];
  const ended = await inVirtualMachine({ command, timeoutMs });
  if (ended.code !== 0)
    throw new Error(`the harness ended with ${ended.code} in the virtual machine: ${ended.stderr}`);
  return JSON.parse(ended.stdout) as Report[];
}

/** The findings of a report, or an Error that says why they show nothing. */
export function findings(job: Job, report: Report | undefined): readonly Finding[] {
  if (report?.outcome !== "done")
    throw new Error(
      `no verdict on the profile ${job.profileName}: ${report?.outcome ?? "no report"}: ${report?.message ?? ""}`,
    );
  for (const [index, { unconfined }] of report.findings.entries()) {
    const { op, path } = job.operations[index] ?? { op: "?", path: "?" };
    if (unconfined !== "allowed")
      throw new Error(
        `${op} ${JSON.stringify(path)} shows nothing: without a profile it gives ${unconfined}`,
      );
  }
  return report.findings;
}
