import { EventEmitter } from "node:events";
import { type Instance, render } from "ink";
import type { ReactNode } from "react";
import { vi } from "vitest";

/** A terminal of a size of the test's choice, whose last frame can be read and whose keys can be pressed. */
export class Terminal {
  readonly #stdout: FakeStdout;
  readonly #stdin = new FakeStdin();
  #instance: Instance | undefined;

  constructor(columns = 80, rows = 24) {
    this.#stdout = new FakeStdout(columns, rows);
  }

  show(node: ReactNode): void {
    this.#instance = render(node, {
      stdout: this.#stdout as unknown as NodeJS.WriteStream,
      stderr: new FakeStdout(80, 24) as unknown as NodeJS.WriteStream,
      stdin: this.#stdin as unknown as NodeJS.ReadStream,
      // Each frame in one write, and nothing that moves a cursor.
      debug: true,
      exitOnCtrlC: false,
      patchConsole: false,
    });
  }

  get frame(): string {
    return this.#stdout.frame;
  }

  resize(columns: number, rows: number): void {
    this.#stdout.columns = columns;
    this.#stdout.rows = rows;
    this.#stdout.emit("resize");
  }

  /** Each key in its own read, as from a person. */
  press(...keys: string[]): void {
    for (const key of keys) this.#stdin.send(key);
  }

  /** Waits until the frame has `text`. */
  async see(text: string | RegExp, timeout = 5000): Promise<void> {
    const there = () => (typeof text === "string" ? this.frame.includes(text) : text.test(this.frame));
    await vi.waitFor(
      () => {
        if (!there()) throw new Error(`${text} is not on the screen:\n${this.frame}`);
      },
      { timeout, interval: 20 },
    );
  }

  /** Resolves when the program has ended by itself. */
  async ended(): Promise<void> {
    await this.#instance?.waitUntilExit();
  }

  close(): void {
    this.#instance?.unmount();
    this.#instance?.cleanup();
  }
}

class FakeStdout extends EventEmitter {
  readonly isTTY = true;
  frame = "";
  columns: number;
  rows: number;

  constructor(columns: number, rows: number) {
    super();
    this.columns = columns;
    this.rows = rows;
  }

  /** Ink waits for an empty write's callback to know that all is written. */
  write(text: string, ...rest: unknown[]): boolean {
    if (text !== "") this.frame = text;
    const done = rest.at(-1);
    if (typeof done === "function") done();
    return true;
  }
}

class FakeStdin extends EventEmitter {
  readonly isTTY = true;
  #data: string | null = null;

  send(text: string): void {
    this.#data = text;
    this.emit("readable");
    this.emit("data", text);
  }

  read(): string | null {
    const data = this.#data;
    this.#data = null;
    return data;
  }

  setEncoding(): void {}
  setRawMode(): void {}
  resume(): void {}
  pause(): void {}
  ref(): void {}
  unref(): void {}
}
