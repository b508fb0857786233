// Verdicts on connections. The egress gate reads the same rules as a table (lower/gate.ts); a test holds the two
// to the same answers.

import { CacheScope, type NetworkAction, NetworkProtocol } from "../../proto/gen/clawsec/v1/loader.js";
import type { Finding, TraceStep } from "../evaluate.js";
import { type Cidr, inCidr, parseAddress, parseCidr } from "../match/cidr.js";
import { isHostName, matchHost, normalizeHost } from "../match/host.js";
import type { NetworkRule, Policy, RuleAction } from "../model.js";
import { firstMatch, once } from "./rules.js";

const cidrsOf = once((rule: NetworkRule): readonly Cidr[] =>
  rule.cidr.flatMap((text) => {
    const cidr = parseCidr(text);
    return "error" in cidr ? [] : [cidr];
  }),
);

function finding(
  rule: NetworkRule | undefined,
  action: RuleAction,
  fallbackRule: string,
  trace: readonly TraceStep[],
  fallbackMessage = "",
): Finding {
  // The loader keeps no verdicts on connections: its table is as fast as a cache.
  return {
    rule,
    action,
    fallbackRule,
    fallbackMessage,
    cacheScope: CacheScope.NONE,
    enterSubject: "",
    trace,
  };
}

export function evaluateNetwork(policy: Policy, subject: string, action: NetworkAction): Finding {
  if (!policy.subjects.some((s) => s.name === subject)) {
    return finding(
      undefined,
      "deny",
      "network/unknown-subject",
      [],
      "the policy does not know the subject of the caller",
    );
  }
  switch (action.protocol) {
    case NetworkProtocol.TCP:
      return evaluateTcp(policy, subject, action);
    case NetworkProtocol.DNS:
      return evaluateLookup(policy, subject, action);
    default:
      return finding(undefined, "deny", "network/protocol", [], "only TCP leaves a sandbox");
  }
}

function evaluateTcp(policy: Policy, subject: string, action: NetworkAction): Finding {
  if (
    action.host !== "" &&
    action.observedHost !== "" &&
    normalizeHost(action.host) !== normalizeHost(action.observedHost)
  ) {
    return finding(
      undefined,
      "deny",
      "network/observed-host",
      [],
      "the name in its first bytes is not the name that was looked up",
    );
  }
  const named = action.host !== "";
  const address = named ? undefined : parseAddress(action.address);
  const portKnown = Number.isInteger(action.port) && action.port >= 1 && action.port <= 65535;
  const peerKnown = named ? isHostName(normalizeHost(action.host)) : address !== undefined;
  if (!peerKnown || !portKnown) {
    return finding(undefined, "deny", "network/unknown-peer", [], "its host, address or port is not known");
  }
  const { rule, trace } = firstMatch(policy.network, subject, (candidate) => {
    if (named && !candidate.host.some((pattern) => matchHost(pattern, action.host))) return "host";
    if (address !== undefined && !cidrsOf(candidate).some((cidr) => inCidr(cidr, address))) return "cidr";
    return inPorts(candidate, action.port) ? "" : "port";
  });
  return finding(rule, rule?.action ?? policy.defaults.network, "network/default", trace);
}

function inPorts(rule: NetworkRule, port: number): boolean {
  return rule.ports.length === 0 || rule.ports.some(({ first, last }) => port >= first && port <= last);
}

/** A lookup may be answered when some connection to the name could happen, on whatever port. */
function evaluateLookup(policy: Policy, subject: string, action: NetworkAction): Finding {
  if (!isHostName(normalizeHost(action.host))) {
    return finding(undefined, "deny", "network/unknown-peer", [], "it is not a host name");
  }
  const { rule, trace } = firstMatch(policy.network, subject, (candidate) => {
    if (!candidate.host.some((pattern) => matchHost(pattern, action.host))) return "host";
    // A denial of some ports says nothing about the others.
    return candidate.action === "deny" && candidate.ports.length > 0 ? "port" : "";
  });
  const outcome = rule?.action ?? policy.defaults.network;
  return finding(rule, outcome === "deny" ? "deny" : "allow", "network/default", trace);
}
