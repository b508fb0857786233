import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Hold, HoldChangeKind, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import { NetworkProtocol, ObservedProtocol, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { exec, question } from "../../testing/questions.js";
import { HoldBook, type HoldTerms } from "./book.js";
import { finalVerdict } from "./outcome.js";
import { HoldStore } from "./store.js";

let folder: string;
let book: HoldBook;
let ends: [Hold, readonly number[]][];

const terms = (fields: Partial<HoldTerms> = {}): HoldTerms => ({
  rule: "exec/git-push",
  because: "it publishes",
  timeoutMs: 60_000,
  onTimeout: Verdict.DENY,
  policyHash: "abc",
  ...fields,
});

function open(graceMs = 1000): HoldBook {
  const opened = new HoldBook(new HoldStore(join(folder, "holds.db")), graceMs);
  ends = [];
  opened.on("ended", (...end) => ends.push(end));
  return opened;
}

beforeEach(() => {
  vi.useFakeTimers({ now: 1_800_000_000_000 });
  folder = mkdtempSync(join(tmpdir(), "clawsec-holds-"));
  book = open();
});
afterEach(() => {
  book.close();
  rmSync(folder, { recursive: true });
  vi.useRealTimers();
});

describe("a deadline", () => {
  test("denies by default when it passes, and not a moment before", () => {
    const hold = book.open(question(1), terms());
    vi.advanceTimersByTime(59_999);
    expect(book.list()).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(book.list()).toEqual([]);
    expect(ends).toHaveLength(1);
    expect(ends[0]?.[0]).toMatchObject({ id: hold.id, outcome: HoldOutcome.EXPIRED, answeredBy: "" });
    expect(ends[0]?.[1]).toEqual([1]);
    expect(finalVerdict(ends[0]?.[0] as Hold)).toBe(Verdict.DENY);
  });

  test("allows when the rule says so", () => {
    book.open(question(1), terms({ onTimeout: Verdict.ALLOW }));
    vi.advanceTimersByTime(60_000);
    expect(finalVerdict(ends[0]?.[0] as Hold)).toBe(Verdict.ALLOW);
  });

  test("beyond the longest timer does not pass at once", () => {
    book.open(question(1), terms({ timeoutMs: 40 * 24 * 3600 * 1000 }));
    vi.advanceTimersByTime(39 * 24 * 3600 * 1000);
    expect(book.list()).toHaveLength(1);
    vi.advanceTimersByTime(24 * 3600 * 1000);
    expect(book.list()).toEqual([]);
  });

  test("is not moved by a jump of the host's clock", () => {
    book.open(question(1), terms());
    vi.setSystemTime(1_900_000_000_000);
    vi.advanceTimersByTime(59_000);
    expect(book.list()).toHaveLength(1);
  });

  test("does not pass for a hold that was answered", () => {
    const { id } = book.open(question(1), terms());
    book.answer(id, Verdict.ALLOW, "uid 0", "");
    vi.advanceTimersByTime(120_000);
    expect(ends).toHaveLength(1);
  });
});

describe("the same question", () => {
  test("asked by many is one hold, and one answer serves all", () => {
    const { id } = book.open(question(1), terms());
    book.open(question(2), terms());
    expect(book.open(question(3), terms())).toMatchObject({ id, asked: 3 });
    expect(book.list()).toHaveLength(1);
    expect(book.answer(id, Verdict.ALLOW, "uid 0 (root) by cli", "fine").kind).toBe("answered");
    expect(ends.map(([hold, waiters]) => [hold.outcome, waiters])).toEqual([
      [HoldOutcome.ALLOWED, [1, 2, 3]],
    ]);
  });

  test("asked again under the same id is counted once", () => {
    book.open(question(1), terms());
    expect(book.open(question(1), terms()).asked).toBe(1);
  });

  test("asked after the answer is a new hold", () => {
    const first = book.open(question(1), terms());
    book.answer(first.id, Verdict.ALLOW, "uid 0", "");
    expect(book.open(question(2), terms()).id).not.toBe(first.id);
  });

  test.each([
    ["other arguments", question(2, {}, { argv: ["git", "push", "--force"] })],
    ["another folder", question(2, {}, { cwd: "/tmp" })],
    ["another file under the same path", question(2, {}, { fileId: "1:3" })],
    [
      "another variable in the environment",
      question(2, {}, { environmentNames: ["HOME", "LD_PRELOAD", "PATH"] }),
    ],
    ["another subject", question(2, { subject: "tool" })],
    ["another sandbox", question(2, { sandbox: "other" })],
    [
      "a connection",
      question(2, {
        action: {
          $case: "network",
          value: {
            protocol: NetworkProtocol.TCP,
            host: "a.test",
            address: "",
            port: 443,
            observedHost: "",
            observedProtocol: ObservedProtocol.NONE,
            rule: "network/a",
            httpMethod: "",
            httpPath: "",
          },
        },
      }),
    ],
  ])("is not the one with %s", (_what, other) => {
    const { id } = book.open(question(1), terms());
    expect(book.open(other, terms()).id).not.toBe(id);
    book.answer(id, Verdict.ALLOW, "uid 0", "");
    expect(ends.map(([, waiters]) => waiters)).toEqual([[1]]);
  });
});

describe("a requester that is gone", () => {
  test("ends the hold when nobody else waits", () => {
    book.open(question(1), terms());
    book.gone(1, "the process was killed");
    expect(ends[0]?.[0]).toMatchObject({
      outcome: HoldOutcome.REQUESTER_GONE,
      reason: "the process was killed",
    });
    expect(finalVerdict(ends[0]?.[0] as Hold)).toBe(Verdict.DENY);
  });

  test("leaves the hold open for the others", () => {
    book.open(question(1), terms());
    book.open(question(2), terms());
    book.gone(1, "killed");
    expect(book.list()).toHaveLength(1);
    expect(ends).toEqual([]);
  });
});

describe("after a restart of the supervisor", () => {
  test("an open hold is there, joins its question by id, and its answer reaches the new question", () => {
    const { id } = book.open(question(1), terms());
    book.close();
    book = open();
    book.connected();
    expect(book.list().map((hold) => hold.id)).toEqual([id]);
    book.rejoin(question(9, { resent: true, holdId: id }));
    vi.advanceTimersByTime(5000);
    book.answer(id, Verdict.DENY, "uid 0", "no");
    expect(ends.map(([hold, waiters]) => [hold.outcome, waiters])).toEqual([[HoldOutcome.DENIED, [9]]]);
  });

  test("a hold that the loader does not ask about again ends as requester gone after the grace", () => {
    book.open(question(1), terms());
    book.close();
    book = open();
    book.connected();
    vi.advanceTimersByTime(999);
    expect(book.list()).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(ends[0]?.[0].outcome).toBe(HoldOutcome.REQUESTER_GONE);
  });

  test("a deadline that passed meanwhile is a denial, also where the default is to allow", () => {
    book.open(question(1), terms({ onTimeout: Verdict.ALLOW }));
    book.close();
    vi.setSystemTime(Date.now() + 61_000);
    book = open();
    vi.advanceTimersByTime(0);
    expect(ends[0]?.[0].outcome).toBe(HoldOutcome.EXPIRED);
    expect(finalVerdict(ends[0]?.[0] as Hold)).toBe(Verdict.DENY);
  });

  test("a deadline that has not passed keeps the time that is left", () => {
    book.open(question(1), terms());
    book.close();
    vi.setSystemTime(Date.now() + 50_000);
    book = open();
    vi.advanceTimersByTime(9_999);
    expect(book.list()).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(book.list()).toEqual([]);
  });

  test("a question about a hold that was answered meanwhile gets the answer's outcome", () => {
    const { id } = book.open(question(1), terms());
    book.disconnected();
    book.answer(id, Verdict.ALLOW, "uid 0", "");
    expect(ends[0]?.[1]).toEqual([]);
    expect(book.rejoin(question(9, { resent: true, holdId: id }))?.outcome).toBe(HoldOutcome.ALLOWED);
  });
});

describe("an answer", () => {
  test("takes a prefix that one open hold has, and no other", () => {
    const a = book.open(question(1), terms(), "aa11");
    book.open(question(2, {}, { argv: ["b"] }), terms(), "aa22");
    expect(book.answer("aa", Verdict.ALLOW, "uid 0", "")).toEqual({
      kind: "ambiguous",
      ids: ["aa11", "aa22"],
    });
    expect(book.answer("zz", Verdict.ALLOW, "uid 0", "")).toEqual({ kind: "unknown" });
    expect(book.answer("", Verdict.ALLOW, "uid 0", "")).toEqual({ kind: "unknown" });
    expect(book.answer("aa1", Verdict.ALLOW, "uid 0", "")).toMatchObject({
      kind: "answered",
      hold: { id: a.id },
    });
  });

  test("to a hold that has ended says how it ended and changes nothing", () => {
    const { id } = book.open(question(1), terms());
    book.answer(id, Verdict.DENY, "uid 0", "no");
    expect(book.answer(id, Verdict.ALLOW, "uid 1000", "")).toMatchObject({
      kind: "ended",
      hold: { outcome: HoldOutcome.DENIED, answeredBy: "uid 0" },
    });
    expect(ends).toHaveLength(1);
  });
});

// CLAWSEC_HOLDS=10000 takes as many as a sandbox may have; the times are printed.
describe("many holds", () => {
  test("are open at once, outlive the loader's connection and a restart, and are each answered", () => {
    const count = Number(process.env.CLAWSEC_HOLDS ?? 500);
    const timed = (what: string, action: () => void) => {
      const before = performance.now();
      action();
      console.info(`${count} holds, ${what}: ${Math.round(performance.now() - before)} ms`);
    };
    vi.useRealTimers();
    const ask = (n: number) => question(n, {}, { argv: ["run", String(n)], argvHash: String(n) });
    timed("opened", () => {
      for (let n = 1; n <= count; n++) {
        book.open(ask(n), terms());
        book.held(n, exec({ argv: ["run", String(n)] }));
      }
    });
    const ids = book.list().map(({ id }) => id);
    expect(ids).toHaveLength(count);
    timed("disconnected", () => book.disconnected());
    timed("reopened", () => {
      book.close();
      book = open();
    });
    timed("asked again", () => {
      for (const [index, holdId] of ids.entries()) book.rejoin({ ...ask(index + 1), resent: true, holdId });
    });
    timed("answered", () => {
      for (const id of ids) book.answer(id, Verdict.DENY, "uid 0", "no");
    });
    expect(book.list()).toEqual([]);
    expect(new Set(ends.flatMap(([, waiters]) => waiters)).size).toBe(count);
  }, 300_000);
});

describe("what a person sees", () => {
  test("is the real image once the action stands still", () => {
    const changes: [HoldChangeKind, Hold][] = [];
    book.on("change", (...change) => changes.push(change));
    const { engaged } = book.open(question(1), terms());
    expect(engaged).toBe(false);
    book.held(
      1,
      exec({ executable: "/usr/lib/git-core/git", argv: ["git", "push", "real"], environmentNames: [] }),
    );
    expect(changes.map(([kind]) => kind)).toEqual([HoldChangeKind.OPENED, HoldChangeKind.UPDATED]);
    expect(changes[1]?.[1]).toMatchObject({
      engaged: true,
      action: { value: { executable: "/usr/lib/git-core/git", argv: ["git", "push", "real"] } },
    });
    expect(changes[1]?.[1].action).toMatchObject({ value: { environmentNames: ["HOME", "PATH"] } });
  });
});
