// clawsec as a user has it: the command line for everything that it can do, and the Control service for watching.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { credentials } from "@grpc/grpc-js";
import {
  type AuditRecord,
  ControlClient,
  type Hold,
  HoldChangeKind,
  type QueryAuditRequest,
} from "../../proto/gen/clawsec/v1/control.js";

/** What a run of the command line left. */
export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A clawsec of our own: its own runtime and state folders. */
export class Clawsec {
  #supervisor: ChildProcess | undefined;
  readonly control: ControlClient;

  constructor(
    private readonly root: string,
    readonly runtime: string,
    readonly state: string,
  ) {
    this.control = new ControlClient(`unix:${join(runtime, "control.sock")}`, credentials.createInsecure(), {
      "grpc.enable_http_proxy": 0,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 500,
    });
  }

  get environment(): NodeJS.ProcessEnv {
    return { ...process.env, CLAWSEC_RUNTIME_DIR: this.runtime, CLAWSEC_STATE_DIR: this.state };
  }

  /** Runs `clawsec ARGS` to its end. */
  cli(...args: string[]): Promise<CliResult> {
    return new Promise((resolve) => {
      const options = { env: this.environment, maxBuffer: 64 * 1024 * 1024 };
      const child = execFile(join(this.root, "bin/clawsec"), args, options, (_error, stdout, stderr) => {
        resolve({ code: child.exitCode ?? 1, stdout, stderr });
      });
    });
  }

  /** As `cli`, but an exit code other than 0 is an error with what was printed. */
  async must(...args: string[]): Promise<string> {
    const result = await this.cli(...args);
    if (result.code !== 0) {
      throw new Error(
        `clawsec ${args.join(" ")} ended with ${result.code}: ${result.stderr || result.stdout}`,
      );
    }
    return result.stdout;
  }

  /** Starts `clawsec up ARGS` in the background and waits until it answers. */
  async up(args: readonly string[] = [], timeoutMs = 60_000): Promise<void> {
    const log = openSync(join(this.state, "up.log"), "a");
    const child = spawn(join(this.root, "bin/clawsec"), ["up", ...args], {
      env: this.environment,
      stdio: ["ignore", log, log],
    });
    this.#supervisor = child;
    const until = performance.now() + timeoutMs;
    for (;;) {
      if (child.exitCode !== null) {
        throw new Error(`clawsec up ended with ${child.exitCode}; see ${join(this.state, "up.log")}`);
      }
      const status = await this.cli("status", "--json");
      if (status.code === 0 && JSON.parse(status.stdout).loaderConnected === true) return;
      if (performance.now() > until) throw new Error(`clawsec up did not answer within ${timeoutMs} ms.`);
      await sleep(200);
    }
  }

  /** Waits until a supervisor that was killed by somebody has ended. */
  async lost(): Promise<void> {
    const child = this.#supervisor;
    if (child && child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }

  /** Ends supervisor and loader; whatever they still run is killed by them. */
  async down(): Promise<void> {
    this.control.close();
    await this.cli("down");
    const child = this.#supervisor;
    if (child && child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await Promise.race([once(child, "exit"), sleep(10_000)]);
    }
  }

  /** Resolves with the next hold that is opened and stands still in a sandbox. */
  nextHold(sandbox: string, timeoutMs: number): Promise<Hold> {
    return new Promise((resolve, reject) => {
      const stream = this.control.watchHolds({ sandbox });
      const finish = (end: () => void) => {
        clearTimeout(timer);
        stream.cancel();
        end();
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`No hold came within ${timeoutMs} ms.`))),
        timeoutMs,
      );
      stream.on("data", (change) => {
        const { hold, kind } = change;
        if (hold && kind !== HoldChangeKind.ENDED && hold.engaged) finish(() => resolve(hold));
      });
      stream.on("error", (error) => finish(() => reject(error)));
    });
  }

  /** Audit records, oldest first. */
  audit(query: Partial<QueryAuditRequest>): Promise<AuditRecord[]> {
    const request: QueryAuditRequest = {
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
      limit: 1000,
      ...query,
    };
    return new Promise((resolve, reject) => {
      this.control.queryAudit(request, (error, response) => {
        if (error) reject(error);
        else resolve(response.records);
      });
    });
  }
}
