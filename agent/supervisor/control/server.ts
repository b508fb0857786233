/** The control socket: one supervisor for a runtime folder, and each connection's peer known to the handlers. */
import { chmodSync, chownSync, existsSync, linkSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { connect, createServer, type Server as NetServer, type Socket } from "node:net";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { SERVER_OPTIONS } from "../../common/grpc.js";
import { gidOfGroup } from "../../common/host.js";
import type { Logger } from "../../common/log.js";
import { type EncodedControlServer, EncodedControlService } from "./audit.js";
import { type Peer, PeerFinder, peerWords } from "./peer.js";

/** Another supervisor serves this runtime folder. */
export class AlreadyRunning extends Error {
  constructor(path: string) {
    super(
      `Another supervisor is already running: it serves ${path}. Use it, stop it with clawsec down, or choose another CLAWSEC_RUNTIME_DIR.`,
    );
    this.name = "AlreadyRunning";
  }
}

/** Members of this group may use the socket beside root, where the host has the group. */
const GROUP = "clawsec";

export class ControlSocket {
  readonly #path: string;
  readonly #server = new Server(SERVER_OPTIONS);
  readonly #listener: NetServer;
  readonly #connections = new Map<string, Socket>();
  readonly #peers = new Map<string, Promise<Peer>>();
  readonly #finder = new PeerFinder();
  #accepted = 0;
  #closed = false;
  #inode: bigint | number = 0;

  constructor(path: string, log: Logger) {
    this.#path = path;
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#listener = createServer((socket) => {
      this.#accepted += 1;
      const name = `connection-${this.#accepted}`;
      // A unix socket has no remote address; grpc-js reports this property as a call's peer, by which the handlers
      // find the connection.
      Object.defineProperty(socket, "remoteAddress", { value: name });
      this.#peers.set(name, this.#finder.of(socket, ownPath(path)));
      this.#connections.set(name, socket);
      socket.on("error", (error) => log.debug({ error: error.message }, "a control connection broke"));
      socket.on("close", () => {
        this.#connections.delete(name);
        this.#peers.delete(name);
      });
      injector.injectConnection(socket);
    });
  }

  /** Adds the methods that calls reach; those that come before are answered with UNIMPLEMENTED. */
  serve(service: EncodedControlServer): void {
    this.#server.addService(EncodedControlService, service);
  }

  /** Takes the socket. Throws {@link AlreadyRunning} when another supervisor has it; a stale one is removed. */
  async claim(): Promise<void> {
    const path = this.#path;
    await removeStale(path);
    // Made under another name, given its mode and owner, and only then linked to where clients look: it is never
    // reachable with the wrong mode, and of two that start at once one fails.
    const own = ownPath(path);
    rmSync(own, { force: true });
    await new Promise<void>((resolve, reject) => {
      this.#listener.once("error", reject);
      this.#listener.listen(own, resolve);
    });
    chmodSync(own, 0o660);
    const gid = gidOfGroup(GROUP);
    if (gid !== undefined) chownSync(own, 0, gid);
    try {
      linkSync(own, path);
    } catch (error) {
      this.#listener.close();
      if ((error as NodeJS.ErrnoException).code === "EEXIST") throw new AlreadyRunning(path);
      throw error;
    }
    this.#inode = lstatSync(path).ino;
    rmSync(own, { force: true });
    this.#finder.start();
  }

  /** Who called, for the audit: "uid 0 (root) by cli". */
  async caller(call: { getPeer(): string }, via = ""): Promise<string> {
    const peer = await (this.#peers.get(call.getPeer()) ?? {
      kind: "unknown" as const,
      why: "the connection is closed",
    });
    return via === "" ? peerWords(peer) : `${peerWords(peer)} by ${via}`;
  }

  /** Calls back once when the connection of a call is gone; at once when it is already. Not when we stop serving. */
  whenGone(call: { getPeer(): string }, callback: () => void): void {
    const socket = this.#connections.get(call.getPeer());
    if (socket === undefined) callback();
    else socket.once("close", () => this.#closed || callback());
  }

  /** Stops serving and removes the socket. */
  close(): void {
    // The socket's name may be another supervisor's by the second time.
    if (this.#closed) return;
    if (existsSync(this.#path) && lstatSync(this.#path).ino === this.#inode)
      rmSync(this.#path, { force: true });
    this.#closed = true;
    this.#listener.close();
    this.#server.forceShutdown();
    for (const socket of this.#connections.values()) socket.destroy();
    void this.#finder.close();
  }
}

/** The name that the socket is made under, and that the kernel knows it by. */
function ownPath(path: string): string {
  return `${path}.${process.pid}`;
}

/** Removes a socket that nobody serves. Throws when somebody does, or when it is not a socket. */
async function removeStale(path: string): Promise<void> {
  const folder = path.slice(0, path.lastIndexOf("/"));
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  if (!existsSync(path)) return;
  if (!lstatSync(path).isSocket())
    throw new Error(`${path} exists and is not a socket. Remove it if it is not needed.`);
  if (await answers(path)) throw new AlreadyRunning(path);
  rmSync(path, { force: true });
}

/** True when a process accepts connections at a unix socket. */
export function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      else reject(error);
    });
  });
}
