import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  status as grpcStatus,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import {
  type AnswerHoldRequest,
  type AnswerHoldResponse,
  type AuditRecord,
  ControlService,
  type FollowAuditRequest,
  Hold,
  type HoldChange,
  HoldChangeKind,
  HoldOutcome,
  type KillRequest,
  type QueryAuditRequest,
  type QueryAuditResponse,
  type StatusRequest,
  StatusResponse,
  type WatchHoldsRequest,
} from "../../proto/gen/clawsec/v1/control.js";
import { type KillReport, SandboxInfo, SandboxState, Verdict } from "../../proto/gen/clawsec/v1/loader.js";

/** A supervisor's Control API on a real unix socket, whose holds and events the test opens and ends. */
export class ControlServer {
  readonly #folder = mkdtempSync(join(tmpdir(), "clawsec-tui-"));
  readonly socketPath = join(this.#folder, "control.sock");
  readonly answers: AnswerHoldRequest[] = [];
  readonly kills: KillRequest[] = [];
  /** While set, answers wait: to see what else can be done meanwhile. */
  answerGate: Promise<void> = Promise.resolve();
  status: StatusResponse = StatusResponse.fromPartial({
    version: "0.1.0",
    loaderConnected: true,
    loader: "connected",
    sandboxes: [running("openclaw"), running("second")],
  });
  readonly #holds = new Map<string, Hold>();
  readonly #records: AuditRecord[] = [];
  readonly #holdStreams = new Set<ServerWritableStream<WatchHoldsRequest, HoldChange>>();
  readonly #auditStreams = new Set<ServerWritableStream<FollowAuditRequest, AuditRecord>>();
  #server: Server | undefined;

  async start(): Promise<void> {
    const server = new Server();
    server.addService(ControlService, this.#service());
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${this.socketPath}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      );
    });
    this.#server = server;
  }

  /** Ends the supervisor as a crash does: all connections break. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
    this.#holdStreams.clear();
    this.#auditStreams.clear();
    rmSync(this.socketPath, { force: true });
  }

  dispose(): void {
    this.stop();
    rmSync(this.#folder, { recursive: true });
  }

  open(hold: Partial<Hold> & { id: string }): void {
    const now = Date.now() * 1000;
    const made = Hold.fromPartial({
      sandbox: "openclaw",
      subject: "tool",
      outcome: HoldOutcome.OPEN,
      openedUs: now,
      deadlineUs: now + 60e6,
      rule: "exec/git-push",
      because: "pushing publishes",
      defaultVerdict: Verdict.DENY,
      asked: 1,
      policyHash: "0123456789abcdef",
      engaged: true,
    });
    this.#put({ ...made, ...hold }, HoldChangeKind.OPENED);
  }

  end(id: string, outcome: HoldOutcome, answeredBy = ""): void {
    const hold = this.#holds.get(id);
    if (hold) this.#put({ ...hold, outcome, answeredBy }, HoldChangeKind.ENDED);
  }

  /** Forgets a hold without a word, as a supervisor does that was restarted. */
  forget(id: string): void {
    this.#holds.delete(id);
  }

  record(record: AuditRecord): void {
    this.#records.push(record);
    for (const stream of this.#auditStreams) stream.write(record);
  }

  #put(hold: Hold, kind: HoldChangeKind): void {
    if (hold.outcome === HoldOutcome.OPEN) this.#holds.set(hold.id, hold);
    else this.#holds.delete(hold.id);
    for (const stream of this.#holdStreams) stream.write({ kind, hold });
  }

  #service(): UntypedServiceImplementation {
    const status: handleUnaryCall<StatusRequest, StatusResponse> = (_, reply) => reply(null, this.status);
    const watchHolds: handleServerStreamingCall<WatchHoldsRequest, HoldChange> = (stream) => {
      this.#holdStreams.add(stream);
      for (const hold of this.#holds.values()) stream.write({ kind: HoldChangeKind.OPENED, hold });
    };
    const followAudit: handleServerStreamingCall<FollowAuditRequest, AuditRecord> = (stream) => {
      this.#auditStreams.add(stream);
      for (const record of this.#records) if (record.id > stream.request.afterId) stream.write(record);
    };
    const queryAudit: handleUnaryCall<QueryAuditRequest, QueryAuditResponse> = ({ request }, reply) =>
      reply(null, { records: this.#records.slice(-request.limit), truncated: false });
    const answerHold: handleUnaryCall<AnswerHoldRequest, AnswerHoldResponse> = async ({ request }, reply) => {
      this.answers.push(request);
      await this.answerGate;
      const hold = this.#holds.get(request.id);
      if (!hold)
        return reply({ code: grpcStatus.FAILED_PRECONDITION, details: "the hold has ended: expired" });
      const outcome = request.verdict === Verdict.ALLOW ? HoldOutcome.ALLOWED : HoldOutcome.DENIED;
      this.end(request.id, outcome, "uid 0 (root) by tui");
      reply(null, { hold: { ...hold, outcome } });
    };
    const kill: handleUnaryCall<KillRequest, KillReport> = ({ request }, reply) => {
      this.kills.push(request);
      const names = request.all ? this.status.sandboxes.map(({ name }) => name) : [request.name];
      const times = { networkCutUs: 100, secretsEmptyUs: 200, signalledUs: 300, goneUs: 61_000 };
      reply(null, { sandboxes: names.map((name) => ({ name, processes: 5, survivors: 0, ...times })) });
    };
    return { status, watchHolds, followAudit, queryAudit, answerHold, kill };
  }
}

function running(name: string): SandboxInfo {
  return SandboxInfo.fromPartial({ name, state: SandboxState.RUNNING, processes: 3 });
}
