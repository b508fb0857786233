// What the audit costs: how fast events become durable, and what a decision waits for while they do.

import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { makeLog } from "../../agent/common/log.js";
import { Audit } from "../../agent/supervisor/audit/audit.js";
import { batchOf, denied, ended, executed } from "../../agent/testing/questions.js";
import type { Event } from "../../proto/gen/clawsec/v1/loader.js";
import { decided, gated, latencyOf, type Setting } from "./measures.js";
import { type Figure, figure } from "./stats.js";

/** Most events of one batch, as the contract has it. */
const BATCH = 512;

/** Names in the environment of what an agent starts. */
const ENVIRONMENT = ["HOME", "LANG", "LOGNAME", "NODE_ENV", "PATH", "PWD", "SHELL", "TERM", "TMPDIR", "USER"];

/** The two events of an exec that a rule of the loader's table let happen: its image, and its end. */
function eventsOfExec(sequence: number): [Event, Event] {
  const execId = `82e65416-${sequence.toString(16).padStart(12, "0")}`;
  const ancestors = [`${execId}1`, `${execId}2`, `${execId}3`];
  const argv = ["/usr/bin/git", "-C", "/home/agent/project", "status", `--number=${sequence}`];
  const image = executed(sequence, { execId, argv, environmentNames: ENVIRONMENT }, { ancestors });
  const decision = denied(sequence).kind;
  if (image.kind?.$case === "exec" && decision?.$case === "decision")
    image.kind.value.decision = decision.value;
  return [image, ended(sequence + 1, { execId }, { ancestors })];
}

/**
 * A batch of events of execs: from the bytes that the loader sent until it may be acknowledged, against writing the same
 * bytes to a file and waiting for the disk. In milliseconds, and as events per second.
 */
export async function ingestFigures(folder: string, rounds = 120): Promise<Figure[]> {
  const path = join(folder, "ingest.db");
  const file = join(folder, "ingest.bytes");
  const audit = await Audit.open({ path, log: makeLog({ kind: "none" }) });
  const plain = openSync(file, "w");
  const [bare, ours]: number[][] = [[], []];
  try {
    for (let round = -5; round < rounds; round++) {
      const events: Event[] = [];
      const first = (round + 5) * BATCH + 1;
      for (let i = 0; i < BATCH; i += 2) events.push(...eventsOfExec(first + i));
      const batch = batchOf(...events);
      let since = performance.now();
      writeSync(plain, batch);
      fdatasyncSync(plain);
      const before = performance.now() - since;
      since = performance.now();
      const { inserted } = await audit.ingest("bench", batch);
      const after = performance.now() - since;
      if (inserted !== BATCH) throw new Error(`The audit took ${inserted} of ${BATCH} events.`);
      // The first rounds are for the compiler of the JavaScript engine.
      if (round < 0) continue;
      bare?.push(before);
      ours?.push(after);
    }
  } finally {
    await audit.close();
    closeSync(plain);
    for (const each of [file, path, `${path}-wal`, `${path}-shm`]) rmSync(each, { force: true });
  }
  const rates = (series: readonly number[] = []) => series.map((ms) => (BATCH / ms) * 1000);
  const baseline = "the same bytes written to a file and synchronised";
  return [
    figure(`${BATCH} events made durable in the audit`, "ms", baseline, bare ?? [], ours ?? []),
    figure("events made durable in the audit", "events/s", baseline, rates(bare), rates(ours)),
  ];
}

/**
 * Execs that the supervisor is asked about while another sandbox executes as fast as it can, against the same with
 * nothing beside it: how long a decision took, from the call to its answer, as the loader says.
 */
export async function busyFigure(setting: Setting, rounds = 6, each = 250): Promise<Figure> {
  const { clawsec, program, policy, say } = setting;
  const spawns = (mark: string) => [program, "spawn", `${each}`, "/opt/bench/true", "asked", `${mark}-{}`];
  const asked = async (name: string) => {
    await gated(setting, spawns(name), name);
    return (await decided(setting, name, "exec/asked", each)).map(latencyOf);
  };
  const variables = Object.entries(setting.variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const [bare, ours]: number[][] = [[], []];
  let execs = 0;
  for (let round = 0; round < rounds; round++) {
    bare?.push(...(await asked(`bench-alone-${round}`)));
    const load = `bench-load-${round}`;
    const loop = `while :; do ${program} spawn 100 /opt/bench/true > /dev/null; done`;
    const command = ["--", "/bin/sh", "-c", loop];
    await clawsec.must("run", "--detach", "--name", load, "--policy", policy, ...variables, ...command);
    ours?.push(...(await asked(`bench-busy-${round}`)));
    execs += (await decided(setting, load, "exec/measured", 1)).length;
    await clawsec.must("kill", load);
  }
  say(`beside the decisions of the next figure, at least ${execs} execs were recorded`);
  const name = "decision about an exec by the supervisor while others run";
  return figure(name, "us", "the same with nothing beside it", bare ?? [], ours ?? []);
}
