// The ruleset against the real kernel, in a network namespace of its own with the shape that the network gate gives
// a sandbox's: `lo` alone, and every address local. Needs root, nft and unshare.

import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { nftablesRuleset } from "./nftables.js";

const possible =
  process.getuid?.() === 0 &&
  ["nft", "unshare", "ip"].every((program) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0);
if (!possible)
  console.warn("no root, nft, unshare or ip: the nftables ruleset is NOT checked against the kernel");

const ruleset = JSON.stringify(nftablesRuleset());

/** Runs JavaScript in a new namespace after the setup; what it prints, as JSON. */
function inNamespace(script: string, rules: string): Record<string, unknown> {
  const program = `
    const { execFileSync } = require("node:child_process");
    const dgram = require("node:dgram");
    const net = require("node:net");
    const run = (...words) => execFileSync(words[0], words.slice(1), { encoding: "utf8" });
    run("ip", "link", "set", "lo", "up");
    run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo");
    // nft opens /dev/stdin, which must be a pipe; Node gives a socket.
    const apply = () => run("sh", "-c", "printenv RULES | nft -j -f -");
    if (process.env.RULES !== "") apply();
    const quiet = (ms) => new Promise((done) => setTimeout(() => done("nothing"), ms));
    /** Sends a datagram and waits for it to arrive, and for the reply to come back. */
    async function udp(family, from, to, port) {
      const server = dgram.createSocket(family);
      const client = dgram.createSocket(family);
      try {
        await new Promise((done) => server.bind(port, to, done));
        await new Promise((done) => client.bind(0, from, done));
        server.on("message", (_, peer) => server.send("reply", peer.port, peer.address, () => {}));
        const reply = new Promise((done) => client.on("message", (m) => done(String(m))));
        const sent = new Promise((done) => client.send("query", port, to, (error) => error && done(error.code)));
        return await Promise.race([reply, sent, quiet(500)]);
      } finally { server.close(); client.close(); }
    }
    /** Connects, and reads what the listener says. */
    async function tcp(to) {
      const server = net.createServer((socket) => socket.end("hello"));
      await new Promise((done) => server.listen(0, to.includes(":") ? "::" : "0.0.0.0", done));
      const client = net.connect(server.address().port, to);
      const heard = new Promise((done) => { client.on("data", (d) => done(String(d))); client.on("error", (e) => done(e.code)); });
      const result = await Promise.race([heard, quiet(2000)]);
      client.destroy(); server.close();
      return result;
    }
    (async () => { ${script} })().then((said) => console.log(JSON.stringify(said)));
  `;
  const done = spawnSync("unshare", ["-n", process.execPath, "-e", program], {
    encoding: "utf8",
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", RULES: rules },
    timeout: 30_000,
  });
  if (done.status !== 0) throw new Error(done.stderr);
  return JSON.parse(done.stdout) as Record<string, unknown>;
}

const TRAFFIC = `return {
  "udp to a foreign address": await udp("udp4", "127.0.0.1", "192.0.2.1", 5300),
  "udp between foreign addresses": await udp("udp4", "198.51.100.1", "192.0.2.1", 5300),
  "udp to the gate's resolver": await udp("udp4", "127.0.0.1", "127.0.0.53", 53),
  "udp to ::1": await udp("udp6", "::1", "::1", 5300),
  "tcp to a foreign address": await tcp("192.0.2.1"),
  "tcp to loopback": await tcp("127.0.0.1"),
  "tcp to ::1": await tcp("::1"),
}`;

describe.runIf(possible)("the ruleset in a sandbox's namespace", { timeout: 60_000 }, () => {
  test("is one that nft takes, also a second time", () => {
    const check = (rules: string) =>
      spawnSync("unshare", ["-n", "sh", "-c", "cat | nft -c -j -f -"], { input: rules }).status;
    expect(check(ruleset)).toBe(0);
    expect(check(ruleset.replace("accept", "acept"))).not.toBe(0);
    expect(
      inNamespace(
        `apply(); return { rules: run("nft", "list", "ruleset").match(/accept$/gm).length }`,
        ruleset,
      ),
    ).toEqual({ rules: 6 });
  });

  test("drops datagrams to all but loopback, and lets TCP over lo pass, wherever it goes", () => {
    expect(inNamespace(TRAFFIC, ruleset)).toEqual({
      "udp to a foreign address": "EPERM",
      "udp between foreign addresses": "EPERM",
      "udp to the gate's resolver": "reply",
      "udp to ::1": "reply",
      "tcp to a foreign address": "hello",
      "tcp to loopback": "hello",
      "tcp to ::1": "hello",
    });
  });

  test("is what drops them: without it they arrive", () => {
    expect(inNamespace(TRAFFIC, "")).toMatchObject({
      "udp to a foreign address": "reply",
      "udp between foreign addresses": "reply",
    });
  });

  test("counts what it drops", () => {
    const counted = `
      await udp("udp4", "127.0.0.1", "192.0.2.1", 5300);
      const { nftables } = JSON.parse(run("nft", "-j", "list", "counters"));
      return Object.fromEntries(nftables.flatMap(({ counter }) => counter ? [[counter.name, counter.packets]] : []))`;
    expect(inNamespace(counted, ruleset)).toEqual({
      "dropped-input": 0,
      "dropped-output": 1,
      "dropped-forward": 0,
    });
  });
});
