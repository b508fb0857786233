// In the place of OpenClaw's spawn broker: starts commands as tools, and tries what a broker may not.

import { spawn } from "node:child_process";
import { openSync, closeSync, readFileSync, writeFileSync } from "node:fs";
import { perform, sleep } from "../../../tries.mjs";

const plan = JSON.parse(readFileSync("/home/agent/.openclaw/workspace/plan.json", "utf8"));

for (const attempt of plan.tries.filter(({ subject }) => subject !== "gateway")) {
  await perform(plan, attempt, async ({ kind, text, folder, output, environment, timeoutMs }) => {
    if (kind === "js") {
      const say = (words) => writeFileSync(output, `${words}\n`, { flag: "a" });
      const body = Object.getPrototypeOf(async () => undefined).constructor;
      await new body("environment", "say", "sleep", text)(environment, say, sleep);
      return;
    }
    // The gateway's own words are not for its tools.
    const { GATEWAY_WORDS: _, ...inherited } = process.env;
    const command = kind === "sh" ? `echo "trying $TOKEN"\n${text}` : `exec /opt/escape/bin/way ${text}`;
    const out = openSync(output, "a");
    const child = spawn("/.clawsec/bash", ["-c", command], {
      cwd: folder,
      env: { ...inherited, ...environment },
      stdio: ["ignore", out, out],
      detached: true,
    });
    closeSync(out);
    const timer = setTimeout(() => end(child.pid), timeoutMs);
    await new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
    clearTimeout(timer);
  });
}
process.exit(0);

function end(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
