// A server on the test hosts: takes whatever is sent, and answers as a web server would.
// Usage: test-server ADDRESS...

import { createServer } from "node:net";

const PORTS = [22, 80, 443, 8080];
const ANSWER = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

await Promise.all(
  process.argv.slice(2).flatMap((address) =>
    PORTS.map(
      (port) =>
        new Promise<void>((resolve, reject) => {
          const server = createServer((socket) => {
            socket.on("error", () => undefined);
            socket.once("data", () => socket.end(ANSWER));
          });
          server.once("error", reject);
          server.listen(port, address, resolve);
        }),
    ),
  ),
);
process.stdout.write("ready\n");
process.once("SIGTERM", () => process.exit(0));
