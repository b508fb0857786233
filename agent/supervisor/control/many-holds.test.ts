/** As many holds as a sandbox can make, with arguments as long as it wants: whoever approves still sees each of them. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Hold, type HoldChange, HoldChangeKind } from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { all, call } from "../../common/grpc.js";
import { question } from "../../testing/questions.js";
import { World } from "../../testing/world.js";

/** What one exec may have as arguments, so that it is asked about at all. */
const LONGEST = 125_000;

let world: World;

beforeEach(async () => {
  world = new World();
  await world.start();
  const policyPath = world.policy(["{ id: push, executable: /usr/bin/git, action: hold }"]);
  const request = { name: "", policyPath, command: [], terminal: false, detached: true, variables: {} };
  await call(world.control, world.control.run, request, 10_000);
});
afterEach(() => world.end());

/** Asks about execs that differ, each with `bytes` of arguments. */
async function ask(from: number, count: number, bytes: number): Promise<void> {
  for (let id = from; id < from + count; id++) {
    const argv = ["git", `${id}`, "x".repeat(bytes)];
    await world.loader.ask({ $case: "question", value: question(id, {}, { argv, argvHash: `${id}` }) });
  }
}

const list = () => all(world.control.listHolds({ sandbox: "", ended: false }));
const name = (hold: Hold | undefined) => (hold?.action?.$case === "exec" ? hold.action.value.argv[1] : "");

test("a list of them is as long as it must be", async () => {
  await ask(1, 300, LONGEST);
  await world.loader.decision(300);
  const holds = await list();
  expect(holds.map(name)).toEqual(Array.from({ length: 300 }, (_, at) => `${at + 1}`));
}, 30_000);

test("a watcher sees each that is open, and one that reads late what is left of them", async () => {
  await ask(1, 1300, 2000);
  await world.loader.decision(1300);
  const watch = world.control.watchHolds({ sandbox: "" });
  const changes: HoldChange[] = [];
  let error: unknown;
  watch.on("error", (why) => {
    error = why;
  });
  // It reads some, and then no more for a while.
  await new Promise<void>((resolve) => {
    watch.on("data", (change: HoldChange) => {
      changes.push(change);
      if (changes.length !== 5) return;
      watch.pause();
      resolve();
    });
  });
  await ask(1301, 500, 60_000);
  await world.loader.decision(1800);
  const last = (await list()).at(-1);
  expect(name(last)).toBe("1800");
  const request = { id: last?.id ?? "", verdict: Verdict.DENY, reason: "", via: "cli" };
  await call(world.control, world.control.answerHold, request, 5000);
  expect(changes.length).toBeLessThan(1000);
  watch.resume();
  await world.loader.until(() => changes.length >= 1799);
  expect(changes.every(({ kind }) => kind === HoldChangeKind.OPENED)).toBe(true);
  expect(new Set(changes.map(({ hold }) => name(hold))).size).toBe(1799);
  expect(changes.map(({ hold }) => name(hold))).not.toContain("1800");
  // And those that come after it.
  const first = changes[0]?.hold?.id ?? "";
  await call(world.control, world.control.answerHold, { ...request, id: first }, 5000);
  await world.loader.until(() => changes.length === 1800);
  expect(changes.at(-1)).toMatchObject({ kind: HoldChangeKind.ENDED, hold: { id: first } });
  expect(error).toBeUndefined();
  watch.cancel();
}, 30_000);
