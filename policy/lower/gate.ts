// Network rules as the egress gate's table. A row decides what it can see: name or address, port, the protocol of the
// first bytes, method and path of a request. What needs a person, the time or a count becomes an ASK row: the gate
// asks, and the evaluator finds the rule; the gate then opens the private addresses of that rule's rows, not of the one
// that asked.
//
// Order, so that a row never decides what another rule has a say in: locked denials, locked holds, then all other
// rules in the order of the policy.

import {
  type NetworkRow,
  type NetworkTable,
  ObservedProtocol,
  Verdict,
} from "../../proto/gen/clawsec/v1/loader.js";
import { type Cidr, overlaps, parseAddress, parseCidr } from "../match/cidr.js";
import { requestPathExpression } from "../match/expression.js";
import { matchHost } from "../match/host.js";
import type { NetworkRule, Policy, ProtocolName, RuleAction } from "../model.js";
import type { Capabilities, Report } from "./report.js";

const ROW_VERDICTS: Readonly<Record<RuleAction, Verdict>> = {
  allow: Verdict.ALLOW,
  deny: Verdict.DENY,
  hold: Verdict.ASK,
  log: Verdict.LOG,
};

/** "other" is neither of the two, and also nothing at all. */
const PROTOCOLS: Readonly<Record<ProtocolName, readonly ObservedProtocol[]>> = {
  tls: [ObservedProtocol.TLS],
  http: [ObservedProtocol.HTTP],
  other: [ObservedProtocol.NONE, ObservedProtocol.OTHER],
};

/** The table, and a row of explanation for each network rule. */
export function lowerNetwork(policy: Policy, capabilities: Capabilities, report: Report): NetworkTable {
  for (const rule of policy.network) {
    if (!capabilities.need(report, ["netns.sk_lookup"], rule.id, rule.origin)) continue;
    checkCidrs(rule, report);
    checkResolves(rule, policy, report);
    explain(rule, policy, report);
  }
  const locked = policy.network.filter((rule) => rule.locked);
  const rest = policy.network.filter((rule) => !rule.locked);
  const observes = policy.mode === "observe";
  return {
    rows: [
      ...locked.filter((rule) => rule.action === "deny").flatMap((rule) => rowsOf(rule)),
      ...locked.filter((rule) => rule.action !== "deny").flatMap((rule) => ask(rule)),
      // The answer records the would-be verdict; the rows of the rule that it names still say which private addresses a
      // name may have.
      ...rest.flatMap((rule) => (!observes ? rowsOf(rule) : rule.mode === "observe" ? [] : ask(rule))),
    ],
    defaultVerdict: observes ? Verdict.ASK : ROW_VERDICTS[policy.defaults.network],
    defaultRule: "network/default",
    hosts: { ...policy.resolverHosts },
  };
}

function rowsOf(rule: NetworkRule): NetworkRow[] {
  const conditional = rule.when.length > 0 || rule.rate !== undefined;
  if (rule.mode === "enforce")
    return conditional ? ask(rule) : matching(rule, ROW_VERDICTS[rule.action], false);
  // A rule that only observes decides nothing, and what permits is not recorded either.
  if (rule.action === "allow" || rule.action === "log") return [];
  if (conditional) return ask(rule);
  return matching(rule, rule.action === "deny" ? Verdict.DENY : Verdict.HOLD, true);
}

function ask(rule: NetworkRule): NetworkRow[] {
  return matching(rule, Verdict.ASK, false);
}

function matching(rule: NetworkRule, verdict: Verdict, observe: boolean): NetworkRow[] {
  const common = {
    rule: rule.id,
    subjects: [...rule.subjects],
    ports: rule.ports.map((range) => ({ ...range })),
    verdict,
    message: verdict === Verdict.DENY ? rule.message || rule.because : "",
    resolvesTo: [...rule.resolvesTo],
    observe,
    protocols: rule.protocols.flatMap((name) => PROTOCOLS[name]),
    httpMethods: [...rule.methods],
    httpPath: rule.paths.length === 0 ? "" : requestPathExpression(rule.paths),
  };
  return [
    ...rule.host.map((host) => ({ ...common, host, cidr: "" })),
    ...rule.cidr.map((cidr) => ({ ...common, host: "", cidr })),
  ];
}

const BELOW = "nftables and the steering to the gate see addresses and ports, no names and no requests";

function explain(rule: NetworkRule, policy: Policy, report: Report): void {
  const say = (layer: string, why: string, notCheaper: string) =>
    report.explain(rule.id, rule.action, layer, why, rule.origin, notCheaper);
  const observes = !rule.locked && (rule.mode === "observe" || policy.mode === "observe");
  if (observes && policy.mode === "observe") {
    say(
      "supervisor",
      "the gate asks; decides nothing, what it would have done is recorded",
      "the gate's rows give verdicts; a policy that observes has none of its own",
    );
  } else if (rule.when.length > 0 || rule.rate !== undefined) {
    const fact = rule.when.length > 0 ? "the time" : "how often it matched";
    say(
      "supervisor",
      `the gate asks each time, because the rule looks at ${fact}`,
      `the gate's rows do not know ${fact}`,
    );
  } else if (observes) {
    say("egress gate", "a row of the gate that decides nothing and records what it would have done", BELOW);
  } else if (rule.action === "hold") {
    say("egress gate, person", "the gate accepts the connection and asks", "only a person answers a hold");
  } else {
    say("egress gate", "a row of the gate decides", BELOW);
  }
}

function known(text: string): Cidr {
  const cidr = parseCidr(text);
  // The model holds only what parsed; an unparsable one here is a bug, and must not become a wider row.
  if ("error" in cidr) throw new Error(`not a CIDR in a checked policy: ${text}`);
  return cidr;
}

const LOOPBACK = ["127.0.0.0/8", "::1/128"].map(known);
const LINK_LOCAL = ["169.254.0.0/16", "fe80::/10"].map(known);

function checkCidrs(rule: NetworkRule, report: Report): void {
  for (const text of rule.cidr) {
    const cidr = known(text);
    if (cidr.bits >= 8 && LOOPBACK.some((loopback) => overlaps(loopback, cidr))) {
      report.refuse(
        "loopback",
        rule.id,
        "egress gate",
        rule.origin,
        `${rule.id} cannot be enforced: connections to ${text} stay inside the sandbox and do not reach the gate`,
        'Rule them by "loopback" of the subject.',
      );
    }
    if (cidr.family === 6) {
      report.refuse(
        "ipv6",
        rule.id,
        "egress gate",
        rule.origin,
        `${rule.id} cannot be enforced: the gate takes no literal IPv6 addresses (it denies them all)`,
        "Drop the range; hosts are reached by name or by IPv4 address.",
      );
    }
    if (rule.action !== "deny" && LINK_LOCAL.some((local) => overlaps(local, cidr))) {
      report.warning(
        "link-local",
        rule.id,
        rule.origin,
        `${rule.id} permits link-local addresses, among them the metadata service of clouds`,
        "Leave 169.254.0.0/16 out, unless that is what you want.",
      );
    }
  }
}

/** Ranges that the gate refuses as the address of a name unless the rule opens them; the usual ones, for a warning. */
const PRIVATE = [
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "100.64.0.0/10",
  "::1/128",
  "fc00::/7",
  "fe80::/10",
].map(known);

function checkResolves(rule: NetworkRule, policy: Policy, report: Report): void {
  if (rule.action === "deny") return;
  for (const [name, text] of Object.entries(policy.resolverHosts)) {
    if (!rule.host.some((pattern) => pattern !== "*" && matchHost(pattern, name))) continue;
    const address = parseAddress(text);
    if (address === undefined) continue;
    const single: Cidr = { ...address, bits: address.family === 4 ? 32 : 128 };
    const isPrivate = PRIVATE.some((range) => overlaps(range, single));
    if (isPrivate && !rule.resolvesTo.some((range) => overlaps(known(range), single))) {
      report.warning(
        "resolves-to",
        rule.id,
        rule.origin,
        `${name} is ${text}, which is not a public address: the gate will refuse it`,
        `Add "resolvesTo: ${text}/${single.bits}" to the rule.`,
      );
    }
  }
}
