// A web server on a test host: answers every request with one line that says which host was reached.
// Usage: host-server ADDRESS=NAME...

import { createServer } from "node:http";

const hosts = process.argv.slice(2).map((pair) => {
  const [address, name] = pair.split("=");
  if (!address || !name) throw new Error(`"${pair}" is not ADDRESS=NAME.`);
  return { address, name };
});

await Promise.all(
  hosts.map(
    ({ address, name }) =>
      new Promise<void>((resolve, reject) => {
        const server = createServer((_request, response) => {
          response.setHeader("content-type", "text/plain");
          response.end(`hello from ${name}\n`);
        });
        server.once("error", reject);
        server.listen(80, address, resolve);
      }),
  ),
);
process.stdout.write("ready\n");
process.once("SIGTERM", () => process.exit(0));
