// Asks a real kernel what an AppArmor profile allows.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cache, inVirtualMachine } from "./machine.ts";
import type { Finding, Job, Operation, Report, Through } from "./operations.ts";

/**
 * Does the jobs one after the other in one boot of the virtual machine.
 *
 * @throws Error when the machine or the harness fails, for whatever reason: that is no verdict.
 */
export async function apparmorReports(jobs: readonly Job[], timeoutMs = 90_000): Promise<Report[]> {
  const folder = mkdtempSync(join(tmpdir(), "clawsec-vm-jobs-"));
  try {
    const probe = join(folder, "probe");
    const source = fileURLToPath(new URL("probe.c", import.meta.url));
    execFileSync("gcc", ["-static", "-s", "-O1", "-Wall", "-Wextra", "-Werror", "-o", probe, source], {
      stdio: "inherit",
    });
    const file = join(folder, "jobs.json");
    writeFileSync(file, JSON.stringify(jobs));
    const guest = fileURLToPath(new URL("guest.ts", import.meta.url));
    // There is one processor: V8's helper threads only cost switches between them, which are slow there.
    const command = [
      process.execPath,
      "--single-threaded",
      guest,
      file,
      probe,
      join(cache, "apparmor_parser"),
    ];
    const ended = await inVirtualMachine({ command, timeoutMs });
    if (ended.code !== 0)
      throw new Error(`the harness ended with ${ended.code} in the virtual machine: ${ended.stderr}`);
    return JSON.parse(ended.stdout) as Report[];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * What a profile allows: each operation in a fresh file tree, by a program of uid 1000 under no_new_privs that
 * runs under the profile, and once more by one that runs under none.
 *
 * @param profile Text of the profile as apparmor_parser reads it.
 * @param profileName Its name in that text.
 * @returns One finding for each operation, in their order.
 * @throws Error when apparmor_parser refuses the profile, the program cannot run under it, the machine fails, or
 *   an operation is not possible without the profile either.
 */
export async function apparmorVerdicts(
  profile: string,
  profileName: string,
  operations: readonly Operation[],
  options: { readonly through?: Through; readonly timeoutMs?: number } = {},
): Promise<readonly Finding[]> {
  const job: Job = { profile, profileName, operations, through: options.through ?? "pivot_root" };
  const [report] = await apparmorReports([job], options.timeoutMs);
  return findings(job, report);
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
