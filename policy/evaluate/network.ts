// Verdicts on connections, requests and lookups. The egress gate reads the same rules as a table (lower/gate.ts); a
// test holds the two to the same answers.

import { CacheScope, type NetworkAction, NetworkProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import { type Address, type Cidr, parseAddress } from "../match/cidr.js";
import { isHostName, normalizeHost } from "../match/host.js";
import type { Action, NetworkRule, Policy, RuleAction } from "../model.js";
import { match, misses } from "./facts.js";
import { type AskedNetwork, cidrsOf, type ReadyNetwork, readyNetwork } from "./network-facts.js";
import { type Inquiry, once, type Refusal, ranked } from "./rules.js";
import { Trie } from "./trie.js";

interface NetworkIndex {
  /** By rank, each made when it is first looked at. */
  readonly ready: (ReadyNetwork | undefined)[];
  readonly rules: readonly NetworkRule[];
  /** By labels, the last one first. */
  readonly hosts: Trie;
  /** By hexadecimal digits, after the family. */
  readonly addresses: Trie;
}

const indexOf = once((policy: Policy): NetworkIndex => {
  const rules = ranked(policy.network);
  const hosts = new Trie();
  const addresses = new Trie();
  for (const [rank, rule] of rules.entries()) {
    for (const pattern of rule.host) {
      const isWild = pattern === "*" || pattern.startsWith("*.");
      hosts.insert(labels(isWild ? pattern.slice(2) : pattern), rank, isWild ? "below" : "exact");
    }
    // Of a prefix that ends within a digit, the whole digits are looked up.
    for (const cidr of cidrsOf(rule)) addresses.insert(digits(cidr, cidr.bits), rank, "below");
  }
  return { ready: new Array(rules.length), rules, hosts, addresses };
});

function readyAt({ ready, rules }: NetworkIndex, rank: number): ReadyNetwork {
  ready[rank] ??= readyNetwork(rules[rank] as NetworkRule);
  return ready[rank];
}

function labels(name: string): string[] {
  return name === "" ? [] : name.split(".").reverse();
}

function digits({ family, value }: Address | Cidr, bits: number): string[] {
  const hex = value.toString(16).padStart(family === 4 ? 8 : 32, "0");
  return [String(family), ...hex.slice(0, Math.floor(bits / 4))];
}

export function inquireNetwork(
  policy: Policy,
  { subject }: Action,
  action: NetworkAction,
): Inquiry | Refusal {
  if (!policy.subjects.some((s) => s.name === subject)) {
    const sentence = "the policy does not know the subject of the caller";
    return { fact: "subject", rule: "network/unknown-subject", sentence };
  }
  switch (action.protocol) {
    case NetworkProtocol.TCP:
      return inquireTcp(policy, subject, action);
    case NetworkProtocol.DNS:
      return inquireLookup(policy, subject, action);
    default:
      return { fact: "protocol", rule: "network/protocol", sentence: "only TCP leaves a sandbox" };
  }
}

function inquireTcp(policy: Policy, subject: string, action: NetworkAction): Inquiry | Refusal {
  const host = normalizeHost(action.host);
  if (host !== "" && action.observedHost !== "" && host !== normalizeHost(action.observedHost)) {
    const sentence = "the name in its first bytes is not the name that was looked up";
    return { fact: "host", rule: "network/observed-host", sentence };
  }
  const named = action.host !== "";
  const address = named ? undefined : parseAddress(action.address);
  const portKnown = Number.isInteger(action.port) && action.port >= 1 && action.port <= 65535;
  const peerKnown = named ? isHostName(host) : address !== undefined;
  if (!peerKnown || !portKnown) {
    const sentence = "its host, address or port is not known";
    return { fact: peerKnown ? "port" : "host", rule: "network/unknown-peer", sentence };
  }
  return inquiry(policy, { subject, action, address }, true);
}

/** A lookup may be answered when some connection to the name could happen, on whatever port. */
function inquireLookup(policy: Policy, subject: string, action: NetworkAction): Inquiry | Refusal {
  if (!isHostName(normalizeHost(action.host))) {
    return { fact: "host", rule: "network/unknown-peer", sentence: "it is not a host name" };
  }
  return inquiry(policy, { subject, action, address: undefined }, false);
}

function inquiry(policy: Policy, asked: AskedNetwork, connects: boolean): Inquiry {
  const index = indexOf(policy);
  const { address, action } = asked;
  const factsOf = (rule: ReadyNetwork) => (connects ? rule.facts : rule.lookup);
  const matchReady = (rule: ReadyNetwork) => match(rule, factsOf(rule), asked);
  const meaning = (said: RuleAction) => (connects || said === "deny" ? said : "allow");
  return {
    rules: index.rules,
    candidates: () =>
      address === undefined
        ? index.hosts.findAt(labels(normalizeHost(action.host)))
        : index.addresses.findAt(digits(address, 128)),
    match: (rank) => matchReady(readyAt(index, rank)),
    matchRule: (rule) => matchReady(readyNetwork(rule as NetworkRule)),
    misses: (rank) => misses(readyAt(index, rank), factsOf(readyAt(index, rank)), asked),
    actionOf: (rule) => meaning(rule.action),
    hasRate: connects,
    fallback: () => ({
      rule: "network/default",
      action: meaning(policy.defaults.network),
      sentence: "",
      fixed: false,
    }),
    // The loader keeps no verdicts on connections: its table is as fast as a cache.
    scope: () => CacheScope.NONE,
    dependsOn: () => [],
    entered: () => "",
  };
}
