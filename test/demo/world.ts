// What the demo sets up around clawsec: a home folder as a user has it, secrets, and the policy of the OpenClaw pack
// with the test hosts added.

import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseDocument, YAMLSeq } from "yaml";
import { openClawConfig } from "../openclaw/openclaw-config.js";
import type { TestHosts } from "../support/hosts.js";

/** The uid and gid of the agent in the sandbox. */
export const AGENT = 1000;

/** Files of the demo, all below one folder. */
export interface World {
  readonly folder: string;
  readonly home: string;
  readonly policy: string;
  readonly configFile: string;
  readonly configText: string;
  /** Words that must never come out of the sandbox. */
  readonly privateKey: string;
  readonly gatewayToken: string;
  readonly modelKeyFile: string;
  readonly variables: Readonly<Record<string, string>>;
}

/**
 * Makes home, secrets and policy below `folder`.
 * @param openclaw folder into which test/openclaw/install.sh installed OpenClaw and Node.
 */
export function makeWorld(folder: string, root: string, openclaw: string, hosts: TestHosts): World {
  const home = join(folder, "home");
  const secrets = join(folder, "secrets");
  const privateKey = `demo-private-key-${randomBytes(12).toString("hex")}`;
  const gatewayToken = randomBytes(24).toString("hex");
  const modelKeyFile = join(secrets, "model-key");
  mkdirSync(join(home, ".ssh"), { recursive: true });
  mkdirSync(join(home, ".openclaw/workspace"), { recursive: true });
  mkdirSync(secrets, { mode: 0o700 });
  writeFileSync(join(home, ".ssh/id_ed25519"), `${privateKey}\n`, { mode: 0o600 });
  writeFileSync(join(secrets, "gateway-token"), gatewayToken, { mode: 0o600 });
  writeFileSync(modelKeyFile, randomBytes(24).toString("hex"), { mode: 0o600 });
  makeRepository(join(home, ".openclaw/workspace"));
  chownTree(home);

  const configText = `${JSON.stringify(
    openClawConfig({
      gatewayTokenFile: "/run/secrets/clawsec/gateway-token",
      modelKeyFile: "/run/secrets/clawsec/model-key",
    }),
    null,
    2,
  )}\n`;
  const configFile = join(home, ".openclaw/openclaw.json");
  writeFileSync(configFile, configText, { mode: 0o644 });

  const policy = join(folder, "openclaw.demo.yaml");
  writeFileSync(policy, demoPolicy(readFileSync(join(root, "policy/packs/openclaw.yaml"), "utf8"), hosts));
  return {
    folder,
    home,
    policy,
    configFile,
    configText,
    privateKey,
    gatewayToken,
    modelKeyFile,
    variables: { home, openclaw, gatewayToken: join(secrets, "gateway-token"), modelKey: modelKeyFile },
  };
}

/** A repository with something to push, and the bare one that it pushes to: `git push` is a held command. */
function makeRepository(workspace: string): void {
  const git = (cwd: string, ...args: string[]) =>
    execFileSync("git", ["-c", "user.name=Agent", "-c", "user.email=agent@example.org", ...args], {
      cwd,
      stdio: ["ignore", "ignore", "pipe"],
    });
  git(workspace, "init", "--quiet", "--bare", "remote.git");
  git(workspace, "init", "--quiet", "--initial-branch=main", "project");
  const project = join(workspace, "project");
  writeFileSync(join(project, "README"), "a change that wants to be pushed\n");
  git(project, "add", "README");
  git(project, "commit", "--quiet", "-m", "A change");
  git(project, "remote", "add", "origin", "../remote.git");
}

/** The pack as it is, with rules and names for the test hosts in front of its network rules. */
function demoPolicy(pack: string, hosts: TestHosts): string {
  const document = parseDocument(pack);
  const network = document.get("network");
  if (!(network instanceof YAMLSeq))
    throw new Error("policy/packs/openclaw.yaml has no list of network rules.");
  const rules = [
    {
      id: "demo-model",
      subject: "gateway",
      host: "model.test",
      port: 18999,
      action: "allow",
      resolvesTo: [hosts.range],
    },
    { id: "demo-allowed-host", host: "allowed.test", port: 80, action: "allow", resolvesTo: [hosts.range] },
    {
      id: "demo-other-host",
      subject: "tool",
      host: "*.test",
      port: 80,
      action: "hold",
      resolvesTo: [hosts.range],
      message: "a host that nobody allowed",
      because: "the agent talks to a host that the policy does not know",
    },
  ];
  network.items.unshift(...rules.map((rule) => document.createNode(rule)));
  for (const [name, address] of Object.entries(hosts.addresses)) {
    document.setIn(["resolver", "hosts", name], address);
  }
  return document.toString();
}

function chownTree(path: string): void {
  chownSync(path, AGENT, AGENT);
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) chownTree(child);
    else if (entry.isFile()) chownSync(child, AGENT, AGENT);
  }
}

/** Lets uid 1000 walk down to a folder that mkdtemp made for root alone. */
export function makeReachable(folder: string): void {
  chmodSync(folder, 0o755);
}
