// Asks the gateway's /healthz all the time, to see whether a hold makes it slow.

import { request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

/** What was seen in a stretch of time. */
export interface Stretch {
  readonly answers: number;
  readonly failures: number;
  /** Slowest answer, in milliseconds; 0 when none came. */
  readonly slowestMs: number;
}

/** Polls an URL until stopped; `mark` ends a stretch and begins the next. */
export class HealthWatch {
  #running = true;
  #answers = 0;
  #failures = 0;
  #slowest = 0;
  readonly #loop: Promise<void>;

  constructor(
    private readonly url: string,
    private readonly everyMs = 25,
  ) {
    this.#loop = this.#run();
  }

  /** What was seen since the last mark. */
  mark(): Stretch {
    const stretch = { answers: this.#answers, failures: this.#failures, slowestMs: this.#slowest };
    this.#answers = 0;
    this.#failures = 0;
    this.#slowest = 0;
    return stretch;
  }

  async stop(): Promise<void> {
    this.#running = false;
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (this.#running) {
      const since = performance.now();
      if (await ask(this.url)) {
        this.#answers += 1;
        this.#slowest = Math.max(this.#slowest, performance.now() - since);
      } else {
        this.#failures += 1;
      }
      await sleep(this.everyMs);
    }
  }
}

/** True when the URL answers 200 within 30 s. A new connection each time: a kept one would hide a deaf listener. */
export function ask(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request(url, { agent: false, timeout: 30_000 }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode === 200));
    });
    call.once("timeout", () => call.destroy());
    call.once("error", () => resolve(false));
    call.end();
  });
}
