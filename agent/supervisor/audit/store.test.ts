import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type AuditRecord,
  type QueryAuditRequest,
  QueryAuditResponse,
} from "../../../proto/gen/clawsec/v1/control.js";
import { type Event, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { batchOf, denied, ended, executed } from "../../testing/questions.js";
import { eventsOf } from "./batch.js";
import { ownRecord } from "./record.js";
import { AuditStore, type Ingested } from "./store.js";
import { AuditView } from "./view.js";

let folder: string;
let path: string;
let audit: AuditStore;
let view: AuditView;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "clawsec-audit-"));
  path = join(folder, "audit.db");
  audit = new AuditStore(path);
  view = new AuditView(path);
});
afterEach(() => {
  view.close();
  audit.close();
  rmSync(folder, { recursive: true });
});

const ALL: QueryAuditRequest = {
  sandbox: "",
  kinds: [],
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
const find = (query: Partial<QueryAuditRequest> = {}) => view.query({ ...ALL, ...query }).records;
const ingest = (bootId: string, events: Event[], into = audit): Ingested =>
  into.ingest(bootId, eventsOf(batchOf(...events)));
const ids = (records: AuditRecord[]) => records.map(({ id }) => id);

describe("ingest", () => {
  test("says what may be acknowledged only after another connection can read it", () => {
    const { upTo } = ingest("boot-1", [denied(1), denied(2), denied(3)]);
    const other = new Database(path, { readonly: true });
    const durable = other.prepare("SELECT max(sequence) AS n FROM audit WHERE boot_id = 'boot-1'").get();
    other.close();
    expect(durable).toEqual({ n: upTo });
    expect(upTo).toBe(3);
  });

  test("acknowledges nothing and keeps nothing when the commit fails, and the batch is taken when sent again", () => {
    const lock = new Database(path);
    lock.exec("BEGIN IMMEDIATE");
    const short = new AuditStore(path, undefined, 50);
    expect(() => ingest("boot-1", [denied(1), denied(2)], short)).toThrow(/locked/);
    lock.exec("ROLLBACK");
    lock.close();
    expect(find()).toEqual([]);
    expect(ingest("boot-1", [denied(1), denied(2)], short)).toMatchObject({ upTo: 2, inserted: 2 });
    short.close();
  });

  test("ignores an event that it has, and takes the new one beside it", () => {
    ingest("boot-1", [denied(1), denied(2)]);
    expect(ingest("boot-1", [denied(2), denied(3)])).toMatchObject({
      upTo: 3,
      inserted: 1,
      duplicates: 1,
    });
    expect(find()).toHaveLength(3);
  });

  test("tells the same sequence of another boot from a duplicate", () => {
    ingest("boot-1", [denied(1)]);
    expect(ingest("boot-2", [denied(1)])).toMatchObject({ inserted: 1, duplicates: 0 });
  });

  test("records a gap as lost, with how many, and counts it", () => {
    ingest("boot-1", [denied(1)]);
    expect(ingest("boot-1", [denied(5)]).lost).toEqual([["sequence-gap", 3]]);
    expect(find({ kinds: ["lost"] })[0]?.summary).toBe(
      "3 events lost: the loader's sequence jumps from 1 to 5",
    );
  });

  test("records no gap where there is none, also across a restart", () => {
    ingest("boot-1", [denied(1), denied(2)]);
    audit.close();
    audit = new AuditStore(path);
    ingest("boot-1", [denied(3)]);
    expect(find({ kinds: ["lost"] })).toEqual([]);
    expect(audit.count()).toBe(3);
  });

  test("counts what the loader says that it lost", () => {
    const event = {
      ...denied(1),
      kind: { $case: "lost" as const, value: { way: "ring-full", count: 9, sinceUs: 0, untilUs: 0 } },
    };
    expect(ingest("boot-1", [event]).lost).toEqual([["ring-full", 9]]);
    expect(find({ kinds: ["lost"] })).toHaveLength(1);
  });

  test("commits what it has when it is interrupted, and the rest of the batch is taken after it, in order", () => {
    const events = eventsOf(batchOf(...Array.from({ length: 100 }, (_, index) => denied(index + 1))));
    let looks = 0;
    const interrupted = () => {
      looks += 1;
      return looks === 2;
    };
    const first = audit.ingest("boot-1", events, interrupted);
    expect(ids(find({ limit: 200 }))).toHaveLength(first.taken);
    expect(first).toMatchObject({ upTo: first.taken, inserted: first.taken });
    expect(first.taken).toBeLessThan(100);
    audit.append(ownRecord({ kind: "kill", timeUs: 1, sandbox: "box", summary: "killed box" }));
    audit.ingest("boot-1", events.slice(first.taken));
    const found = find({ limit: 200 });
    expect(found.findIndex(({ kind }) => kind === "kill")).toBe(first.taken);
    const told = found.filter(({ kind }) => kind === "exec").map(({ timeUs }) => timeUs);
    expect(told).toEqual(events.map(({ event }) => event.timeUs));
    expect(found.some(({ kind }) => kind === "lost")).toBe(false);
  });
});

describe("the table", () => {
  test("takes new rows and refuses to change or remove one, also for another program", () => {
    ingest("boot-1", [denied(1)]);
    const other = new Database(path);
    expect(() => other.exec("UPDATE audit SET rule = 'x'")).toThrow(/append-only/);
    expect(() => other.exec("DELETE FROM audit")).toThrow(/append-only/);
    other.close();
    expect(find()[0]?.rule).toBe("exec/no-git");
  });

  test("is readable by its owner only", () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("keeps every fact of an event, hostile ones too, and a summary that is safe to print", () => {
    const argv = ["git", "\u001b[2J\u202e\nforged line", "a\u0000b"];
    ingest("boot-1", [denied(1, { argv })]);
    const [record] = find();
    expect(record?.summary).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(record?.summary.startsWith("deny /usr/bin/git [git ")).toBe(true);
    expect(JSON.parse(record?.facts ?? "").decision.exec.argv).toEqual(argv);
    expect(record).toMatchObject({
      kind: "exec",
      verdict: Verdict.DENY,
      latencyUs: 120,
      // The exec has an id of its own, so whoever called is its parent.
      execId: "exec-1",
      parents: ["exec-0", "exec-init"],
      pid: 4242,
    });
  });
});

test("a table of before events were kept as they came, and rules had a severity, is read and goes on", () => {
  ingest("boot-1", [denied(1)]);
  const facts = find()[0]?.facts ?? "";
  audit.close();
  const old = new Database(path);
  old.exec("DROP TRIGGER audit_no_update");
  old.prepare("UPDATE audit SET facts = ?").run(facts);
  for (const column of ["event", "severity", "tags"]) old.exec(`ALTER TABLE audit DROP COLUMN ${column}`);
  old.close();
  audit = new AuditStore(path);
  ingest("boot-1", [denied(1), denied(2)]);
  expect(find().map((record) => JSON.parse(record.facts).sequence)).toEqual([1, 2]);
  expect(JSON.parse(facts).decision.rule).toBe("exec/no-git");
  expect(find()[0]).toMatchObject({ severity: "", tags: [] });
});

describe("query", () => {
  beforeEach(() => {
    ingest("boot-1", [
      denied(1, { argv: ["git", "push"] }),
      denied(2, { argv: ["CURL", "Évil"] }, "exec/no-curl"),
      { ...denied(3), sandbox: "other" },
    ]);
    audit.append(ownRecord({ kind: "kill", timeUs: 5_000_000, sandbox: "box", summary: "killed box" }));
  });

  test.each<[string, Partial<QueryAuditRequest>, number[]]>([
    ["nothing asked finds all, oldest first", {}, [1, 2, 3, 4]],
    ["a sandbox", { sandbox: "other" }, [3]],
    ["kinds", { kinds: ["kill"] }, [4]],
    ["verdicts", { verdicts: [Verdict.DENY] }, [1, 2, 3]],
    ["verdicts that nothing has", { verdicts: [Verdict.ALLOW] }, []],
    ["text of the summary, in any case", { text: "curl" }, [2]],
    ["text with an accent, in any case", { text: "éVIL" }, [2]],
    ["text of the rule", { text: "NO-CURL" }, [2]],
    ["text is no pattern", { text: "%" }, []],
    ["a time from", { sinceUs: 1_000_003 }, [3, 4]],
    ["a time until", { untilUs: 1_000_001 }, [1]],
    ["after an id", { afterId: 2 }, [3, 4]],
    ["the newest when limited", { limit: 2 }, [3, 4]],
    ["an SQL injection finds nothing and harms nothing", { text: "'; DROP TABLE audit; --" }, []],
  ])("%s", (_what, query, expected) => {
    expect(ids(find(query))).toEqual(expected);
    expect(audit.count()).toBe(4);
  });

  test("finds what an exec did, what it led to however far, and what came before a record", () => {
    const by = (execId: string, ancestors: string[], sequence: number) =>
      executed(sequence, { execId, argv: [execId] }, { ancestors });
    ingest("boot-2", [
      by("init", [], 1),
      by("a", ["init"], 2),
      // Its record names its parent only, as one far down does that has too many ancestors.
      by("b", ["a"], 3),
      ended(4, { execId: "b", exit: { code: 7, signal: 0 } }, { ancestors: ["a"] }),
      by("c", ["init"], 5),
    ]);
    expect(ids(find({ execId: "b" }))).toEqual([7, 8]);
    expect(ids(find({ ancestor: "a" }))).toEqual([7, 8]);
    expect(ids(find({ ancestor: "init" }))).toEqual([6, 7, 8, 9]);
    expect(ids(find({ ancestor: "c" }))).toEqual([]);
    expect(ids(find({ execId: "nobody" }))).toEqual([]);
    expect(ids(find({ beforeId: 7, kinds: ["exec"], ancestor: "init" }))).toEqual([6]);
    expect(find({ execId: "b", kinds: ["exit"] })[0]?.summary).toBe("ended with code 7 after 0.0 ms");
  });

  test("a loss is told with its span, and an image without a decision by what was loaded", () => {
    const lost = {
      $case: "lost" as const,
      value: { way: "exec-ring-full", count: 3, sinceUs: 1_000_000, untilUs: 2_500_000 },
    };
    ingest("boot-3", [
      { ...denied(1), kind: lost },
      executed(2, { argv: ["git", "\u001b[2J"], argvTruncated: true }),
      executed(3, { verified: false, why: "its arguments are not the approved ones" }),
    ]);
    expect(find({ afterId: 4 }).map(({ summary, verdict }) => [summary, verdict])).toEqual([
      [
        "3 events were lost between 1970-01-01T00:00:01.000Z and 1970-01-01T00:00:02.500Z: exec-ring-full",
        Verdict.UNSPECIFIED,
      ],
      ["loaded /usr/bin/git [git '\\x1b[2J'] (arguments cut)", Verdict.UNSPECIFIED],
      [
        "killed before its first instruction: /usr/bin/git [git push]: its arguments are not the approved ones",
        Verdict.DENY,
      ],
    ]);
  });

  test("a denial that was told only in part says so", () => {
    const event = denied(1);
    if (event.kind?.$case === "decision") event.kind.value.cut = true;
    ingest("boot-4", [event, denied(2)]);
    expect(find({ afterId: 4 }).map(({ summary }) => summary)).toEqual([
      "deny /usr/bin/git [git push] (arguments cut): git may not push",
      "deny /usr/bin/git [git push]: git may not push",
    ]);
  });

  test("says when more matched than were returned, and only then", () => {
    expect(view.query({ ...ALL, limit: 3 }).truncated).toBe(true);
    expect(view.query({ ...ALL, limit: 4 }).truncated).toBe(false);
  });
});

test("an answer and a page are never more than a message may be, and always get on", () => {
  const argv = (id: number) => ["x", `${id}`, "\u0001".repeat(120_000)];
  for (let id = 1; id <= 40; id++) ingest("boot-1", [denied(id, { argv: argv(id) })]);
  const all = { ...ALL, limit: 10_000 };
  const { records, truncated } = view.query(all);
  expect(truncated).toBe(true);
  expect(records.at(-1)?.id).toBe(40);
  expect(QueryAuditResponse.encode({ records: [...records], truncated }).finish().length).toBeLessThan(
    32 * 1024 * 1024,
  );
  const rest = view.query({ ...all, beforeId: records[0]?.id ?? 0 });
  expect(ids(rest.records).at(-1)).toBe((records[0]?.id ?? 0) - 1);

  const seen: number[] = [];
  for (let page = view.after(ALL, 0, 256); page.records.length > 0; page = view.after(ALL, page.upTo, 256)) {
    expect(page.records.length).toBeLessThan(40);
    seen.push(...page.records.map(({ id }) => id));
  }
  expect(seen).toEqual(Array.from({ length: 40 }, (_, at) => at + 1));
});
