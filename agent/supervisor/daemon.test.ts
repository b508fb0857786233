/** How a supervisor ends, and what the next one knows. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Event, SandboxState } from "../../proto/gen/clawsec/v1/loader.js";
import { call, controlClient } from "../common/grpc.js";
import { World } from "../testing/world.js";
import { AuditView } from "./audit/view.js";

let world: World;
beforeEach(async () => {
  world = new World();
  await world.start();
  const policyPath = world.policy(["{ id: rest, executable: /usr/bin/**, action: allow }"]);
  const request = { name: "", policyPath, command: [], terminal: false, detached: true, variables: {} };
  await call(world.control, world.control.run, request, 10_000);
});
afterEach(() => world.end());

function ended(sequence: number): Event {
  return {
    sequence,
    timeUs: Date.now() * 1000,
    sandbox: "box",
    subject: "",
    policyHash: "",
    process: undefined,
    kind: {
      $case: "sandboxEvent",
      value: { state: SandboxState.EXITED, exit: { code: 0, signal: 0 }, detail: "its main command ended" },
    },
  };
}

function summaries(): string[] {
  const audit = new AuditView(world.paths.auditDb);
  const none = {
    sandbox: "box",
    verdicts: [],
    severities: [],
    tag: "",
    execId: "",
    ancestor: "",
    beforeId: 0,
    text: "",
    sinceUs: 0,
    untilUs: 0,
    afterId: 0,
    limit: 0,
  };
  const { records } = audit.query({ ...none, kinds: ["sandbox"] });
  audit.close();
  return records.map(({ summary }) => summary);
}

test("an end that the loader has not told yet is waited for, so that it is in the audit", async () => {
  const info = world.loader.sandboxes.get("box");
  if (info === undefined) throw new Error("There is no sandbox.");
  world.loader.sandboxes.set("box", { ...info, state: SandboxState.EXITED });
  const stopped = world.supervisor?.stop();
  await new Promise((resolve) => setTimeout(resolve, 200));
  await world.loader.emit(ended(1));
  await stopped;
  expect(summaries().at(-1)).toBe("sandbox exited: its main command ended");
});

test("a sandbox whose end was recorded is not said to have ended again by the next supervisor", async () => {
  await world.loader.emit(ended(1));
  await world.loader.until(() => world.loader.acks.includes(1));
  world.loader.sandboxes.clear();
  await world.supervisor?.stop();
  await world.up();
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(summaries().filter((summary) => /ended|exited/.test(summary))).toHaveLength(1);
});

test("a sandbox that vanished while no supervisor was there is said to have ended, once", async () => {
  await world.supervisor?.stop();
  world.loader.sandboxes.clear();
  for (let start = 0; start < 2; start += 1) {
    await world.up();
    await new Promise((resolve) => setTimeout(resolve, 200));
    if (start === 0) await world.supervisor?.stop();
  }
  expect(summaries().filter((summary) => summary.startsWith("sandbox ended"))).toHaveLength(1);
});

test.each([
  [false, "stopped"],
  [true, "left alone"],
])("a sandbox (detached: %s) whose caller goes before it attaches is %s", async (detached) => {
  const policyPath = world.policy(["{ id: rest, executable: /usr/bin/**, action: allow }"], "lonely");
  const request = { name: "", policyPath, command: [], terminal: false, detached, variables: {} };
  const caller = controlClient(world.paths.controlSocket);
  await call(caller, caller.run, request, 10_000);
  caller.close();
  if (detached) await new Promise((resolve) => setTimeout(resolve, 200));
  else await world.loader.until(() => world.loader.calls.includes("stopSandbox"));
  expect(world.loader.calls.includes("stopSandbox")).toBe(detached === false);
});

test("a live sandbox is decided about by the next supervisor under the policy that was applied, not the file as it is by now", async () => {
  await world.supervisor?.stop();
  world.policy(["{ id: none, executable: /usr/bin/**, action: deny }"]);
  await world.up();
  expect(world.supervisor?.parts.sandboxes.get("box")?.record.sources.at(-1)?.text).toContain("id: rest");
});
