import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { afterAll, expect, test } from "vitest";
import { nameOfUid } from "../../common/host.js";
import { PeerFinder, peerInode, peerWords } from "./peer.js";

const finder = new PeerFinder();
afterAll(() => finder.close());

test("the peer of a connection is the process at its other end", async () => {
  const path = join(tmpdir(), `clawsec-peer-${process.pid}.sock`);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const client = connect(path);
  try {
    const peer = await finder.of(await accepted, path);
    expect(peer).toEqual({ kind: "known", uids: [process.getuid?.()], pids: [process.pid] });
  } finally {
    client.destroy();
    (await accepted).destroy();
    server.close();
  }
});

test("processes of other pid namespaces are looked at when it was none of our own", async () => {
  const path = join(tmpdir(), `clawsec-peer-far-${process.pid}.sock`);
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const client = connect(path);
  const connection = await accepted;
  const words = ["--pid", "--fork", "sh", "-c", "echo ready; exec sleep 60"];
  const unshare = spawn("unshare", words, { stdio: ["ignore", "pipe", "inherit", client] });
  try {
    await once(unshare.stdout as Readable, "data");
    const near = await finder.of(connection, path);
    expect(near).toMatchObject({
      kind: "known",
      pids: [process.pid, unshare.pid ?? 0].toSorted((one, other) => one - other),
    });
    const inner = Number(readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, "utf8").trim());
    try {
      client.destroy();
      unshare.kill("SIGKILL");
      await once(unshare, "exit");
      expect(await finder.of(connection, path)).toMatchObject({ kind: "known", pids: [inner] });
    } finally {
      process.kill(inner, "SIGKILL");
    }
  } finally {
    client.destroy();
    connection.destroy();
    server.close();
  }
});

test("a closed connection has no known peer, and no uid is made up", async () => {
  expect(peerWords({ kind: "unknown", why: "gone" })).toBe("unknown local user");
  expect(
    await finder.of(
      connect("/nonexistent").on("error", () => undefined),
      "/x",
    ),
  ).toMatchObject({ kind: "unknown" });
});

test("the peer's inode is found for this connection and for no other", () => {
  const output = [
    "u_str ESTAB 0      0      /run/clawsec/control.sock.7 28683 * 28684 ",
    "u_str ESTAB 0      0      /run/clawsec/control.sock.7 30000 * 30001",
    "u_str LISTEN 0     511    /run/clawsec/control.sock.7 20000 * 0",
  ].join("\n");
  expect(peerInode(output, "28683")).toBe("28684");
  expect(peerInode(output, "30000")).toBe("30001");
  expect(peerInode(output, "20000")).toBe(undefined);
  expect(peerInode(output, "28684")).toBe(undefined);
});

test("users are named as passwd(5) has them", () => {
  expect(nameOfUid(7, "root:x:0:0::/:/bin/sh\nann:x:7:7::/:/bin/sh\n")).toBe("ann");
  expect(nameOfUid(8, "ann:x:7:8::/:/bin/sh\n")).toBe(undefined);
  expect(peerWords({ kind: "known", uids: [4_294_967_294], pids: [1] })).toBe("uid 4294967294");
});
