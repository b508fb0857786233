// Network rules as the egress gate's table, in the order of the policy. What needs a person becomes an ASK row: the
// gate asks, and the evaluator finds the same rule.

import { type NetworkRow, type NetworkTable, Verdict } from "../../proto/gen/clawsec/v1/loader.js";
import { type Cidr, overlaps, parseAddress, parseCidr } from "../match/cidr.js";
import { matchHost } from "../match/host.js";
import type { NetworkRule, Policy, RuleAction } from "../model.js";
import type { Capabilities, Report } from "./report.js";

const ROW_VERDICTS: Readonly<Record<RuleAction, Verdict>> = {
  allow: Verdict.ALLOW,
  deny: Verdict.DENY,
  hold: Verdict.ASK,
  log: Verdict.LOG,
};

export function lowerNetwork(policy: Policy, capabilities: Capabilities, report: Report): NetworkTable {
  const rows: NetworkRow[] = [];
  for (const rule of policy.network) {
    if (!capabilities.need(report, ["netns.sk_lookup"], rule.id, rule.origin)) continue;
    checkCidrs(rule, report);
    checkResolves(rule, policy, report);
    rows.push(...rowsOf(rule));
    const how =
      rule.action === "hold" ? "the gate accepts the connection and asks" : "a row of the gate decides";
    report.explain(rule.id, rule.action, "egress gate", how, rule.origin);
  }
  return {
    rows,
    defaultVerdict: ROW_VERDICTS[policy.defaults.network],
    defaultRule: "network/default",
    hosts: { ...policy.resolverHosts },
  };
}

function rowsOf(rule: NetworkRule): NetworkRow[] {
  const common = {
    rule: rule.id,
    subjects: [...rule.subjects],
    ports: rule.ports.map((range) => ({ ...range })),
    verdict: ROW_VERDICTS[rule.action],
    message: rule.message,
    resolvesTo: [...rule.resolvesTo],
    observe: false,
    protocols: [],
    httpMethods: [],
    httpPath: "",
  };
  return [
    ...rule.host.map((host) => ({ ...common, host, cidr: "" })),
    ...rule.cidr.map((cidr) => ({ ...common, host: "", cidr })),
  ];
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
      report.error(
        "loopback",
        rule.id,
        "egress gate",
        rule.origin,
        `${rule.id} cannot be enforced: connections to ${text} stay inside the sandbox and do not reach the gate`,
        'Rule them by "loopback" of the subject.',
      );
    }
    if (cidr.family === 6) {
      report.error(
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

/** Ranges that the gate refuses as the address of a name unless the row opens them; the usual ones, for a warning. */
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
