// Test hosts: a network namespace that the demo, the benchmarks and the end-to-end tests make, joined to the host by one veth pair. What "the internet"
// is to the sandbox lives here; nothing leaves the machine.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

/** Three names, as the policy's resolver maps them. */
export interface TestHosts {
  readonly range: string;
  readonly addresses: Readonly<Record<"model.test" | "allowed.test" | "other.test", string>>;
  /** Starts a program inside the namespace; it is ended by `close`. */
  spawn(command: string, args: readonly string[]): ChildProcess;
  close(): Promise<void>;
}

/**
 * Makes the namespace. Needs root and iproute2.
 * @param slot 0..255, the third octet of 10.91.x.0/24, so that two demos at once do not meet.
 * @throws when `ip` fails; what was made until then is removed.
 */
export async function makeTestHosts(slot: number): Promise<TestHosts> {
  const namespace = `clawsec-test-${slot}`;
  const outside = `cstest${slot}`;
  const inside = `cstest${slot}p`;
  const net = `10.91.${slot}`;
  const addresses = { "model.test": `${net}.2`, "allowed.test": `${net}.3`, "other.test": `${net}.4` };
  const children: ChildProcess[] = [];

  const remove = () => {
    // Removing the namespace removes its end of the pair, and with it ours.
    tryIp("netns", "delete", namespace);
    tryIp("link", "delete", outside);
  };

  remove(); // what a demo that was killed may have left
  try {
    ip("netns", "add", namespace);
    ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", namespace);
    ip("address", "add", `${net}.1/24`, "dev", outside);
    ip("link", "set", outside, "up");
    ip("-n", namespace, "link", "set", "lo", "up");
    for (const address of Object.values(addresses)) {
      ip("-n", namespace, "address", "add", `${address}/24`, "dev", inside);
    }
    ip("-n", namespace, "link", "set", inside, "up");
  } catch (error) {
    remove();
    throw error;
  }

  return {
    range: `${net}.0/24`,
    addresses,
    spawn(command, args) {
      const child = spawn("ip", ["netns", "exec", namespace, command, ...args], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      children.push(child);
      return child;
    },
    async close() {
      for (const child of children) {
        if (child.exitCode === null && child.signalCode === null) {
          child.kill("SIGTERM");
          await Promise.race([once(child, "exit"), sleep(2000).then(() => child.kill("SIGKILL"))]);
        }
      }
      remove();
    },
  };
}

/** Resolves with the first line that a child prints, or rejects when it ends first. */
export async function firstLine(child: ChildProcess, timeoutMs: number): Promise<string> {
  const { stdout } = child;
  if (stdout === null) throw new Error("The child has no standard output to read its first line from.");
  return await new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(() => reject(new Error(`No line came within ${timeoutMs} ms.`)), timeoutMs);
    stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const end = text.indexOf("\n");
      if (end >= 0) {
        clearTimeout(timer);
        resolve(text.slice(0, end));
      }
    });
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`The program ended with code ${code} before it said that it was ready.`));
    });
  });
}

function ip(...args: string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

function tryIp(...args: string[]): void {
  try {
    ip(...args);
  } catch {
    // It was not there.
  }
}
