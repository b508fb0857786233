// What happens when a part dies: less access, never more.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Fixture } from "./fixture.js";

interface Ps {
  sandboxes: { name: string; state: string }[];
}

/** Pid of the running supervisor and loader. */
async function pids(fixture: Fixture): Promise<{ supervisor: number; loader: number }> {
  const status = JSON.parse(await fixture.clawsec.must("status", "--json")) as { pid: number };
  return {
    supervisor: status.pid,
    loader: Number(readFileSync(join(fixture.runtime, "loader.pid"), "utf8")),
  };
}

async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
  timeoutMs = 20_000,
): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`Not within ${timeoutMs} ms: ${what}`);
    await sleep(100);
  }
}

/** Processes of a sandbox, as its cgroups have them. */
function processes(fixture: Fixture, sandbox: string): string[] {
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const hierarchy = mounts.map((line) => line.split(" ")).find(([, , type]) => type === "cgroup2")?.[1];
  if (hierarchy === undefined) throw new Error("No cgroup v2 hierarchy is mounted");
  const instance = createHash("sha256").update(fixture.runtime).digest("hex").slice(0, 8);
  const folder = join(hierarchy, `clawsec-${instance}`, sandbox);
  try {
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) =>
      file.endsWith("cgroup.procs"),
    );
    return files.flatMap((file) => readFileSync(join(folder, file), "utf8").split("\n").filter(Boolean));
  } catch (error) {
    // A cgroup can only be removed when nothing is in it.
    if (["ENOENT", "ENODEV"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  }
}

describe("the supervisor is killed", () => {
  const fixture = new Fixture();
  beforeAll(() => fixture.start(), 120_000);
  afterAll(() => fixture.stop(), 60_000);

  test("known verdicts go on, new questions are denied after the grace, and a hold is answered by the next supervisor", async () => {
    // Files are made by the shell itself: a `touch` would be a question of its own.
    const script = [
      "/usr/bin/true",
      "(/usr/bin/factor 42 > factored; : > factor-ended) &",
      "while ! [ -e go ]; do /usr/bin/sleep 0.2; done",
      "/usr/bin/true && : > known-ran",
      // The file alone decides: a row of the exec table, asked of nobody.
      "/usr/bin/nproc && : > table-ran",
      // A script is asked about.
      "./new.sh && : > new-ran",
      ": > asked",
      "while ! [ -e factor-ended ]; do /usr/bin/sleep 0.2; done",
      ": > ended",
      "/usr/bin/sleep 60",
    ].join("\n");
    writeFileSync(join(fixture.workspace, "new.sh"), "#!/usr/bin/sh\n", { mode: 0o755 });
    const name = fixture.name();
    const held = fixture.clawsec.nextHold(name, 30_000);
    await fixture.clawsec.must(...fixture.arguments(name, ["/usr/bin/sh", "-c", script], ["--detach"]));
    const hold = await held;
    const { supervisor } = await pids(fixture);
    process.kill(supervisor, "SIGKILL");
    await fixture.clawsec.lost();
    writeFileSync(join(fixture.workspace, "go"), "");
    await until("the script went past its questions", () => fixture.left("asked") !== undefined, 60_000);
    expect(fixture.left("known-ran")).toBe("");
    expect(fixture.left("table-ran")).toBe("");
    expect(fixture.left("new-ran")).toBe(undefined);
    expect(fixture.left("factored")).toBe("");
    await fixture.clawsec.up();
    const holds = JSON.parse(await fixture.clawsec.must("holds", "--json")) as { holds: { id: string }[] };
    expect(holds.holds.map(({ id }) => id)).toContain(hold.id);
    await fixture.clawsec.must("approve", hold.id);
    await until("the approved command ended", () => fixture.left("ended") !== undefined);
    expect(fixture.left("factored")).toBe("42: 2 3 7\n");
    await fixture.clawsec.must("kill", name);
  }, 180_000);

  test("each of many holds is answered by the next supervisor", async () => {
    const count = 100;
    const script = `for i in $(/usr/bin/seq ${count}); do /usr/bin/expr $i > many-$i & done; wait`;
    const name = fixture.name();
    await fixture.clawsec.must(...fixture.arguments(name, ["/usr/bin/sh", "-c", script], ["--detach"]));
    const holds = async () => {
      const { holds } = JSON.parse(await fixture.clawsec.must("holds", "--json")) as {
        holds: { id: string; sandbox: string; action: { exec: { argv: string[] } } }[];
      };
      return holds.filter(({ sandbox }) => sandbox === name);
    };
    await until("all are held", async () => (await holds()).length === count);
    process.kill((await pids(fixture)).supervisor, "SIGKILL");
    await fixture.clawsec.lost();
    await fixture.clawsec.up();
    // What nobody puts to it again, the supervisor takes for gone after 5 s.
    await sleep(7000);
    const known = await holds();
    expect(known).toHaveLength(count);
    for (const { id, action } of [0, 63, 64, 99].map((index) => known[index] as (typeof known)[0])) {
      await fixture.clawsec.must("approve", id);
      const number = action.exec.argv[1] as string;
      await until(`${number} ran`, () => fixture.left(`many-${number}`) === `${number}\n`);
    }
    await fixture.clawsec.must("kill", name);
  }, 120_000);
});

describe("the loader is killed", () => {
  const fixture = new Fixture();
  beforeAll(() => fixture.start(), 120_000);
  afterAll(() => fixture.stop(), 60_000);

  test("its sandboxes die with it, held images never run, and the next start cleans up and says so", async () => {
    const name = fixture.name();
    const script =
      "touch started; (/usr/bin/factor 42 > factored) & while :; do date +%s%N > beat; /usr/bin/sleep 0.1; done";
    const held = fixture.clawsec.nextHold(name, 30_000);
    await fixture.clawsec.must(...fixture.arguments(name, ["/usr/bin/sh", "-c", script], ["--detach"]));
    await held;
    const { loader } = await pids(fixture);
    process.kill(loader, "SIGKILL");
    await sleep(1500);
    const beat = fixture.left("beat");
    await sleep(1000);
    expect(fixture.left("beat")).toBe(beat);
    expect(fixture.left("factored")).toBe("");
    await until("a new loader is there", async () => {
      const status = await fixture.clawsec.cli("status", "--json");
      return status.code === 0 && JSON.parse(status.stdout).loaderConnected === true;
    });
    const ps = JSON.parse(await fixture.clawsec.must("ps", "--json")) as Ps;
    expect(ps.sandboxes.filter(({ state }) => /running/i.test(state))).toEqual([]);
    const again = await fixture.clawsec.cli(...fixture.arguments(name, ["/usr/bin/echo", "again"]));
    expect(again.stdout).toBe("again\n");
  }, 180_000);

  test("a held open never goes through when the loader is killed, also under load", async () => {
    const script = [
      "i=0; while [ $i -lt 60 ]; do (while :; do :; done) & i=$((i+1)); done",
      "/usr/bin/cat /guarded/held > $1 & wait",
    ].join("\n");
    for (const leaked of ["leaked-1", "leaked-2", "leaked-3"]) {
      const name = fixture.name();
      const held = fixture.clawsec.nextHold(name, 60_000);
      const command = ["/usr/bin/sh", "-c", script, "sh", leaked];
      await fixture.clawsec.must(...fixture.arguments(name, command, ["--detach"]));
      await held;
      expect(processes(fixture, name).length).toBeGreaterThan(60);
      const { loader } = await pids(fixture);
      process.kill(loader, "SIGKILL");
      await until("nothing of the sandbox is left", () => processes(fixture, name).length === 0);
      expect(fixture.left(leaked)).toBe("");
      await until("a new loader is there", async () => {
        const status = await fixture.clawsec.cli("status", "--json");
        return status.code === 0 && JSON.parse(status.stdout).loaderConnected === true;
      });
    }
  }, 240_000);
});
