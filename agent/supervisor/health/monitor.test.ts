/** Health checks of a sandbox, on real sockets and databases, with a scripted loader that answers for the command. */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Health, HealthState, QueryAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import {
  type AttachInput,
  type AttachOutput,
  type ExecStart,
  SandboxState,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { call } from "../../common/grpc.js";
import { denied } from "../../testing/questions.js";
import { World } from "../../testing/world.js";
import { healthAfter } from "./monitor.js";

type Command = ServerDuplexStream<AttachInput, AttachOutput>;

let world: World;
let commands: { start: ExecStart | undefined; open: boolean }[];
beforeEach(async () => {
  world = new World();
  await world.start();
  commands = [];
});
afterEach(() => world.end());

/** What becomes of each command that the loader is asked for, by its number from 0. */
function commandsDo(what: (command: Command, number: number) => void): void {
  world.loader.executed = (command) => {
    const seen = { start: undefined as ExecStart | undefined, open: true };
    const number = commands.push(seen) - 1;
    command.on("error", () => undefined);
    command.on("cancelled", () => {
      seen.open = false;
    });
    command.once("data", ({ exec }: AttachInput) => {
      seen.start = exec;
      command.write({ output: { $case: "started", value: { pid: 1000 + number, sandboxPid: 2 } } });
      what(command, number);
    });
  };
}

function end(command: Command, code: number, output = ""): void {
  if (output !== "") command.write({ output: { $case: "stderr", value: Buffer.from(output) } });
  command.write({ output: { $case: "exit", value: { code, signal: code > 128 ? code - 128 : 0 } } });
  command.end();
}

const CHECK = "interval: 20ms, timeout: 10s, retries: 2";

async function run(keys = CHECK): Promise<void> {
  const policyPath = world.policy(["{ id: rest, executable: /usr/bin/**, action: allow }"], "box", [
    `healthCheck: { command: [/usr/bin/check, now], ${keys} }`,
  ]);
  const request = { name: "", policyPath, command: [], terminal: false, detached: true, variables: {} };
  await call(world.control, world.control.run, request, 10_000);
}

const health = async (): Promise<Health | undefined> =>
  (await call(world.control, world.control.status, {}, 5000)).health.box;

/** Waits until the health is what is looked for. */
async function until(is: (health: Health | undefined) => boolean): Promise<Health | undefined> {
  const by = performance.now() + 8000;
  for (;;) {
    const now = await health();
    if (is(now)) return now;
    if (performance.now() > by) throw new Error(`It is ${JSON.stringify(now)}.`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
const becomes = (state: HealthState) => until((now) => now?.state === state);

async function changes(): Promise<string[]> {
  const query = QueryAuditRequest.fromPartial({ kinds: ["sandbox"], text: "health check" });
  return (await call(world.control, world.control.queryAudit, query)).records.map((r) => r.summary);
}

test("one success is healthy, retries failures in a row are unhealthy, and each change is in the audit once", async () => {
  const codes = [1, 0, 0, 1, 0, 1, 1, 1];
  let last = 1;
  commandsDo((command, number) => end(command, codes[number] ?? last, "no answer\n"));
  await run();
  expect(await health()).toMatchObject({ state: HealthState.STARTING, failures: 0, checkedUs: 0 });
  await becomes(HealthState.HEALTHY);
  const sick = await becomes(HealthState.UNHEALTHY);
  expect(sick).toMatchObject({ rule: "", detail: "ended with code 1: no answer" });
  expect(sick?.failures).toBeGreaterThanOrEqual(2);
  expect(commands.length).toBeGreaterThanOrEqual(7);
  last = 0;
  expect(await becomes(HealthState.HEALTHY)).toMatchObject({ failures: 0, detail: "", rule: "" });
  expect(await changes()).toEqual([
    "health check: healthy",
    "health check: unhealthy: ended with code 1: no answer",
    "health check: healthy",
  ]);
  expect(commands[0]?.start).toMatchObject({ args: ["/usr/bin/check", "now"], subject: "main" });
});

test("a check that a rule denies is unhealthy at once, by that rule; the same code without a denial is one failure", async () => {
  commandsDo(async (command, number) => {
    if (number === 0) {
      // The event comes later than the end.
      setTimeout(async () => {
        const event = denied(1);
        await world.loader.emit({ ...event, process: { ...event.process, pid: 1000 } as never });
      }, 100);
    }
    end(command, 126);
  });
  await run("interval: 20ms, retries: 3");
  expect(await becomes(HealthState.UNHEALTHY)).toMatchObject({
    failures: 1,
    rule: "exec/no-git",
    detail: "denied by rule exec/no-git: git may not push",
  });
  const next = await until((now) => now?.failures === 2);
  expect(next).toMatchObject({ rule: "", detail: "ended with code 126" });
  expect(await changes()).toHaveLength(1);
});

test("a check that does not end is killed at its timeout, and the next one begins only then", async () => {
  let most = 0;
  commandsDo((command, number) => {
    most = Math.max(most, commands.filter(({ open }) => open).length);
    command.on("data", ({ signal }: AttachInput) => {
      if (signal !== 9) return;
      if (commands[number]) commands[number].open = false;
      end(command, 137);
    });
  });
  await run("interval: 5ms, timeout: 50ms, retries: 2");
  expect((await becomes(HealthState.UNHEALTHY))?.detail).toBe("killed after 0.05 s");
  expect(most).toBe(1);
});

test("a sandbox that ends takes its check along, and its health says nothing of the end", async () => {
  commandsDo((command, number) => {
    if (number === 0) end(command, 0);
  });
  await run("interval: 20ms, retries: 1");
  await becomes(HealthState.HEALTHY);
  await world.loader.until(() => commands.length === 2);
  const info = world.loader.sandboxes.get("box");
  if (info !== undefined) world.loader.sandboxes.set("box", { ...info, state: SandboxState.KILLED });
  await until((now) => now === undefined);
  await world.loader.until(() => commands[1]?.open === false);
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(commands).toHaveLength(2);
  expect(await changes()).toEqual(["health check: healthy"]);
});

test("a command that the loader refuses for want of room is a failure, one whose sandbox ended is nothing", async () => {
  world.loader.executed = (command) => {
    const number = commands.push({ start: undefined, open: false });
    const [code, details] =
      number < 4
        ? [status.FAILED_PRECONDITION, "the sandbox box is not running"]
        : [status.RESOURCE_EXHAUSTED, "64 commands run in the sandbox already"];
    command.on("error", () => undefined);
    command.emit("error", { code, details });
  };
  await run("interval: 20ms, retries: 1");
  const { detail } = (await becomes(HealthState.UNHEALTHY)) ?? {};
  expect(detail).toBe("was not run: 64 commands run in the sandbox already");
  expect(commands.length).toBeGreaterThanOrEqual(4);
});

test("while the loader is away nothing is checked and what is known stays", async () => {
  commandsDo((command) => end(command, 0));
  await run();
  await becomes(HealthState.HEALTHY);
  world.loader.stop();
  await world.loader.until(() => world.supervisor?.parts.link.state.kind === "disconnected");
  const before = commands.length;
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect([(await health())?.state, commands.length]).toEqual([HealthState.HEALTHY, before]);
  await world.loader.start();
  await world.loader.until(() => commands.length > before);
});

test("a reload changes the check of the running sandbox, and without one there is no health", async () => {
  commandsDo((command) => end(command, 0));
  await run();
  await becomes(HealthState.HEALTHY);
  const reload = async (lines: string[]) => {
    const policyPath = world.policy(["{ id: rest, executable: /usr/bin/**, action: allow }"], "next", lines);
    const request = { names: ["box"], all: false, policyPath };
    return await call(world.control, world.control.reloadPolicy, request, 10_000);
  };
  const { sandboxes } = await reload(["healthCheck: { command: [/usr/bin/other], interval: 20ms }"]);
  expect(sandboxes[0]?.needsRestart).toEqual([]);
  await world.loader.until(() => commands.at(-1)?.start?.args[0] === "/usr/bin/other");
  await reload([]);
  await until((now) => now === undefined);
});

describe("the start period", () => {
  const check = {
    command: ["/c"],
    subject: "main",
    intervalMs: 1,
    timeoutMs: 1,
    retries: 1,
    startPeriodMs: 1000,
  };
  const starting = { state: HealthState.STARTING, failures: 0, checkedUs: 0, detail: "", rule: "" };
  const failed = { kind: "failed", why: "not yet" } as const;

  test("a failure within does not count, and is shown; one after it counts", () => {
    const within = healthAfter(starting, failed, check, 999_999);
    expect(within).toMatchObject({ state: HealthState.STARTING, failures: 0, detail: "not yet" });
    const after = healthAfter(starting, failed, check, 1_000_000);
    expect(after).toMatchObject({ state: HealthState.UNHEALTHY, failures: 1 });
  });

  test("after a success each failure counts, and a denial counts in any case", () => {
    const healthy = healthAfter(starting, { kind: "passed" }, check, 10);
    expect(healthAfter(healthy, failed, check, 20)).toMatchObject({ state: HealthState.UNHEALTHY });
    const denial = { kind: "denied", rule: "exec/no", why: "denied by rule exec/no" } as const;
    const shut = healthAfter(starting, denial, { ...check, retries: 9 }, 20);
    expect(shut).toMatchObject({ state: HealthState.UNHEALTHY, rule: "exec/no" });
  });
});
