/** Whatever cannot be judged or recorded is denied, with a sentence. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Policy, parsePolicy } from "../../../policy/index.js";
import { CacheScope, type Decision, type Question, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { makeLog } from "../../common/log.js";
import { question } from "../../testing/questions.js";
import { HoldBook } from "../holds/book.js";
import { HoldStore } from "../holds/store.js";
import type { Sandbox } from "../sandboxes/registry.js";
import { Decider } from "./decider.js";
import { judge } from "./judge.js";
import { RateBook } from "./rates.js";

const TEXT = `
apiVersion: clawsec/v1
kind: Policy
metadata: { name: box }
sandbox:
  user: { uid: 1000, gid: 1000, name: agent }
  home: /work
  workspace: /work
  mounts: [ { source: /usr, target: /usr, mode: ro }, { type: tmpfs, target: /work, size: 1Mi } ]
defaults: { exec: deny, network: deny }
approvals: { timeout: 30s, default: deny }
exec:
  - { id: push, executable: /usr/bin/git, action: hold }
  - { id: slow, executable: /usr/bin/slow, action: hold, hold: { timeout: 1s, default: allow } }
  - { id: ls, executable: /usr/bin/ls, action: allow }
  - { id: cat, executable: /usr/bin/cat, action: log }
`;

function policyOf(text = TEXT): Policy {
  const { policy, diagnostics } = parsePolicy(text, "/box.yaml");
  if (policy === undefined) throw new Error(JSON.stringify(diagnostics));
  return policy;
}

function sandbox(policy: Sandbox["policy"] = policyOf(), epoch = 4): Sandbox {
  const record = {
    name: "box",
    policyPath: "/box.yaml",
    startedFrom: [],
    sources: [{ reference: "/box.yaml", file: "/box.yaml", text: TEXT }],
    policyHash: "abc",
    variables: {},
    command: [],
    terminal: false,
    detached: true,
    term: "xterm",
    epoch,
  };
  return { record, policy, info: undefined, lost: false };
}

const ls = (fields: Partial<Question> = {}) => question(1, fields, { executable: "/usr/bin/ls" });
const decision = (asked: Question, of: Sandbox | undefined): Decision => judge(asked, of).decision;

describe("judge", () => {
  test("allows what the policy allows, under the policy's epoch: the control of this file", () => {
    expect(decision(ls(), sandbox())).toMatchObject({
      verdict: Verdict.ALLOW,
      rule: "exec/ls",
      epoch: 4,
      questionId: 1,
    });
    const cat = question(1, {}, { executable: "/usr/bin/cat" });
    expect(decision(cat, sandbox())).toMatchObject({ verdict: Verdict.LOG, rule: "exec/cat" });
  });

  test("holds what the policy holds, and never lets a person's answer be used for another question", () => {
    const judgement = judge(question(1), sandbox());
    expect(judgement).toMatchObject({
      kind: "hold",
      terms: { rule: "exec/push", timeoutMs: 30_000, onTimeout: Verdict.DENY },
      decision: { cacheScope: CacheScope.NONE },
    });
  });

  const broken = new Proxy({} as Policy, {
    get: (_, key) => {
      throw new Error(`no ${String(key)}`);
    },
    has: () => false,
  });
  test.each<[string, Question, Sandbox | undefined, RegExp]>([
    ["a sandbox without a policy", ls(), undefined, /no policy for a sandbox of the name box/],
    ["a policy that cannot be read again", ls(), sandbox({ unreadable: "gone" }), /^gone$/],
    [
      "a question without an action",
      ls({ action: undefined }),
      sandbox(),
      /kind that this supervisor does not know/,
    ],
    ["an evaluator that throws", ls(), sandbox(broken), /evaluator failed/],
    [
      "arguments that cannot be shown whole",
      question(1, {}, { executable: "/usr/bin/ls", argvTruncated: true }),
      sandbox(),
      /longer than clawsec shows/,
    ],
  ])("denies %s with a sentence that the loader accepts", (_what, asked, of, words) => {
    const denial = decision(asked, of);
    expect(denial.verdict).toBe(Verdict.DENY);
    expect(denial.message).toMatch(words);
    // An older epoch would be void, and asked again.
    expect(denial.epoch).toBeGreaterThanOrEqual(asked.epoch);
    expect(denial.cacheScope).toBe(CacheScope.NONE);
  });
});

describe("the decider", () => {
  let folder: string;
  let store: HoldStore;
  let book: HoldBook;
  let rates: RateBook;
  let sent: Decision[];
  let current: Sandbox;
  let decider: Decider;
  let recording: Promise<void> | undefined;

  beforeEach(() => {
    vi.useFakeTimers();
    folder = mkdtempSync(join(tmpdir(), "clawsec-decide-"));
    store = new HoldStore(join(folder, "holds.db"));
    book = new HoldBook(store);
    rates = new RateBook(":memory:");
    sent = [];
    current = sandbox();
    recording = undefined;
    const log = makeLog({ kind: "none" });
    decider = new Decider({
      holds: book,
      rates,
      log,
      sandbox: () => current,
      send: (made) => sent.push(made),
      recorded: () => recording,
    });
  });
  afterEach(() => {
    book.close();
    rates.close();
    rmSync(folder, { recursive: true });
    vi.useRealTimers();
  });
  const ask = (asked: Question) => decider.receive({ message: { $case: "question", value: asked } });

  test("denies a question whose hold cannot be recorded", () => {
    store.close();
    ask(question(1));
    expect(sent).toMatchObject([{ questionId: 1, verdict: Verdict.DENY }]);
    expect(sent[0]?.message).toContain("could not record");
  });

  test("does not allow by default what it cannot record when the deadline passes", () => {
    ask(question(1, {}, { executable: "/usr/bin/slow" }));
    const failures: unknown[] = [];
    book.on("failed", (error) => failures.push(error));
    store.close();
    vi.advanceTimersByTime(2000);
    expect(failures).toHaveLength(1);
    expect(sent.map(({ verdict }) => verdict)).toEqual([Verdict.HOLD]);
  });

  test("allows by default when it can be recorded", () => {
    ask(question(1, {}, { executable: "/usr/bin/slow" }));
    vi.advanceTimersByTime(1000);
    expect(sent.map(({ verdict }) => verdict)).toEqual([Verdict.HOLD, Verdict.ALLOW]);
    expect(sent[1]?.layer).toBe("supervisor");
  });

  test("answers a hold under the epoch of now, not of then", () => {
    ask(question(1));
    current = sandbox(policyOf(), 5);
    book.answer(sent[0]?.holdId ?? "", Verdict.ALLOW, "uid 0", "");
    expect(sent[1]).toMatchObject({ verdict: Verdict.ALLOW, epoch: 5, layer: "person", rule: "exec/push" });
  });

  test("does not let a person allow what the policy denies by now", () => {
    ask(question(1));
    current = sandbox(
      policyOf(
        TEXT.replace("executable: /usr/bin/git, action: hold", "executable: /usr/bin/git, action: deny"),
      ),
      5,
    );
    book.answer(sent[0]?.holdId ?? "", Verdict.ALLOW, "uid 0", "");
    expect(sent[1]).toMatchObject({ verdict: Verdict.DENY, epoch: 5 });
  });

  test("does not undo a person's no because the policy allows by now", () => {
    ask(question(1));
    current = sandbox(
      policyOf(
        TEXT.replace("executable: /usr/bin/git, action: hold", "executable: /usr/bin/git, action: allow"),
      ),
      5,
    );
    book.answer(sent[0]?.holdId ?? "", Verdict.DENY, "uid 0", "no");
    expect(sent[1]).toMatchObject({ verdict: Verdict.DENY, message: "denied by uid 0: no" });
  });

  test("takes up a hold that it does not know under the loader's id", () => {
    ask(question(9, { resent: true, holdId: "feed" }));
    expect(sent).toMatchObject([{ questionId: 9, verdict: Verdict.HOLD, holdId: "feed" }]);
    book.answer("feed", Verdict.ALLOW, "uid 0", "");
    expect(sent[1]).toMatchObject({ questionId: 9, verdict: Verdict.ALLOW });
  });

  test("does not answer a hold that it knows with another hold", () => {
    ask(question(1));
    const holdId = sent[0]?.holdId ?? "";
    decider.disconnected();
    ask(question(1, { resent: true, holdId }));
    expect(sent).toHaveLength(1);
    book.answer(holdId, Verdict.ALLOW, "uid 0", "");
    expect(sent[1]).toMatchObject({ questionId: 1, verdict: Verdict.ALLOW, holdId });
  });

  test("ends a hold whose requester is gone, and sends nothing for it", () => {
    ask(question(1));
    const holdId = sent[0]?.holdId ?? "";
    decider.receive({
      message: { $case: "requesterGone", value: { questionId: 1, holdId, why: "it died" } },
    });
    expect(book.list()).toEqual([]);
    expect(sent).toHaveLength(1);
  });

  /** A record that is being written. */
  function record() {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => undefined);
    recording = promise;
    return { written: resolve, failed: reject };
  }
  const soon = () => vi.advanceTimersByTimeAsync(0);

  test("holds only when the hold's record is durable", async () => {
    const { written } = record();
    ask(question(1));
    await soon();
    expect(sent).toEqual([]);
    written();
    await soon();
    expect(sent).toMatchObject([{ questionId: 1, verdict: Verdict.HOLD }]);
  });

  test("denies what it cannot record as held, and holds it no longer", async () => {
    const { failed } = record();
    ask(question(1));
    failed(new Error("database or disk is full"));
    await soon();
    expect(sent).toMatchObject([{ questionId: 1, verdict: Verdict.DENY }]);
    expect(sent[0]?.message).toContain("could not record the question: database or disk is full");
    expect(book.list()).toEqual([]);
  });

  test.each([
    ["when it is recorded", true],
    ["never when it cannot be recorded", false],
  ])("releases what a person allows %s", async (_when, recorded) => {
    ask(question(1));
    const { written, failed } = record();
    book.answer(sent[0]?.holdId ?? "", Verdict.ALLOW, "uid 0", "");
    await soon();
    expect(sent).toHaveLength(1);
    if (recorded) written();
    else failed(new Error("database or disk is full"));
    await soon();
    expect(sent.slice(1).map(({ verdict }) => verdict)).toEqual(recorded ? [Verdict.ALLOW] : []);
  });

  test("answers nothing to a stream that broke while the record was written: it is asked again", async () => {
    const { written } = record();
    ask(question(1));
    decider.disconnected();
    written();
    await soon();
    expect(sent).toEqual([]);
    recording = undefined;
    ask(question(1, { resent: true }));
    expect(sent).toMatchObject([{ questionId: 1, verdict: Verdict.HOLD }]);
  });

  test("answers what no person decides while a record is written", () => {
    record();
    ask(question(1));
    ask(question(2, {}, { executable: "/usr/bin/ls" }));
    expect(sent).toMatchObject([{ questionId: 2, verdict: Verdict.ALLOW }]);
  });

  test("is not ended by a message of an unknown kind", () => {
    decider.receive({ message: undefined });
    ask(ls());
    expect(sent).toMatchObject([{ verdict: Verdict.ALLOW }]);
  });
});
