// What is at the test hosts: says which address and port was reached, over TCP and UDP, whatever is said first.
// Usage: host-server ADDRESS... (each on the ports of connections.ts)

import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import { HOST_PORTS } from "./connections.js";

for (const address of process.argv.slice(2)) {
  for (const port of HOST_PORTS) {
    const answer = `hello from ${address}:${port}\n`;
    const server = createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.once("data", (bytes) => {
        const isHttp = / HTTP\/1\.1\r\n/.test(bytes.toString("latin1"));
        const head = `HTTP/1.1 200 OK\r\nContent-Length: ${answer.length}\r\nConnection: close\r\n\r\n`;
        // The answer to a HEAD has no body; which host it was stands in the header too.
        const named = head.replace("\r\n", `\r\nX-Host: ${answer.trim()}\r\n`);
        const isHead = bytes.subarray(0, 4).toString() === "HEAD";
        socket.end(isHttp ? named + (isHead ? "" : answer) : answer);
      });
    });
    await once(server.listen(port, address), "listening");
    const datagrams = createSocket("udp4", (_message, peer) => {
      datagrams.send(answer, peer.port, peer.address);
    });
    await once(datagrams.bind(port, address), "listening");
  }
}
process.stdout.write("ready\n");
process.once("SIGTERM", () => process.exit(0));
