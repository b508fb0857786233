/** Signals that `run` and `exec` pass on to their command. Caught from the beginning: what comes early is kept, not lost. */
import { constants } from "node:os";

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
type Name = (typeof FORWARDED)[number];

export class ForwardedSignals {
  readonly #handlers: [Name, () => void][];
  #early: Name[] = [];
  #send: ((signal: number) => void) | undefined;

  constructor() {
    this.#handlers = FORWARDED.map((name) => [name, () => this.#caught(name)]);
    for (const [name, handler] of this.#handlers) process.on(name, handler);
  }

  /** The first signal that asks for an end before there was a command to pass it to; its number, or undefined. */
  get end(): number | undefined {
    const name = this.#early.find((early) => early !== "SIGUSR1" && early !== "SIGUSR2");
    return name === undefined ? undefined : constants.signals[name];
  }

  /** Passes signals on from now, those that came before first. */
  to(send: (signal: number) => void): void {
    this.#send = send;
    for (const name of this.#early.splice(0)) send(constants.signals[name]);
  }

  /** Signals have their default effect again. */
  release(): void {
    for (const [name, handler] of this.#handlers) process.off(name, handler);
  }

  #caught(name: Name): void {
    if (this.#send === undefined) this.#early.push(name);
    else this.#send(constants.signals[name]);
  }
}

/** Catches signals while `use` runs. */
export async function withSignals(use: (signals: ForwardedSignals) => Promise<void>): Promise<void> {
  const signals = new ForwardedSignals();
  try {
    await use(signals);
  } finally {
    signals.release();
  }
}
