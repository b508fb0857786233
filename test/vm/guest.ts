// Runs inside the virtual machine: guest.ts JOBS PROBE PARSER. Does the jobs of a JSON file and prints a
// JSON list of reports. Everything it makes is gone with the machine.

import { spawnSync } from "node:child_process";
import { closeSync, constants, mkdirSync, openSync, readFileSync, readSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { ConfinedProbe } from "./confined.ts";
import type { Finding, Job, Operation, Report, Step, Verdict } from "./operations.ts";
import { needs } from "./operations.ts";
import { View } from "./view.ts";

const [jobsFile = "", probe = "", parser = ""] = process.argv.slice(2);

// Else the kernel drops lines of its log when there are more than ten in five seconds.
writeFileSync("/proc/sys/kernel/printk_ratelimit", "0");
const kernelLog = openSync("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK);
const record = Buffer.alloc(8192);
let marks = 0;

const view = new View("/run/view", probe);
/** Programs without a profile, by their mounts; and what operations do there: the same under each profile. */
const controls = new Map<string, { readonly program: ConfinedProbe; readonly known: Map<string, Verdict> }>();
const reports: Report[] = [];
for (const [index, job] of (JSON.parse(readFileSync(jobsFile, "utf8")) as Job[]).entries())
  reports.push(await report(job, `/run/job-${index}`));
for (const { program } of controls.values()) await program.stop();
closeSync(kernelLog);
process.stdout.write(JSON.stringify(reports));

async function report(job: Job, folder: string): Promise<Report> {
  mkdirSync(folder);
  // Said at once, so that a machine that hangs has said where.
  console.error(`${job.profileName} in ${folder}, ${job.operations.length} operations`);
  const file = `${folder}/profile`;
  writeFileSync(file, job.profile);
  // No cache; and no abstractions of the host, as clawsec's profiles include nothing. The features are those that Debian's
  // /etc/apparmor/parser.conf names: without them the parser leaves rules about the network out.
  const features = join(dirname(parser), "features");
  const options = ["--skip-cache", "--skip-read-cache", "--policy-features", features, "--base", folder];
  options.push("--replace", file);
  const loaded = spawnSync(parser, options, { encoding: "utf8", timeout: 20_000 });
  if (loaded.status !== 0)
    return { outcome: "profile refused", message: loaded.stderr || (loaded.error?.message ?? "no message") };

  let confined: ConfinedProbe;
  const mounts = job.mounts ?? [];
  const control = await controlFor(mounts);
  try {
    confined = await ConfinedProbe.start(job.through, job.profileName, view, folder, mounts);
  } catch (error) {
    const lines = (await auditLines()).join("\n");
    return { outcome: "program not started", message: `${(error as Error).message}\n${lines}` };
  }
  const findings: Finding[] = [];
  for (const operation of job.operations) {
    const key = JSON.stringify(operation);
    const unconfined = control.known.get(key) ?? (await attempt(control.program, operation));
    control.known.set(key, unconfined);
    await auditLines();
    const verdict = await attempt(confined, operation);
    findings.push({ verdict, unconfined, audit: await auditLines() });
  }
  await confined.stop();
  view.reset();
  return { outcome: "done", warnings: loaded.stderr, findings };
}

/** A program with these mounts and no profile: some operations are refused by mounts alone. */
async function controlFor(mounts: readonly string[]) {
  view.keep(mounts);
  const key = mounts.join("\n");
  const control = controls.get(key) ?? {
    program: await ConfinedProbe.start("pivot_root", "", view, "/run", mounts),
    known: new Map<string, Verdict>(),
  };
  controls.set(key, control);
  return control;
}

/** Makes a fresh view for the operation, and performs it. */
async function attempt(program: ConfinedProbe, operation: Operation): Promise<Verdict> {
  view.reset();
  for (const given of operation.given ?? needs(operation)) view.make(given);
  for (const step of operation.before ?? []) {
    const verdict = await program.perform(step);
    if (verdict !== "allowed") return `not reached: ${step.op} ${step.path}: ${verdict}`;
  }
  const verdict = await program.perform(operation);
  const home: Step = { op: "chdir", path: "/" };
  if ((await program.perform(home)) !== "allowed") throw new Error("the probe cannot return to /");
  return verdict;
}

/**
 * What the kernel has logged about AppArmor since the last call. A thread of the kernel (kauditd) writes the lines some
 * time after what they tell of, one after the other: so a line of our own is waited for, which tells of a profile that
 * cannot be removed because it does not exist.
 */
async function auditLines(): Promise<string[]> {
  marks += 1;
  const mark = `clawsec-mark-${marks}-`;
  try {
    writeFileSync("/sys/kernel/security/apparmor/.remove", mark);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const until = performance.now() + 20_000;
  const lines: string[] = [];
  for (;;) {
    const line = logLine();
    if (line?.includes(mark)) return lines;
    if (line?.includes("apparmor=") && !line.includes("profile_"))
      lines.push(line.slice(line.indexOf("apparmor=")));
    if (line !== undefined) continue;
    if (performance.now() > until) throw new Error("the kernel has not logged a line for 20 s");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** The next line of the kernel's log; undefined when there is none yet. */
function logLine(): string | undefined {
  try {
    return record.toString("utf8", 0, readSync(kernelLog, record)).split("\n", 1)[0] ?? "";
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return undefined;
    throw error;
  }
}
