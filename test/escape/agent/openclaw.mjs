// In the place of OpenClaw's gateway: the same path and arguments, so that the pack's rules take it for the gateway. It holds
// a secret as the gateway does, listens as the gateway does, and does what plan.json says, in its own process and
// through a broker, each try after the other.

import { spawn } from "node:child_process";
import dgram from "node:dgram";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { perform, sleep } from "./tries.mjs";

const plan = JSON.parse(readFileSync("/home/agent/.openclaw/workspace/plan.json", "utf8"));
mkdirSync(plan.heard, { recursive: true });

function hear(bytes) {
  for (const [token] of bytes.toString("latin1").matchAll(/esc-[a-z0-9-]+/g))
    writeFileSync(join(plan.heard, token), "");
}

process.on("SIGUSR2", () => hear(readFileSync(plan.current)));
const servers = [
  net.createServer((socket) => socket.on("data", hear).on("error", () => {})).listen(plan.loopback, "::"),
  net.createServer((socket) => socket.on("data", hear).on("error", () => {})).listen(`\0${plan.abstract}`),
];
const datagrams = dgram.createSocket("udp4", hear).bind(plan.loopback, "127.0.0.1");

Object.assign(process.env, { HOLDS: plan.secret, HOLDER: plan.holder, HEARD: plan.heard });
load("/opt/escape/bin/holder.node");

/** Has a library's constructor run; what it is not is a module of Node's. */
function load(path) {
  try {
    process.dlopen({ exports: {} }, path);
  } catch {
    // "Module did not self-register": by then it has run.
  }
}

for (const attempt of plan.tries.filter(({ subject }) => subject === "gateway")) {
  await perform(plan, attempt, async ({ kind, text, folder, output, environment }) => {
    if (kind === "js") {
      const say = (words) => writeFileSync(output, `${words}\n`, { flag: "a" });
      const body = Object.getPrototypeOf(async () => undefined).constructor;
      await new body("environment", "say", "sleep", text)(environment, say, sleep);
      return;
    }
    const library = join(folder, "way.node");
    copyFileSync("/opt/escape/bin/way.node", library);
    process.chdir(folder);
    Object.assign(process.env, environment, { WAY: text, OUT: output });
    load(library);
    process.chdir("/home/agent");
    for (const name of [...Object.keys(environment), "WAY", "OUT"]) delete process.env[name];
    Object.assign(process.env, { HOME: plan.home, PATH: plan.path });
  });
}

const broker = spawn(process.execPath, [`${plan.package}/dist/process/spawn-broker/worker.js`], {
  stdio: "inherit",
});
await new Promise((resolve) => broker.once("exit", resolve).once("error", resolve));
for (const server of [...servers, datagrams]) server.close();
process.exit(0);
