import type { KillReport } from "../proto/gen/clawsec/v1/loader.js";
import { Verdict } from "../proto/gen/clawsec/v1/loader.js";
import { Connection } from "./client.js";
import { headline } from "./describe.js";
import { type Intent, intent, type Keys } from "./keymap.js";
import { type Action, initial, type KillTarget, type Notice, reduce, type State } from "./store.js";

/**
 * Holds the state, and carries out what keys ask for. It lives outside React, so that a key is always judged
 * by the state that all keys before it have made, drawn or not.
 */
export class Controller {
  #state: State = initial;
  readonly #watchers = new Set<() => void>();
  readonly #connection: Connection;
  readonly #quit: () => void;

  /** `quit` is called when the person asks for it. */
  constructor(socketPath: string, quit: () => void) {
    this.#quit = quit;
    this.#connection = new Connection(socketPath, {
      connected: (status) => this.#dispatch({ kind: "connected", status }),
      gone: (why) => this.#dispatch({ kind: "gone", why }),
      status: (status) => this.#dispatch({ kind: "status", status }),
      hold: (change) => this.#dispatch({ kind: "hold", change, now: Date.now() }),
      audit: (records) => this.#dispatch({ kind: "audit", records }),
    });
  }

  open(): void {
    this.#connection.open();
  }

  close(): void {
    this.#connection.close();
  }

  readonly state = (): State => this.#state;

  /** Calls `watcher` after each change until the returned function is called. */
  readonly watch = (watcher: () => void): (() => void) => {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  };

  key(input: string, key: Keys): void {
    const asked = intent(this.#state, input, key, Date.now());
    if (asked) this.#carryOut(asked);
  }

  #dispatch(action: Action): void {
    this.#state = reduce(this.#state, action);
    for (const watcher of this.#watchers) watcher();
  }

  #carryOut(asked: Intent): void {
    switch (asked.kind) {
      case "approve":
        this.#answer(asked.holdId, Verdict.ALLOW, "");
        break;
      case "refuse":
        this.#answer(asked.holdId, Verdict.DENY, asked.reason);
        break;
      case "killNow":
        this.#kill(asked.target);
        break;
      case "quit":
        this.#quit();
        break;
      default:
        this.#dispatch(asked);
    }
  }

  /** Nothing waits for the answer's reply: other holds can be answered meanwhile. */
  #answer(holdId: string, verdict: Verdict, reason: string): void {
    const hold = this.#state.holds.find(({ id }) => id === holdId);
    const what = hold === undefined ? holdId : headline(hold).what;
    this.#dispatch({ kind: "mode", mode: { kind: "list" } });
    this.#dispatch({ kind: "answering", holdId });
    this.#connection.answer(holdId, verdict, reason).then(
      () => this.#answered(holdId, `${verdict === Verdict.ALLOW ? "approved" : "denied"}: ${what}`, "info"),
      (error: unknown) => this.#answered(holdId, `not answered: ${message(error)}`, "error"),
    );
  }

  #answered(holdId: string, text: string, level: Notice["level"]): void {
    this.#dispatch({ kind: "answered", holdId, notice: { text, level } });
  }

  #kill(target: KillTarget): void {
    this.#dispatch({ kind: "mode", mode: { kind: "list" } });
    this.#dispatch({ kind: "notice", notice: { text: "killing", level: "info" } });
    this.#connection.kill(target.kind === "all" ? undefined : target.name, "asked for in the TUI").then(
      (report) => this.#dispatch({ kind: "notice", notice: killNotice(report) }),
      (error: unknown) =>
        this.#dispatch({ kind: "notice", notice: { text: `not killed: ${message(error)}`, level: "error" } }),
    );
  }
}

function killNotice({ sandboxes }: KillReport): Notice {
  const survivors = sandboxes.reduce((sum, each) => sum + each.survivors, 0);
  const each = sandboxes.map(({ name, processes, survivors, goneUs }) =>
    survivors > 0
      ? `${name}: ${survivors} of ${processes} processes SURVIVED`
      : `${name}: ${processes} processes gone in ${Math.round(goneUs / 1000)} ms`,
  );
  if (each.length === 0) return { text: "there was nothing to kill", level: "info" };
  return { text: `killed ${each.join("; ")}`, level: survivors > 0 ? "error" : "info" };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
