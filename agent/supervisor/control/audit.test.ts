/** The audit as the Control service and the loader see it: followed, searched, and when it cannot be written. */
import type { ServiceError } from "@grpc/grpc-js";
import Database from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AuditRecord, QueryAuditRequest } from "../../../proto/gen/clawsec/v1/control.js";
import { Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { all, call } from "../../common/grpc.js";
import { denied, question } from "../../testing/questions.js";
import { World } from "../../testing/world.js";

let world: World;
beforeEach(async () => {
  world = new World();
  await world.start();
});
afterEach(() => world.end());

const RULES = [
  "{ id: push, executable: /usr/bin/git, action: hold, because: it publishes }",
  "{ id: rest, executable: /usr/bin/**, action: allow }",
];

const run = (policyPath = world.policy(RULES)) => {
  const request = { name: "", policyPath, command: [], terminal: false, detached: true, variables: {} };
  return call(world.control, world.control.run, request, 10_000);
};
const refused = async (action: Promise<unknown>): Promise<ServiceError> => {
  try {
    await action;
  } catch (error) {
    return error as ServiceError;
  }
  throw new Error("It was not refused.");
};
const answer = (id: string, verdict: Verdict) =>
  call(world.control, world.control.answerHold, { id, verdict, reason: "", via: "cli" }, 5000);
const holds = async () => await all(world.control.listHolds({ sandbox: "", ended: false }));
const audit = async (kinds: string[]) => {
  const request = QueryAuditRequest.fromPartial({ kinds });
  return (await call(world.control, world.control.queryAudit, request, 5000)).records;
};

describe("audit", () => {
  test("takes events, acknowledges them, and a follower sees each once, in order", async () => {
    const seen: AuditRecord[] = [];
    await world.loader.emit(denied(1), denied(2));
    await world.loader.until(() => world.loader.acks.includes(2));
    const stream = world.control.followAudit({ sandbox: "", kinds: ["exec"], afterId: 0 });
    stream.on("data", (record) => seen.push(record)).on("error", () => undefined);
    await world.loader.emit(denied(2), denied(3));
    await world.loader.until(() => world.loader.acks.includes(3) && seen.length === 3);
    stream.cancel();
    expect(seen.map(({ id }) => id)).toEqual([1, 2, 3]);
  });
});

describe("an audit that cannot be written", () => {
  /** Another program of the host. */
  const elsewhere = (sql: string) => {
    const db = new Database(world.paths.auditDb);
    db.exec(sql);
    return db;
  };
  const BROKEN = "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END";
  const connected = () => world.supervisor?.parts.link.state.kind === "connected";

  test("drops the loader, which denies by itself, until it can be; then each event is there once", async () => {
    const db = elsewhere(BROKEN);
    const why: string[] = [];
    world.supervisor?.parts.link.on("disconnected", (reason) => why.push(reason));
    await world.loader.emit(denied(1), denied(2));
    await world.loader.until(() => why.length > 0);
    expect(why[0]).toBe("the audit could not be written: disk full");
    expect(world.loader.acks).toEqual([]);
    db.exec("DROP TRIGGER broken");
    db.close();
    await world.loader.until(() => connected());
    await world.loader.emit(denied(1), denied(2), denied(3));
    await world.loader.until(() => world.loader.acks.includes(3));
    expect((await audit(["exec"])).map(({ timeUs }) => timeUs)).toEqual([1_000_001, 1_000_002, 1_000_003]);
    expect(await audit(["lost"])).toEqual([]);
  });

  test("starts nothing, runs nothing and holds nothing, and says why", async () => {
    await run();
    const db = elsewhere(BROKEN);
    expect((await refused(run(world.policy(RULES, "other")))).details).toContain("disk full");
    expect(world.loader.calls.at(-1)).toBe("killSandbox");
    await world.loader.ask({ $case: "question", value: question(1) });
    expect(await world.loader.decision(1)).toMatchObject({
      verdict: Verdict.DENY,
      message: expect.stringContaining("disk full"),
    });
    expect(await holds()).toEqual([]);
    db.exec("DROP TRIGGER broken");
    db.close();
    await world.loader.ask({ $case: "question", value: question(2) });
    expect(await world.loader.decision(2)).toMatchObject({ verdict: Verdict.HOLD });
  });

  test("gives no answer of a person to the loader, and tells the person", async () => {
    await run();
    await world.loader.ask({ $case: "question", value: question(1) });
    const { holdId } = await world.loader.decision(1);
    const db = elsewhere(BROKEN);
    expect((await refused(answer(holdId, Verdict.ALLOW))).details).toContain("disk full");
    db.close();
    await world.loader.ask({
      $case: "question",
      value: question(2, {}, { executable: "/usr/bin/true", execId: "exec-2" }),
    });
    await world.loader.decision(2);
    expect(world.loader.decisions.map(({ questionId }) => questionId)).toEqual([1, 2]);
  });

  test("keeps no question waiting that needs no person, while the disk stands still", async () => {
    await run();
    const db = elsewhere("BEGIN IMMEDIATE");
    await world.loader.emit(denied(1));
    await world.loader.ask({
      $case: "question",
      value: question(1, {}, { executable: "/usr/bin/true" }),
    });
    expect(await world.loader.decision(1)).toMatchObject({ verdict: Verdict.ALLOW });
    expect(world.loader.acks).toEqual([]);
    db.exec("COMMIT");
    db.close();
    await world.loader.until(() => world.loader.acks.includes(1));
  });
});

describe("following the audit", () => {
  test("each follower sees each record once and in order, also one that reads slowly", async () => {
    const follow = (afterId: number) => {
      const seen: number[] = [];
      const stream = world.control.followAudit({ sandbox: "", kinds: ["exec"], afterId });
      stream.on("data", ({ id }) => seen.push(id)).on("error", () => undefined);
      return { seen, stream };
    };
    const [first, slow] = [follow(0), follow(0)];
    slow.stream.pause();
    const each = 300;
    for (let batch = 0; batch < 10; batch += 1) {
      const events = Array.from({ length: each }, (_, index) => denied(batch * each + index + 1));
      await world.loader.emit(...events);
    }
    await world.loader.until(() => world.loader.acks.includes(10 * each));
    const late = follow(5 * each);
    slow.stream.resume();
    const all = Array.from({ length: 10 * each }, (_, index) => index + 1);
    await world.loader.until(() => [first, slow].every(({ seen }) => seen.length >= all.length));
    await world.loader.until(() => late.seen.length >= 5 * each);
    for (const { stream } of [first, slow, late]) stream.cancel();
    expect(first.seen).toEqual(all);
    expect(slow.seen).toEqual(all);
    expect(late.seen).toEqual(all.slice(5 * each));
  });
});
