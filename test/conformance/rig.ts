// One clawsec of the run's own, and sandboxes in it that do what they are told.

import type { ClientDuplexStream, ClientReadableStream } from "@grpc/grpc-js";
import { decisionOf } from "../../agent/common/event.js";
import {
  type AuditRecord,
  type ControlClient,
  type Hold,
  type HoldChange,
  HoldChangeKind,
  HoldOutcome,
  type ReloadPolicyResponse,
  type RunResponse,
} from "../../proto/gen/clawsec/v1/control.js";
import {
  type AttachInput,
  type AttachOutput,
  Event,
  type ExecAction,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import type { Clawsec } from "../support/clawsec.js";
import { type Attempt, type DriverAnswer, driverLine, readAnswer } from "./attempt.js";
import { SHORT_HOLD_MS } from "./expect.js";

/**
 * How long the loader's events may take. An allowed exec that the kernel refuses is told when its event has not come for
 * some seconds, and a busy machine makes more of these.
 */
const EVENTS_MS = 20_000;
/** How long the driver may take for one action. */
const ACTION_MS = 60_000;

/** Watches everything that the supervisor of a run says. */
export class Rig {
  readonly #control: ControlClient;
  readonly #holds: ClientReadableStream<HoldChange>;
  readonly #audit: ClientReadableStream<AuditRecord>;
  readonly #attempts = new Map<string, Attempt>();
  readonly #held = new Set<string>();
  readonly #rules = new Map<string, string[]>();
  readonly #facts = new Map<string, ExecAction>();
  #closed = false;
  /** Set when a stream breaks: nothing that is seen afterwards counts. */
  failure: string | undefined;

  constructor(clawsec: Clawsec) {
    this.#control = clawsec.control;
    this.#holds = this.#control.watchHolds({ sandbox: "" });
    this.#holds.on("data", (change: HoldChange) => this.#hold(change));
    this.#audit = this.#control.followAudit({ sandbox: "", kinds: ["exec", "file", "network"], afterId: 0 });
    this.#audit.on("data", (record: AuditRecord) => this.#record(record));
    for (const stream of [this.#holds, this.#audit])
      stream.on("error", (error: Error) => {
        if (!this.#closed) this.failure ??= error.message;
      });
  }

  close(): void {
    this.#closed = true;
    this.#holds.cancel();
    this.#audit.cancel();
  }

  /** Attempts that are about to be made: their holds are answered, their events kept. */
  expect(attempts: readonly Attempt[]): void {
    for (const attempt of attempts) {
      this.#attempts.set(attempt.id, attempt);
      // Made before, in another sandbox: what came of it then is over.
      this.#held.delete(attempt.id);
      this.#rules.delete(attempt.id);
      this.#facts.delete(attempt.id);
    }
  }

  wasHeld(id: string): boolean {
    return this.#held.has(id);
  }

  /** Rules that the loader's events name for an attempt, in order. Waits a while for the wanted one to be the last. */
  async rules(id: string, wanted: string | undefined): Promise<readonly string[]> {
    const until = performance.now() + EVENTS_MS;
    // Of a name that is looked up and then connected to, the first may be told in an earlier batch than the second.
    while (wanted !== undefined && this.#rules.get(id)?.at(-1) !== wanted && performance.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 10));
    return [...(this.#rules.get(id) ?? [])];
  }

  /** The facts of the exec in the last of its events; `undefined`: there was none. Ask for the rules first. */
  facts(id: string): ExecAction | undefined {
    return this.#facts.get(id);
  }

  #hold({ kind, hold }: HoldChange): void {
    if (hold === undefined || kind === HoldChangeKind.ENDED || hold.outcome !== HoldOutcome.OPEN) return;
    const attempt = this.#attempts.get(idOf(hold.process?.comm));
    if (!hold.engaged || attempt === undefined || this.#held.has(attempt.id)) return;
    this.#held.add(attempt.id);
    if (isShort(hold)) return;
    const verdict = attempt.answer === "allow" ? Verdict.ALLOW : Verdict.DENY;
    this.#control.answerHold({ id: hold.id, verdict, reason: "", via: "conformance" }, (error) => {
      if (error !== null && !this.#closed) this.failure ??= `a hold was not answered: ${error.message}`;
    });
  }

  #record(record: AuditRecord): void {
    const told = decisionOf(Event.fromJSON(JSON.parse(record.facts)));
    const id = idOf(told?.process?.comm);
    if (told === undefined || !this.#attempts.has(id)) return;
    const rules = this.#rules.get(id) ?? [];
    rules.push(told.decision.rule);
    this.#rules.set(id, rules);
    const { action } = told.decision;
    if (action?.$case === "exec") this.#facts.set(id, action.value);
  }

  /** Starts a sandbox. @throws the policy's diagnostics when it cannot be enforced. */
  async start(name: string, policyPath: string): Promise<Sandbox> {
    const request = { name, policyPath, command: [], terminal: false, detached: false, variables: {} };
    await new Promise<RunResponse>((resolve, reject) => {
      this.#control.run(request, (error, response) => (error === null ? resolve(response) : reject(error)));
    });
    const sandbox = new Sandbox(name, this.#control.attachSandbox());
    await sandbox.attached;
    return sandbox;
  }

  /** Gives a running sandbox another policy, of which all can be changed at once. */
  async reload(name: string, policyPath: string): Promise<void> {
    const response = await new Promise<ReloadPolicyResponse>((resolve, reject) => {
      this.#control.reloadPolicy({ names: [name], policyPath, all: false }, (error, answer) =>
        error === null ? resolve(answer) : reject(error),
      );
    });
    if (!response.applied) throw new Error(response.diagnostics);
    const restart = response.sandboxes.flatMap((sandbox) => sandbox.needsRestart);
    if (restart.length > 0) throw new Error(restart.join("\n"));
  }

  async kill(name: string): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#control.kill({ name, all: false, reason: "the conformance run goes on" }, () => resolve());
    });
  }
}

function idOf(comm: string | undefined): string {
  return comm?.startsWith("a") ? comm.slice(1) : "";
}

function isShort(hold: Hold): boolean {
  return (hold.deadlineUs - hold.openedUs) / 1000 < SHORT_HOLD_MS;
}

/** A sandbox with a driver in it. */
export class Sandbox {
  readonly attached: Promise<void>;
  readonly #stream: ClientDuplexStream<AttachInput, AttachOutput>;
  readonly #waiting = new Map<string, (answer: DriverAnswer) => void>();
  #text = "";
  #errors = "";
  #ended: string | undefined;
  #end: () => void = () => undefined;

  constructor(
    readonly name: string,
    stream: ClientDuplexStream<AttachInput, AttachOutput>,
  ) {
    this.#stream = stream;
    this.attached = new Promise((resolve, reject) => {
      stream.on("data", ({ output }: AttachOutput) => {
        if (output?.$case === "attached") resolve();
        if (output?.$case === "stdout") this.#read(output.value.toString());
        if (output?.$case === "stderr") this.#errors = (this.#errors + output.value.toString()).slice(-4000);
        if (output?.$case === "exit")
          this.#stop(`the driver ended with ${output.value.code}: ${this.#errors}`);
      });
      stream.on("error", (error) => {
        this.#stop(error.message);
        reject(error);
      });
    });
    stream.write({
      name,
      stdin: Buffer.alloc(0),
      stdinEof: false,
      resize: undefined,
      signal: 0,
      exec: undefined,
    });
  }

  #read(text: string): void {
    const lines = (this.#text + text).split("\n");
    this.#text = lines.pop() ?? "";
    for (const line of lines) {
      const answer = readAnswer(line);
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    }
  }

  #stop(why: string): void {
    this.#ended ??= why;
    this.#end();
  }

  /** Has all of them done, one after the other. @throws when the driver ends or stands still. */
  async perform(attempts: readonly Attempt[]): Promise<Map<string, DriverAnswer>> {
    const answers = new Map<string, DriverAnswer>();
    await new Promise<void>((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      const fail = (why: string) => {
        clearTimeout(timer);
        reject(new Error(`sandbox ${this.name}: ${why}`));
      };
      const arm = () => {
        clearTimeout(timer);
        timer = setTimeout(() => fail(`the driver has said nothing for ${ACTION_MS} ms`), ACTION_MS);
      };
      this.#end = () => fail(this.#ended ?? "it ended");
      for (const attempt of attempts)
        this.#waiting.set(attempt.id, (answer) => {
          answers.set(answer.id, answer);
          arm();
          if (answers.size < attempts.length) return;
          clearTimeout(timer);
          this.#end = () => undefined;
          resolve();
        });
      arm();
      if (this.#ended !== undefined) fail(this.#ended);
      const lines = attempts.map((attempt) => `${driverLine(attempt)}\n`).join("");
      this.#send(Buffer.from(lines));
    });
    return answers;
  }

  #send(bytes: Buffer): void {
    const CHUNK = 64 * 1024;
    for (let at = 0; at < bytes.length; at += CHUNK)
      this.#stream.write({
        name: "",
        stdin: bytes.subarray(at, at + CHUNK),
        stdinEof: false,
        resize: undefined,
        exec: undefined,
        signal: 0,
      });
  }

  close(): void {
    this.#stream.cancel();
  }
}
