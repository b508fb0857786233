/**
 * The open questions: who waits for which, until when, and how each ends.
 *
 * A hold has any number of waiters (questions of the loader with the same content); one answer serves all. A waiter
 * belongs to one connection to the loader: when that breaks, the loader asks again on the next one, and a hold that
 * nobody asks about again ends as "requester gone".
 */
import { randomBytes } from "node:crypto";
import { EventEmitter } from "node:events";
import { type Hold, HoldChangeKind, HoldOutcome } from "../../../proto/gen/clawsec/v1/control.js";
import { type ExecAction, type Question, Verdict } from "../../../proto/gen/clawsec/v1/loader.js";
import { escapeTo } from "../../common/escape.js";
import { nowUs } from "../../common/time.js";
import { holdKey } from "./key.js";
import { type Ending, ended } from "./outcome.js";
import type { HoldStore } from "./store.js";

/** What a rule that holds says. */
export interface HoldTerms {
  readonly rule: string;
  readonly because: string;
  readonly timeoutMs: number;
  readonly onTimeout: Verdict.ALLOW | Verdict.DENY;
  readonly policyHash: string;
}

/** What became of an answer. */
export type Answered =
  | { kind: "answered"; hold: Hold }
  | { kind: "unknown" }
  | { kind: "ambiguous"; ids: string[] }
  | { kind: "ended"; hold: Hold };

interface Entry {
  hold: Hold;
  readonly key: string;
  /** The questions that wait, on the present connection, by their ids: the pid of whoever asked, 0 for none. */
  readonly waiters: Map<number, number>;
  timer: NodeJS.Timeout | undefined;
}

interface BookEvents {
  change: [HoldChangeKind, Hold];
  /** A hold ended; these questions of the present connection get its verdict. */
  ended: [Hold, readonly number[]];
  /** The end of a hold could not be recorded. */
  failed: [unknown];
}

/** setTimeout's longest delay; a longer wait is taken in steps. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class HoldBook extends EventEmitter<BookEvents> {
  readonly #store: HoldStore;
  readonly #open = new Map<string, Entry>();
  readonly #byKey = new Map<string, Entry>();
  readonly #byQuestion = new Map<number, Entry>();
  readonly #graceMs: number;
  #grace: NodeJS.Timeout | undefined;

  /** Reloads the open holds of `store`. `graceMs`: how long after a connect the loader may take to ask again. */
  constructor(store: HoldStore, graceMs = 5000) {
    super();
    this.setMaxListeners(0);
    this.#store = store;
    this.#graceMs = graceMs;
    for (const { hold, key } of store.open()) {
      const entry: Entry = { hold: { ...hold, engaged: false }, key, waiters: new Map(), timer: undefined };
      this.#add(entry);
      this.#arm(entry, (hold.deadlineUs - nowUs()) / 1000, true);
    }
  }

  /** Opens a hold for a question, or joins the open one with the same content. */
  open(question: Question, terms: HoldTerms, id = this.#newId()): Hold {
    const again = this.#byQuestion.get(question.id);
    if (again !== undefined) return again.hold;
    const key = holdKey(question, terms.rule);
    const same = this.#byKey.get(key);
    if (same !== undefined) {
      this.#wait(same, question);
      return this.#update(same, { asked: same.hold.asked + 1 });
    }
    const openedUs = nowUs();
    const hold: Hold = {
      id,
      sandbox: question.sandbox,
      subject: question.subject,
      outcome: HoldOutcome.OPEN,
      openedUs,
      deadlineUs: openedUs + Math.round(terms.timeoutMs * 1000),
      endedUs: 0,
      rule: terms.rule,
      because: terms.because,
      process: question.process,
      action: question.action,
      answeredBy: "",
      reason: "",
      defaultVerdict: terms.onTimeout,
      asked: 1,
      policyHash: terms.policyHash,
      engaged: question.holdId !== "",
    };
    const entry: Entry = { hold, key, waiters: new Map(), timer: undefined };
    this.#store.put(entry);
    this.#add(entry);
    this.#wait(entry, question);
    this.#arm(entry, terms.timeoutMs, false);
    this.emit("change", HoldChangeKind.OPENED, hold);
    return hold;
  }

  /** A question that the loader asks again about an action that is held: it joins its hold. */
  rejoin(question: Question): Hold | undefined {
    const entry = this.#open.get(question.holdId);
    if (entry === undefined)
      return this.#store.byPrefix(question.holdId).find(({ id }) => id === question.holdId);
    this.#wait(entry, question);
    return this.#update(entry, { engaged: true });
  }

  /** The action stands still; for an exec, with the facts of the real image. */
  held(questionId: number, exec: ExecAction | undefined): void {
    const entry = this.#byQuestion.get(questionId);
    if (entry === undefined) return;
    const action = entry.hold.action;
    if (exec === undefined || action?.$case !== "exec") {
      this.#update(entry, { engaged: true });
      return;
    }
    // The image knows what runs; what only the caller knew (its environment's names) stays.
    const value: ExecAction = {
      ...exec,
      environmentNames:
        exec.environmentNames.length > 0 ? exec.environmentNames : action.value.environmentNames,
      script: exec.script || action.value.script,
      requestedPath: exec.requestedPath || action.value.requestedPath,
      execId: exec.execId || action.value.execId,
    };
    this.#update(entry, { engaged: true, action: { $case: "exec", value } });
  }

  /** Whoever asked is gone. The hold ends when nobody is left. */
  gone(questionId: number, why: string): void {
    const entry = this.#byQuestion.get(questionId);
    if (entry === undefined) return;
    this.#byQuestion.delete(questionId);
    entry.waiters.delete(questionId);
    if (entry.waiters.size === 0) this.#end(entry, { kind: "requester-gone", why });
  }

  /** A person's answer. `id` is a full id or a prefix that only one open hold has. */
  answer(id: string, verdict: Verdict.ALLOW | Verdict.DENY, by: string, reason: string): Answered {
    const exact = this.#open.get(id);
    const matching = exact === undefined && id !== "" ? this.#openByPrefix(id) : [];
    const entry = exact ?? (matching.length === 1 ? matching[0] : undefined);
    if (entry !== undefined) {
      const kind = verdict === Verdict.ALLOW ? "allowed" : "denied";
      return { kind: "answered", hold: this.#end(entry, { kind, by, reason }) };
    }
    if (matching.length > 1) return { kind: "ambiguous", ids: matching.map(({ hold }) => hold.id) };
    const past =
      id === "" ? [] : this.#store.byPrefix(id).filter((hold) => hold.outcome !== HoldOutcome.OPEN);
    const [hold] = past;
    return hold !== undefined && past.length === 1 ? { kind: "ended", hold } : { kind: "unknown" };
  }

  /** The open hold that a question of the present connection waits for. */
  ofQuestion(questionId: number): Hold | undefined {
    return this.#byQuestion.get(questionId)?.hold;
  }

  /** True while this process (as the host numbers it) waits for an open hold. */
  holds(id: string, pid: number): boolean {
    return [...(this.#open.get(id)?.waiters.values() ?? [])].includes(pid);
  }

  /** Ends an open hold because the policy decides now what a person was asked. */
  settleByPolicy(id: string, verdict: Verdict.ALLOW | Verdict.DENY, reason: string): void {
    const entry = this.#open.get(id);
    const kind = verdict === Verdict.ALLOW ? "allowed" : "denied";
    if (entry !== undefined) this.#end(entry, { kind, by: "the policy", reason });
  }

  /** Every hold of a sandbox that has ended ends too. */
  sandboxGone(sandbox: string, why: string): void {
    for (const entry of [...this.#open.values()]) {
      if (entry.hold.sandbox === sandbox) this.#end(entry, { kind: "requester-gone", why });
    }
  }

  /** The loader is connected: it has `graceMs` to ask again about what it holds. */
  connected(): void {
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => {
      for (const entry of [...this.#open.values()]) {
        if (entry.waiters.size > 0) continue;
        this.#end(entry, { kind: "requester-gone", why: "the loader does not hold this action any more" });
      }
    }, this.#graceMs).unref();
  }

  /** The connection to the loader broke: who waits will ask again. */
  disconnected(): void {
    clearTimeout(this.#grace);
    this.#byQuestion.clear();
    const entries = [...this.#open.values()];
    for (const entry of entries) {
      entry.waiters.clear();
      entry.hold = { ...entry.hold, engaged: false };
    }
    this.#store.putAll(entries);
    for (const { hold } of entries) this.emit("change", HoldChangeKind.UPDATED, hold);
  }

  /** Open holds, oldest first; of one sandbox, or of all for "". */
  list(sandbox = ""): Hold[] {
    const holds = [...this.#open.values()].map(({ hold }) => hold);
    return holds.filter((hold) => sandbox === "" || hold.sandbox === sandbox);
  }

  /** Ended holds, newest first. */
  past(sandbox = "", limit = 200): Hold[] {
    return this.#store.ended(sandbox, limit);
  }

  /** Stops the timers. Open holds stay open on disk. */
  close(): void {
    clearTimeout(this.#grace);
    for (const entry of this.#open.values()) clearTimeout(entry.timer);
    this.#store.close();
  }

  #newId(): string {
    let id: string;
    do id = randomBytes(4).toString("hex");
    while (this.#open.has(id) || this.#store.has(id));
    return id;
  }

  #openByPrefix(prefix: string): Entry[] {
    return [...this.#open.values()].filter(({ hold }) => hold.id.startsWith(prefix));
  }

  #add(entry: Entry): void {
    this.#open.set(entry.hold.id, entry);
    this.#byKey.set(entry.key, entry);
  }

  #wait(entry: Entry, { id, process }: Question): void {
    entry.waiters.set(id, process?.pid ?? 0);
    this.#byQuestion.set(id, entry);
  }

  #update(entry: Entry, change: Partial<Hold>): Hold {
    entry.hold = { ...entry.hold, ...change };
    this.#store.put(entry);
    this.emit("change", HoldChangeKind.UPDATED, entry.hold);
    return entry.hold;
  }

  /** Timers run on the monotonic clock: a jump of the host's clock neither ends nor lengthens a hold. */
  #arm(entry: Entry, leftMs: number, wasAway: boolean): void {
    const step = Math.min(Math.max(0, leftMs), LONGEST_TIMER_MS);
    entry.timer = setTimeout(() => {
      if (leftMs > LONGEST_TIMER_MS) this.#arm(entry, leftMs - LONGEST_TIMER_MS, false);
      else this.#expire(entry, wasAway && leftMs <= 0);
    }, step).unref();
  }

  #expire(entry: Entry, wasAway: boolean): void {
    if (wasAway) {
      // The loader has denied by itself at its own deadline; to record an allowance would be a lie.
      const reason = "the deadline passed while the supervisor was away";
      this.#end(entry, { kind: "expired", verdict: Verdict.DENY, reason });
      return;
    }
    const verdict = entry.hold.defaultVerdict === Verdict.ALLOW ? Verdict.ALLOW : Verdict.DENY;
    try {
      this.#end(entry, { kind: "expired", verdict, reason: "" });
    } catch (error) {
      // It cannot be recorded (disk full): nothing is allowed without a record. The loader denies at its deadline.
      this.emit("failed", error);
    }
  }

  #end(entry: Entry, ending: Ending): Hold {
    const safe: Ending = "reason" in ending ? { ...ending, reason: escapeTo(ending.reason, 500) } : ending;
    const hold = ended(entry.hold, safe, nowUs());
    // On disk before anything is released: an answer that is not recorded is not given.
    this.#store.put({ hold, key: entry.key });
    clearTimeout(entry.timer);
    entry.hold = hold;
    this.#open.delete(hold.id);
    this.#byKey.delete(entry.key);
    const waiters = [...entry.waiters.keys()];
    for (const question of waiters) this.#byQuestion.delete(question);
    this.emit("change", HoldChangeKind.ENDED, hold);
    this.emit("ended", hold, waiters);
    return hold;
  }
}
