// The sandbox: policy/packs/openclaw.yaml as it is, with the run's folders, programs and hosts added.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseDocument, YAMLMap, YAMLSeq } from "yaml";
import type { Clawsec } from "../support/clawsec.js";
import type { TestHosts } from "../support/hosts.js";
import { type Place, WORKSPACE } from "./place.js";

/** Where the names lead, for the policy's resolver and for containers without clawsec. */
export function names(hosts: TestHosts): Record<string, string> {
  const { addresses } = hosts;
  const other = addresses["other.test"];
  return {
    ...addresses,
    "private.test": other,
    "good.test": other,
    "www.good.test": other,
    "evilgood.test": other,
  };
}

/** The pack with what the ways need in front of its rules. */
export function policyText(pack: string, hosts: TestHosts, hash: string, gatewayText: string): string {
  const document = parseDocument(pack);
  const list = (path: readonly (string | number)[]): YAMLSeq => {
    const found = document.getIn(path);
    if (!(found instanceof YAMLSeq))
      throw new Error(`policy/packs/openclaw.yaml has no list ${path.join(".")}.`);
    return found;
  };
  const first = (path: readonly (string | number)[], items: readonly object[]) =>
    list(path).items.unshift(...items.map((item) => document.createNode(item)));

  document.setIn(["sandbox", "environment", "GATEWAY_WORDS"], gatewayText);
  document.deleteIn(["sandbox", "publish"]);
  document.setIn(["approvals", "timeout"], "2s");
  list(["sandbox", "mounts"]).add(document.createNode({ source: "${escape}", target: "/opt/escape" }));
  document.setIn(["variables", "escape"], null);
  const tool = list(["subjects"]).items.findIndex(
    (item) => item instanceof YAMLMap && item.get("name") === "tool",
  );
  for (const kind of ["read", "exec"])
    list(["subjects", tool, "files", kind]).add(document.createNode("/opt/escape"));

  const denied = "/opt/escape/denied";
  first(
    ["exec"],
    [
      {
        id: "escape-bad",
        executable: `${denied}/arguments`,
        argv: ["*", "**", "--bad", "**"],
        action: "deny",
      },
      { id: "escape-arguments", subject: "tool", executable: `${denied}/arguments`, action: "allow" },
      { id: "escape-held", executable: `${denied}/held`, action: "hold" },
      {
        id: "escape-path",
        executable: [
          `${denied}/by-path`,
          `${denied}/by-path-dynamic`,
          `${denied}/script`,
          `${denied}/script.py`,
          `${denied}/script.js`,
          `${denied}/deep/**`,
        ],
        action: "deny",
      },
      { id: "escape-hash", sha256: [hash], action: "deny" },
      { id: "escape-programs", subject: "tool", executable: "/opt/escape/bin/**", action: "allow" },
    ],
  );
  first(
    ["file"],
    [
      {
        id: "escape-guarded",
        subject: ["gateway", "tool"],
        path: `${WORKSPACE}/guarded`,
        operations: ["open"],
        action: "deny",
      },
    ],
  );
  const resolvesTo = [hosts.range];
  first(
    ["network"],
    [
      { id: "escape-allowed", host: "allowed.test", ports: [80, 443], action: "allow", resolvesTo },
      { id: "escape-private", host: "private.test", port: 80, action: "allow" },
      { id: "escape-wildcard", host: "*.good.test", port: 80, action: "allow", resolvesTo },
    ],
  );
  for (const [name, address] of Object.entries(names(hosts)))
    document.setIn(["resolver", "hosts", name], address);
  return document.toString();
}

/** Runs the stage's plan in a sandbox. @throws with what clawsec said when it does not run. */
export async function runSandboxed(
  clawsec: Clawsec,
  root: string,
  place: Place,
  openclaw: string,
  hosts: TestHosts,
  hash: string,
  timeoutMs: number,
): Promise<void> {
  const pack = readFileSync(join(root, "policy/packs/openclaw.yaml"), "utf8");
  writeFileSync(place.policy, policyText(pack, hosts, hash, place.gatewayText));
  const variables = {
    openclaw,
    home: place.home,
    escape: place.escape,
    gatewayToken: join(place.secrets, "gateway-token"),
    modelKey: join(place.secrets, "model-key"),
  };
  const flags = Object.entries(variables).flatMap(([key, value]) => ["--var", `${key}=${value}`]);
  const running = clawsec.cli("run", "--name", "escape", "--policy", place.policy, ...flags);
  const timer = setTimeout(() => void clawsec.cli("kill", "escape"), timeoutMs);
  const result = await running;
  clearTimeout(timer);
  if (result.code !== 0)
    throw new Error(`The sandbox ended with ${result.code}: ${result.stderr || result.stdout}`);
}
