/** The health of the running sandboxes whose policy has a check: when each is checked, and what that makes of it. */
import type { HealthCheck } from "../../../policy/index.js";
import { type Health, HealthState } from "../../../proto/gen/clawsec/v1/control.js";
import {
  type Event,
  type LoaderClient,
  SandboxState,
  Verdict,
} from "../../../proto/gen/clawsec/v1/loader.js";
import { healthWord } from "../../../proto/words.js";
import { sentence } from "../../common/grpc.js";
import type { Logger } from "../../common/log.js";
import { nowUs } from "../../common/time.js";
import { type NewRecord, ownRecord } from "../audit/record.js";
import type { Sandbox } from "../sandboxes/registry.js";
import { type Denial, LONGEST_MS, type Outcome, runCheck } from "./check.js";

export interface HealthOptions {
  readonly log: Logger;
  /** The loader. Throws while it is away. */
  client(): LoaderClient;
  /** Writes a record into the audit. */
  append(record: NewRecord): Promise<void>;
  /** The rule that holds an exec of this process of a sandbox now. */
  heldBy(sandbox: string, pid: number): string | undefined;
}

/** A sandbox that is checked. */
interface Watched {
  readonly check: HealthCheck;
  readonly startedUs: number;
  readonly policyHash: string;
  readonly over: AbortController;
  health: Health;
  timer?: NodeJS.Timeout;
  /** Denials of execs in the sandbox since the check began that runs now, by pid. */
  denials?: Map<number, Denial>;
}

/** A check makes few processes; a sandbox that is denied more meanwhile must not fill the memory. */
const MAX_DENIALS = 256;

export class HealthMonitor {
  readonly #options: HealthOptions;
  readonly #watched = new Map<string, Watched>();

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** What is known of a sandbox has changed: begins to check it, goes on, or stops. */
  look(name: string, sandbox: Sandbox | undefined): void {
    const running = sandbox?.info?.state === SandboxState.RUNNING ? sandbox.info : undefined;
    const policy = sandbox === undefined || "unreadable" in sandbox.policy ? undefined : sandbox.policy;
    const check = running && policy?.sandbox.healthCheck;
    const before = this.#watched.get(name);
    const same =
      before !== undefined &&
      before.startedUs === running?.startedUs &&
      JSON.stringify(before.check) === JSON.stringify(check);
    if (same) return;
    if (before !== undefined) this.#stop(name, before);
    if (running === undefined || policy === undefined || check === undefined) return;
    const health = {
      state: HealthState.STARTING,
      failures: 0,
      checkedUs: 0,
      detail: "",
      rule: "",
    };
    const over = new AbortController();
    const watched = { check, startedUs: running.startedUs, policyHash: policy.hash, over, health };
    this.#watched.set(name, watched);
    this.#wait(name, watched);
  }

  /** By name of the sandbox. */
  all(): Record<string, Health> {
    return Object.fromEntries([...this.#watched].map(([name, { health }]) => [name, health]));
  }

  /** True while a check runs: then it matters which execs are denied. */
  checks(): boolean {
    for (const { denials } of this.#watched.values()) if (denials !== undefined) return true;
    return false;
  }

  /** Takes from the loader's events which execs were denied while a check runs. */
  event({ sandbox, process, kind }: Event): void {
    if (kind?.$case !== "decision" || kind.value.verdict !== Verdict.DENY || process === undefined) return;
    const denials = this.#watched.get(sandbox)?.denials;
    if (denials === undefined || denials.size >= MAX_DENIALS || kind.value.action?.$case !== "exec") return;
    const { rule, message } = kind.value;
    denials.set(process.pid, { rule, message });
  }

  /** Ends the checks that run. */
  close(): void {
    for (const [name, watched] of this.#watched) this.#stop(name, watched);
  }

  #stop(name: string, watched: Watched): void {
    this.#watched.delete(name);
    clearTimeout(watched.timer);
    watched.over.abort();
  }

  #wait(name: string, watched: Watched): void {
    const delay = Math.min(watched.check.intervalMs, LONGEST_MS);
    watched.timer = setTimeout(() => this.#check(name, watched), delay);
  }

  async #check(name: string, watched: Watched): Promise<void> {
    const { check, over } = watched;
    let loader: LoaderClient;
    try {
      loader = this.#options.client();
    } catch {
      // The loader is away, and decides nothing. What is known stays.
      this.#wait(name, watched);
      return;
    }
    const begunUs = nowUs();
    const denials = new Map<number, Denial>();
    watched.denials = denials;
    const around = {
      denied: (pid: number) => denials.get(pid),
      heldBy: (pid: number) => this.#options.heldBy(name, pid),
    };
    const outcome = await runCheck(loader, name, check, around, over.signal);
    if (over.signal.aborted) return;
    delete watched.denials;
    this.#settle(name, watched, outcome, begunUs);
    this.#wait(name, watched);
  }

  #settle(name: string, watched: Watched, outcome: Outcome, begunUs: number): void {
    if (outcome.kind === "void") return;
    const before = watched.health;
    watched.health = healthAfter(before, outcome, watched.check, begunUs - watched.startedUs);
    if (watched.health.state !== before.state) this.#tell(name, watched);
  }

  #tell(sandbox: string, { health, check, policyHash }: Watched): void {
    const { state, detail, rule, failures } = health;
    const word = healthWord(state);
    const summary = `health check: ${word}${detail === "" ? "" : `: ${detail}`}`;
    this.#options.log.info({ sandbox }, summary);
    const { command, subject } = check;
    const record = ownRecord(
      { kind: "sandbox", timeUs: nowUs(), sandbox, subject, summary, rule, policyHash },
      { health: word, failures, detail, rule, command },
    );
    this.#options.append(record).catch((error: unknown) => {
      this.#options.log.error(
        { sandbox, error: sentence(error) },
        "a change of health could not be recorded",
      );
    });
  }
}

/** What a check makes of a sandbox's health, that began so many microseconds after the start. */
export function healthAfter(
  before: Health,
  outcome: Exclude<Outcome, { kind: "void" }>,
  { retries, startPeriodMs }: HealthCheck,
  sinceStartUs: number,
): Health {
  const checkedUs = nowUs();
  switch (outcome.kind) {
    case "passed":
      return { state: HealthState.HEALTHY, failures: 0, checkedUs, detail: "", rule: "" };
    case "denied": {
      const { rule, why: detail } = outcome;
      // The rule says the same the next time: to wait for more of it would only hide it.
      const state = HealthState.UNHEALTHY;
      return { state, failures: before.failures + 1, checkedUs, detail, rule };
    }
    case "failed": {
      const starting = before.state === HealthState.STARTING && sinceStartUs < startPeriodMs * 1000;
      const failures = starting ? 0 : before.failures + 1;
      const state = failures >= retries ? HealthState.UNHEALTHY : before.state;
      return { state, failures, checkedUs, detail: outcome.why, rule: "" };
    }
  }
}
