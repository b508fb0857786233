/** What the audit's threads promise: durable before said, in order, once, and a clear no when it cannot be. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import Database from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AuditRecord, QueryAuditRequest, QueryAuditResponse } from "../../../proto/gen/clawsec/v1/control.js";
import { type Event, SandboxState } from "../../../proto/gen/clawsec/v1/loader.js";
import { makeLog } from "../../common/log.js";
import { batchOf, denied, executed } from "../../testing/questions.js";
import { Audit } from "./audit.js";
import { ownRecord } from "./record.js";
import { AuditView } from "./view.js";

let folder: string;
let path: string;
let audit: Audit;

const open = () => Audit.open({ path, log: makeLog({ kind: "none" }), lockMs: 200, patienceMs: 2000 });
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-audit-"));
  path = join(folder, "audit.db");
  audit = await open();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await audit.close();
  rmSync(folder, { recursive: true });
});

const own = (summary: string) => ownRecord({ kind: "kill", timeUs: 1, sandbox: "box", summary });
/** What another connection reads now. */
function records(): AuditRecord[] {
  const view = new AuditView(path);
  const { records } = view.query(QueryAuditRequest.fromPartial({ limit: 10_000 }));
  view.close();
  return records;
}
const summaries = () => records().map(({ summary }) => summary);
const times = (boot: number) =>
  records()
    .filter(({ subject }) => subject === `boot-${boot}`)
    .map(({ timeUs }) => timeUs - 1_000_000);
const of = (boot: number, sequence: number): Event => ({ ...denied(sequence), subject: `boot-${boot}` });
/** The thread that gets the next request. */
function nextThread(): Promise<Worker> {
  return new Promise((resolve) => {
    const post = Worker.prototype.postMessage;
    vi.spyOn(Worker.prototype, "postMessage").mockImplementation(function (this: Worker, value, transfer) {
      resolve(this);
      post.call(this, value, transfer);
    });
  });
}

describe("writing", () => {
  test("says that a batch or a record is written only after another connection can read it", async () => {
    expect(await audit.ingest("boot-1", batchOf(denied(1), denied(2)))).toMatchObject({
      upTo: 2,
      inserted: 2,
    });
    expect(records()).toHaveLength(2);
    await audit.append(own("killed box"));
    expect(summaries().at(-1)).toBe("killed box");
    expect(audit.count()).toBe(3);
  });

  test("writes records that come together in their order, and one that cannot be written fails alone", async () => {
    const bad = { ...own("bad"), pid: {} as unknown as number };
    const names = Array.from({ length: 1500 }, (_, index) => `record ${index}`);
    const first = names.slice(0, 700).map((name) => audit.append(own(name)));
    const failing = audit.append(bad);
    const second = names.slice(700).map((name) => audit.append(own(name)));
    await expect(failing).rejects.toThrow("parameter values");
    await Promise.all([...first, ...second]);
    expect(summaries()).toEqual(names);
  });

  test("keeps the events of several streams in their order each, with records between them, and loses none", async () => {
    const all: Promise<unknown>[] = [];
    for (let batch = 0; batch < 20; batch += 1) {
      for (const boot of [1, 2, 3]) {
        const events = Array.from({ length: 50 }, (_, index) => of(boot, batch * 50 + index + 1));
        all.push(audit.ingest(`boot-${boot}`, batchOf(...events)));
      }
      all.push(audit.append(own(`kill ${batch}`)));
    }
    await Promise.all(all);
    const order = Array.from({ length: 1000 }, (_, index) => index + 1);
    for (const boot of [1, 2, 3]) expect(times(boot)).toEqual(order);
    const kills = summaries().filter((summary) => summary.startsWith("kill "));
    expect(kills).toEqual(Array.from({ length: 20 }, (_, index) => `kill ${index}`));
    expect(audit.lost()).toEqual({});
    expect(audit.count()).toBe(3020);
  });

  test("writes a record of the supervisor's own before the batches that came earlier and wait", async () => {
    const done: string[] = [];
    const batches = Array.from({ length: 10 }, (_, batch) => {
      const events = Array.from({ length: 500 }, (_, index) => denied(batch * 500 + index + 1));
      return audit.ingest("boot-1", batchOf(...events)).then(() => done.push(`batch ${batch}`));
    });
    await audit.append(own("killed box")).then(() => done.push("record"));
    await Promise.all(batches);
    expect(done.indexOf("record")).toBeLessThan(done.indexOf("batch 9"));
    expect(done.filter((each) => each !== "record")).toEqual(batches.map((_, batch) => `batch ${batch}`));
    expect(summaries().some((summary) => summary.includes("events lost"))).toBe(false);
  });

  test("gives each record the severity and the tags that its own policy gives its rule, also after a restart of the thread", async () => {
    audit.remember("abc", new Map([["exec/no-git", { severity: "high", tags: ["scm"] }]]));
    audit.remember("def", new Map([["exec/no-git", { severity: "low", tags: [] }]]));
    const thread = nextThread();
    await audit.ingest("boot-1", batchOf(denied(1), { ...denied(2), policyHash: "def" }));
    await (await thread).terminate();
    await audit.ingest("boot-1", batchOf(denied(3), { ...denied(4), policyHash: "nobody's" }));
    expect(records().map(({ severity, tags }) => [severity, ...tags])).toEqual([
      ["high", "scm"],
      ["low"],
      ["high", "scm"],
      [""],
    ]);
  });

  test("hands over the events that tell of sandboxes, and of denied execs when asked, those of a batch that is sent again, too", async () => {
    const value = { state: SandboxState.EXITED, exit: { code: 0, signal: 0 }, detail: "" };
    const exited: Event = { ...denied(2), kind: { $case: "sandboxEvent", value } };
    for (const inserted of [3, 0]) {
      const written = await audit.ingest("boot-1", batchOf(denied(1), exited, executed(3)));
      expect([written.inserted, written.news]).toEqual([inserted, [exited]]);
    }
    const { news } = await audit.ingest("boot-1", batchOf(denied(4), executed(5)), true);
    expect(news).toEqual([denied(4)]);
  });

  test("keeps an event as it came, also what this program does not know of it", async () => {
    // Field 1000, a number, behind an event.
    const unknown = Buffer.from([0xc0, 0x3e, 0x2a]);
    const batch = batchOf(denied(1));
    const event = Buffer.concat([batch.subarray(3), unknown]);
    const length = Buffer.from([10, (event.length & 0x7f) | 0x80, event.length >> 7]);
    await audit.ingest("boot-1", Buffer.concat([length, event]));
    const db = new Database(path, { readonly: true });
    expect(db.prepare("SELECT event FROM audit").pluck().get()).toEqual(event);
    db.close();
    expect(JSON.parse(records()[0]?.facts ?? "").decision.rule).toBe("exec/no-git");
  });

  test("refuses what is no batch with a sentence, and goes on", async () => {
    await expect(audit.ingest("boot-1", Buffer.from([10, 200, 1]))).rejects.toThrow();
    expect(await audit.ingest("boot-1", batchOf(denied(1)))).toMatchObject({ upTo: 1 });
  });
});

describe("what cannot be written", () => {
  test("is not said to be written, nothing of it is kept, and it is taken when sent again", async () => {
    const other = new Database(path);
    other.exec(
      "CREATE TRIGGER full BEFORE INSERT ON audit WHEN new.sequence = 3 BEGIN SELECT RAISE(ABORT, 'full'); END",
    );
    const batch = batchOf(denied(1), denied(2), denied(3));
    await expect(audit.ingest("boot-1", batch)).rejects.toThrow("full");
    expect([records(), audit.count()]).toEqual([[], 0]);
    other.exec("DROP TRIGGER full");
    other.close();
    expect(await audit.ingest("boot-1", batch)).toMatchObject({ upTo: 3, inserted: 3 });
  });

  test("because another program has the lock is refused, for a record and for a batch", async () => {
    const other = new Database(path);
    other.exec("BEGIN IMMEDIATE");
    await expect(audit.append(own("killed box"))).rejects.toThrow(/locked/);
    await expect(audit.ingest("boot-1", batchOf(denied(1)))).rejects.toThrow(/locked/);
    other.exec("ROLLBACK");
    other.close();
    await audit.append(own("killed it now"));
    expect(summaries()).toEqual(["killed it now"]);
  });

  test("because nothing comes back from the disk is refused, also what comes meanwhile; later it goes on, each event once", async () => {
    await audit.close();
    audit = await Audit.open({ path, log: makeLog({ kind: "none" }), lockMs: 20_000, patienceMs: 300 });
    const other = new Database(path);
    other.exec("BEGIN IMMEDIATE");
    await expect(audit.ingest("boot-1", batchOf(denied(1)))).rejects.toThrow("has not answered for 300 ms");
    await expect(audit.append(own("killed box"))).rejects.toThrow("has not answered");
    other.exec("ROLLBACK");
    other.close();
    const again = () => audit.ingest("boot-1", batchOf(denied(1), denied(2))).catch(() => undefined);
    let written = await again();
    while (written === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      written = await again();
    }
    expect(written.upTo).toBe(2);
    expect(records().map(({ kind }) => kind)).toEqual(["exec", "exec"]);
  });

  test("because the thread has died is refused; the next batch starts another, and each event is there once", async () => {
    await audit.ingest("boot-1", batchOf(denied(1)));
    const thread = nextThread();
    const waiting = [
      audit.ingest("boot-1", batchOf(denied(2))),
      audit.append(own("killed box")),
      thread.then((worker) => worker.terminate()),
    ];
    const [batch] = await Promise.allSettled(waiting);
    // Whether it came to be written before the end is open; then it is known when it is sent again.
    if (batch?.status === "rejected") expect(String(batch.reason)).toContain("has ended");
    vi.restoreAllMocks();
    expect(await audit.ingest("boot-1", batchOf(denied(2), denied(3)))).toMatchObject({ upTo: 3 });
    expect(records().filter(({ kind }) => kind === "exec")).toHaveLength(3);
    expect(summaries().some((summary) => summary.includes("events lost"))).toBe(false);
  });

  test("because the database cannot be opened stops the start with the reason", async () => {
    const options = { path: join(folder, "nowhere", "audit.db"), log: makeLog({ kind: "none" }) };
    await expect(Audit.open(options)).rejects.toThrow(/directory does not exist/);
  });
});

describe("closing", () => {
  test("writes all that was handed over before", async () => {
    const all = Array.from({ length: 30 }, (_, batch) => {
      const events = Array.from({ length: 100 }, (_, index) => of(1, batch * 100 + index + 1));
      return audit.ingest("boot-1", batchOf(...events));
    });
    all.push(audit.append(own("killed box")) as never);
    await audit.close();
    expect(times(1)).toEqual(Array.from({ length: 3000 }, (_, index) => index + 1));
    expect((await Promise.allSettled(all)).every(({ status }) => status === "fulfilled")).toBe(true);
    await expect(audit.append(own("too late"))).rejects.toThrow("is closed");
  });
});

describe("searching", () => {
  test("finds what was said to be written, while a large batch is being written", async () => {
    await audit.ingest("boot-1", batchOf(denied(1)));
    const events = Array.from({ length: 500 }, (_, index) => denied(index + 2));
    const batch = audit.ingest("boot-1", batchOf(...events));
    const found = QueryAuditResponse.decode(
      await audit.query(QueryAuditRequest.fromPartial({ limit: 10_000 })),
    );
    // One moment: the batch as far as it was committed, in order.
    expect(found.records.map(({ id }) => id)).toEqual(found.records.map((_, index) => index + 1));
    await batch;
    expect(records()).toHaveLength(501);
  });

  test("pages give each record once, and what does not match is passed", async () => {
    const events = Array.from({ length: 25 }, (_, index) => denied(index + 1));
    await audit.ingest("boot-1", batchOf(...events));
    await audit.append(own("killed box"));
    const request = { sandbox: "", kinds: ["exec"], afterId: 0 };
    const seen: number[] = [];
    for (let [after, full] = [0, true]; full; ) {
      const page = await audit.after(request, after, 10);
      seen.push(...page.records.map((record) => AuditRecord.decode(record).id));
      [after, full] = [page.upTo, page.full];
      if (!full) expect(after).toBe(26);
    }
    expect(seen).toEqual(events.map((_, index) => index + 1));
  });
});
