// The small sections: metadata, waive, defaults, secrets, resolver.

import { ACTIONS, POLICY_NAME, SECRET_NAME, WAIVER_NAME } from "../language/names.js";
import { DEFAULTS, METADATA, RESOLVER, SECRET, SECRETS, WAIVER } from "../language/policy.js";
import { keysOf } from "../language/shape.js";
import { parseAddress } from "../match/cidr.js";
import { hostPatternError, normalizeHost } from "../match/host.js";
import type { Defaults, SecretItem, SecretsModel, Waiver } from "../model.js";
import { type Context, describe, Fields, type Node } from "./context.js";
import { mergeMaps, nearest } from "./merge.js";
import * as v from "./values.js";

/** Reads the name and the description of one file. */
export function readMetadata(context: Context, policy: Fields): { name: string; description: string } {
  const node = policy.require("metadata", 'Write "metadata: { name: NAME }".');
  const fields = node && Fields.of(context, node, "metadata", keysOf(METADATA));
  const nameNode = fields?.require("name", "Name the policy, e.g. my-agent.");
  const descriptionNode = fields?.get("description");
  return {
    name:
      (nameNode &&
        v.matching(
          context,
          nameNode,
          "the name",
          POLICY_NAME,
          'Use at most 40 lower-case letters, digits and "-".',
        )) ??
      "",
    description: (descriptionNode && v.text(context, descriptionNode, "the description")) ?? "",
  };
}

/** Reads the sections of all files, furthest first: a waiver of a nearer file replaces one of the same name. */
export function readWaivers(context: Context, nodes: readonly Node[]): Waiver[] {
  return nearest(
    nodes.flatMap((node) => readWaiverList(context, node)),
    (waiver) => waiver.name,
  );
}

function readWaiverList(context: Context, node: Node): Waiver[] {
  const waivers = v.list(context, node, "waive", (n) => readWaiver(context, n));
  const seen = new Set<string>();
  for (const { name, origin } of waivers) {
    if (seen.has(name))
      context.error(origin, "duplicate-id", `"${name}" is waived twice`, "Keep one of the two.");
    seen.add(name);
  }
  return waivers;
}

function readWaiver(context: Context, node: Node): Waiver | undefined {
  const fields = Fields.of(context, node, "a waiver", keysOf(WAIVER));
  const nameNode = fields?.require(
    "name",
    'Name a rule, e.g. "file/dotenv", or a mechanism, e.g. "nftables".',
  );
  const reasonNode = fields?.require("reason", "Say why this host may lack it.");
  const name =
    nameNode &&
    v.matching(
      context,
      nameNode,
      "the name of a waiver",
      WAIVER_NAME,
      'Name a rule, e.g. "file/dotenv", or a mechanism, e.g. "nftables".',
    );
  const reason = reasonNode && v.nonEmpty(context, reasonNode, "the reason");
  return name === undefined || reason === undefined
    ? undefined
    : { name, reason, origin: nameNode?.origin ?? node.origin };
}

/** Reads the sections of all files, furthest first. */
export function readDefaults(context: Context, nodes: readonly Node[]): Defaults {
  const node = mergeMaps(context, nodes, "defaults");
  const fields = node && Fields.of(context, node, "defaults", keysOf(DEFAULTS));
  const action = (key: "exec" | "network") => {
    const value = fields?.get(key);
    return (value && v.oneOf(context, value, `the default of ${key}`, ACTIONS)) ?? "deny";
  };
  const file = fields?.get("file");
  if (file) v.oneOf(context, file, "the default of file", ["deny"] as const);
  return { exec: action("exec"), network: action("network"), file: "deny" };
}

/** Reads the sections of all files, furthest first; undefined when there is none. */
export function readSecrets(context: Context, nodes: readonly Node[]): SecretsModel | undefined {
  const node = mergeMaps(context, nodes, "secrets", { joined: ["items"] });
  if (node === undefined) return undefined;
  const fields = Fields.of(context, node, "secrets", keysOf(SECRETS));
  if (fields === undefined) return undefined;
  const mountNode = fields.get("mount");
  const itemsNode = fields.get("items");
  const read =
    itemsNode === undefined
      ? []
      : v.list(context, itemsNode, "the items of secrets", (n) => readSecret(context, n));
  const items = nearest(read, (item) => item.name);
  const seen = new Map<string, SecretItem>();
  for (const item of items) {
    if (seen.has(item.name))
      context.error(
        item.origin,
        "duplicate-id",
        `the secret "${item.name}" is there twice`,
        "Keep one of the two.",
      );
    seen.set(item.name, item);
  }
  return {
    mount: (mountNode && v.path(context, mountNode, "the mount of secrets")) ?? "/run/secrets/clawsec",
    items: [...seen.values()],
    origin: mountNode?.origin ?? fields.origin,
  };
}

function readSecret(context: Context, node: Node): SecretItem | undefined {
  const fields = Fields.of(context, node, "a secret", keysOf(SECRET));
  const nameNode = fields?.require("name", "Say what its file in the sandbox is called.");
  const fileNode = fields?.require("file");
  const name =
    nameNode &&
    v.matching(
      context,
      nameNode,
      "the name of a secret",
      SECRET_NAME,
      'It becomes a file name: use letters, digits, ".", "_" and "-".',
    );
  const file = fileNode && v.path(context, fileNode, "the file of a secret");
  return name === undefined || file === undefined
    ? undefined
    : { name, file, origin: fileNode?.origin ?? node.origin };
}

/** Reads the sections of all files, furthest first: addresses by name. */
export function readResolver(context: Context, nodes: readonly Node[]): Record<string, string> {
  const node = mergeMaps(context, nodes, "resolver", { deep: ["hosts"] });
  const fields = node && Fields.of(context, node, "resolver", keysOf(RESOLVER));
  const hosts = fields?.get("hosts");
  const result = new Map<string, string>();
  if (hosts === undefined) return {};
  if (hosts.kind !== "map") {
    context.error(hosts.origin, "type", `hosts must be a mapping, not ${describe(hosts)}`);
    return {};
  }
  for (const { key, keyOrigin, value } of hosts.entries) {
    const name = normalizeHost(key);
    const why = name.includes("*") ? "patterns have no address" : hostPatternError(name);
    if (why !== undefined) {
      context.error(keyOrigin, "value", `"${key}" is not a host name: ${why}`);
      continue;
    }
    const address = v.text(context, value, `the address of ${name}`);
    if (address === undefined) continue;
    if (parseAddress(address) === undefined)
      context.error(value.origin, "value", `"${address}" is not an IPv4 or IPv6 address`);
    else result.set(name, address);
  }
  return Object.fromEntries(result);
}
