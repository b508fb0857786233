/** A loader for unit tests: the Loader service on a real unix socket, in this process, that does what a test says. */
import { Server, ServerCredentials, type ServerDuplexStream, status } from "@grpc/grpc-js";
import {
  type ApplyPolicyRequest,
  type AttachInput,
  type AttachOutput,
  type Capability,
  CapabilityState,
  type CreateSandboxRequest,
  type Decision,
  type Event,
  type EventAck,
  type EventBatch,
  type LoaderMessage,
  type LoaderServer,
  LoaderService,
  type SandboxInfo,
  SandboxState,
  type SupervisorMessage,
} from "../../proto/gen/clawsec/v1/loader.js";

/** The mechanisms of a host that lacks nothing. */
const MECHANISMS = [
  ["bpf.exec_verify", ""],
  ["seccomp.notify", ""],
  ["landlock", "6"],
  ["ptrace.hold", ""],
  ["netns.sk_lookup", ""],
  ["fanotify.perm", ""],
  ["tmpfs.noswap", ""],
  ["nftables", ""],
  ["cgroup.kill", ""],
  ["cgroup.memory", "v2"],
  ["cgroup.pids", "v2"],
  ["cgroup.cpu", "v2"],
  ["runc", "1.1.5"],
] as const;

export function capabilities(missing: readonly string[] = []): Capability[] {
  return MECHANISMS.map(([name, level]) => {
    const there = !missing.includes(name);
    return {
      name,
      level: there ? level : "",
      state: there ? CapabilityState.PRESENT : CapabilityState.MISSING,
      detail: there ? "tried and denied" : `${name} did not deny`,
      remedy: there ? "" : `Give this host ${name}.`,
      required: !["tmpfs.noswap", "nftables", "cgroup.memory", "cgroup.pids", "cgroup.cpu"].includes(name),
    };
  });
}

export class ScriptedLoader {
  readonly #path: string;
  #server: Server | undefined;
  #decide: ServerDuplexStream<SupervisorMessage, LoaderMessage> | undefined;
  #events: ServerDuplexStream<EventAck, EventBatch> | undefined;
  #waiters: (() => void)[] = [];

  boot = "boot-1";
  capabilities = capabilities();
  /** What it leaves unused. */
  without: string[] = [];
  readonly decisions: Decision[] = [];
  readonly acks: number[] = [];
  readonly created: CreateSandboxRequest[] = [];
  readonly applied: ApplyPolicyRequest[] = [];
  readonly calls: string[] = [];
  readonly sandboxes = new Map<string, SandboxInfo>();
  /** Method that fails from now on, with these words; with `after`, one call only, that after so many. */
  failing: { method: string; words: string; after?: number } | undefined;
  /** What an attachment does; by default it echoes stdin and ends with code 7. */
  attached: (call: ServerDuplexStream<AttachInput, AttachOutput>) => void = echo;
  /** What it does with a command of Exec. */
  executed: (call: ServerDuplexStream<AttachInput, AttachOutput>) => void = echo;

  constructor(path: string) {
    this.#path = path;
  }

  /** The words with which a call of a method fails now; undefined when it does not. */
  #failure(method: string): string | undefined {
    const { failing } = this;
    if (failing?.method !== method) return undefined;
    if (failing.after === undefined) return failing.words;
    this.failing = failing.after === 0 ? undefined : { ...failing, after: failing.after - 1 };
    return failing.after === 0 ? failing.words : undefined;
  }

  async start(): Promise<void> {
    const server = new Server();
    server.addService(LoaderService, this.#service());
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${this.#path}`, ServerCredentials.createInsecure(), (error) => {
        if (error) reject(error);
        else resolve();
      });
    });
    this.#server = server;
  }

  /** Dies: every stream breaks. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
    this.#decide = undefined;
    this.#events = undefined;
  }

  /** Sends a message on the Decide stream, once there is one. */
  async ask(message: LoaderMessage["message"]): Promise<void> {
    await this.until(() => this.#decide !== undefined);
    this.#decide?.write({ message });
  }

  async emit(...events: Event[]): Promise<void> {
    await this.until(() => this.#events !== undefined);
    this.#events?.write({ events });
  }

  /** The nth decision (from 1), when it has come. */
  async decision(number: number): Promise<Decision> {
    await this.until(() => this.decisions.length >= number);
    const decision = this.decisions[number - 1];
    if (decision === undefined) throw new Error(`There is no decision ${number}.`);
    return decision;
  }

  /** Waits until something that the supervisor does makes `condition` true. */
  async until(condition: () => boolean, timeoutMs = 5000): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!condition()) {
      if (performance.now() > end) throw new Error(`Not within ${timeoutMs} ms: ${condition}`);
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        setTimeout(resolve, 20);
      });
    }
  }

  #happened(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }

  #service(): LoaderServer {
    /** A unary method: recorded, failed when the test says so, else answered. */
    const unary =
      <Request, Response>(method: string, answer: (request: Request) => Response) =>
      (call: { request: Request }, callback: (error: object | null, response?: Response) => void) => {
        this.calls.push(method);
        const words = this.#failure(method);
        if (words !== undefined) {
          callback({ code: status.INTERNAL, details: words });
        } else {
          try {
            callback(null, answer(call.request));
          } catch (error) {
            callback(error as object);
          }
        }
        this.#happened();
      };
    const kill = (name: string) => {
      const killed = [...this.sandboxes.values()].filter((info) => name === "" || info.name === name);
      for (const info of killed) this.sandboxes.set(info.name, { ...info, state: SandboxState.KILLED });
      const times = { networkCutUs: 10, secretsEmptyUs: 20, signalledUs: 30, goneUs: 1500 };
      return { sandboxes: killed.map((info) => ({ name: info.name, processes: 3, survivors: 0, ...times })) };
    };
    const state = (name: string, next: SandboxState) => {
      const info = this.sandboxes.get(name);
      if (info !== undefined) this.sandboxes.set(name, { ...info, state: next });
      return { sandbox: this.sandboxes.get(name) };
    };
    return {
      hello: unary("hello", () => ({
        loaderVersion: "0.1.0",
        loaderBootId: this.boot,
        kernelRelease: "6.18",
        capabilities: this.capabilities,
        without: this.without,
      })),
      probe: unary("probe", () => ({ capabilities: this.capabilities, without: this.without })),
      createSandbox: unary("createSandbox", (request: CreateSandboxRequest) => {
        const living = this.sandboxes.get(request.name)?.state;
        if (living === SandboxState.RUNNING || living === SandboxState.CREATED) {
          throw Object.assign(new Error("a live sandbox has the name"), { code: status.ALREADY_EXISTS });
        }
        this.created.push(request);
        const info = infoOf(request);
        this.sandboxes.set(request.name, info);
        return { sandbox: info, cleaned: [] };
      }),
      startSandbox: unary("startSandbox", ({ name }: { name: string }) => state(name, SandboxState.RUNNING)),
      stopSandbox: unary("stopSandbox", ({ name }: { name: string }) => kill(name)),
      killSandbox: unary("killSandbox", ({ name }: { name: string }) => kill(name)),
      listSandboxes: unary("listSandboxes", () => ({ sandboxes: [...this.sandboxes.values()] })),
      waitSandbox: unary("waitSandbox", ({ name }: { name: string }) => ({
        sandbox: this.sandboxes.get(name),
      })),
      attach: (call) => this.attached(call),
      exec: (call) => this.executed(call),
      applyPolicy: unary("applyPolicy", (request: ApplyPolicyRequest) => {
        this.applied.push(request);
        return { epoch: request.tables?.epoch ?? 0 };
      }),
      decide: (call) => {
        this.#decide = call;
        call.on("error", () => undefined);
        call.on("data", ({ message }: SupervisorMessage) => {
          if (message !== undefined) this.decisions.push(message.value);
          this.#happened();
        });
      },
      events: (call) => {
        this.#events = call;
        call.on("error", () => undefined);
        call.on("data", ({ sequence }: EventAck) => {
          this.acks.push(sequence);
          this.#happened();
        });
      },
      putSecrets: unary("putSecrets", () => ({})),
      revokeSecrets: unary("revokeSecrets", () => ({ emptied: 0 })),
    } as LoaderServer;
  }
}

function infoOf(request: CreateSandboxRequest): SandboxInfo {
  return {
    name: request.name,
    state: SandboxState.CREATED,
    initPid: 77,
    createdUs: Date.now() * 1000,
    startedUs: 0,
    endedUs: 0,
    exit: undefined,
    epoch: request.tables?.epoch ?? 0,
    policyHash: request.tables?.policyHash ?? "",
    publish: request.publish,
    processes: 1,
  };
}

function echo(call: ServerDuplexStream<AttachInput, AttachOutput>): void {
  call.write({ output: { $case: "attached", value: true } });
  call.on("data", ({ stdin, stdinEof }: AttachInput) => {
    if (stdin.length > 0) call.write({ output: { $case: "stdout", value: stdin } });
    if (!stdinEof) return;
    call.write({ output: { $case: "exit", value: { code: 7, signal: 0 } } });
    call.end();
  });
}
