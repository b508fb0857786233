// Everything that could hear a byte that got out: test hosts in a network namespace, and listeners on this host's loopback.

import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { firstLine, type TestHosts } from "../support/hosts.js";

export interface Listeners {
  /** Of other.test, to which no rule leads. */
  readonly address: string;
  readonly address6: string;
  readonly link: string;
  readonly hostPort: number;
  readonly gatewayPort: number;
  readonly abstract: string;
  readonly path: string;
  /** Whether a packet with this token, or for this port where there is one, came to a test host. */
  sent(token: string, port?: number): boolean;
  /** Whether a listener of this host got the token. */
  heard(token: string): boolean;
  close(): Promise<void>;
}

/**
 * Starts them.
 * @param capture the compiled programs/capture.c
 * @param folder for the unix socket
 */
export async function listen(
  hosts: TestHosts,
  slot: number,
  root: string,
  capture: string,
  folder: string,
): Promise<Listeners> {
  const link = `cstest${slot}`;
  const net6 = `fd91:${slot.toString(16)}::`;
  const namespace = `clawsec-test-${slot}`;
  execFileSync("ip", ["-6", "address", "add", `${net6}1/64`, "dev", link, "nodad"]);
  execFileSync("ip", ["-n", namespace, "-6", "address", "add", `${net6}4/64`, "dev", `${link}p`, "nodad"]);

  const ports = new Set<number>();
  let packets = "";
  let rest = "";
  const watch = hosts.spawn(capture, []);
  await firstLine(watch, 10_000);
  watch.stdout?.on("data", (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [port, hex] = line.split(" ");
      ports.add(Number(port));
      packets += `${hex}\n`;
    }
  });
  const addresses = Object.values(hosts.addresses);
  const web = hosts.spawn(process.execPath, [join(root, "dist/test/escape/test-server.js"), ...addresses]);
  await firstLine(web, 20_000);

  let text = "";
  const servers: Server[] = [];
  const server = async (where: { port: number; host: string } | { path: string }) => {
    const made = createServer((socket) => {
      socket.on("data", (bytes) => {
        text += bytes.toString("latin1");
      });
      socket.on("error", () => undefined);
    });
    await new Promise<void>((resolve, reject) => {
      made.once("error", reject);
      made.listen(where, resolve);
    });
    servers.push(made);
    const address = made.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  };
  const hostPort = await server({ port: 0, host: "127.0.0.1" });
  await server({ port: hostPort, host: "::1" });
  const path = join(folder, "host.sock");
  rmSync(path, { force: true });
  await server({ path });
  chmodSync(path, 0o777);
  const abstract = `clawsec-escape-${process.pid}`;
  await server({ path: `\0${abstract}` });
  const datagrams = createSocket("udp4", (bytes) => {
    text += bytes.toString("latin1");
  });
  await new Promise<void>((resolve) => datagrams.bind(hostPort, "127.0.0.1", resolve));
  const gatewayPort = await freePort();

  return {
    address: hosts.addresses["other.test"],
    address6: `${net6}4`,
    link,
    hostPort,
    gatewayPort,
    abstract,
    path,
    sent: (token, port) =>
      (port !== undefined && ports.has(port)) || packets.includes(Buffer.from(token).toString("hex")),
    heard: (token) => text.includes(token),
    async close() {
      datagrams.close();
      for (const one of servers) one.close();
    },
  };
}

/** A port of the host that nothing listens on now, nor on the one after it. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 30_000 + Math.floor(Math.random() * 2000) * 2;
    if ((await isFree(port)) && (await isFree(port + 1))) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "::", () => server.close(() => resolve(true)));
  });
}
