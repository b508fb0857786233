// Ways across the border at the start and from outside: open descriptors, the audit's text, a process that joins, the loader's death.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Stage } from "../setup.js";
import {
  asAgent,
  inBox,
  joinedOnHost,
  joinNamespaces,
  makeBox,
  onHost,
  pidOf,
  textOf,
  until,
} from "./box.js";
import type { Solo } from "./way.js";

/** Runs a program with a pipe as descriptor 3; resolves with what came through it. */
async function throughThree(
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<string> {
  const child = spawn(command, args, { env: environment, stdio: ["ignore", "ignore", "ignore", "pipe"] });
  let text = "";
  child.stdio[3]?.on("data", (bytes: Buffer) => {
    text += bytes.toString();
  });
  await once(child, "close");
  return text;
}

const WRITE_ALL = "for n in 3 4 5 6 7 8 9 10 11 12; do echo EFFECT >&$n; done 2>/dev/null; true";

const descriptors: Solo = {
  id: "descriptor-left-open",
  tries: "a descriptor that the caller of clawsec run has open",
  layer: "loader: nothing is handed in",
  who: "main",
  control: async (stage) =>
    (await throughThree("/usr/bin/bash", ["-c", WRITE_ALL], stage.clawsec.environment)).includes("EFFECT"),
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder);
    const args = [
      "run",
      "--name",
      box.name,
      "--policy",
      box.policy,
      "--",
      "/usr/bin/bash",
      "-c",
      `${WRITE_ALL}; : > ran`,
    ];
    const text = await throughThree(join(stage.root, "bin/clawsec"), args, stage.clawsec.environment);
    if (textOf(join(box.work, "ran")) === "" && !(await ran(box.work)))
      throw new Error("descriptor-left-open: nothing ran.");
    return text.includes("EFFECT");
  },
};

const ran = (work: string) =>
  until(() => {
    try {
      return readFileSync(join(work, "ran")).length >= 0;
    } catch {
      return false;
    }
  }, 2000);

/** Runs a program with a socket that is connected to a test host as descriptor 3. */
async function withSocket(
  stage: Stage,
  command: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  const socket = connect({ host: stage.listeners.address, port: 80 });
  await once(socket, "connect");
  const child = spawn(command, args, { env: environment, stdio: ["ignore", "ignore", "ignore", socket] });
  await once(child, "close");
  socket.destroy();
  await sleep(500);
}

const writeToken = (token: string) =>
  `for n in 3 4 5 6 7 8 9 10 11 12; do echo ${token} >&$n; done 2>/dev/null; : > ran`;

const sockets: Solo = {
  id: "socket-left-open",
  tries: "a connection that was open before the sandbox began",
  layer: "loader: nothing is handed in",
  who: "main",
  async control(stage, folder) {
    const token = `socket-${randomBytes(6).toString("hex")}`;
    mkdirSync(folder, { recursive: true });
    const script = `cd ${folder}; ${writeToken(token)}`;
    await withSocket(stage, "/usr/bin/bash", ["-c", script], stage.clawsec.environment);
    return stage.listeners.sent(token);
  },
  async sandbox(stage, folder) {
    const token = `socket-${randomBytes(6).toString("hex")}`;
    const box = makeBox(stage, folder);
    const args = [
      ...["run", "--name", box.name, "--policy", box.policy, "--"],
      ...["/usr/bin/bash", "-c", writeToken(token)],
    ];
    await withSocket(stage, join(stage.root, "bin/clawsec"), args, stage.clawsec.environment);
    if (!(await ran(box.work))) throw new Error("socket-left-open: nothing ran.");
    return stage.listeners.sent(token);
  },
};

const isForged = (text: string) => text.split("\n").some((line) => line.startsWith("FORGED"));

const forged: Solo = {
  id: "audit-forged",
  tries: "a line of the audit made by a line break in an argument",
  layer: "audit: text is escaped",
  who: "main",
  control: async (_stage, folder) => {
    mkdirSync(folder, { recursive: true });
    return isForged(await onHost("printf 'argument: %s\\n' $'harmless\\nFORGED allow'", folder));
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder);
    await inBox(stage, box, "/usr/bin/nproc $'harmless\\nFORGED allow\\r\\nFORGED'");
    let text = "";
    for (let i = 0; i < 40 && !text.includes("FORGED"); i++) {
      text = (await stage.clawsec.cli("audit", "search", "FORGED")).stdout;
      await sleep(100);
    }
    if (!text.includes("FORGED")) throw new Error("audit-forged: the exec is not in the audit.");
    return isForged(text);
  },
};

const joined: Solo = {
  id: "joined-root",
  tries: "a denied program as root of the host that joins the sandbox, as docker exec does",
  layer: "BPF exec verify: what runs is what was approved",
  who: "root, from outside",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    await joinedOnHost(join(stage.programs, "denied/by-path"), join(work, "mark"));
    return textOf(join(work, "mark")).includes("EFFECT");
  },
  async sandbox(stage, folder) {
    const box = makeBox(stage, folder);
    await inBox(stage, box, "echo $$ > started; sleep 20", ["--detach"]);
    await until(() => textOf(join(box.work, "started")) !== "", 10_000);
    await joinNamespaces(await pidOf(stage, box), "/opt/escape/denied/by-path", "/work/mark");
    await stage.clawsec.cli("kill", box.name);
    return textOf(join(box.work, "mark")).includes("EFFECT");
  },
};

/** Tries a denied program again and again; never ends by itself before 8 s. */
const AGAIN = (program: string) =>
  `i=0; while [ $i -lt 800 ]; do echo x >> beat; MARK=$PWD/mark TOKEN=EFFECT ${program} 2>/dev/null; i=$((i+1)); read -t 0.01 < <(:); done`;

/** The last one of a run: the loader is another one afterwards. */
const orphaned: Solo = {
  id: "loader-killed",
  tries: "a denied program, tried all the time while the loader is killed",
  layer: "BPF exec verify: what runs is what was approved",
  who: "main",
  async control(stage, folder) {
    const { work } = makeBox(stage, folder);
    const child = asAgent(AGAIN(join(stage.programs, "denied/by-path")), work);
    const ended = once(child, "exit");
    const isThere = await until(() => textOf(join(work, "mark")).includes("EFFECT"), 5000);
    child.kill("SIGKILL");
    await ended;
    return isThere;
  },
  async sandbox(stage: Stage, folder) {
    const box = makeBox(stage, folder);
    await inBox(stage, box, AGAIN("/opt/escape/denied/by-path"), ["--detach"]);
    if (!(await until(() => textOf(join(box.work, "beat")).length > 10, 10_000)))
      throw new Error("loader-killed: nothing ran in the sandbox.");
    process.kill(Number(textOf(join(stage.clawsec.runtime, "loader.pid"))), "SIGKILL");
    await sleep(1500);
    return textOf(join(box.work, "mark")).includes("EFFECT");
  },
};

export const borderSolo: readonly Solo[] = [descriptors, sockets, forged, joined, orphaned];
