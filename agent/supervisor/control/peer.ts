/**
 * Who is at the other end of a connection to the control socket.
 *
 * Node has no getsockopt(2), so SO_PEERCRED cannot be read. The kernel tells the same in two steps: sock_diag(7), through
 * ss(8), names the inode of the peer's socket, and /proc/<pid>/fd names the processes that have this socket open. Their
 * real uid is the peer's. Where ss is missing, or the peer is gone already, the answer is "unknown local user": the
 * socket's mode (0660, root and the group clawsec) is then all that is known.
 */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Socket } from "node:net";
import { nameOfUid } from "../../common/host.js";
import { Thread } from "../../common/thread.js";

/** A peer, as the audit names it. */
export type Peer = { kind: "known"; uids: number[]; pids: number[] } | { kind: "unknown"; why: string };

/** "uid 0 (root)", or "unknown local user". */
export function peerWords(peer: Peer): string {
  if (peer.kind === "unknown") return "unknown local user";
  // Two users share a connection only when one handed it to the other: both are named.
  return peer.uids.map((uid) => `uid ${uid}${named(nameOfUid(uid))}`).join(", ");
}

/** What the thread is asked: who has the other end of the socket with this inode, that was accepted at this path. */
export type PeerRequest =
  | { readonly kind: "find"; readonly inode: string; readonly path: string }
  | { readonly kind: "close" };

/** How long a search may take. After it the peer is unknown. */
const PATIENCE_MS = 5000;

/**
 * Finds peers in a thread of its own: the descriptors of every process are looked through, and an agent may have
 * thousands of both. No decision waits for that.
 */
export class PeerFinder {
  readonly #thread = new Thread<PeerRequest>({
    name: "the search for who called",
    file: new URL("./peer-thread.js", import.meta.url),
    data: () => undefined,
    patienceMs: PATIENCE_MS,
  });

  /** Starts the thread, so that the first caller need not wait for it. */
  start(): void {
    this.#thread.start();
  }

  /** Asks the kernel who has the other end of `socket`, which was accepted at `path`. Never rejects. */
  async of(socket: Socket, path: string): Promise<Peer> {
    try {
      const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
      if (fd === undefined || fd < 0) return { kind: "unknown", why: "the connection is closed" };
      const inode = socketInode(readlinkSync(`/proc/self/fd/${fd}`));
      if (inode === undefined) return { kind: "unknown", why: "the connection has no inode" };
      return await this.#thread.ask<Peer>({ kind: "find", inode, path });
    } catch (error) {
      return { kind: "unknown", why: error instanceof Error ? error.message : String(error) };
    }
  }

  /** Ends the thread. */
  close(): Promise<void> {
    return this.#thread.close({ kind: "close" });
  }
}

/** In the thread: looks for the peer. Throws when ss fails. */
export function findPeer(inode: string, path: string): Peer {
  const output = execFileSync("ss", ["-xHn", "src", path], {
    timeout: 2000,
    maxBuffer: 16 << 20,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const peer = peerInode(output, inode);
  if (peer === undefined) return { kind: "unknown", why: "ss does not list the connection" };
  return holders(peer);
}

/** The peer's inode in the output of `ss -xHn`: `u_str ESTAB 0 0 PATH LOCAL * PEER`. */
export function peerInode(output: string, local: string): string | undefined {
  for (const line of output.split("\n")) {
    const match = /\s(\d+)\s+\S+\s+(\d+)\s*$/.exec(line.trimEnd());
    if (match?.[1] === local && match[2] !== "0") return match[2];
  }
  return undefined;
}

/**
 * The processes that have a socket open, and their real uids. Those of our own pid namespace come first, and the others are
 * looked through only if it was none of these: a sandbox can have millions of descriptors, and would else decide how long
 * its owner waits, and whether the audit knows the owner's name.
 */
function holders(inode: string): Peer {
  const own = pidNamespace("self");
  const near: string[] = [];
  const far: string[] = [];
  for (const pid of readdirSync("/proc")) {
    if (/^\d+$/.test(pid)) (pidNamespace(pid) === own ? near : far).push(pid);
  }
  for (const some of [near, far]) {
    const pids = some.filter((pid) => hasSocket(pid, inode));
    const uids = new Set(pids.map(realUid).filter((uid) => uid !== undefined));
    if (uids.size > 0)
      return { kind: "known", uids: [...uids].sort((left, right) => left - right), pids: pids.map(Number) };
  }
  return { kind: "unknown", why: "the peer is gone" };
}

function pidNamespace(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    // It ended meanwhile.
    return undefined;
  }
}

function hasSocket(pid: string, inode: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try {
        return socketInode(readlinkSync(`/proc/${pid}/fd/${fd}`)) === inode;
      } catch {
        return false;
      }
    });
  } catch {
    // It ended meanwhile.
    return false;
  }
}

function realUid(pid: string): number | undefined {
  try {
    const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    return uid === undefined ? undefined : Number(uid);
  } catch {
    return undefined;
  }
}

function socketInode(link: string): string | undefined {
  return /^socket:\[(\d+)\]$/.exec(link)?.[1];
}

function named(name: string | undefined): string {
  return name === undefined ? "" : ` (${name})`;
}
